//! Callbacks whose attempts end the process that makes them, and innocent ones that only look like them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::{Received, Reply};
use scale_callback_auth::{Credential, Verifier};
use serde_json::Value;

use crate::harness::{TEAM, until};
use crate::kafka::{create_topic, events, produce, shared_broker};
use crate::process::Process;

/// Retries come soon, and the lease of a killed process ends soon on a store that others share.
const QUICK: &str = "[retry]\nfirst = \"200ms\"\n[deliver]\ntotal_timeout = \"5s\"\nlease = \"15s\"\n";
const ALONE: &str = "is tried in a process of its own";
const PATIENCE: Duration = Duration::from_secs(60);

/// Receivers at `/held` answer 503, hang, or answer 200.
const REFUSES: u8 = 0;
const HANGS: u8 = 1;
const ANSWERS: u8 = 2;

/// A process with a team, and a receiver whose answers at `/held` can be changed. All others are answered at once.
async fn started(topic: &str) -> (Process, Recorder, Arc<AtomicU8>) {
    let servers = shared_broker();
    create_topic(&servers, topic, 1).await;
    let mut process = Process::new(&servers, topic, QUICK);
    process.start(None, "info").await;
    let (secret, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let mode = Arc::new(AtomicU8::new(REFUSES));
    let now = Arc::clone(&mode);
    let rule = Arc::new(move |received: &Received, _| match now.load(Ordering::SeqCst) {
        _ if received.path != "/held" => Reply::status(200),
        REFUSES => Reply::status(503),
        HANGS => Reply::status(200).after(Duration::from_secs(60)),
        _ => Reply::status(200),
    });
    (process, Recorder::start(verifier, rule).await.unwrap(), mode)
}

/// The only callback in this state, when it is there.
async fn the_one(process: &Process, state: &str) -> Value {
    until(&format!("one callback is {state}"), async || {
        let listed = process.json(&["callbacks", "list", "--state", state]);
        listed["docs"].as_array().filter(|docs| docs.len() == 1).map(|docs| docs[0].clone())
    })
    .await
}

/// Waits until a first attempt has failed, so that the callback has a row, and ends the process.
async fn failed_once(process: &mut Process, receiver: &Recorder) {
    assert!(receiver.until(PATIENCE, |receipts| !receipts.is_empty()).await, "{}", process.log_text());
    until("the callback has a row", async || {
        let listed = process.json(&["callbacks", "list", "--state", "pending"]);
        listed["docs"].as_array().filter(|docs| docs.len() == 1).map(|_| ())
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_ends_its_process_ends_alone_and_the_others_arrive() {
    let (mut process, receiver, _mode) = started("suspects").await;
    let url = receiver.url("/held");
    let value = format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"task-abort","callback_url":"{url}"}}}}"#);
    produce(&shared_broker(), "suspects", 1, &[("k".to_owned(), value)]);
    failed_once(&mut process, &receiver).await;
    for death in 1..=2 {
        process.spawn(Some("abort"), "info");
        assert_eq!(process.ended().await, -1, "death {death}: {}", process.log_text());
    }
    let before = receiver.count();
    process.start(Some("abort"), "info").await;
    produce(&shared_broker(), "suspects", 1, &events(0, 5, &receiver.url("/others")));
    let ended = the_one(&process, "abandoned").await;
    assert_eq!(ended["reason"], "poison", "{ended}");
    assert_eq!(ended["last_outcome"], "panicked", "{ended}");
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() == before + 5).await, "{}", process.log_text());
    let id = ended["callback_id"].as_str().unwrap();
    let attempts = process.json(&["callbacks", "attempts", id]);
    let deaths = attempts["docs"].as_array().unwrap().iter().filter(|attempt| attempt["outcome"] == "panicked").count();
    assert_eq!(deaths, 2, "two deaths alone: {attempts}");
    let log = process.log_text();
    assert!(log.contains(ALONE) && log.contains("the daemon goes on"), "{log}");
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "the daemon lived: {}", process.log_text());
    assert!(receiver.refused().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_innocent_callback_that_was_killed_again_and_again_is_delivered() {
    let (mut process, receiver, mode) = started("innocent").await;
    produce(&shared_broker(), "innocent", 1, &events(0, 1, &receiver.url("/held")));
    failed_once(&mut process, &receiver).await;
    mode.store(HANGS, Ordering::SeqCst);
    for kill in 1..=3 {
        let before = receiver.count();
        process.start(None, "info").await;
        let is_under_way = receiver.until(PATIENCE, |receipts| receipts.len() > before).await;
        assert!(is_under_way, "kill {kill}: {}", process.log_text());
        let times = || process.log_text().matches(ALONE).count();
        until("the third start is made alone", async || (kill < 3 || times() == 1).then_some(())).await;
        assert_eq!(times(), usize::from(kill == 3), "start {kill} since its last settle");
        process.kill();
    }
    mode.store(ANSWERS, Ordering::SeqCst);
    process.start(None, "info").await;
    let delivered = the_one(&process, "delivered").await;
    assert_eq!(delivered["last_outcome"], "ok", "{delivered}");
    until("the log tells of both attempts alone", async || {
        (process.log_text().matches(ALONE).count() == 2).then_some(())
    })
    .await;
    // What a process of its own sends is signed like everything else.
    assert!(receiver.refused().is_empty());
}
