//! Batches that become much larger than what Kafka holds, so that they end the process that reads them.

use std::sync::Arc;
use std::time::Duration;

use callbackd_bench::recorder::Recorder;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::bounds;
use crate::harness::{TEAM, until};
use crate::kafka::{create_topic, create_topic_with, events, produce, shared_broker};
use crate::process::Process;

/// The daemon's memory for data in these tests. What is inflated is larger.
const MEBIBYTES: u64 = 400;

fn producer(servers: &str, compression: &str) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("message.max.bytes", "1000000000");
    config.set("compression.type", compression).set("batch.num.messages", "1").create().unwrap()
}

/// Starts the daemon with little memory, and waits for its death.
async fn dies(process: &mut Process) {
    process.spawn(None, "info");
    process.limit_memory(MEBIBYTES);
    assert_eq!(process.ended().await, -1, "a signal ends it: {}", process.log_text());
}

async fn survives(process: &mut Process) {
    process.start(None, "info").await;
    process.limit_memory(MEBIBYTES);
}

async fn buried(process: &Process, reason: &str, count: usize) -> Vec<serde_json::Value> {
    until(&format!("{count} dead letters: {reason}"), async || {
        let listed = process.json(&["dead-letters", "list", "--reason", reason]);
        listed["docs"].as_array().filter(|docs| docs.len() == count).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kills_its_reader_is_a_dead_letter_at_the_third_start() {
    let servers = shared_broker();
    create_topic(&servers, "killer", 1).await;
    let mut process = Process::new(&servers, "killer", "");
    survives(&mut process).await;
    let (secret, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let receiver = Recorder::start(verifier, Arc::new(|_: &_, _| Reply::status(200))).await.unwrap();
    let arrived = async |count: usize| {
        let all = receiver.until(Duration::from_secs(60), |receipts| receipts.len() == count).await;
        assert!(all, "{} of {count}: {}", receiver.count(), process.log_text());
    };
    produce(&servers, "killer", 1, &events(0, 3, &receiver.url("/")));
    arrived(3).await;
    // 450 MiB of zeros, which gzip makes small.
    let hostile = producer(&servers, "gzip");
    let zeros = vec![0_u8; 450 << 20];
    let send_hostile = || {
        hostile.send(BaseRecord::<[u8], [u8]>::to("killer").payload(&zeros)).map_err(|(error, _)| error).unwrap();
        hostile.flush(Duration::from_secs(60)).unwrap();
    };
    send_hostile();
    assert_eq!(process.ended().await, -1, "the first death: {}", process.log_text());
    produce(&servers, "killer", 1, &events(3, 3, &receiver.url("/")));
    dies(&mut process).await;
    survives(&mut process).await;
    let letters = buried(&process, "poison", 1).await;
    assert_eq!(letters[0]["offset"], 3, "exactly that record: {letters:?}");
    let log = process.log_text();
    assert!(log.contains("it is read in a sandbox") && log.contains("a batch of records can't be read"), "{log}");
    until("the others arrive", async || (receiver.count() == 6).then_some(())).await;
    until("the partition is read as usual again", async || {
        process.log_text().contains("this partition is read as usual again").then_some(())
    })
    .await;

    assert!(bounds::peak(&process) <= bounds::MEBIBYTES, "{} MiB beside the sandbox", bounds::peak(&process));

    // The same as the last record of the partition. It is not read again after a clean stop, either.
    send_hostile();
    assert_eq!(process.ended().await, -1, "{}", process.log_text());
    dies(&mut process).await;
    survives(&mut process).await;
    buried(&process, "poison", 2).await;
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
    survives(&mut process).await;
    produce(&servers, "killer", 1, &events(6, 1, &receiver.url("/")));
    until("the next one arrives", async || (receiver.count() == 7).then_some(())).await;
    buried(&process, "poison", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_harmless_alone_are_read_one_by_one_after_two_deaths() {
    const RECORDS: usize = 500;
    let servers = shared_broker();
    create_topic(&servers, "inflated", 1).await;
    let many = producer(&servers, "zstd");
    let letter = vec![b'j'; 1_000_000];
    for _ in 0..RECORDS {
        many.send(BaseRecord::<[u8], [u8]>::to("inflated").payload(&letter)).map_err(|(error, _)| error).unwrap();
        if many.in_flight_count() > 20 {
            many.flush(Duration::from_secs(60)).unwrap();
        }
    }
    many.flush(Duration::from_secs(60)).unwrap();
    let mut process = Process::new(&servers, "inflated", "");
    dies(&mut process).await;
    dies(&mut process).await;
    survives(&mut process).await;
    until("all are buried", async || {
        let buried = process.metric("callbackd_dead_letters_total{reason=\"not_json\"}").await?;
        (buried == RECORDS as f64).then_some(())
    })
    .await;
    assert!(!process.log_text().contains("can't be read"), "{}", process.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_keeps_values_uncompressed_refuses_what_would_fill_the_memory() {
    let servers = shared_broker();
    create_topic_with(&servers, "uncompressed", "compression.type", "uncompressed").await;
    let mut process = Process::new(&servers, "uncompressed", "");
    process.start(None, "info").await;
    let (secret, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let receiver = Recorder::start(verifier, Arc::new(|_: &_, _| Reply::status(200))).await.unwrap();
    let hostile = producer(&servers, "gzip");
    let zeros = vec![0_u8; 400 << 20];
    hostile.send(BaseRecord::<[u8], [u8]>::to("uncompressed").payload(&zeros)).map_err(|(error, _)| error).unwrap();
    // The broker's refusal reaches the producer.
    hostile.flush(Duration::from_secs(60)).unwrap();
    produce(&servers, "uncompressed", 1, &events(0, 3, &receiver.url("/")));
    until("the others arrive", async || (receiver.count() == 3).then_some(())).await;
    let offsets = process.json(&["offsets", "show"]);
    assert_eq!(offsets["docs"][0]["watermark"], 3, "the large one was never in the log: {offsets}");
    assert!(bounds::peak(&process) <= bounds::MEBIBYTES, "{} MiB", bounds::peak(&process));
}
