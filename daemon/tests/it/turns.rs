//! What can be changed while the daemon runs (SIGHUP, the level of its logs), and the check before the start.

use callbackd::demo::broker::Broker;
use callbackd_bench::recorder::{Recorder, Rule};
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{TEAM, until};
use crate::kafka::{create_topic, produce, shared_broker};
use crate::process::{Process, run};

fn event(task: &str, url: &str) -> (String, String) {
    let value = format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"{task}","callback_url":"{url}"}}}}"#);
    (task.to_owned(), value)
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_takes_what_its_comments_say_and_a_mistake_changes_nothing() {
    let servers = shared_broker();
    create_topic(&servers, "reload", 1).await;
    let mut process = Process::new(&servers, "reload", "level = \"info\"\n[retry]\nretries = 0\n");
    process.start(None, "").await;
    let (signing, auth) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &signing, &auth).unwrap());
    let rule: Rule = std::sync::Arc::new(|_, _| Reply::status(204));
    let receiver = Recorder::start(verifier, rule).await.unwrap();
    let state = |task: &str| -> Option<String> {
        let listed = process.json(&["callbacks", "list", "--task", task]);
        listed["docs"].get(0)?["state"].as_str().map(str::to_owned).filter(|state| state != "pending")
    };
    produce(&servers, "reload", 1, &[event("before", &receiver.url("/"))]);
    assert_eq!(until("before ends", async || state("before")).await, "delivered");

    // Loopback is not allowed any more. Connections that an older policy allowed are not used again.
    process.edit("[[egress.allow]]\nnet = \"127.0.0.0/8\"\n", "[kafka.property_files]\n");
    process.edit("level = \"info\"", "level = \"debug\"");
    process.edit("group = \"reload\"", "group = \"another\"");
    process.signal("HUP");
    // The log names the settings that need a restart.
    let told = async || Some(process.log_text()).filter(|log| log.contains("these changes need a restart"));
    let log = until("it was read again", told).await;
    assert!(log.contains("changed=\"egress.allow log.level\""), "{log}");
    assert!(log.contains("kafka.group"), "{log}");
    produce(&servers, "reload", 1, &[event("after", &receiver.url("/"))]);
    assert_eq!(until("after ends", async || state("after")).await, "abandoned");
    assert_eq!(receiver.count(), 1);
    assert!(process.log_text().contains(" DEBUG "), "the level was changed");
    assert_eq!(process.metric("callbackd_config_reloads_total{result=\"ok\"}").await, Some(1.0));

    // The warning comes again as long as the file and the running daemon differ.
    let warnings = || process.log_text().matches("these changes need a restart").count();
    assert_eq!(warnings(), 1);
    process.signal("HUP");
    until("it is warned of again", async || (warnings() == 2).then_some(())).await;
    process.edit("group = \"another\"", "group = \"reload\"");
    process.signal("HUP");
    until("it was read", async || {
        (process.metric("callbackd_config_reloads_total{result=\"ok\"}").await == Some(3.0)).then_some(())
    })
    .await;
    assert_eq!(warnings(), 2, "the file and the running daemon agree");

    // A mistake changes nothing, and the log says so.
    process.edit("retries = 0", "retries = \"many\"");
    process.signal("HUP");
    until("it was refused", async || process.log_text().contains("refused: nothing has changed").then_some(())).await;
    assert!(process.log_text().contains("retry.retries"), "{}", process.log_text());
    assert_eq!(process.metric("callbackd_config_reloads_total{result=\"refused\"}").await, Some(1.0));
    // The daemon still runs.
    process.edit("retries = \"many\"", "retries = 0");
    process.edit("[kafka.property_files]\n", "[[egress.allow]]\nnet = \"127.0.0.0/8\"\n");
    process.signal("HUP");
    until("it was read once more", async || {
        (process.metric("callbackd_config_reloads_total{result=\"ok\"}").await == Some(4.0)).then_some(())
    })
    .await;
    produce(&servers, "reload", 1, &[event("again", &receiver.url("/"))]);
    assert_eq!(until("again ends", async || state("again")).await, "delivered");
    process.json(&["config", "log-level", "warn"]);
    assert_eq!(process.json(&["config", "log-level"])["level"], "warn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_knows_what_failed_before_and_how_the_last_run_ended() {
    let servers = shared_broker();
    create_topic(&servers, "restarted", 1).await;
    let mut process = Process::new(&servers, "restarted", "[retry]\nfirst = \"1h\"\n");
    // A start that is refused makes no instance.
    let held = std::net::TcpListener::bind(process.ops).unwrap();
    let refused = run(&["run", "--config", &process.config().display().to_string()], &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    drop(held);
    process.start(None, "info").await;
    assert!(!process.log_text().contains("did not end cleanly"), "{}", process.log_text());

    let (signing, auth) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &signing, &auth).unwrap());
    let rule: Rule = std::sync::Arc::new(|_, _| Reply::status(503));
    let receiver = Recorder::start(verifier, rule).await.unwrap();
    produce(&servers, "restarted", 1, &[event("fails", &receiver.url("/"))]);
    let failed = |process: &Process| {
        let listed = process.json(&["callbacks", "list", "--task", "fails"]);
        let callback = listed["docs"].get(0)?.clone();
        (callback["attempts"] == 1 && callback["in_flight"] == false).then_some(callback)
    };
    let before = until("its attempt is recorded", async || failed(&process)).await;
    assert_eq!((before["last_status"].as_u64(), before["state"].as_str()), (Some(503), Some("pending")), "{before}");

    process.kill();
    process.start(None, "info").await;
    assert!(process.log_text().contains("did not end cleanly"), "{}", process.log_text());
    assert_eq!(failed(&process).unwrap(), before);
    let endpoint = process.json(&["endpoints", "list"])["docs"][0].clone();
    assert_eq!(endpoint["last_outcome"], "server_error", "{endpoint}");
    assert_eq!(endpoint["consecutive_failures"], 1, "{endpoint}");
    let status = process.json(&["status"]);
    assert_eq!(status["worst_endpoints"][0]["origin"], endpoint["origin"], "{status}");
    let runs: Vec<_> = status["instances"].as_array().unwrap().iter().map(|run| run["state"].clone()).collect();
    assert_eq!(runs, ["running", "died"], "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_the_lag_is_not_known_and_a_note_says_why() {
    let mut process = Process::new("127.0.0.1:9", "away", "");
    process.start(None, "info").await;
    let status = process.json(&["status"]);
    assert!(status["ready"] == true && status["lag"].is_null(), "{status}");
    assert!(status["note"].as_str().is_some_and(|note| note.contains("Kafka can't be reached")), "{status}");
    assert_eq!(process.metric("callbackd_partitions").await, Some(0.0));
}

/// The findings of `check`, and its exit status.
fn check(process: &Process) -> (Vec<serde_json::Value>, i32) {
    let config = process.config().display().to_string();
    let output = run(&["--json", "check", "--config", &config], &[]);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    });
    (found, output.status.code().unwrap())
}

fn verdict(found: &[serde_json::Value], what: &str) -> (String, String) {
    let finding = found.iter().find(|finding| finding["what"] == what);
    let finding = finding.unwrap_or_else(|| panic!("nothing is said of {what}: {found:?}"));
    assert_eq!(finding["fix"].is_null(), finding["verdict"] == "ok", "{finding}");
    (finding["verdict"].as_str().unwrap().to_owned(), finding["detail"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_would_fail_and_how_to_mend_it() {
    let servers = shared_broker();
    create_topic(&servers, "checked", 3).await;
    produce(&servers, "checked", 3, &[event("a", "http://a.example/")]);
    let dns = callbackd_bench::dns::NameServer::start().await.unwrap();
    let more = format!("[dns]\nservers = [\"{}\"]\n", dns.address);
    let mut process = Process::new(&servers, "checked", &more);
    let (found, status) = check(&process);
    let said = |what: &str| verdict(&found, what).0;
    assert_eq!((status, said("kafka").as_str(), said("topic checked").as_str()), (0, "ok", "ok"), "{found:?}");
    let retries = verdict(&found, "retries").1;
    assert!(retries.starts_with("after ") && retries.contains(" attempts, within "), "{retries}");
    // The broker has its defaults: records up to 1 MiB, kept for a week.
    assert_eq!(said("topic checked, limits"), "ok", "{found:?}");
    for what in [
        "configuration",
        "store",
        "store, disk",
        "keyring",
        "dns",
        "certificate authorities",
        "ops.listen",
        "api.socket",
    ] {
        assert_ne!(said(what), "failed", "{what}: {found:?}");
    }
    assert!(!process.folder.path().join("store").exists(), "the check changes nothing");

    // A relative path begins at the folder of its file, even if that is the working directory.
    let absolute = std::fs::read_to_string(process.config()).unwrap();
    let folder = process.folder.path();
    std::fs::write(process.config(), absolute.replace(&format!("{}/", folder.display()), "")).unwrap();
    let inside = std::process::Command::new(crate::process::BINARY)
        .args(["check", "--config", "callbackd.toml"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stdout));
    assert_eq!(check(&process).1, 0, "and from elsewhere");
    std::fs::write(process.config(), absolute).unwrap();

    // While a daemon runs on the store, the things that it holds are not failures.
    process.start(None, "info").await;
    process.team(TEAM);
    let (found, status) = check(&process);
    assert_eq!((status, verdict(&found, "store").0.as_str()), (0, "warning"), "{found:?}");
    process.signal("TERM");
    process.ended().await;
    let (found, _) = check(&process);
    assert!(verdict(&found, "keyring").1.contains("it opens the store's keys"), "{found:?}");
    assert_eq!(verdict(&found, "clock").0, "ok");

    // Each mistake alone.
    let good = std::fs::read_to_string(process.config()).unwrap();
    let held = std::net::TcpListener::bind(process.ops).unwrap();
    let wrong_ring = process.folder.path().join("wrong-ring");
    callbackd::keyring::Keyring::create(&wrong_ring).unwrap();
    let ring = process.folder.path().join("keyring").display().to_string();
    let store = process.folder.path().join("store").display().to_string();
    for (what, detail, from, to) in [
        ("ops.listen", "in use", "", String::new()),
        ("kafka", "no broker answers", servers.as_str(), "127.0.0.1:9".to_owned()),
        ("topic checkedd", "it is not there", "topics = [\"checked\"]", "topics = [\"checkedd\"]".to_owned()),
        ("keyring", "can't be opened", ring.as_str(), wrong_ring.display().to_string()),
        ("keyring", "No such file", ring.as_str(), "/nonexistent/ring".to_owned()),
        ("store", "is not a directory", store.as_str(), format!("{ring}/inside")),
        ("dns", "did not answer", "[dns]\nservers = [", "[dns]\nservers = [\"127.0.0.1:9\"] #".to_owned()),
        (
            "certificate authorities",
            "No such file",
            "[log]",
            "[egress]\nca_file = \"/nonexistent.pem\"\n[log]".to_owned(),
        ),
    ] {
        let text = if from.is_empty() { good.clone() } else { good.replace(from, &to) };
        let text = if what == "certificate authorities" {
            text.replace("[[egress.allow]]\nnet = \"127.0.0.0/8\"\n", "")
        } else {
            text
        };
        std::fs::write(process.config(), text).unwrap();
        let (found, status) = check(&process);
        let (verdict, said) = verdict(&found, what);
        assert_eq!((status, verdict.as_str()), (1, "failed"), "{what}: {found:?}");
        assert!(said.contains(detail), "{what}: {said}");
    }
    drop(held);
    std::fs::write(
        process.config(),
        good.replace("[log]", "[intake]\nmax_event = \"64KiB\"\nbody_budget = \"1MiB\"\n[log]"),
    )
    .unwrap();
    let (found, status) = check(&process);
    assert_eq!(verdict(&found, "topic checked, limits").0, "warning", "{found:?}");
    assert_eq!(status, 0, "a warning is not a failure");

    // What works but is weak is reported with its fix; what loads code is refused.
    let (properties, password) = ("[kafka.properties]\n", process.folder.path().join("password"));
    std::fs::write(&password, "secret").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let with =
        |line: &str| std::fs::write(process.config(), good.replace(properties, &format!("{properties}{line}\n")));
    let files = format!("[kafka.property_files]\n\"sasl.password\" = \"{}\"\n{properties}", password.display());
    std::fs::write(process.config(), good.replace(properties, &files)).unwrap();
    let (found, status) = check(&process);
    let what = "kafka.property_files.sasl.password";
    assert_eq!((status, verdict(&found, what).0.as_str()), (0, "warning"), "{found:?}");
    assert_eq!(verdict(&found, "kafka, security").0, "ok", "the broker is on this machine: {found:?}");
    with("\"ssl.endpoint.identification.algorithm\" = \"none\"").unwrap();
    let (found, _) = check(&process);
    assert_eq!(verdict(&found, "kafka, security").0, "warning", "{found:?}");
    with("\"plugin.library.paths\" = \"/tmp/x.so\"").unwrap();
    let refused = run(&["check", "--config", &process.config().display().to_string()], &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("it loads code into the daemon"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_looked_into_while_nobody_runs_on_it() {
    let broker = Broker::start("looked", 1).unwrap();
    let mut process = Process::new(&broker.servers, "looked", "");
    let config = process.config().display().to_string();
    let ask = |arguments: &[&str]| run(&[arguments, &["--config", &config]].concat(), &[]);
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let before = ask(&["migrate", "--dry-run"]);
    assert_eq!(text(&before).matches("would be applied").count(), 17, "{}", text(&before));
    assert!(!process.folder.path().join("store").exists(), "nothing was made");
    process.start(None, "info").await;
    process.team(TEAM);
    process.signal("TERM");
    process.ended().await;
    assert_eq!(text(&ask(&["migrate", "--status"])).matches(" applied").count(), 17);
    assert!(text(&ask(&["migrate"])).contains("nothing to do"));
    let info = text(&ask(&["store", "info"]));
    assert!(info.contains("teams") && info.contains("0017_failed_attempts"), "{info}");
    assert!(info.lines().any(|line| line.contains("oldest_writer") && line.ends_with(" 14")), "{info}");
    assert!(ask(&["store", "verify"]).status.success());
    // The test damages a row and a page.
    let file = process.folder.path().join("store/callbackd.db");
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("INSERT INTO body (id, bytes) VALUES (x'00', x'00')").unwrap();
    drop(other);
    let verified = ask(&["store", "verify"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains("1 bodies without a pending callback"), "{}", text(&verified));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let broken = ask(&["store", "verify"]);
    assert_ne!(broken.status.code(), Some(0), "{}", text(&broken));
}
