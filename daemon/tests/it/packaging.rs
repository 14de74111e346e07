//! The parts of an installation: image, unit, compose file and sample configurations. The tests read each of them; they
//! build and start nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use callbackd::config::{Config, Layers};
use regex::Regex;

use crate::process::BINARY;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The libraries that the binary asks for beyond the C library's own, and the Debian package of each in the image.
const LIBRARIES: [(&str, &str); 5] = [
    ("libssl.so.3", "libssl3t64"),
    ("libcrypto.so.3", "libssl3t64"),
    ("libz.so.1", "zlib1g"),
    ("libzstd.so.1", "libzstd1"),
    ("libgcc_s.so.1", "libgcc-s1"),
];

/// The build stage and the last stage.
fn stages(file: &str) -> (&str, &str) {
    let stages: Vec<_> = file.split("\nFROM ").collect();
    assert_eq!(stages.len(), 3, "comment, builder, runtime");
    // Every copied file exists, or comes from a stage.
    let copy = Regex::new(r"(?m)^COPY (--from=(\S+) )?(\S+) \S+").unwrap();
    for found in copy.captures_iter(file) {
        let source = &found[3];
        match found.get(2) {
            Some(stage) => assert!(file.contains(&format!(" AS {}", stage.as_str())), "{source}"),
            None => assert!(root().join(source).exists(), "{source} is copied, but does not exist"),
        }
    }
    assert!(stages[2].contains("\nUSER 10001:10001") && stages[2].contains("\nSTOPSIGNAL SIGTERM"));
    (stages[1], stages[2])
}

/// The libraries that a binary asks for beyond the C library's own.
fn linked(binary: &str) -> BTreeSet<String> {
    let output = Command::new("ldd").arg(binary).output().unwrap();
    let base = ["linux-vdso", "ld-linux", "/lib", "libc.so", "libm.so", "libpthread", "libdl", "librt"];
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.trim().split(" => ").next())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !base.iter().any(|base| name.starts_with(base)))
        .map(str::to_owned)
        .collect()
}

/// The files that `include_str!` and its like compile in, by their path in the repository.
fn compiled_in() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["daemon", "gate", "serve", "sdk"] {
        let mut folders = vec![root().join(folder).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let source = std::fs::read_to_string(&path).unwrap();
                let included = source.split("include_str!(\"").chain(source.split("include_bytes!(\"")).skip(1);
                for name in included.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name) {
                    let file = folder.join(name);
                    if let Ok(file) = file.canonicalize() {
                        found.insert(file.strip_prefix(root().canonicalize().unwrap()).unwrap().display().to_string());
                    }
                }
            }
        }
    }
    found
}

/// Whether a .dockerignore leaves a path out: the last pattern that matches decides.
fn is_ignored(ignore: &str, path: &str) -> bool {
    let matches = |pattern: &str| match pattern.strip_prefix("*") {
        Some(ending) if !pattern.starts_with("**") => !path.contains('/') && path.ends_with(ending),
        _ => {
            let folder = pattern.strip_suffix('*').unwrap_or(pattern).trim_end_matches('/');
            path == folder || path.starts_with(&format!("{folder}/"))
        }
    };
    let patterns = ignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    patterns.fold(false, |ignored, pattern| match pattern.strip_prefix('!') {
        Some(kept) if matches(kept) => false,
        None if matches(pattern) => true,
        _ => ignored,
    })
}

#[test]
fn the_image_holds_what_the_binary_needs_and_no_root_and_no_shell_health() {
    let file = text("Dockerfile");
    let (_, runtime) = stages(&file);
    // Files that are compiled in must be in the build's context.
    let ignore = text(".dockerignore");
    let compiled_in = compiled_in();
    assert!(compiled_in.contains("config/callbackd.toml"), "{compiled_in:?}");
    for needed in compiled_in.iter().map(String::as_str).chain(["daemon/src/lib.rs", "Cargo.toml", "Cargo.lock"]) {
        assert!(!is_ignored(&ignore, needed), "{needed} is not in the context of the image's build");
    }
    assert!(is_ignored(&ignore, "README.md") && is_ignored(&ignore, "docs/operating.md"));
    for library in linked(BINARY) {
        let package = LIBRARIES.iter().find(|(name, _)| *name == library);
        let (_, package) = package.unwrap_or_else(|| panic!("the binary needs {library}; which package brings it?"));
        // libgcc is part of every Debian image.
        assert!(*package == "libgcc-s1" || runtime.contains(package), "{library} needs {package} in the runtime stage");
    }
    assert!(runtime.contains(r#"CMD ["callbackd", "healthcheck"]"#), "health needs no shell");
    assert!(runtime.contains("ENTRYPOINT [\"callbackd\"]"));
    assert!(runtime.contains("ca-certificates"), "for TLS to Kafka");
}

#[test]
fn the_customers_image_is_one_static_binary() {
    let file = text("gate/Dockerfile");
    let (build, runtime) = stages(&file);
    assert!(
        runtime.starts_with("scratch\n") && build.contains("+crt-static"),
        "the image has no libraries to link with"
    );
    assert!(runtime.contains("ENTRYPOINT [\"/scale-callback\"]"));
    // The static link includes the C compiler's runtime. Any other library would be missing.
    let binary = Path::new(BINARY).with_file_name("scale-callback");
    assert!(binary.exists(), "`make test` builds it; alone: cargo build -p scale-callback");
    let libraries = linked(&binary.display().to_string());
    assert!(libraries.iter().all(|library| library == "libgcc_s.so.1"), "{libraries:?}");
}

/// A unit's settings by section and name. A name may occur more than once.
fn unit(path: &str) -> BTreeMap<(String, String), Vec<String>> {
    let (mut section, mut settings) = (String::new(), BTreeMap::new());
    for line in text(path).lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{path}: {line}"));
        let entry: &mut Vec<String> = settings.entry((section.clone(), name.to_owned())).or_default();
        entry.push(value.to_owned());
    }
    settings
}

#[test]
fn the_unit_is_hardened_and_waits_for_the_grace() {
    let unit = unit("config/systemd/callbackd.service");
    let of = |name: &str| {
        unit.get(&("Service".to_owned(), name.to_owned())).unwrap_or_else(|| panic!("{name} is not set"))[0].as_str()
    };
    let config = Config::from_layers(&Layers::read(None, std::iter::empty()).unwrap()).unwrap();
    let stop: u64 = of("TimeoutStopSec").trim_end_matches('s').parse().unwrap();
    assert!(stop > config.grace.as_secs() + 25, "the drain ends before systemd kills the daemon");
    for (name, value) in [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("LimitCORE", "0"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestartPreventExitStatus", "2"),
        ("StateDirectory", "callbackd"),
    ] {
        assert_eq!(of(name), value, "{name}");
    }
    assert!(of("ExecStart").ends_with("callbackd run"));
    let reload = &unit[&("Service".to_owned(), "ExecReload".to_owned())];
    assert!(reload.last().unwrap().contains("-HUP"), "{reload:?}");
    assert!(!text("config/systemd/callbackd.service").contains("ProcSubset=pid\n"), "egress reads /proc/net");
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<serde_json::Value> {
    let tool = root().join("target/tools/bin/python");
    let python = std::env::var_os("CALLBACKD_TEST_PYTHON").map_or(tool, PathBuf::from);
    // Compose has a tag for a list that replaces that of an earlier file.
    let script = "import json, sys, yaml; \
         yaml.SafeLoader.add_constructor('!override', lambda loader, node: loader.construct_sequence(node)); \
         print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = Command::new(&python).args(["-c", script]).arg(root().join(path)).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; say: make test", python.display()));
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The only document of a YAML file.
fn one_yaml(path: &str) -> serde_json::Value {
    let mut documents = yaml(path);
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

/// Everything that these variables set is a setting, and they can be set together.
fn are_settings(variables: &[(String, String)]) {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let layers = Layers::read(None, variables.into_iter()).unwrap();
    Config::from_layers(&layers).unwrap();
}

#[test]
fn the_compose_file_with_postgres_runs_two_named_daemons_on_one_database() {
    let compose = one_yaml("config/compose/postgres.yaml");
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.keys().map(String::as_str).collect::<Vec<_>>(), ["postgres", "callbackd", "callbackd-2"]);
    let variables = |service: &str| -> Vec<(String, String)> {
        let all = services[service]["environment"].as_object().unwrap();
        all.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
    };
    let (first, second) = (variables("callbackd"), variables("callbackd-2"));
    are_settings(&first);
    are_settings(&second);
    let of = |all: &[(String, String)], name: &str| all.iter().find(|(of, _)| of == name).unwrap().1.clone();
    assert_eq!(of(&first, "CALLBACKD_STORE__URL"), of(&second, "CALLBACKD_STORE__URL"));
    assert_ne!(of(&first, "CALLBACKD_INSTANCE__NAME"), of(&second, "CALLBACKD_INSTANCE__NAME"));
    let server = &services["postgres"]["environment"];
    let user = server["POSTGRES_USER"].as_str().unwrap();
    let (password, database) = (server["POSTGRES_PASSWORD"].as_str().unwrap(), server["POSTGRES_DB"].as_str().unwrap());
    let url = format!("postgres://{user}:{password}@postgres/{database}?sslmode=disable");
    assert_eq!(of(&first, "CALLBACKD_STORE__URL"), url);
    assert!(services["postgres"]["ports"].is_null(), "the server is not published");
}

#[test]
fn the_kubernetes_manifests_fit_together_and_to_the_daemon() {
    for (path, kinds) in [
        ("config/kubernetes/postgres.yaml", vec!["StatefulSet", "PodDisruptionBudget", "Service"]),
        ("config/kubernetes/sqlite.yaml", vec!["StatefulSet", "Service"]),
    ] {
        let documents = yaml(path);
        assert_eq!(documents.iter().map(|one| one["kind"].as_str().unwrap()).collect::<Vec<_>>(), kinds, "{path}");
        let set = &documents[0];
        let (labels, pod) = (&set["spec"]["template"]["metadata"]["labels"], &set["spec"]["template"]["spec"]);
        for other in &documents {
            let spec = &other["spec"]["selector"];
            let selector = if spec["matchLabels"].is_null() { spec } else { &spec["matchLabels"] };
            assert_eq!(selector, labels, "{path}: {}", other["kind"]);
        }
        // The grace, and 25 s for what comes after it.
        assert_eq!(pod["terminationGracePeriodSeconds"], 60, "{path}");
        assert_eq!(
            (&pod["securityContext"]["runAsUser"], &pod["securityContext"]["fsGroup"]),
            (&10_001.into(), &10_001.into())
        );
        let container = &pod["containers"][0];
        let port = &container["ports"][0];
        assert_eq!(port["containerPort"], 9464, "{path}");
        for (probe, page) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let asked = &container[probe]["httpGet"];
            assert_eq!((&asked["path"], &asked["port"]), (&page.into(), &port["name"]), "{path}: {probe}");
        }
        let names = |list: &serde_json::Value| -> BTreeSet<String> {
            let names = list.as_array().into_iter().flatten();
            names.map(|one| one["name"].as_str().or(one["metadata"]["name"].as_str()).unwrap().to_owned()).collect()
        };
        let volumes: BTreeSet<_> =
            names(&pod["volumes"]).union(&names(&set["spec"]["volumeClaimTemplates"])).cloned().collect();
        assert_eq!(names(&container["volumeMounts"]), volumes, "{path}");
        let variables = container["env"].as_array().into_iter().flatten();
        let values =
            ["CALLBACKD_INSTANCE__NAME", "CALLBACKD_STORE__URL"].into_iter().zip(["callbackd-0", "postgres://u@h/d"]);
        let values: BTreeMap<_, _> = values.collect();
        let set_to: Vec<_> = variables
            .map(|one| one["name"].as_str().unwrap())
            .map(|name| (name.to_owned(), values[name].to_owned()))
            .collect();
        are_settings(&set_to);
        // The keyring is where the configuration of the comment looks for it.
        let text = text(path);
        let keyring = container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "keyring");
        let at = format!("file = \"{}/keyring\"", keyring.unwrap()["mountPath"].as_str().unwrap());
        assert!(text.contains(&at) && text.contains("listen = \"0.0.0.0:9464\""), "{path}: {at}");
    }
}

#[test]
fn the_compose_file_names_files_that_are_there() {
    let compose = one_yaml("config/compose/compose.yaml");
    let services = compose["services"].as_object().unwrap();
    assert_eq!(
        services.keys().map(String::as_str).collect::<Vec<_>>(),
        ["kafka", "topic", "keyring", "callbackd", "listen", "prometheus", "grafana"]
    );
    let volumes = compose["volumes"].as_object().unwrap();
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let known = if source.starts_with('.') {
                root().join("config/compose").join(source).exists()
            } else {
                volumes.contains_key(source)
            };
            assert!(known, "{name}: {source}");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port} is published to everybody");
        }
        for other in service["depends_on"].as_object().into_iter().flat_map(|others| others.keys()) {
            assert!(services.contains_key(other), "{name}: {other}");
        }
    }
    for path in [
        "config/compose/prometheus.yml",
        "config/compose/grafana-datasource.yaml",
        "config/compose/grafana-dashboards.yaml",
    ] {
        assert!(one_yaml(path).is_object(), "{path}");
    }
    // The first team calls a service of this file, at the port at which it listens, and egress allows it.
    let file = text("config/compose/compose.yaml");
    let url = Regex::new(r"--default-url http://([a-z]+):(\d+)/").unwrap();
    let named = url.captures(&file).expect("the comment creates a team");
    let command = services[&named[1]]["command"][0].as_str().unwrap();
    assert!(command.contains(&format!("callbackd listen --listen 0.0.0.0:{}", &named[2])), "{command}");
    let allowed = text("config/compose/callbackd.toml");
    assert!(allowed.contains(&format!("host = \"{}\"\nports = [{}]", &named[1], &named[2])), "{allowed}");
    let grace = services["callbackd"]["stop_grace_period"].as_str().unwrap();
    assert_eq!(grace, "60s");
}

#[test]
fn every_sample_configuration_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "a password\n").unwrap();
    let samples = std::fs::read_dir(root().join("config/samples")).unwrap().map(|entry| entry.unwrap().path());
    let files = Regex::new(r#"(?m)^("[a-z.]+password" = )"[^"]+""#).unwrap();
    let mut seen = 0;
    for path in samples.chain([root().join("config/compose/callbackd.toml"), root().join("config/callbackd.toml")]) {
        let sample = std::fs::read_to_string(&path).unwrap();
        // The operator creates the files that hold secrets.
        let sample = files.replace_all(&sample, format!("${{1}}\"{}\"", secret.display()));
        let copy = folder.path().join("sample.toml");
        std::fs::write(&copy, sample.as_bytes()).unwrap();
        let layers =
            Layers::read(Some(&copy), std::iter::empty()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let config = Config::from_layers(&layers).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if !path.ends_with("config/callbackd.toml") {
            config.check_runnable().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn the_dashboard_begins_with_what_an_operator_must_see() {
    let dashboard: serde_json::Value = serde_json::from_str(&text("config/grafana/callbackd.json")).unwrap();
    let mut panels: Vec<_> =
        dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect();
    let at = |panel: &serde_json::Value, side: &str| panel["gridPos"][side].as_u64().unwrap();
    panels.sort_by_key(|panel| (at(panel, "y"), at(panel, "x")));
    let titles: Vec<_> = panels.iter().map(|panel| panel["title"].as_str().unwrap()).collect();
    assert_eq!(titles[..4], ["Ready", "Partitions read", "Delivered", "Alerts"]);
    assert_eq!(panels[3]["type"], "alertlist");
    // Consumers that wait for an operator are not ready: no tile that depends on them may be green then.
    for (tile, metric) in [(0, "callbackd_ready"), (1, "callbackd_ready"), (2, "callbackd_callbacks_total")] {
        let expression = panels[tile]["targets"][0]["expr"].as_str().unwrap();
        assert!(expression.contains(metric), "{expression}");
        let steps = panels[tile]["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().unwrap();
        let colour_of = |value: f64| {
            let mut reached = steps.iter().filter(|step| step["value"].as_f64().is_none_or(|from| from <= value));
            reached.next_back().and_then(|step| step["color"].as_str()).unwrap()
        };
        assert_eq!((colour_of(0.0), colour_of(1.0)), ("red", "green"), "{}", titles[tile]);
        assert_ne!(steps[0]["color"], "green", "{}: no data is not good", titles[tile]);
    }
    let lag = panels.iter().find(|panel| panel["title"] == "Kafka lag").unwrap();
    assert!(
        lag["targets"][0]["expr"].as_str().unwrap().contains("unless on () (min(callbackd_ready"),
        "the lag is not known then"
    );
    // No two panels lie over each other.
    for (index, one) in panels.iter().enumerate() {
        for other in &panels[..index] {
            let apart = |side: &str, size: &str| {
                at(one, side) >= at(other, side) + at(other, size) || at(other, side) >= at(one, side) + at(one, size)
            };
            assert!(apart("x", "w") || apart("y", "h"), "{} lies over {}", one["title"], other["title"]);
        }
    }
}

#[test]
fn the_dashboard_shows_one_cell_or_all() {
    let dashboard: serde_json::Value = serde_json::from_str(&text("config/grafana/callbackd.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name).unwrap();
    assert_eq!(variable("cell")["allValue"], ".*", "where no target names a cell, all are shown");
    assert!(variable("instance")["definition"].as_str().unwrap().contains("{cell=~\"$cell\"}"));
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(expressions.len() > 30, "{}", expressions.len());
    for expression in expressions {
        for (at, _) in expression.match_indices("callbackd_") {
            let rest = expression[at..].trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
            assert!(rest.starts_with("{cell=~\"$cell\",instance=~\"$instance\""), "{expression}");
        }
        // Numbers of a store are the same in all its processes, and each cell has a store.
        for metric in ["callbackd_pending{", "callbackd_store_parked_bytes{"] {
            let is_counted = expression.contains(metric) && !expression.contains("* 0");
            assert!(!is_counted || expression.starts_with("sum(max by (cell) ("), "{expression}");
        }
    }
}

#[test]
fn a_build_without_a_terminal_says_that_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    // A cargo that takes a while and then fails.
    std::fs::write(&script, "#!/bin/sh\necho Compiling \"$@\"\nsleep 3\nexit 7\n").unwrap();
    callbackd_bench::process::install(&script, &folder.path().join("cargo"));
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut build = Command::new(root().join(".ci/build"));
    let output =
        build.args(["--locked", "--bin", "x"]).env("PATH", path).env("BUILD_PROGRESS_SECONDS", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(7), "the build's own exit status: {said}");
    assert!(said.contains("Compiling build --locked --bin x") && said.contains("... the build goes on: "), "{said}");
    assert!(text("Makefile").contains("@.ci/build --locked --bin callbackd"), "make demo builds with it");
}
