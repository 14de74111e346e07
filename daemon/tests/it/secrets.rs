//! No secret leaks: the test runs every path at trace level with marker secrets, and then searches everything that was
//! written. It also plants a leak in each sink to show that the search finds it.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use callbackd_bench::http2::{Act, Http2, go_away};
use callbackd_bench::recorder::{Receipt, Recorder};
use callbackd_bench::tls::Certificates;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{TEAM, until};
use crate::kafka::{create_topic, produce, shared_broker};
use crate::process::{Process, store_files};

const AUTH: &str = "live_auth_5ec2e7a0075ec2e7a0075ec2e7a0075e";
const HMAC: &str = "live_hmac_5ec2e7000000000000000000000000000000000000000000000000000000c0de";
/// The base64 of "marker-secret-marker-secret-marker".
const SIGNING: &str = "whsec_bWFya2VyLXNlY3JldC1tYXJrZXItc2VjcmV0LW1hcmtlcg==";
const PATH: &str = "secretpathmarker";
const QUERY: &str = "secretquerymarker";
const PASSWORD: &str = "secretpasswordmarker";
const SNIPPET: &str = "secretsnippetmarker";

/// Where a marker was found.
fn found(sinks: &[(String, Vec<u8>)], markers: &[&str]) -> Vec<String> {
    let mut places = Vec::new();
    for (sink, bytes) in sinks {
        for marker in markers {
            if bytes.windows(marker.len()).any(|window| window == marker.as_bytes()) {
                places.push(format!("{marker} in {sink}"));
            }
        }
    }
    places
}

/// Certificates for loopback, and others whose names hold a key.
struct Hosts {
    right: Certificates,
    wrong: Certificates,
    /// The authorities of both.
    ca_file: PathBuf,
    _folders: [tempfile::TempDir; 2],
}

impl Hosts {
    fn make() -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let right = Certificates::make(folders[0].path()).unwrap();
        let wrong = Certificates::for_names(folders[1].path(), &[&format!("{AUTH}.example")]).unwrap();
        let both = [&right, &wrong].map(|made| std::fs::read_to_string(&made.ca_file).unwrap()).concat();
        let ca_file = folders[0].path().join("both.pem");
        std::fs::write(&ca_file, both).unwrap();
        Self { right, wrong, ca_file, _folders: folders }
    }
}

/// The signatures of what arrived, each without its version.
fn signatures(receipts: &[Receipt]) -> Vec<String> {
    let values = receipts.iter().map(|receipt| receipt.headers["webhook-signature"].to_str().unwrap());
    values.flat_map(|value| value.split(' ').map(|one| one.trim_start_matches("v1,").to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaks() {
    let servers = shared_broker();
    create_topic(&servers, "secrets", 1).await;
    let certificates = Hosts::make();
    let more =
        format!("[retry]\nretries = 1\nfirst = \"50ms\"\n[egress]\nca_file = \"{}\"\n", certificates.ca_file.display());
    let mut process = Process::new(&servers, "secrets", &more);
    // The API's token is sent over TCP, and everything is logged.
    let port = callbackd_bench::ports::free().unwrap();
    process.edit("[api]\nlisten = \"\"", &format!("[api]\nlisten = \"127.0.0.1:{port}\""));
    let config = process.config().display().to_string();
    let bootstrap =
        ["tokens", "create", "--bootstrap", "--name", "t", "--scope", "operate", "--value-only", "--config"];
    let made = crate::process::run(&[&bootstrap[..], &[&config]].concat(), &[]);
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(token.starts_with("cbt_"), "{}", String::from_utf8_lossy(&made.stderr));
    let token_file = process.folder.path().join("token");
    std::fs::write(&token_file, &token).unwrap();
    process.start(Some("panic"), "trace").await;
    process.json(&["teams", "create", TEAM]);
    for (kind, value) in [("callback-auth", AUTH), ("hmac", HMAC), ("signing", SIGNING)] {
        let file = process.folder.path().join("key");
        std::fs::File::create(&file).unwrap().write_all(value.as_bytes()).unwrap();
        let path = file.display().to_string();
        let key =
            process.json(&["keys", "create", "--team", TEAM, "--kind", kind, "--mode", "live", "--from-file", &path]);
        process.json(&["keys", "promote", key["key_id"].as_str().unwrap(), "--team", TEAM]);
        std::fs::remove_file(file).unwrap();
    }
    // The receiver echoes each request with its secrets, and refuses half of them.
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", SIGNING, AUTH).unwrap());
    let rule = Arc::new(|received: &scale_callback::receiver::Received, _| {
        let status = if received.path.contains("refused") { 500 } else { 200 };
        Reply::status(status).saying(format!("{SNIPPET} {:?}", received.headers))
    });
    let tls = certificates.right.server().unwrap();
    let behind_tls = Recorder::behind_tls(tls, verifier.clone(), rule.clone()).await.unwrap();
    let receiver = Recorder::start(verifier, rule).await.unwrap();
    // One ends the connection with our key as its reason, and one has it among its certificate's names.
    let reason = go_away(0, h2::Reason::ENHANCE_YOUR_CALM, format!("no {AUTH}, {SNIPPET}").as_bytes());
    let leaving = Http2::start(&certificates.right, Act::FramesThenClose(reason)).await.unwrap();
    let misnamed = Http2::start(&certificates.wrong, Act::Silence).await.unwrap();
    let over_tls = |address, place: &str| format!("https://user:{PASSWORD}@{address}/{place}/{PATH}?token={QUERY}");
    let url = |place: &str| format!("http://user:{PASSWORD}@{}/{place}/{PATH}?token={QUERY}", receiver.address);
    process.json(&["teams", "update", TEAM, "--default-url", &url("default")]);
    let event = |task: &str, url: Option<String>| {
        let url = url.map_or_else(String::new, |url| format!(r#","callback_url":"{url}""#));
        (task.to_owned(), format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"{task}"{url}}}}}"#))
    };
    let all = [
        event("task-ok", Some(url("ok"))),
        event("task-refused", Some(url("refused"))),
        event("task-default", None),
        event("task-panic", Some(url("ok"))),
        event("task-denied", Some(format!("http://10.0.0.1/{PATH}?{QUERY}"))),
        event("task-closed", Some(format!("http://127.0.0.1:9/{PATH}?{QUERY}"))),
        event("task-broken", Some(format!("nonsense {PATH}"))),
        event("task-tls-ok", Some(over_tls(behind_tls.address, "ok"))),
        event("task-tls-refused", Some(over_tls(behind_tls.address, "refused"))),
        event("task-leaving", Some(over_tls(leaving.address, "ok"))),
        event("task-misnamed", Some(over_tls(misnamed.address, "ok"))),
    ];
    produce(&servers, "secrets", 1, &all);
    until("all have ended", async || {
        let listed = process.json(&["callbacks", "list"]);
        let docs = listed["docs"].as_array()?;
        (docs.len() == all.len() && docs.iter().all(|doc| doc["state"] != "pending")).then_some(())
    })
    .await;

    let signatures = signatures(&[receiver.receipts(), behind_tls.receipts()].concat());
    assert!(behind_tls.receipts().len() >= 3 && leaving.requests.load(Ordering::SeqCst) >= 1);
    let mut keys = vec![AUTH, HMAC, SIGNING, &SIGNING["whsec_".len()..], &token];
    keys.extend(signatures.iter().map(String::as_str));
    let locations = [PATH, QUERY, PASSWORD, SNIPPET];
    let mut answers = Vec::new();
    for arguments in [
        vec!["status"],
        vec!["teams", "get", TEAM],
        vec!["keys", "list", "--team", TEAM],
        vec!["callbacks", "list"],
        vec!["offsets", "show"],
        vec!["tokens", "list"],
        vec!["audit", "list", "--limit", "1000"],
        vec!["endpoints", "list"],
        vec!["teams", "check", TEAM],
        vec!["config", "log-level"],
    ] {
        answers.extend(process.cli(&arguments).stdout);
        let over_tcp =
            ["--api", &format!("http://127.0.0.1:{port}"), "--token-file", &token_file.display().to_string()]
                .map(str::to_owned);
        let all: Vec<&str> = over_tcp.iter().map(String::as_str).chain(arguments).collect();
        let output = crate::process::run(&all, &[]);
        answers.extend(output.stdout);
        answers.extend(output.stderr);
    }
    let listed = process.json(&["callbacks", "list"]);
    let mut attempts = String::new();
    for doc in listed["docs"].as_array().unwrap() {
        let id = doc["callback_id"].as_str().unwrap();
        answers.extend(process.cli(&["callbacks", "attempts", id]).stdout);
        attempts += &process.json(&["callbacks", "attempts", id]).to_string();
    }
    answers.extend(attempts.as_bytes());
    let mut errors = Vec::new();
    for arguments in [
        vec!["teams", "update", TEAM, "--default-url", "http://10.0.0.1/secretpathmarker"],
        vec!["keys", "create", "--team", TEAM, "--kind", "signing", "--mode", "live", "--from-file", "/nonexistent"],
    ] {
        errors.extend(process.cli(&arguments).stderr);
    }
    let log = process.log.lock().unwrap().clone();
    let metrics = process.page("/metrics").await.unwrap().1.into_bytes();
    let command = std::fs::read(format!("/proc/{}/cmdline", process.id())).unwrap();
    let text = vec![
        ("log".to_owned(), log.clone()),
        ("metrics".to_owned(), metrics),
        ("errors".to_owned(), errors),
        ("cmdline".to_owned(), command),
    ];
    let mut stored = vec![("api answers".to_owned(), answers)];
    for path in store_files(process.folder.path()) {
        if let Ok(bytes) = std::fs::read(&path) {
            stored.push((path.file_name().unwrap().display().to_string(), bytes));
        }
    }
    assert!(String::from_utf8_lossy(&log).contains("TRACE"), "it ran at trace level");
    assert!(stored.iter().any(|(name, _)| name.ends_with("-wal")), "the write-ahead log is searched too");
    for redacted in ["no [redacted]", "[redacted].example"] {
        assert!(attempts.contains(redacted), "the receiver's words are shown without the key: {attempts}");
    }
    assert_eq!(found(&text, &[&keys[..], &locations[..]].concat()), Vec::<String>::new());
    // URLs and snippets are in the store by design. Keys are not, even if a receiver echoed them.
    assert_eq!(found(&stored, &keys), Vec::<String>::new());
    // The search finds a planted leak.
    for (sink, bytes) in text.iter().chain(&stored) {
        let planted = [&bytes[..], b" ", AUTH.as_bytes(), b" ", PATH.as_bytes()].concat();
        assert_eq!(found(&[(sink.clone(), planted)], &[AUTH]).len(), 1, "{sink}");
    }
}
