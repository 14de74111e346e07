//! The example receivers: each must pass the corpus, and receives from the real daemon while its secret rotates.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{PAUSE, TEAM, until};
use crate::kafka::{create_topic, produce, shared_broker};
use crate::process::{BINARY, Process};

/// A key that was promoted or revoked is used, or not used any more, after this time: the promise is one second.
const KEYS_TAKE_EFFECT: Duration = Duration::from_millis(1_100);

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const AUTH: &str = "live_auth_0123456789abcdef0123456789abcdef";
const LANGUAGES: [&str; 6] = ["axum", "actix", "python", "node", "go", "java"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// How a receiver is started; `make receivers` builds them.
fn command(language: &str) -> Command {
    let at = |path: &str| root().join(path);
    let (program, arguments) = match language {
        "axum" | "actix" => (at(&format!("target/debug/receiver-{language}")), vec![]),
        "python" => (at("target/receivers/python/bin/python"), vec![at("examples/receiver-python/receiver.py")]),
        "node" => ("node".into(), vec![at("examples/receiver-node/receiver.js")]),
        "go" => (at("target/receivers/receiver-go"), vec![]),
        _ => ("java".into(), vec!["-jar".into(), at("examples/receiver-java/target/receiver.jar")]),
    };
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A running receiver, and its output.
struct Receiver {
    url: String,
    lines: Arc<Mutex<Vec<String>>>,
    child: Child,
}

impl Receiver {
    async fn start(language: &str, secrets: &str, auth: Option<&str>) -> Self {
        Self::run(command(language), language, secrets, auth).await
    }

    async fn run(mut command: Command, language: &str, secrets: &str, auth: Option<&str>) -> Self {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCALE_CALLBACK_")) {
            command.env_remove(name);
        }
        command.env("PORT", "0").env("SCALE_CALLBACK_SIGNING_SECRET", secrets);
        if let Some(auth) = auth {
            command.env("SCALE_CALLBACK_AUTH_KEY", auth);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{language}: {error}; say: make receivers"));
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let read = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                read.lock().unwrap().push(line);
            }
        });
        let url = until(&format!("{language} listens"), async || {
            lines.lock().unwrap().iter().find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
        })
        .await;
        Self { url, lines, child }
    }

    /// Whether it has printed a line that begins so.
    fn printed(&self, begin: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.starts_with(begin))
    }

    /// Asks it to end, as a service manager does.
    async fn stop(mut self, language: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        for _ in 0..1_000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0), "{language} ends well");
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{language} does not end");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs a command of the customers' side with a receiver's keys; its status and output.
fn tool(secret: &str, auth: Option<&str>, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("SCALE_CALLBACK_SIGNING_SECRET", secret);
    if let Some(auth) = auth {
        command.env("SCALE_CALLBACK_AUTH_KEY", auth);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receiver_is_held_to_the_corpus() {
    for language in LANGUAGES {
        for auth in [None, Some(AUTH)] {
            let receiver = Receiver::start(language, SECRET, auth).await;
            let mut arguments = vec!["test-receiver".to_owned(), receiver.url.clone()];
            let known = root().join(format!("examples/receiver-{language}/deviations.txt"));
            if known.exists() {
                arguments.extend(["--known".to_owned(), known.display().to_string()]);
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let (status, printed) = tool(SECRET, auth, &arguments);
            assert_eq!(status, Some(0), "{language}, key {auth:?}: {printed}");
            receiver.stop(language).await;
        }
    }
}

/// Receivers with nothing but the library around the bytes are common. The test must not cry forgery where there is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_with_nothing_but_the_library_is_too_lenient_and_accepts_no_forgery() {
    let mut plain = Command::new(root().join("target/receivers/python/bin/python"));
    plain.arg(root().join("daemon/tests/it/plain_receiver.py"));
    let receiver = Receiver::run(plain, "plain python", SECRET, None).await;
    // The library reads signatures in these two forms only if somebody joins and cleans them first.
    let known = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(known.path(), "two headers of signatures/signed\ntwo spaces between signatures/signed\n").unwrap();
    let known = known.path().to_str().unwrap();
    let (status, printed) = tool(SECRET, None, &["test-receiver", &receiver.url, "--known", known]);
    assert_eq!(status, Some(3), "{printed}");
    assert!(printed.contains(" 0 forgeries accepted, 0 wrongly refused, 0 failed, "), "{printed}");
    let lenient = printed.lines().filter(|line| line.starts_with("too lenient, rule ")).count();
    assert!(
        lenient >= 8 && printed.contains("too lenient, rule 5, signature_mismatch: signature with =A"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receiver_handles_once_and_in_order_and_bounds_its_bodies() {
    let folder = tempfile::tempdir().unwrap();
    let file = |bytes: usize| {
        let path = folder.path().join(bytes.to_string());
        let (begin, end) = (r#"{"task":{},"task_id":"t","x":""#, r#""}"#);
        let filling = "x".repeat(bytes - begin.len() - end.len());
        std::fs::write(&path, format!("{begin}{filling}{end}")).unwrap();
        path.display().to_string()
    };
    let (largest, larger) = (file(12 << 20), file((12 << 20) + 1));
    for language in LANGUAGES {
        let receiver =
            Receiver::start(language, &format!("{SECRET} whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), None).await;
        let send = |more: &[&str]| tool(SECRET, None, &[&["send", &receiver.url, "--timeout", "60s"], more].concat());
        // Their first ten characters are times in 2025 and 2026.
        let (older, newer) = ("cb_01kav9ft00zkek0kfes3qvf608", "cb_01m86jkmdjtz7ymr2z343brkz5");
        assert_eq!(send(&["--id", newer, "--task-id", "one"]).0, Some(0), "{language}");
        assert_eq!(send(&["--id", newer, "--task-id", "one"]).0, Some(0), "{language}: a repeat is answered well");
        assert_eq!(send(&["--id", older, "--task-id", "one"]).0, Some(0), "{language}: an older one is answered well");
        assert_eq!(send(&["--id", "cb_x", "--task-id", "two"]).0, Some(0), "{language}: the old secret still counts");
        for line in [
            format!("handled {newer} one"),
            format!("repeat {newer}"),
            format!("older {older} one"),
            "handled cb_x two".to_owned(),
        ] {
            until(&format!("{language} prints {line}"), async || receiver.printed(&line).then_some(())).await;
        }
        assert!(!receiver.printed(&format!("handled {older}")), "{language}");
        let (status, printed) = send(&["--body", &largest]);
        assert_eq!(status, Some(0), "{language}, 12 MiB: {printed}");
        let (status, printed) = send(&["--body", &larger]);
        // Some receivers close before they have read everything. The sender may notice this before it reads the answer.
        assert!(
            status == Some(1) && (printed.contains("413") || printed.contains("broke off")),
            "{language}: {printed}"
        );
        receiver.stop(language).await;
    }
    // No receiver starts without a secret.
    for language in LANGUAGES {
        let output = command(language).env_remove("SCALE_CALLBACK_SIGNING_SECRET").env("PORT", "0").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{language}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receiver_takes_what_the_daemon_sends_while_its_secret_rotates() {
    let servers = shared_broker();
    create_topic(&servers, "receivers", 2).await;
    let mut process = Process::new(&servers, "receivers", "");
    process.start(None, "info").await;
    let (old, auth) = process.team(TEAM);
    let made = process.json(&["keys", "create", "--team", TEAM, "--kind", "signing", "--mode", "live"]);
    let (id, new) = (made["key_id"].as_str().unwrap().to_owned(), made["value"].as_str().unwrap().to_owned());
    let mut receivers = Vec::new();
    for language in LANGUAGES {
        receivers.push((language, Receiver::start(language, &format!("{new}\n{old}"), Some(&auth)).await));
    }
    let keys = process.json(&["keys", "list", "--team", TEAM]);
    let old_id = keys["docs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kind"] == "signing" && key["mode"] == "live" && key["key_id"] != id.as_str());
    let old_id = old_id.unwrap()["key_id"].as_str().unwrap().to_owned();
    // Callbacks come with the old secret, with both, and with the new one only.
    for (step, change) in
        [("old", vec![]), ("both", vec!["keys", "promote", &id]), ("new", vec!["keys", "revoke", &old_id])]
    {
        if !change.is_empty() {
            process.json(&[&change[..], &["--team", TEAM]].concat());
            tokio::time::sleep(KEYS_TAKE_EFFECT).await;
        }
        let events: Vec<_> = receivers
            .iter()
            .map(|(language, receiver)| {
                let task = format!("{language}-{step}");
                let value = format!(
                    r#"{{"team_id":"{TEAM}","task":{{"task_id":"{task}","status":"completed","callback_url":"{}"}}}}"#,
                    receiver.url
                );
                (task, value)
            })
            .collect();
        produce(&servers, "receivers", 2, &events);
        for (language, receiver) in &receivers {
            let task = format!("{language}-{step}");
            until(&format!("{task} is handled"), async || {
                let lines = receiver.lines.lock().unwrap();
                lines
                    .iter()
                    .any(|line| line.starts_with("handled ") && line.ends_with(&format!(" {task} completed")))
                    .then_some(())
            })
            .await;
            let state = until(&format!("{task} ends"), async || {
                let listed = process.json(&["callbacks", "list", "--task", &task]);
                let callback = listed["docs"].get(0)?.clone();
                (callback["state"] != "pending").then_some(callback)
            })
            .await;
            assert_eq!((state["state"].as_str(), state["attempts"].as_u64()), (Some("delivered"), Some(1)), "{state}");
        }
    }
    for (language, receiver) in receivers {
        receiver.stop(language).await;
    }
}
