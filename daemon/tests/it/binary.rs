//! The real binary: signals, wrong input, exit statuses, output.

use std::sync::Arc;
use std::time::Duration;

use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{TEAM, until};
use crate::kafka::{create_topic, events, produce, shared_broker};
use crate::process::{Process, closed_url, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(not(feature = "faults"))]
#[test]
fn fault_switches_are_compiled_in() {
    panic!("these tests need the fault switches; say: make test");
}

#[test]
fn each_mistake_is_one_clear_sentence_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let unknown = file("unknown.toml", "[kafka]\nbroker = \"x\"\n");
    let impossible = file("impossible.toml", "[deliver]\nlease = \"1s\"\n");
    let incomplete = file("incomplete.toml", "[kafka]\nbrokers = \"127.0.0.1:1\"\n");
    for (arguments, sentence) in [
        (
            vec!["run", "--config", "/nonexistent.toml"],
            "callbackd: the configuration file /nonexistent.toml can't be read: No such file or directory",
        ),
        (vec!["run", "--config", &unknown], "line 2: kafka.broker: there is no such key"),
        (
            vec!["run", "--config", &impossible],
            "line 2: deliver.lease: it must be more than deliver.total_timeout + 5s",
        ),
        (
            vec!["run", "--config", &incomplete],
            "keyring.file is not set; create a keyring with `callbackd keyring create FILE`",
        ),
        (vec!["config", "check", "--config", &incomplete], "keyring.file is not set"),
        (
            vec!["run"],
            "no configuration file is named, so only the defaults hold; use --config FILE or the variable CALLBACKD_CONFIG",
        ),
        (vec!["run", "--nonsense"], "unexpected argument '--nonsense'"),
        (vec!["nonsense"], "unrecognized subcommand 'nonsense'"),
        (vec!["demo", "--events", "0"], "invalid value '0'"),
        (vec!["status", "--api", "nowhere"], "is not an address; write unix:PATH"),
        (vec!["keyring", "create", &unknown], "keyring: "),
    ] {
        let output = run(&arguments, &[]);
        let errors = text(&output.stderr);
        assert!(errors.contains(sentence), "{arguments:?}: {errors}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let silent = run(&["--api", "unix:/nonexistent/socket", "status"], &[]);
    assert_eq!(silent.status.code(), Some(5));
    assert!(text(&silent.stderr).contains("no daemon listens at /nonexistent/socket"));
    let variable = run(&["config", "check"], &[("CALLBACKD_DELIVER__FAST", "many")]);
    assert_eq!(
        text(&variable.stderr),
        "callbackd: variable CALLBACKD_DELIVER__FAST: deliver.fast: \"many\" is not a whole number; write for example 512\n"
    );
}

#[test]
fn configuration_is_shown_and_explained() {
    let shown = run(
        &["config", "show"],
        &[("CALLBACKD_KAFKA__PROPERTIES", r#"{"sasl.password":"hunter2","client.rack":"a"}"#)],
    );
    let shown = text(&shown.stdout);
    assert!(shown.contains("deliver.lease") && shown.contains("variable CALLBACKD_KAFKA__PROPERTIES"), "{shown}");
    assert!(!shown.contains("hunter2") && shown.contains("\"client.rack\" = \"a\""), "{shown}");
    let explained = text(&run(&["config", "explain", "deliver.lease"], &[]).stdout);
    assert_eq!(
        explained,
        "# How long a due callback that was taken from the store belongs to this instance. More than total_timeout + 5 s.\nlease = \"60s\"\n"
    );
    assert_eq!(run(&["config", "explain", "nonsense"], &[]).status.code(), Some(3));
    // What `config default` prints is a configuration.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("default.toml");
    std::fs::write(&path, run(&["config", "default"], &[]).stdout).unwrap();
    let checked = run(&["config", "show", "--config", path.to_str().unwrap()], &[]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_a_second_one_ends_at_once() {
    let servers = shared_broker();
    create_topic(&servers, "signals", 2).await;
    let mut process = Process::new(&servers, "signals", "[retry]\nfirst = \"200ms\"\n");
    process.start(None, "info").await;
    let (secret, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let rule = Arc::new(|_: &_, _| Reply::status(200).after(Duration::from_secs(3)));
    let receiver = Recorder::start(verifier, rule).await.unwrap();
    produce(&servers, "signals", 2, &events(0, 5, &receiver.url("/")));
    assert!(receiver.until(Duration::from_secs(30), |receipts| receipts.len() == 5).await);
    process.signal("TERM");
    until("it says so", async || {
        let (status, page) = process.page("/readyz").await?;
        (status == 503 && page.contains("the daemon is stopping")).then_some(())
    })
    .await;
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
    process.start(None, "info").await;
    until("all five are delivered, once", async || (process.json(&["status"])["pending"] == 0).then_some(())).await;
    let listed = process.json(&["callbacks", "list", "--state", "delivered"]);
    assert_eq!(listed["docs"].as_array().unwrap().len(), 5);
    assert_eq!(receiver.count(), 5, "a clean stop repeats nothing");
    // A second signal does not wait for what is in flight.
    produce(&servers, "signals", 2, &events(5, 2, &receiver.url("/")));
    assert!(receiver.until(Duration::from_secs(30), |receipts| receipts.len() == 7).await);
    process.signal("TERM");
    until("it drains", async || (process.page("/readyz").await?.0 == 503).then_some(())).await;
    process.signal("TERM");
    assert_eq!(process.ended().await, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_had_is_told_at_the_start() {
    let servers = shared_broker();
    let mut first = Process::new(&servers, "starts", "");
    first.start(None, "info").await;
    let config = first.config().display().to_string();
    // A second process on the same store.
    let second = run(&["run", "--config", &config], &[("CALLBACKD_OPS__LISTEN", "127.0.0.1:0")]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("is in use by another callbackd"), "{}", text(&second.stderr));
    // A port in use.
    let other = tempfile::tempdir().unwrap();
    let store = other.path().join("store").display().to_string();
    let port = run(&["run", "--config", &config], &[("CALLBACKD_STORE__PATH", &store)]);
    assert_eq!(port.status.code(), Some(1));
    assert!(
        text(&port.stderr).contains(&format!("ops.listen: can't listen at {}", first.ops)),
        "{}",
        text(&port.stderr)
    );
    // A socket path that is a file is left alone.
    let precious = other.path().join("precious");
    std::fs::write(&precious, "keep me").unwrap();
    let socket = precious.display().to_string();
    let variables = [("CALLBACKD_STORE__PATH", store.as_str()), ("CALLBACKD_API__SOCKET", &socket)];
    let file = run(&["run", "--config", &config], &variables);
    assert_eq!(file.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "keep me");
    // Two daemons, each with a store of its own, on one socket.
    let taken = first.folder.path().join("store/callbackd.sock").display().to_string();
    let variables = [
        ("CALLBACKD_STORE__PATH", store.as_str()),
        ("CALLBACKD_API__SOCKET", &taken),
        ("CALLBACKD_OPS__LISTEN", "127.0.0.1:0"),
    ];
    let shared = run(&["run", "--config", &config], &variables);
    assert_eq!(shared.status.code(), Some(1));
    assert!(text(&shared.stderr).contains("another callbackd listens there"), "{}", text(&shared.stderr));
    assert_eq!(first.json(&["status"])["version"], env!("CARGO_PKG_VERSION"), "the first one is still there");
    // A keyring other than the one that sealed the store's keys.
    first.json(&["teams", "create", "team_keyring"]);
    first.signal("TERM");
    assert_eq!(first.ended().await, 0);
    let ring = other.path().join("ring").display().to_string();
    assert!(run(&["keyring", "create", &ring], &[]).status.success());
    let wrong = run(&["run", "--config", &config], &[("CALLBACKD_KEYRING__FILE", &ring)]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("keyring.file: key key_"), "{}", text(&wrong.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_attempt_is_an_outcome() {
    let servers = shared_broker();
    create_topic(&servers, "panics", 1).await;
    let mut process = Process::new(&servers, "panics", "[retry]\nretries = 1\nfirst = \"50ms\"\n");
    process.start(Some("panic"), "info").await;
    process.team(TEAM);
    let value =
        format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"task-panic","callback_url":"http://127.0.0.1:9/x"}}}}"#);
    produce(&servers, "panics", 1, &[("k".to_owned(), value)]);
    let docs = until("it is exhausted", async || {
        let listed = process.json(&["callbacks", "list", "--state", "exhausted"]);
        listed["docs"].as_array().filter(|docs| !docs.is_empty()).cloned()
    })
    .await;
    assert_eq!(docs[0]["last_outcome"], "panicked");
    assert_eq!(docs[0]["attempts"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_that_ends_by_itself_ends_the_process_in_order() {
    let servers = shared_broker();
    create_topic(&servers, "parts", 1).await;
    let parts = [
        "the Kafka consumer's thread",
        "admission",
        "the claims of due callbacks",
        "the directory of teams",
        "the watch of the store",
        "the sweep of connections",
        "pruning",
        "the API on its socket",
        "the probes",
    ];
    for part in parts {
        let mut process = Process::new(&servers, "parts", "");
        process.spawn(Some(&format!("end:{part}")), "info");
        assert_eq!(process.ended().await, 1, "{part}: {}", process.log_text());
        let log = process.log_text();
        assert!(log.contains(&format!("{part} ended by itself: it panicked; the log says where")), "{part}: {log}");
        assert!(log.contains("a part of the daemon ended by itself"), "{part}: {log}");
        assert!(log.contains("callbackd ended"), "{part}: it drained: {log}");
    }
    // Without settling nothing can be recorded, so nothing is drained.
    let mut process = Process::new(&servers, "parts", "");
    process.spawn(Some("end:settling"), "info");
    assert_eq!(process.ended().await, 1, "{}", process.log_text());
    assert!(process.log_text().contains("settling panicked"), "{}", process.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_intake_that_panics_ends_the_process_in_order() {
    let servers = shared_broker();
    for (fault, part) in [("consumer-panic", "the Kafka consumer's thread"), ("admission-panic", "admission")] {
        create_topic(&servers, fault, 1).await;
        let mut process = Process::new(&servers, fault, "");
        process.start(Some(fault), "info").await;
        produce(&servers, fault, 1, &events(0, 1, "http://127.0.0.1:9/"));
        assert_eq!(process.ended().await, 1, "{}", process.log_text());
        let log = process.log_text();
        let told = format!("{part} ended by itself: it panicked; the log says where");
        assert!(log.contains("daemon/src/intake/"), "the place: {log}");
        assert!(log.contains("a part of the daemon ended by itself") && log.contains(&told), "{log}");
        assert!(!log.contains("a fault switch"), "a panic's message is not logged: {log}");
        assert!(log.contains("callbackd ended"), "it drained: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_the_grace_is_interrupted() {
    let servers = shared_broker();
    create_topic(&servers, "hangs", 1).await;
    let more = "[deliver]\nhead_timeout = \"1s\"\ntotal_timeout = \"1s\"\npark_after = \"100ms\"\n[shutdown]\ngrace = \"3s\"\n";
    let mut process = Process::new(&servers, "hangs", more);
    process.start(Some("hang"), "info").await;
    process.team(TEAM);
    let value =
        format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"task-hang","callback_url":"http://127.0.0.1:9/x"}}}}"#);
    produce(&servers, "hangs", 1, &[("k".to_owned(), value)]);
    until("it has its row", async || (process.json(&["status"])["pending"] == 1).then_some(())).await;
    process.signal("TERM");
    assert_eq!(process.ended().await, 0);
    assert!(
        process.log_text().contains("the attempt was cut off because it did not end within shutdown.grace"),
        "{}",
        process.log_text()
    );
    process.start(None, "info").await;
    let id = until("its attempt stands in the record", async || {
        let listed = process.json(&["callbacks", "list", "--task", "task-hang"]);
        Some(listed["docs"][0]["callback_id"].as_str()?.to_owned())
    })
    .await;
    let attempts = process.json(&["callbacks", "attempts", &id]);
    assert_eq!(attempts["docs"][0]["outcome"], "interrupted", "{attempts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_has_an_answer_and_an_exit_status() {
    let servers = shared_broker();
    create_topic(&servers, "questions", 1).await;
    let mut process = Process::new(&servers, "questions", "");
    process.start(None, "info").await;
    process.team(TEAM);
    for (arguments, status, sentence) in [
        (vec!["teams", "get", "team_nobody"], 3, "there is no team team_nobody"),
        (vec!["teams", "create", TEAM], 2, "there is a team team_acme already"),
        (vec!["teams", "create", "has space"], 2, "a team id is 1 to 128 bytes"),
        (vec!["teams", "create", ".."], 2, "no path of a URL can hold it"),
        (vec!["teams", "update", TEAM, "--default-url", "http://169.254.169.254/"], 2, "the host can't be called back"),
        (vec!["teams", "update", TEAM, "--default-url", "nonsense"], 2, "it is not a URL"),
        (vec!["teams", "update", TEAM, "--auth-form", "x"], 2, "auth_form is one of key, hmac"),
        (vec!["teams", "update", TEAM, "--allow-origin", "https://a.example/path"], 2, "is not an origin"),
        (vec!["callbacks", "get", "nonsense"], 2, "is no callback id"),
        (vec!["callbacks", "get", "cb_01kav9ft00zkek0kfes3qvf608"], 3, "there is no callback"),
        (vec!["callbacks", "list", "--state", "odd"], 2, "state is one of"),
        (vec!["dead-letters", "get", "dl_01kav9ft00zkek0kfes3qvf608"], 3, "there is no dead letter"),
        (
            vec!["tasks", "get", "unknown-task"],
            3,
            "nothing is known of task \"unknown-task\": its event was not produced, or not read yet (",
        ),
        (vec!["offsets", "accept", "--from", "end"], 2, "no partition waits"),
        (vec!["keys", "revoke", "key_none", "--team", TEAM], 3, "has no key key_none"),
    ] {
        let output = process.cli(&arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
        assert!(errors.contains(sentence), "{arguments:?}: {errors}");
    }
    let problem = process.cli(&["--json", "teams", "get", "team_nobody"]);
    let problem: serde_json::Value = serde_json::from_slice(&problem.stderr).unwrap();
    assert_eq!((problem["code"].as_str(), problem["status_code"].as_u64()), (Some("not_found"), Some(404)));
    // `--watch` shows the status again and again.
    let watched = process.cli(&["status", "--watch", "--times", "2"]);
    assert_eq!(text(&watched.stdout).matches("store_id").count(), 2, "{}", text(&watched.stderr));
    // A team's life, as an operator types it.
    let updated = process.json(&[
        "teams",
        "update",
        TEAM,
        "--name",
        "Acme",
        "--origin-form",
        "https://a.example=hmac",
        "--retries",
        "3",
    ]);
    assert_eq!((updated["name"].as_str(), updated["retries"].as_u64()), (Some("Acme"), Some(3)));
    assert_eq!(updated["origin_forms"][0]["auth_form"], "hmac");
    let key = process.json(&["keys", "create", "--team", TEAM, "--kind", "hmac", "--mode", "live"]);
    let id = key["key_id"].as_str().unwrap();
    assert!(key["value"].as_str().unwrap().starts_with("live_hmac_"));
    assert_eq!(process.json(&["keys", "promote", id, "--team", TEAM])["state"], "active");
    assert_eq!(process.json(&["keys", "revoke", id, "--team", TEAM])["state"], "revoked");
    let listed = text(&process.cli(&["keys", "list", "--team", TEAM]).stdout);
    assert!(listed.starts_with("KEY") && !listed.contains("live_auth_") && !listed.contains("whsec_"), "{listed}");
    until("its partition is shown", async || {
        text(&process.cli(&["offsets", "show"]).stdout).contains("questions").then_some(())
    })
    .await;
}

#[test]
fn on_a_terminal_it_runs_as_well() {
    // A terminal of its own, as `script` makes one.
    let command = format!("{} demo --events 13", env!("CARGO_BIN_EXE_callbackd"));
    let output = std::process::Command::new("script").args(["-qefc", &command, "/dev/null"]).output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.contains("The ledger balances"), "{shown}");
}

#[test]
fn the_demo_balances() {
    let output = run(&["demo", "--events", "60"], &[]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", text(&output.stderr));
    assert!(shown.contains("The ledger balances"), "{shown}");
    for what in [
        "delivered",
        "exhausted",
        "abandoned: no_url",
        "abandoned: address_denied",
        "dead letter: unknown_team",
        "dead letter: not_json",
    ] {
        assert!(shown.contains(what), "every path occurs: {what}\n{shown}");
    }
    for outcome in ["server_error 500", "rate_limited 429", "head_timeout", "url_invalid", "ok 204"] {
        assert!(shown.contains(outcome), "{outcome}\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    let servers = shared_broker();
    create_topic(&servers, "disk", 1).await;
    let mut process = Process::new(&servers, "disk", "[retry]\nfirst = \"1h\"\n");
    // Otherwise intake would pause before the disk is full.
    process.variables.push(("CALLBACKD_STORE__FREE_BYTES".to_owned(), "0MiB".to_owned()));
    let disk = Disk::mount(&process.folder.path().join("store"), "8m");
    process.start(None, "info").await;
    let (secret, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let receiver = Recorder::start(verifier, Arc::new(|_: &_, _| Reply::status(500))).await.unwrap();
    // Failed callbacks keep their bodies, which are more than the disk can hold.
    let many = events(0, 200, &receiver.url("/"));
    let large: Vec<_> = many
        .into_iter()
        .map(|(task, value)| {
            let padding = "x".repeat(100_000);
            (task, value.replacen('{', &format!(r#"{{"response":"{padding}","#), 1))
        })
        .collect();
    produce(&servers, "disk", 1, &large);
    until("it is noticed", async || {
        let Some((status, page)) = process.page("/readyz").await else {
            panic!("it ended: {}", process.log_text());
        };
        (status == 503 && page.contains("the store does not answer")).then_some(())
    })
    .await;
    assert!(process.log_text().contains("the disk is full"), "{}", process.log_text());
    disk.grow("256m");
    until("it goes on by itself", async || {
        let pending = process.metric("callbackd_pending").await?;
        (pending == 200.0 && process.page("/readyz").await?.0 == 200).then_some(())
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
    drop(process);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_file_sizes_is_waited_for_like_a_full_disk() {
    let servers = shared_broker();
    create_topic(&servers, "limit", 1).await;
    let mut process = Process::new(&servers, "limit", "[retry]\nfirst = \"1h\"\n");
    process.start(None, "info").await;
    process.team(TEAM);
    process.limit_files("4194304");
    let padding = "x".repeat(100_000);
    let padded =
        |(task, value): (String, String)| (task, value.replacen('{', &format!(r#"{{"response":"{padding}","#), 1));
    // Each callback waits with its body for its retry.
    let large: Vec<_> = events(0, 100, &closed_url()).into_iter().map(padded).collect();
    produce(&servers, "limit", 1, &large);
    until("it is noticed", async || {
        let Some((status, page)) = process.page("/readyz").await else {
            panic!("it ended: {}", process.log_text());
        };
        (status == 503 && page.contains("the store does not answer")).then_some(())
    })
    .await;
    assert!(process.log_text().contains("the disk is full"), "{}", process.log_text());
    process.limit_files("unlimited");
    until("it goes on by itself", async || {
        let pending = process.metric("callbackd_pending").await?;
        (pending == 100.0 && process.page("/readyz").await?.0 == 200).then_some(())
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
}

/// A small disk of its own: a tmpfs, which needs root.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: &std::path::Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(at)
            .status();
        assert!(done.is_ok_and(|status| status.success()), "this test mounts a small disk: run it as root");
        Self(at.to_owned())
    }

    fn grow(&self, size: &str) {
        let done =
            std::process::Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}
