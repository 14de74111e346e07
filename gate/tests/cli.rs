//! `scale-callback` as people use it: every example of its help, and what goes wrong.

#![allow(clippy::unwrap_used, missing_docs, clippy::panic, reason = "a test may")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_scale-callback");
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const AUTH: &str = "live_auth_0123456789abcdef0123456789abcdef";
const HMAC: &str = "live_hmac_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn command(arguments: &[&str], keys: &[(&str, &str)]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCALE_CALLBACK_")) {
        command.env_remove(name);
    }
    for (name, value) in keys {
        command.env(format!("SCALE_CALLBACK_{name}"), value);
    }
    command
}

fn run(arguments: &[&str], keys: &[(&str, &str)]) -> (Option<i32>, String) {
    let output: Output = command(arguments, keys).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A command that goes on, its lines as they come.
struct Going {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Going {
    fn start(arguments: &[&str], keys: &[(&str, &str)]) -> Self {
        let mut child = command(arguments, keys).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The rest of the first line that has `begin` in it, up to the next space.
    fn told(&mut self, begin: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "it ended without {begin}");
            if let Some((_, rest)) = line.split_once(begin) {
                return rest.split_whitespace().next().unwrap_or_default().to_owned();
            }
        }
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    fn stop(self) -> (Option<i32>, String) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.end()
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        // Most commands have ended by themselves.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The kernel shows by the owner of `/proc/PID/mem` whether a process of a user who is not root can be dumped.
#[cfg(target_os = "linux")]
#[test]
fn the_memory_of_a_process_with_keys_can_not_be_dumped() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("scale-callback");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Another process writes the copy. If this one did, a child that another test starts meanwhile could hold the copy open for
    // writing for a moment, and the kernel starts no program that is open for writing.
    assert!(Command::new("install").args(["-m", "755", BINARY]).arg(&program).status().unwrap().success());
    let owner = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().unwrap();
        // Its first line, or its end, comes after it has marked itself.
        let mut going = Going { out: BufReader::new(child.stdout.take().unwrap()), child };
        if !arguments.is_empty() {
            going.told("listening at ");
        }
        std::fs::metadata(format!("/proc/{}/mem", going.child.id())).unwrap().uid()
    };
    assert_ne!(owner(Path::new("cat"), &[]), 0, "a process that can be dumped belongs to its user");
    assert_eq!(owner(&program, &["listen", "--listen", "127.0.0.1:0", "--count", "1", "--timeout", "60s"]), 0);
}

#[test]
fn a_first_callback_is_sent_and_received() {
    let keys = [("SIGNING_SECRET", SECRET), ("AUTH_KEY", AUTH)];
    let mut listening = Going::start(&["listen", "--listen", "127.0.0.1:0", "--count", "5", "--timeout", "60s"], &keys);
    let url = listening.told("listening at ");
    let (status, told) = run(&["send", &url, "--type", "namedentityrecognition"], &keys);
    assert!(status == Some(0) && told.contains("204 No Content"), "{told}");
    let (status, told) = run(&["send", &url], &[("SIGNING_SECRET", OTHER), ("AUTH_KEY", AUTH)]);
    assert!(status == Some(1) && told.contains("401") && told.contains("same secret"), "{told}");
    let (status, told) = run(&["send", &url, "--age", "10m"], &keys);
    assert!(status == Some(1) && told.contains("401"), "{told}");
    for kind in ["error", "lidarannotation"] {
        assert_eq!(run(&["send", &url, "--type", kind, "--task-id", "t\u{202e}1"], &keys).0, Some(0));
    }
    let junk = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(junk.path(), "hello").unwrap();
    let (status, told) = run(&["send", &url, "--body", junk.path().to_str().unwrap()], &keys);
    assert!(status == Some(1) && told.contains("400"), "signed, and no callback: {told}");
    let same: Vec<_> = (0..2).map(|_| run(&["send", &url, "--id", "cb_same"], &keys).1).collect();
    let bytes = |told: &str| told.split(", ").nth(1).map(str::to_owned);
    assert_eq!(bytes(&same[0]), bytes(&same[1]), "the same id is the same callback");
    let (status, lines) = listening.end();
    assert_eq!(status, Some(0), "{lines}");
    assert_eq!(lines.matches("  valid  ").count(), 5, "{lines}");
    assert!(lines.contains("attempt 1, a repeat, answered 204"), "{lines}");
    assert!(lines.contains("it is signed, but"), "{lines}");
    assert!(lines.contains("namedentityrecognition completed, live keys"), "{lines}");
    assert!(lines.contains("no signature matches (signature_mismatch)"), "{lines}");
    assert!(lines.contains("(timestamp_too_old)"), "{lines}");
    assert!(lines.contains("task t\\u{202e}1 ") && !lines.contains('\u{202e}'), "{lines}");
}

#[test]
fn without_keys_it_makes_some_and_says_how_to_use_them() {
    let mut listening =
        Going::start(&["listen", "--listen", "127.0.0.1:0", "--count", "1", "--timeout", "60s", "--print-body"], &[]);
    let secret = listening.told("export SCALE_CALLBACK_SIGNING_SECRET=");
    let key = listening.told("export SCALE_CALLBACK_AUTH_KEY=");
    let url = listening.told("listening at ");
    assert_eq!(run(&["send", &url], &[("SIGNING_SECRET", &secret), ("AUTH_KEY", &key)]).0, Some(0));
    let (status, lines) = listening.end();
    assert!(status == Some(0) && lines.contains(r#"{"task":{"task_id":"#), "{lines}");
    let mut shown =
        Going::start(&["listen", "--listen", "127.0.0.1:0", "--print-secret"], &[("SIGNING_SECRET", SECRET)]);
    assert_eq!(shown.told("export SCALE_CALLBACK_SIGNING_SECRET="), SECRET);
    assert_eq!(shown.stop().0, Some(0));
}

#[test]
fn a_listener_answers_forwards_and_gives_up_as_it_is_told() {
    let keys = [("SIGNING_SECRET", SECRET)];
    let mut busy = Going::start(&["listen", "--listen", "127.0.0.1:0", "--status", "503", "--times", "2"], &keys);
    let url = busy.told("listening at ");
    let statuses: Vec<_> = (0..3).map(|_| run(&["send", &url], &keys).1).collect();
    assert!(statuses[0].contains("503") && statuses[1].contains("503") && statuses[2].contains("204"), "{statuses:?}");
    let mut before =
        Going::start(&["listen", "--listen", "127.0.0.1:0", "--forward-to", &format!("{url}deep?x=1")], &keys);
    let front = before.told("listening at ");
    assert!(run(&["send", &front], &keys).1.contains("204"));
    assert!(run(&["send", &front], &[("SIGNING_SECRET", OTHER)]).1.contains("401"));
    let (_, lines) = busy.stop();
    assert_eq!(lines.matches("  valid  ").count(), 4, "what does not verify goes no further: {lines}");
    assert!(run(&["send", &front], &keys).1.contains("502"), "nobody is behind it any more");
    before.stop();
    let mut slow = Going::start(&["listen", "--listen", "127.0.0.1:0", "--delay", "1s"], &keys);
    let url = slow.told("listening at ");
    let (status, told) = run(&["send", &url, "--timeout", "200ms"], &keys);
    assert!(status == Some(1) && told.contains("no answer in time"), "{told}");
    slow.stop();
    let (status, told) = run(&["listen", "--listen", "127.0.0.1:0", "--count", "1", "--timeout", "300ms"], &keys);
    assert!(status == Some(1) && told.contains("0 of 1 verified callbacks arrived in time"), "{told}");
}

/// A capture of a request that was signed at a time long ago, with a body.
fn capture(folder: &Path, lines: &str, body: &str) -> (String, String) {
    let (headers, file) = (folder.join("headers.txt"), folder.join("body.json"));
    std::fs::write(&headers, lines).unwrap();
    std::fs::write(&file, body).unwrap();
    (headers.display().to_string(), file.display().to_string())
}

#[test]
fn a_captured_request_is_explained() {
    use scale_callback_auth::SigningSecret;
    use scale_callback_auth::sign::{AuthHeader, Signer};
    let folder = tempfile::tempdir().unwrap();
    let body = r#"{"task":{"task_id":"t1"},"task_id":"t1"}"#;
    let signer = Signer::new(vec![SigningSecret::parse(SECRET).unwrap()], AuthHeader::Absent);
    let pairs = signer.sign("cb_1", 1_764_000_000, body.as_bytes()).to_pairs("cb_1");
    let good: String = pairs.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let good = format!("POST /callbacks HTTP/1.1\r\nHost: a\r\n{good}");
    let keys = [("SIGNING_SECRET", SECRET)];
    for (lines, body, keys, status, told) in [
        (good.clone(), body.to_owned(), keys, 0, "valid at its own time: cb_1, live keys, 40 bytes, task t1"),
        (good.clone(), body.to_owned(), keys, 0, "days ago: a receiver refuses it now"),
        (good.clone(), format!("{body}\n"), keys, 1, "a line end was added"),
        (good.clone(), body.replace(':', ": "), keys, 1, "rewritten with white space"),
        (good.clone(), body.to_owned(), [("SIGNING_SECRET", OTHER)], 1, "either the secret or key is another one"),
        (good.replace("1764000000", "1764000000000"), body.to_owned(), keys, 1, "13 digits: milliseconds"),
        (good.replace("webhook-signature", "x-other"), body.to_owned(), keys, 1, "webhook-signature is missing"),
        (
            good.replace("webhook-id: cb_1", "webhook-id: cb_1\r\n more"),
            body.to_owned(),
            keys,
            2,
            "line 4 continues the one before it",
        ),
        (
            format!("{good}webhook-id: cb_2\r\n"),
            body.to_owned(),
            keys,
            2,
            "line 6: webhook-id appears a second time (first on line 3)",
        ),
        (good.clone(), body.to_owned(), [("HMAC_KEY", HMAC)], 1, "scale-callback-auth is missing"),
        (good.replace("v1,", "v2,"), body.to_owned(), keys, 1, "no entry that begins with v1,"),
        (
            format!("\u{feff}{}", good.split_once("\r\n").unwrap().1),
            body.to_owned(),
            keys,
            0,
            "begins with a byte order mark",
        ),
        (good.clone(), String::new(), keys, 1, "the body's file is empty"),
    ] {
        let (headers, file) = capture(folder.path(), &lines, &body);
        let (seen, printed) = run(&["verify", "--headers", &headers, "--body", &file], &keys);
        assert_eq!(seen, Some(status), "{told}: {printed}");
        assert!(printed.contains(told), "{told}: {printed}");
        assert!(!printed.contains(SECRET) && !printed.contains(&pairs[2].1), "{printed}");
    }
}

#[test]
fn a_gate_before_a_receiver_passes_the_corpus() {
    let keys = [("SIGNING_SECRET", SECRET), ("AUTH_KEY", AUTH)];
    let mut receiver = Going::start(&["listen", "--listen", "127.0.0.1:0"], &keys);
    // Behind the gate the receiver verifies once more, which takes the auth header too.
    let behind = receiver.told("listening at ");
    let mut gate = Going::start(
        &[
            "gate",
            "--listen",
            "127.0.0.1:0",
            "--upstream",
            behind.trim_end_matches('/'),
            "--keep-auth-header",
            "--admin",
            "127.0.0.1:0",
        ],
        &keys,
    );
    let url = gate.told("the gate listens at ");
    assert!(gate.told("health and metrics at ").starts_with("http://127.0.0.1:"));
    assert_eq!(run(&["send", &url], &keys).0, Some(0));
    let (status, told) = run(&["test-receiver", &url], &keys);
    assert!(
        status == Some(0) && told.contains("0 forgeries accepted, 0 wrongly refused, 0 failed, 0 too lenient"),
        "{told}"
    );
    let (status, told) = run(&["test-receiver", &url, "--all"], &keys);
    assert!(status == Some(0) && told.lines().count() > 70, "{told}");
    let (status, told) = run(&["test-receiver", &url, "--case", "signature hex/keyed"], &keys);
    assert!(
        status == Some(0) && told.contains("\nwebhook-signature: v1,") && told.contains("right: signature hex"),
        "{told}"
    );
    let (status, told) = run(&["test-receiver", &url, "--case", "nothing/keyed"], &keys);
    assert!(status == Some(1) && told.contains("there is no case"), "{told}");
    let known = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(known.path(), "# none\nsignature hex/keyed\n").unwrap();
    let (status, told) = run(&["test-receiver", &url, "--known", known.path().to_str().unwrap()], &keys);
    assert!(status == Some(1) && told.contains("known, and no longer so: signature hex/keyed"), "{told}");
    let (status, told) = run(&["test-receiver", &url], &[("SIGNING_SECRET", OTHER), ("AUTH_KEY", AUTH)]);
    assert!(status == Some(1) && told.contains("every request was refused") && told.lines().count() == 2, "{told}");
    assert_eq!(gate.stop().0, Some(0));
    receiver.stop();
    let (status, told) = run(&["test-receiver", &url], &keys);
    assert!(status == Some(1) && told.contains("no connection"), "{told}");
}

#[test]
fn a_receiver_that_believes_everything_is_found_out() {
    let keys = [("SIGNING_SECRET", SECRET), ("AUTH_KEY", AUTH)];
    let lax = lax_receiver();
    let (status, told) = run(&["test-receiver", &lax], &keys);
    assert!(status == Some(1) && told.contains("FORGERY ACCEPTED, rule 4, timestamp_too_old"), "{told}");
    assert!(["rule 1,", "rule 2,", "rule 5,"].iter().all(|rule| told.contains(rule)), "{told}");
    let forged = told.find("FORGERY ACCEPTED").zip(told.find("too lenient, rule"));
    assert!(forged.is_some_and(|(forgery, lenient)| forgery < lenient), "what matters most comes first: {told}");
    let (status, told) = run(&["test-receiver", &lax, "--json"], &keys);
    let json = told.lines().find(|line| line.starts_with('{')).and_then(|line| serde_json::from_str(line).ok());
    let json: serde_json::Value = json.unwrap_or_else(|| panic!("{told}"));
    assert!(status == Some(1) && json["forgeries_accepted"].as_u64() > Some(20), "{told}");
    let case = |name: &str| json["cases"].as_array().unwrap().iter().find(|case| case["case"] == name).unwrap().clone();
    assert_eq!(case("signed other, auth key main/keyed")["verdict"], "forgery_accepted");
    assert_eq!(case("two ids/keyed")["verdict"], "too_lenient");
    let (status, told) = run(&["test-receiver", &lax, "--format", "junit"], &keys);
    assert!(
        status == Some(1) && told.contains("<failure type=\"forgery_accepted\"") && told.contains("<skipped message="),
        "{told}"
    );
    assert!(told.starts_with("<?xml version=\"1.0\"") && told.contains("</testsuite>\n"), "{told}");
}

/// Answers 204 to everything, for as long as this process lives.
fn lax_receiver() -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/callbacks", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                // It answers whatever comes, and reads on until the sender is done. A sender may leave at any time.
                if stream.read(&mut [0; 65_536]).unwrap_or(0) == 0 {
                    return;
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").ok();
                std::io::copy(&mut stream, &mut std::io::sink()).ok();
            });
        }
    });
    url
}

/// Runs a command whose output nobody reads: its status, and what it says on standard error.
fn without_reader(mut command: Command) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_that_has_gone_is_met_with_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (headers, body) = capture(folder.path(), "webhook-id: cb_1\r\n", "{}");
    let keys = [("SIGNING_SECRET", SECRET)];
    let (status, told) = without_reader(command(&["verify", "--headers", &headers, "--body", &body], &keys));
    assert_eq!((status, told.as_str()), (Some(1), ""), "the verdict is the exit status");
    assert_eq!(without_reader(command(&["completion", "bash"], &[])), (Some(0), String::new()));
    assert_eq!(without_reader(command(&["--help"], &[])), (Some(0), String::new()));
    // A command that goes on has nobody left to tell anything.
    assert_eq!(without_reader(command(&["listen", "--listen", "127.0.0.1:0"], &keys)), (Some(0), String::new()));
}

#[test]
fn help_and_completion_are_there() {
    let (status, told) = run(&["help", "verify"], &[]);
    assert!(status == Some(0) && told.contains("--headers <FILE>"), "{told}");
    for shell in ["bash", "zsh", "fish"] {
        let (status, told) = run(&["completion", shell], &[]);
        assert!(status == Some(0) && told.contains("test-receiver"), "{told}");
    }
}

#[test]
fn programs_get_json() {
    let keys = [("SIGNING_SECRET", SECRET)];
    let arguments = ["listen", "--json", "--listen", "127.0.0.1:0", "--count", "2", "--timeout", "60s", "--print-body"];
    let mut listening = Going::start(&arguments, &keys);
    let mut first = String::new();
    listening.out.read_line(&mut first).unwrap();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["event"], "listening");
    let url = first["url"].as_str().unwrap().to_owned();
    let (status, told) = run(&["send", &url, "--json", "--id", "cb_1", "--task-id", "t1"], &keys);
    let sent: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(status == Some(0) && sent["status"] == 204 && sent["webhook_id"] == "cb_1", "{told}");
    let (status, told) = run(&["--json", "send", &url], &[("SIGNING_SECRET", OTHER)]);
    let sent: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(status == Some(1) && sent["status"] == 401 && sent["hint"].is_string(), "{told}");
    assert_eq!(run(&["send", &url, "--id", "cb_1", "--task-id", "t1"], &keys).0, Some(0));
    let (status, lines) = listening.end();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((status, lines.len()), (Some(0), 3), "{lines:?}");
    let verdicts: Vec<_> = lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["valid", "refused", "valid"]);
    assert!(lines[0]["task_id"] == "t1" && lines[0]["answered"] == 204 && lines[0]["repeat"] == false, "{lines:?}");
    assert!(lines[1]["reason"] == "signature_mismatch" && lines[2]["repeat"] == true, "{lines:?}");
    assert!(lines[0]["body"].as_str().unwrap().contains("t1") && lines[0]["at"].as_str().unwrap().ends_with('Z'));
    let (status, told) = run(&["send", "--json", "http://127.0.0.1:9/"], &keys);
    let failed: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(status == Some(1) && failed["exit_status"] == 1 && failed["error"].is_string(), "{told}");
    let folder = tempfile::tempdir().unwrap();
    let (headers, body) = capture(folder.path(), "webhook-id: cb_1\r\n", "{}");
    let (status, told) = run(&["verify", "--json", "--headers", &headers, "--body", &body], &keys);
    let verdict: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(status == Some(1) && verdict["valid"] == false && verdict["reason"] == "timestamp_missing", "{told}");
}

#[test]
fn a_gate_that_lets_others_in_warns_and_in_strict_mode_does_not_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("SCALE_CALLBACK_SIGNING_SECRET={SECRET}\n")).unwrap();
    let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    let keys = file.path().to_str().unwrap();
    let arguments = ["gate", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:1", "--keys-file", keys];
    mode(0o644);
    let mut loose = Going::start(&arguments, &[]);
    assert_eq!(loose.told("warning: "), format!("{keys}:"));
    loose.stop();
    let strict = [&arguments[..], &["--strict"]].concat();
    let (status, told) = run(&strict, &[]);
    assert!(status == Some(2) && told.contains("every user of this machine can read it"), "{told}");
    mode(0o600);
    let mut tight = Going::start(&strict, &[]);
    assert!(tight.told("the gate listens at ").starts_with("http://127.0.0.1:"));
    let (_, rest) = tight.stop();
    assert!(!rest.contains("warning"), "{rest}");
    let public: Vec<&str> =
        strict.iter().map(|word| if *word == "127.0.0.1:0" { "0.0.0.0:0" } else { *word }).collect();
    let (status, told) = run(&public, &[]);
    assert!(status == Some(2) && told.contains("without TLS"), "{told}");
}

/// Arguments, keys, the exit status, and what is told.
type Case<'c> = (&'c [&'c str], &'c [(&'c str, &'c str)], i32, &'c str);

fn each_is_refused(cases: &[Case<'_>]) {
    for (arguments, keys, status, told) in cases {
        let (seen, printed) = run(arguments, keys);
        assert_eq!(seen, Some(*status), "{arguments:?}: {printed}");
        assert!(printed.contains(told), "{arguments:?}: {printed}");
        assert!(!printed.contains("panicked") && !printed.contains(SECRET), "{printed}");
    }
}

#[test]
fn each_mistake_about_a_proxy_is_one_sentence() {
    let signed = [("SIGNING_SECRET", SECRET)];
    each_is_refused(&[
        (
            &["gate", "--upstream", "http://127.0.0.1:1", "--trusted-proxy", "10/8"],
            &signed,
            2,
            "is not a network; write",
        ),
        (
            &["gate", "--upstream", "http://127.0.0.1:1", "--trusted-proxy", "10.0.0.1/8"],
            &signed,
            2,
            "write 10.0.0.0/8",
        ),
        (&["gate", "--upstream", "http://127.0.0.1:1", "--proxy-protocol"], &signed, 2, "--trusted-proxy"),
    ]);
}

#[test]
fn each_mistake_is_one_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let signed = [("SIGNING_SECRET", SECRET)];
    let both = [("SIGNING_SECRET", SECRET), ("HMAC_KEY", HMAC)];
    let quoted_secret = format!("\"{SECRET}\"");
    let quoted = [("SIGNING_SECRET", quoted_secret.as_str())];
    let tests = [("TEST_SIGNING_SECRET", SECRET)];
    let strangers = [("SIGNING_SECRET", "whsec_JMcoZdyxUw7P0rQVNTJncgcfLr2IK/vG")];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "webhook-id: x\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())
        .unwrap();
    let utf16 = file.path().to_str().unwrap();
    let cases: [Case<'_>; 26] = [
        (&["gate", "--upstream", "http://127.0.0.1:1"], &[], 2, "SCALE_CALLBACK_SIGNING_SECRET is not set (nor"),
        (&["gate", "--upstream", "https://a"], &signed, 2, "is not an upstream; write http://HOST:PORT"),
        (&["gate", "--upstream", "http://127.0.0.1:1", "--path", "callbacks"], &signed, 2, "a path begins with /"),
        (&["gate", "--upstream", "http://127.0.0.1:1", "--listen", &taken], &signed, 1, "or choose another address"),
        (
            &["gate", "--upstream", "http://127.0.0.1:1", "--keys-file", "/nonexistent"],
            &signed,
            2,
            "/nonexistent: No such file",
        ),
        (&["gate", "--upstream", "http://127.0.0.1:1", "--tls-cert", "/x"], &signed, 2, "--tls-key"),
        (
            &["gate", "--upstream", "http://127.0.0.1:1", "--tls-cert", "/x.pem", "--tls-key", "/y"],
            &signed,
            2,
            "/x.pem: ",
        ),
        (&["listen", "--listen", &taken], &[], 1, "or choose another address"),
        (&["listen", "--times", "2"], &signed, 2, "--status"),
        (&["listen", "--count", "abc"], &signed, 2, "write a whole number, at least 1"),
        (&["listen", "--delay", "soon"], &signed, 2, "write for example 500ms, 30s or 5m"),
        (&["send", "nonsense"], &signed, 2, "is not the URL of a receiver"),
        (&["send", "http://127.0.0.1:9/"], &[], 2, "SCALE_CALLBACK_SIGNING_SECRET is not set"),
        (&["send", "http://127.0.0.1:9/"], &signed, 1, "no connection"),
        (&["send", "http://127.0.0.1:9/", "--id", "a.b"], &signed, 2, "an id is 1 to 64 of"),
        (&["test-receiver", "http://127.0.0.1:9/"], &both, 2, "say which one the receiver checks: --form"),
        (&["verify", "--headers", "/nonexistent", "--body", "/dev/null"], &signed, 2, "/nonexistent: No such file"),
        (&["listen", "--listen", "localhost:1"], &signed, 2, "write an address and a port"),
        (&["send", "http://127.0.0.1:9/", "--ca-file", "/nonexistent"], &signed, 2, "--ca-file /nonexistent: "),
        (&["send", "https://127.0.0.1:9/", "--ca-file", "/dev/null"], &signed, 2, "it holds no certificate"),
        (&["send", "http://user:hush@host/"], &signed, 2, "\"...@host/\" is not the URL of a receiver"),
        (&["verify", "--headers", "/dev/null", "--body", "/dev/null"], &quoted, 2, "(it holds a quotation mark)"),
        (&["gate", "--upstream", "http://127.0.0.1:1"], &tests, 2, "(only keys for test callbacks are set)"),
        (&["gate", "--upstream", "http://127.0.0.1:1", "--upstream-timeout", "0s"], &signed, 2, "100ms and 60s"),
        (&["test-receiver", "http://127.0.0.1:9/"], &strangers, 2, "give the receiver a key of its own"),
        (&["verify", "--headers", utf16, "--body", "/dev/null"], &signed, 2, "it is UTF-16"),
    ];
    each_is_refused(&cases);
    let (_, printed) = run(&["listen", "--listen", &taken], &[]);
    assert!(!printed.contains("whsec_"), "no keys for a run that can't begin: {printed}");
}

#[test]
fn every_command_has_an_example_that_it_understands() {
    let (_, help) = run(&["--help"], &[]);
    let mut seen = 0;
    for name in ["gate", "listen", "send", "verify", "test-receiver", "completion"] {
        assert!(help.contains(name), "{help}");
        let (status, help) = run(&[name, "--help"], &[]);
        assert_eq!(status, Some(0));
        let example = help.split_once("Example:\n").unwrap_or_else(|| panic!("{name} has no example: {help}")).1;
        let words: Vec<_> = example.split_whitespace().collect();
        assert_eq!(words[..2], ["scale-callback", name], "{example}");
        // The command understands its example: it does not complain about its arguments. Without keys `listen` would go on.
        let words: Vec<_> = words[1..].iter().map(|word| if *word == "30s" { "200ms" } else { word }).collect();
        let words: Vec<_> =
            words.iter().map(|word| if *word == "127.0.0.1:8080" { "127.0.0.1:0" } else { *word }).collect();
        let mut words = words;
        if name == "listen" {
            words.extend(["--listen", "127.0.0.1:0"]);
        }
        let (_, printed) = run(&words, &[]);
        assert!(!printed.contains("Usage:") && !printed.contains("unexpected"), "{words:?}: {printed}");
        seen += 1;
    }
    assert_eq!(seen, 6);
}
