//! Two daemons, each on a copy of the same store.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{TEAM, until};
use crate::kafka::{by_task, committed, create_topic, events, produce, shared_broker};
use crate::process::Process;

const TOPIC: &str = "twins";
const EVENTS: usize = 20;

fn copy(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).ok();
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The third words of what the group has beside its offsets: times, or 0 once a run has ended.
fn times(servers: &str) -> Vec<i64> {
    let time = |mark: &str| mark.split(' ').nth(2)?.parse().ok();
    committed(servers, TOPIC, 2).elements().iter().filter_map(|element| time(element.metadata())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_daemons_on_copies_of_a_store_the_later_one_waits() {
    let servers = shared_broker();
    create_topic(&servers, TOPIC, 2).await;
    let more = "[retry]\nfirst = \"2s\"\n";
    let mut first = Process::new(&servers, TOPIC, more);
    first.start(None, "info").await;
    let (secret, key) = first.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let accepts = Arc::new(AtomicBool::new(false));
    let rule = {
        let accepts = Arc::clone(&accepts);
        Arc::new(move |_: &_, _| Reply::status(if accepts.load(Ordering::SeqCst) { 200 } else { 503 }))
    };
    let receiver = Recorder::start(verifier, rule).await.unwrap();
    produce(&servers, TOPIC, 2, &events(0, EVENTS as u64, &receiver.url("/")));
    until("all were tried", async || (by_task(&receiver.receipts()).len() == EVENTS).then_some(())).await;
    first.signal("TERM");
    assert_eq!(first.ended().await, 0, "{}", first.log_text());
    assert_eq!(times(&servers), [0, 0], "it says that it ended");

    let mut second = Process::new(&servers, TOPIC, more);
    for name in ["store", "keyring"] {
        copy(&first.folder.path().join(name), &second.folder.path().join(name));
    }
    accepts.store(true, Ordering::SeqCst);
    first.start(None, "info").await;
    let pending = async |process: &Process| process.json(&["status"])["pending"].as_u64().unwrap();
    until("the first one delivers all", async || (pending(&first).await == 0).then_some(())).await;
    until("it marks its offsets", async || times(&servers).iter().all(|time| *time > 0).then_some(())).await;
    let posted = receiver.count();

    second.start(None, "info").await;
    let told = "another callbackd runs on a copy of this store";
    until("the second one says why it waits", async || {
        let (status, page) = second.page("/readyz").await?;
        (status == 503 && page.contains(told)).then_some(())
    })
    .await;
    // Its callbacks have been due since before its start. It starts none of them, and it reads nothing.
    produce(&servers, TOPIC, 2, &events(100, 4, &receiver.url("/")));
    until("the first one reads on", async || (receiver.count() >= posted + 4).then_some(())).await;
    assert_eq!(receiver.count(), posted + 4, "a copy posts nothing");
    assert_eq!(pending(&second).await, EVENTS as u64);
    assert_eq!(first.page("/readyz").await.unwrap().0, 200);

    // A restart of the first one hands nothing over to the copy, though its run is the later one now.
    first.signal("TERM");
    assert_eq!(first.ended().await, 0, "{}", first.log_text());
    first.start(None, "info").await;
    until("the first one is ready", async || (first.page("/readyz").await?.0 == 200).then_some(())).await;
    produce(&servers, TOPIC, 2, &events(200, 4, &receiver.url("/")));
    until("it reads on", async || (receiver.count() >= posted + 8).then_some(())).await;
    assert_eq!(second.page("/readyz").await.unwrap().0, 503);
    assert_eq!(receiver.count(), posted + 8, "a copy posts nothing");

    // An operator decides that the copy is the right one.
    for process in [&mut first, &mut second] {
        process.signal("TERM");
        assert_eq!(process.ended().await, 0, "{}", process.log_text());
    }
    second.start(None, "info").await;
    until("the second one begins", async || (second.page("/readyz").await?.0 == 200).then_some(())).await;
}
