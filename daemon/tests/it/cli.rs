//! The command line as people see it: transcripts as golden files, and every example of every command's help, run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use callbackd::cli::examples;
use callbackd::demo::broker::Broker;
use regex::Regex;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};
use serde_json::Value;

use crate::harness::{TEAM, next_millisecond, until};
use crate::kafka::produce;
use crate::process::{BINARY, Process};

const TASK: &str = "6583f1a2b0c4d5e6f7081920";
const TOPIC: &str = "tasks.cli";

/// A daemon with one thing of each kind.
struct Furnished {
    process: Process,
    _broker: Broker,
    _receiver: callbackd_bench::recorder::Recorder,
    /// The placeholders in transcripts and examples, with their values.
    names: Vec<(&'static str, String)>,
}

async fn furnished() -> Furnished {
    let broker = Broker::start(TOPIC, 1).unwrap();
    let mut process = Process::new(&broker.servers, TOPIC, "[retry]\nfirst = \"2h\"\n");
    // The mock broker waits for members for longer than the session of most tests.
    let config = std::fs::read_to_string(process.config()).unwrap();
    std::fs::write(process.config(), config.replace("\"1500\"", "\"10000\"").replace("\"300\"", "\"3000\"")).unwrap();
    process.start(None, "info").await;
    let (signing, auth) = process.team(TEAM);
    let (test_signing, test_auth) =
        (process.key_of(TEAM, "signing", "test"), process.key_of(TEAM, "callback-auth", "test"));
    let credential = |secret: &str, key: &str| Credential::signed_and_keyed("acme", secret, key).unwrap();
    let hmac = |mode: &str| Credential::hmac_header("acme", &process.key_of(TEAM, "hmac", mode)).unwrap();
    let verifier = Verifier::new(credential(&signing, &auth)).or_credential(credential(&test_signing, &test_auth));
    let verifier = verifier.or_credential(hmac("live")).or_credential(hmac("test"));
    let rule = std::sync::Arc::new(|received: &scale_callback::receiver::Received, _| {
        Reply::status(if received.path == "/down" { 503 } else { 204 }).saying("\u{1b}[2Jno")
    });
    let receiver = callbackd_bench::recorder::Recorder::start(verifier, rule).await.unwrap();
    process.json(&["teams", "update", TEAM, "--default-url", &receiver.url("/callbacks")]);
    let event = |task: &str, more: &str| {
        (task.to_owned(), format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"{task}"{more}}}}}"#))
    };
    let down = format!(r#","callback_url":"{}""#, receiver.url("/down"));
    let events = [
        event(TASK, ""),
        event("6583f1a2b0c4d5e6f7081921", &down),
        event("6583f1a2b0c4d5e6f7081922", r#","callback_url":"nonsense""#),
        ("t".to_owned(), "\u{1b}[31mno JSON".to_owned()),
        ("t".to_owned(), format!(r#"{{"team_id":"team_nobody","task":{{"task_id":"{TASK}"}}}}"#)),
    ];
    let id_of = |task: &str, state: &str| -> Option<String> {
        let listed = process.json(&["callbacks", "list", "--task", task, "--state", state]);
        Some(listed["docs"].get(0)?["callback_id"].as_str()?.to_owned())
    };
    let [first, others @ ..] = events;
    produce(&broker.servers, TOPIC, 1, &[first]);
    let delivered = until("delivered", async || id_of(TASK, "delivered")).await;
    for event in others {
        produce(&broker.servers, TOPIC, 1, &[event]);
        // Lists are in the order of the records' times, which count milliseconds.
        next_millisecond();
    }
    let ended = |id: &str| process.json(&["callbacks", "get", id])["attempts"].as_u64().unwrap_or(0);
    let pending =
        until("tried", async || id_of("6583f1a2b0c4d5e6f7081921", "pending").filter(|id| ended(id) == 1)).await;
    // With what they were sent is written soon after.
    let request = |id: &str, pointer: &str| {
        let attempts = process.json(&["callbacks", "attempts", id]);
        attempts.pointer(pointer).is_some_and(serde_json::Value::is_object).then_some(())
    };
    until("the requests are known", async || {
        request(&delivered, "/delivery").and_then(|()| request(&pending, "/docs/0/request"))
    })
    .await;
    until("abandoned", async || id_of("6583f1a2b0c4d5e6f7081922", "abandoned")).await;
    let letters = until("dead letters", async || {
        let listed = process.json(&["dead-letters", "list"]);
        (listed["docs"].as_array()?.len() == 2).then_some(listed)
    })
    .await;
    let created = process.json(&["keys", "create", "--team", TEAM, "--kind", "signing", "--mode", "test"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let again = ["callbacks", "resend", "--team", TEAM, "--state", "delivered", "--rate", "1", "--yes"];
    let job = text(&process.json(&again)["resend_id"]);
    process.json(&["resends", "pause", &job]);
    let names = vec![
        ("rs_019ab1c2d3e4f5a6b7c8", job),
        ("cb_01kav9ft00zkek0kfes3qvf608", delivered),
        ("cb_pending", pending),
        ("dl_01kav9ft00zkek0kfes3qvf608", text(&letters["docs"][0]["dead_letter_id"])),
        ("key_0123456789abcdef", text(&created["key_id"])),
        ("tasks.events", TOPIC.to_owned()),
        ("https://acme.example:443", format!("http://{}", receiver.address)),
        ("https://acme.example/callbacks", receiver.url("/callbacks")),
        ("https://acme.example/down", receiver.url("/down")),
    ];
    Furnished { process, _broker: broker, _receiver: receiver, names }
}

impl Furnished {
    fn run(&self, line: &str) -> Output {
        let mut line = line.strip_prefix("callbackd ").unwrap_or(line).to_owned();
        for (name, real) in &self.names {
            line = line.replace(name, real);
        }
        let folder = self.process.folder.path();
        line = line.replace("/etc/callbackd/", &format!("{}/", folder.display()));
        Command::new(BINARY)
            .args(line.split_whitespace())
            .current_dir(folder)
            .env("CALLBACKD_CONFIG", self.process.config())
            .output()
            .unwrap()
    }
}

/// The lines of a golden file: `$ callbackd ...`, then its output, and its exit status if that is not 0.
fn transcribe(furnished: &Furnished, golden: &str) -> String {
    let mut text = String::new();
    for command in golden.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let output = furnished.run(command);
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        text += &format!("$ {command}\n{}", same_for_all_runs(&printed, furnished.process.folder.path()));
        if !printed.is_empty() && !printed.ends_with('\n') {
            text.push('\n');
        }
        match output.status.code() {
            Some(0) => {}
            code => text += &format!("[exit status {}]\n", code.unwrap_or(-1)),
        }
        text.push('\n');
    }
    text
}

/// Replaces ids, times, ports, counts of bytes and the folder of this run by placeholders.
fn same_for_all_runs(text: &str, folder: &Path) -> String {
    let mut text = text.replace(&folder.display().to_string(), "FOLDER");
    for (pattern, name) in [
        (r"\b(cb|dl)_[0-9a-z]{26}\b", "${1}_ID"),
        (r"\b(key|tok|st|req|test)_[0-9a-f]{16}\b", "${1}_ID"),
        (r"\brs_[0-9a-f]{20}\b", "rs_ID"),
        (r"\bcbt_[0-9a-f]{64}\b", "cbt_VALUE"),
        (r"\b(live|test)_(auth|hmac)_[0-9a-f]+\b", "${1}_${2}_VALUE"),
        (r"whsec_[A-Za-z0-9+/=]+", "whsec_VALUE"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"mock\w*/", "CLUSTER/"),
        (r"webhook-timestamp: \d+", "webhook-timestamp: SECONDS"),
        (r"\[masked\]\w{4}\b", "[masked]LAST"),
        (r"(?m)^last4( +)\S+$", "last4${1}LAST"),
        (r"\b(uid|user):? ?\d+\b", "uid:N"),
        (r"[0-9.]+ GiB free, \d+ %", "N GiB free, N %"),
        (r"callbackd([ /])\d+\.\d+\.\d+", "callbackd${1}VERSION"),
        (r"(?m)^(version|file_bytes)( +)\S+$", "${1}${2}N"),
        (r"\bk[0-9a-f]{8}\b", "kID"),
        (r"(?m)(yes|no)  +-$", "${1}  TIME"),
        (r"(every|not every) partition, 1 of them, [a-z ]+(TIME)?", "HOW FAR PARTITIONS WERE READ"),
        // The use of keys is recorded once a minute.
        (r"(?m)^(key_\w+ .*  )(TIME|-)$", "${1}USED"),
        (r"(?m)^used_at( +)\S+$", "used_at${1}USED"),
        // The width of a column depends on its cells.
        (r"  +", "  "),
        (r"(?m) +$", ""),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, name).into_owned();
    }
    // The last four characters of a key, and milliseconds, differ in each run.
    let last4 =
        Regex::new(r"(?m)^((?:key|tok)_ID  .*?  (?:created|active|revoked|valid|expired)  )\S{4}(  |$)").unwrap();
    text = last4.replace_all(&text, "${1}LAST${2}").into_owned();
    let step = Regex::new(r"(?m)^(url|dns|egress|connect|tls|post)  (yes|no)  \d+").unwrap();
    text = step.replace_all(&text, "${1}  ${2}  MS").into_owned();
    let attempt = Regex::new(r"(?m)^(\d+  TIME  \w+  \S+  )\d+").unwrap();
    attempt.replace_all(&text, "${1}MS").into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_are_as_they_stand() {
    let furnished = furnished().await;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts");
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 8, "the transcripts exist");
    let mut differ = Vec::new();
    for path in names {
        let golden = std::fs::read_to_string(&path).unwrap();
        let seen = transcribe(&furnished, &golden);
        if seen == golden {
            continue;
        }
        if std::env::var_os("CALLBACKD_TEST_BLESS").is_some() {
            std::fs::write(&path, seen).unwrap();
        } else {
            differ.push(format!("{}\n--- seen ---\n{seen}", path.display()));
        }
    }
    assert!(differ.is_empty(), "{}\nIf this is intended: CALLBACKD_TEST_BLESS=1 make test", differ.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_an_example_and_every_example_runs() {
    let furnished = furnished().await;
    // A keyring is never overwritten, and there is no lost store here: each has a test of its own.
    let refused = [
        ("keyring create", "never overwritten"),
        ("offsets accept", "no partition waits"),
        ("clock accept", "the clocks agree"),
    ];
    // They run for long, or need the store alone, or are not for people: each has a test of its own.
    let elsewhere =
        ["run", "demo", "migrate", "store info", "store backup", "store copy", "store verify", "teams delete"];
    let mut ran = 0;
    for (command, example) in examples() {
        assert!(example.starts_with("callbackd "), "{command} has no example");
        assert!(example.contains(&format!("callbackd {command}")), "{command}: {example}");
        if elsewhere.contains(&command.as_str()) {
            continue;
        }
        ran += 1;
        let example = example.split(" > ").next().unwrap_or_default().to_owned();
        let example = if command == "tokens revoke" {
            let made = furnished.process.json(&["tokens", "create", "--name", "goes", "--scope", "read"]);
            example.replace("tok_0123456789abcdef", made["token_id"].as_str().unwrap())
        } else if command == "resends cancel" {
            let again = ["callbacks", "resend", "--team", TEAM, "--state", "delivered", "--rate", "1", "--yes"];
            let made = furnished.process.json(&again);
            example.replace("rs_019ab1c2d3e4f5a6b7c8", made["resend_id"].as_str().unwrap())
        } else if ["callbacks payload", "callbacks cancel"].contains(&command.as_str()) {
            example.replace("cb_01kav9ft00zkek0kfes3qvf608", "cb_pending")
        } else if command == "teams create" {
            example.replace(TEAM, "team_new")
        } else if command == "keys revoke" {
            format!("{example} --force")
        } else {
            example
        };
        let output = furnished.run(&example);
        let errors = String::from_utf8_lossy(&output.stderr);
        match refused.iter().find(|(own, _)| *own == command) {
            Some((_, sentence)) => assert!(errors.contains(sentence), "{example}: {errors}"),
            None => assert!(output.status.success(), "{example}: {errors}{}", String::from_utf8_lossy(&output.stdout)),
        }
        assert!(
            !errors.contains('\u{1b}') && !output.stdout.contains(&0x1b),
            "{example}: no control sequences in the output"
        );
    }
    assert!(ran > 30, "{ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_streams_all_its_pages_and_an_export_never_overwrites() {
    let furnished = furnished().await;
    let lines = |output: &Output| String::from_utf8_lossy(&output.stdout).lines().count();
    let all = furnished.run("--jsonl callbacks list --limit 1000");
    assert_eq!(lines(&all), 3, "{}", String::from_utf8_lossy(&all.stderr));
    assert_eq!(lines(&furnished.run("--jsonl callbacks list --limit 2")), 2);
    assert_eq!(lines(&furnished.run("--jsonl audit list")), lines(&furnished.run("--jsonl audit list --limit 1000")));
    assert_eq!(furnished.run("--jsonl status").status.code(), Some(2), "no list");
    let exported = furnished.run("callbacks export --output all.jsonl");
    assert!(exported.status.success() && exported.stdout.is_empty());
    assert_eq!(String::from_utf8_lossy(&exported.stderr), "3 callbacks were written to all.jsonl\n");
    let quiet = furnished.run("callbacks export --quiet --format csv --output quiet.csv");
    assert!(quiet.status.success() && quiet.stderr.is_empty());
    let table = std::fs::read_to_string(furnished.process.folder.path().join("quiet.csv")).unwrap();
    assert_eq!((table.matches("\r\n").count(), table.matches('\n').count()), (4, 4), "RFC 4180: {table}");
    assert_eq!(furnished.run("callbacks export --output all.jsonl").status.code(), Some(1), "never overwritten");
    let csv = furnished.run("callbacks export --format csv");
    let csv = String::from_utf8_lossy(&csv.stdout).into_owned();
    assert!(csv.starts_with("callback_id,state,reason,") && csv.lines().count() == 4, "{csv}");
    let attempts = furnished.run("callbacks export --attempts --format csv");
    let attempts = String::from_utf8_lossy(&attempts.stdout).into_owned();
    assert!(attempts.starts_with("callback_id,team_id,task_id,attempt,") && attempts.contains(",503,"), "{attempts}");
    assert_eq!(lines(&furnished.run("dead-letters export")), lines(&furnished.run("--jsonl dead-letters list")));
    assert_eq!(lines(&furnished.run("audit export")), lines(&furnished.run("--jsonl audit list")));
    let watched = furnished.run("callbacks watch --count 3");
    assert_eq!(lines(&watched), 3, "{}", String::from_utf8_lossy(&watched.stderr));
    assert!(lines(&furnished.run("status --watch --times 2")) > 20);
    // On a terminal the body is escaped. A file gets it as it is sent.
    let body = furnished.run("callbacks payload cb_pending");
    assert!(body.stdout.starts_with(b"{\"task\":{\"task_id\""), "{}", String::from_utf8_lossy(&body.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_reached_over_tcp_with_a_token_and_not_without() {
    let broker = Broker::start(TOPIC, 1).unwrap();
    let port = callbackd_bench::ports::free().unwrap();
    let mut process = Process::new(&broker.servers, TOPIC, "");
    let config = std::fs::read_to_string(process.config()).unwrap();
    let config = config.replace("listen = \"\"", &format!("listen = \"127.0.0.1:{port}\""));
    std::fs::write(process.config(), config).unwrap();
    let bootstrap = |arguments: &[&str]| {
        let config = process.config().display().to_string();
        let all = [&["tokens", "create", "--bootstrap", "--name", "first", "--config", &config], arguments].concat();
        crate::process::run(&all, &[])
    };
    let made = bootstrap(&["--scope", "read", "--value-only"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = process.folder.path().join("token");
    std::fs::write(&file, &made.stdout).unwrap();
    process.start(None, "info").await;
    let in_use = crate::process::run(
        &[
            "tokens",
            "create",
            "--bootstrap",
            "--name",
            "x",
            "--scope",
            "read",
            "--config",
            &process.config().display().to_string(),
        ],
        &[],
    );
    assert_eq!(in_use.status.code(), Some(2), "a daemon holds the store");
    let api = format!("http://127.0.0.1:{port}");
    let asked = |arguments: &[&str]| crate::process::run(&[&["--api", &api], arguments].concat(), &[]);
    let token = file.display().to_string();
    let status = asked(&["--token-file", &token, "status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    assert_eq!(asked(&["status"]).status.code(), Some(4), "no token");
    assert_eq!(
        asked(&["--token-file", &token, "teams", "create", "t"]).status.code(),
        Some(4),
        "the token may only read"
    );
    assert_eq!(asked(&["--token-file", "/nonexistent", "status"]).status.code(), Some(1));
    // A password in a default URL is not shown.
    process.json(&["teams", "create", "team_basic", "--default-url", "https://user:hidden-word@a.example/x"]);
    let shown = asked(&["--token-file", &token, "teams", "get", "team_basic"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("https://a.example:443") && !shown.contains("/x"),
        "who may only read sees no path: {shown}"
    );
    assert!(!shown.contains("hidden-word"), "{shown}");
    let shown = process.json(&["teams", "get", "team_basic"]).to_string();
    assert!(shown.contains("https://redacted@a.example/x") && !shown.contains("hidden-word"), "{shown}");
    let by_variable = crate::process::run(&["--api", &api, "teams", "list"], &[("CALLBACKD_TOKEN_FILE", &token)]);
    assert!(by_variable.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_speaks_tls_and_takes_new_certificates_on_a_reload() {
    let broker = Broker::start(TOPIC, 1).unwrap();
    let port = callbackd_bench::ports::free().unwrap();
    let mut process = Process::new(&broker.servers, TOPIC, "");
    let folder = process.folder.path().to_owned();
    let first = callbackd_bench::tls::Certificates::make(&folder).unwrap();
    let at = |path: &Path| path.display().to_string();
    process.edit(
        "[api]\nlisten = \"\"",
        &format!(
            "[api]\nlisten = \"127.0.0.1:{port}\"\ntls_cert = \"{}\"\ntls_key = \"{}\"",
            at(&first.cert),
            at(&first.key)
        ),
    );
    let config = at(&process.config());
    let made = crate::process::run(
        &["tokens", "create", "--bootstrap", "--name", "t", "--scope", "read", "--value-only", "--config", &config],
        &[],
    );
    let token = folder.join("token");
    std::fs::write(&token, made.stdout).unwrap();
    process.start(None, "info").await;
    let api = format!("https://127.0.0.1:{port}");
    let ask = |ca_file: &Path| {
        let arguments = ["--api", &api, "--api-ca-file", &at(ca_file), "--token-file", &at(&token), "teams", "list"]
            .map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        crate::process::run(&arguments, &[]).status.code()
    };
    assert_eq!(ask(&first.ca_file), Some(0));
    let plain = crate::process::run(&["--api", &api.replace("https", "http"), "teams", "list"], &[]);
    assert_eq!(plain.status.code(), Some(5), "the API speaks only TLS");
    let elsewhere = tempfile::tempdir().unwrap();
    let second = callbackd_bench::tls::Certificates::make(elsewhere.path()).unwrap();
    assert_eq!(ask(&second.ca_file), Some(5), "a certificate that the client does not trust");
    // A bad file keeps the old one.
    std::fs::write(&first.key, "no key").unwrap();
    process.signal("HUP");
    until("it is refused", async || process.log_text().contains("refused: nothing has changed").then_some(())).await;
    assert_eq!(ask(&first.ca_file), Some(0));
    std::fs::copy(&second.cert, &first.cert).unwrap();
    std::fs::copy(&second.key, &first.key).unwrap();
    process.signal("HUP");
    until("it is taken", async || (ask(&second.ca_file) == Some(0)).then_some(())).await;
    assert_eq!(ask(&first.ca_file), Some(5), "the old certificate is not used any more");
}
