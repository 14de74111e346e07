//! A store is backed up while the daemon works on it, and a restored one loses nothing: Kafka's offsets are ahead of it then.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{TEAM, until};
use crate::kafka::{by_task, create_topic, events, produce, shared_broker};
use crate::process::{BINARY, Process};

const TOPIC: &str = "backups";
const EVENTS: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(120);

fn backup(process: &Process, to: &std::path::Path) -> std::process::Output {
    let mut command = std::process::Command::new(BINARY);
    command.args(["--json", "store", "backup"]).arg(to).arg("--config").arg(process.config()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_store_is_whole_and_loses_nothing_when_it_is_restored() {
    let servers = shared_broker();
    create_topic(&servers, TOPIC, 2).await;
    let mut daemon = Process::with_store(&servers, TOPIC, "", "");
    daemon.start(None, "info").await;
    let (secret, key) = daemon.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let receiver = Recorder::start(verifier, Arc::new(|_: &_, _| Reply::status(204))).await.unwrap();
    let arrived = |count: u64| {
        let receiver = &receiver;
        async move { receiver.until(PATIENCE, |receipts| by_task(receipts).len() as u64 >= count).await }
    };
    produce(&servers, TOPIC, 2, &events(0, EVENTS / 2, &receiver.url("/")));
    // In the middle of the work.
    assert!(arrived(EVENTS / 8).await, "{}", daemon.log_text());
    // A copy from before the first watermark knows nothing of this Kafka cluster, and an operator is asked what to do.
    until("the store has read some of it", async || {
        let offsets = daemon.json(&["offsets", "show"]);
        offsets["docs"].as_array()?.iter().any(|doc| doc["watermark"].as_i64() > Some(0)).then_some(())
    })
    .await;
    let copy = daemon.folder.path().join("copy");
    let made = backup(&daemon, &copy);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let told: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(told["store_id"], daemon.json(&["status"])["store_id"]);
    for (path, mode) in [(copy.clone(), 0o700), (copy.join("callbackd.db"), 0o600)] {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    // Nothing is overwritten, and nothing is left of a copy that can't be made.
    let again = backup(&daemon, &copy);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"), "{again:?}");
    assert_eq!(backup(&daemon, &daemon.folder.path().join("nowhere/copy")).status.code(), Some(2));
    assert!(!daemon.folder.path().join("copy.part").exists());

    produce(&servers, TOPIC, 2, &events(EVENTS / 2, EVENTS / 2, &receiver.url("/")));
    assert!(arrived(EVENTS).await, "{}", daemon.log_text());
    until("all are settled", async || (daemon.metric("callbackd_unsettled").await == Some(0.0)).then_some(())).await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log_text());
    let store = daemon.folder.path().join("store");
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&copy, &store).unwrap();
    let before: HashSet<String> = receiver.receipts().iter().map(|receipt| receipt.id.clone()).collect();
    daemon.start(None, "info").await;
    produce(&servers, TOPIC, 2, &events(EVENTS, 10, &receiver.url("/")));
    assert!(arrived(EVENTS + 10).await, "{}", daemon.log_text());
    until("all are settled", async || (daemon.metric("callbackd_unsettled").await == Some(0.0)).then_some(())).await;
    assert!(daemon.log_text().contains("the store went back"), "{}", daemon.log_text());
    let receipts = receiver.receipts();
    let ids: HashSet<&str> = receipts.iter().map(|receipt| receipt.id.as_str()).collect();
    assert_eq!(ids.len() as u64, EVENTS + 10, "what is sent again has the same id");
    let repeats = receipts.len() - ids.len();
    assert!(repeats < before.len(), "what the backup knows is not sent again: {repeats} of {}", before.len());
    // The copy was whole.
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log_text());
    let config = daemon.config();
    let verified = crate::process::run(&["store", "verify", "--config", config.to_str().unwrap()], &[]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
