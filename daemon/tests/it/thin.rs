//! Above their budget, bodies are not stored: they are read from Kafka again before each attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{TEAM, until, until_within};
use crate::kafka::{by_task, create_topic, delete_before, delete_topic, events, produce, shared_broker};
use crate::process::Process;

const BUDGET: f64 = 256.0 * 1024.0;
const DEAD: u64 = 400;
const HEALTHY: u64 = 100;
/// Kafka must say for a minute that a topic does not exist.
const LONG: Duration = Duration::from_secs(180);

/// A daemon whose store has room for few bodies, and a receiver whose answer can be changed.
async fn small(topic: &str, partitions: i32, retries: &str) -> (Process, Recorder, Arc<AtomicU16>, Recorder) {
    let servers = shared_broker();
    create_topic(&servers, topic, partitions).await;
    let mut process = Process::new(&servers, topic, retries);
    process.edit("[store]\n", "[store]\nparked_bytes = \"256KiB\"\nbodies = \"none\"\n");
    process.start(None, "info").await;
    let (secret, key) = process.team(TEAM);
    let verifier = || Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let status = Arc::new(AtomicU16::new(503));
    let now = Arc::clone(&status);
    let answer = move |_: &_, _| Reply::status(now.load(Ordering::SeqCst));
    let dead = Recorder::start(verifier(), Arc::new(answer)).await.unwrap();
    let healthy = Recorder::start(verifier(), Arc::new(|_: &_, _| Reply::status(204))).await.unwrap();
    // Only then may bodies be left to Kafka.
    until("it knows how long the topic keeps its records", async || {
        process.log_text().contains("the topic keeps its records").then_some(())
    })
    .await;
    (process, dead, status, healthy)
}

async fn without_body(process: &Process) -> f64 {
    process.metric("callbackd_stored_without_body_total").await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_endpoints_and_a_tiny_budget_bound_the_disk_and_all_arrives_on_recovery() {
    let topic = "thin";
    let retries = "[retry]\nfirst = \"500ms\"\ndoublings = 1\nretries = 100\nhorizon = \"1h\"\n";
    let (process, dead, status, healthy) = small(topic, 2, retries).await;
    let servers = shared_broker();
    produce(&servers, topic, 2, &events(0, DEAD, &dead.url("/")));
    produce(&servers, topic, 2, &events(DEAD, HEALTHY, &healthy.url("/")));
    let all_tried = async || {
        let bytes = process.metric("callbackd_store_parked_bytes").await?;
        assert!(bytes <= BUDGET, "{bytes} bytes of bodies");
        let pending = process.metric("callbackd_pending").await?;
        (healthy.count() as u64 >= HEALTHY && pending >= DEAD as f64).then_some(())
    };
    until("healthy receivers have theirs, and the others wait in the store", all_tried).await;
    assert!(without_body(&process).await > 0.0);
    assert!(process.json(&["status"])["note"].is_null(), "intake does not pause");
    let thin = process.json(&["callbacks", "list", "--state", "pending", "--limit", "1"]);
    let id = thin["docs"][0]["callback_id"].as_str().unwrap();
    let body = process.cli(&["callbacks", "payload", id]);
    assert!(body.stdout.starts_with(b"{\"task\":"), "{}", String::from_utf8_lossy(&body.stderr));

    status.store(204, Ordering::SeqCst);
    until("all arrive", async || {
        let bytes = process.metric("callbackd_store_parked_bytes").await?;
        assert!(bytes <= BUDGET, "{bytes} bytes of bodies");
        (process.metric("callbackd_callbacks_total{state=\"delivered\"}").await? as u64 >= DEAD + HEALTHY).then_some(())
    })
    .await;
    let receipts = dead.receipts();
    let bodies = by_task(&receipts);
    assert_eq!(bodies.len() as u64, DEAD);
    for (task, of_task) in &bodies {
        assert!(of_task.iter().all(|receipt| receipt.body == of_task[0].body), "{task}: each attempt sends the same");
        assert_eq!(of_task.iter().filter(|receipt| receipt.status == 204).count(), 1, "{task}");
    }
    assert!(process.metric("callbackd_body_reads_total{result=\"ok\"}").await.unwrap_or_default() > 0.0);
    assert!(!process.log_text().contains("ERROR"), "{}", process.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_whose_body_kafka_has_deleted_ends_and_says_why() {
    let topic = "thin.deleted";
    let retries = "[retry]\nfirst = \"2s\"\ndoublings = 1\nretries = 100\nhorizon = \"1h\"\n";
    let (process, dead, status, _healthy) = small(topic, 1, retries).await;
    let servers = shared_broker();
    produce(&servers, topic, 1, &events(0, DEAD, &dead.url("/")));
    until("all wait in the store", async || (process.metric("callbackd_pending").await? >= DEAD as f64).then_some(()))
        .await;
    let thin = without_body(&process).await;
    assert!(thin > 0.0);
    delete_before(&servers, topic, i64::try_from(DEAD).unwrap()).await;
    let gone = async || {
        let gone = process.metric("callbackd_abandoned_total{reason=\"body_gone\"}").await?;
        (gone > 0.0).then_some(gone)
    };
    until("the first of them end", gone).await;
    status.store(204, Ordering::SeqCst);
    until("all end", async || (process.metric("callbackd_pending").await? == 0.0).then_some(())).await;
    let gone = process.metric("callbackd_abandoned_total{reason=\"body_gone\"}").await.unwrap();
    let delivered = process.metric("callbackd_callbacks_total{state=\"delivered\"}").await.unwrap();
    assert_eq!(gone + delivered, DEAD as f64);
    assert!(gone <= thin, "{gone} of {thin}");
    let list = process.json(&["callbacks", "list", "--reason", "body_gone", "--limit", "1"]);
    let id = list["docs"][0]["callback_id"].as_str().unwrap();
    let attempts = process.json(&["callbacks", "attempts", id]);
    let last = attempts["docs"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["outcome"], &last["sent"]), (&"body_gone".into(), &false.into()));
    assert!(last["answer"].as_str().unwrap().contains("Kafka no longer has its record"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_deleted_topic_had_ends_and_says_why_and_a_job_counts_it() {
    let topic = "thin.topic.deleted";
    let retries = "[retry]\nfirst = \"2s\"\ndoublings = 1\nretries = 100\nhorizon = \"1h\"\n";
    let (process, dead, status, healthy) = small(topic, 1, retries).await;
    let servers = shared_broker();
    produce(&servers, topic, 1, &events(0, DEAD, &dead.url("/")));
    produce(&servers, topic, 1, &events(DEAD, HEALTHY, &healthy.url("/")));
    let delivered = async || process.metric("callbackd_callbacks_total{state=\"delivered\"}").await;
    until("healthy receivers have theirs, and the others wait in the store", async || {
        let pending = process.metric("callbackd_pending").await?;
        (delivered().await? >= HEALTHY as f64 && pending >= DEAD as f64).then_some(())
    })
    .await;
    let thin = without_body(&process).await;
    assert!(thin > 0.0);
    let id_of = |filter: &[&str]| {
        let list = process.json(&[&["callbacks", "list", "--limit", "1"], filter].concat());
        list["docs"][0]["callback_id"].as_str().unwrap().to_owned()
    };
    let arrived = id_of(&["--state", "delivered"]);
    delete_topic(&servers, topic).await;
    let refused = |command: &str| {
        let output = process.cli(&["callbacks", command, &arrived]);
        assert!(!output.status.success(), "{command} gives a body that nobody has");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let job = process.json(&["callbacks", "resend", "--team", TEAM, "--state", "delivered", "--yes"]);
    let job_id = job["resend_id"].as_str().unwrap().to_owned();
    until("it is said that Kafka does not know the topic", async || {
        refused("payload").contains("does not exist").then_some(())
    })
    .await;
    // The topic may be created again: nothing is decided yet.
    assert_eq!(process.json(&["resends", "get", &job_id])["looked_at"], 0);
    let gone = async || {
        let gone = process.metric("callbackd_abandoned_total{reason=\"body_gone\"}").await?;
        (gone > 0.0).then_some(())
    };
    until_within(LONG, "the first of those without a body end", gone).await;
    assert!(process.metric("callbackd_body_reads_total{result=\"absent\"}").await.unwrap_or_default() > 0.0);
    let done = async || Some(process.json(&["resends", "get", &job_id])).filter(|job| job["state"] == "done");
    let job = until("the job is done", done).await;
    assert_eq!((&job["opened"], &job["no_body"]), (&0.into(), &HEALTHY.into()), "{job}");
    for command in ["payload", "resend"] {
        let sentence = refused(command);
        assert!(sentence.contains("Kafka no longer has its topic"), "{command}: {sentence}");
    }
    status.store(204, Ordering::SeqCst);
    until_within(LONG, "all end", async || (process.metric("callbackd_pending").await? == 0.0).then_some(())).await;
    let gone = process.metric("callbackd_abandoned_total{reason=\"body_gone\"}").await.unwrap();
    assert_eq!(gone + delivered().await.unwrap(), (DEAD + HEALTHY) as f64);
    assert!(gone <= thin, "{gone} of {thin}");
    let attempts = process.json(&["callbacks", "attempts", &id_of(&["--reason", "body_gone"])]);
    let last = attempts["docs"].as_array().unwrap().last().unwrap();
    assert!(last["answer"].as_str().unwrap().contains("Kafka no longer has its topic"), "{last}");
}
