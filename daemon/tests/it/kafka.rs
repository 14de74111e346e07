//! Tests that need a real Kafka: transactions, a broker that stops and starts, rebalances, reset offsets, re-created
//! topics, a lost store.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use callbackd::intake::partition::AcceptFrom;
use callbackd::model::settlement::Ended;
use callbackd_bench::broker::Broker;
use callbackd_bench::recorder::{Receipt, Recorder};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use scale_callback::receiver::Reply;
use scale_callback::samples::{self, Kind, Seed, Wanted};

use crate::harness::{Harness, TEAM, until};

/// A broker for one test, which can stop and start it.
pub fn own_broker() -> Broker {
    let libs = std::env::var("CALLBACKD_TEST_KAFKA_LIBS")
        .map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/libs"), PathBuf::from);
    Broker::start(&libs).expect("a real Kafka; say: make test")
}

/// The address of the broker that all tests share. It is the one that `CALLBACKD_TEST_KAFKA` names, or one that ends
/// with this process because the process holds its standard input.
pub fn shared_broker() -> String {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    match std::env::var("CALLBACKD_TEST_KAFKA") {
        Ok(servers) => servers,
        Err(_) => BROKER.get_or_init(own_broker).servers(),
    }
}

fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("linger.ms", "5");
    config
}

/// The admin client's futures need no runtime of their own; they are waited for on a thread.
fn admin(servers: &str) -> AdminClient<DefaultClientContext> {
    client(servers).create().unwrap()
}

/// What a group, named as its topic, has committed of the partitions.
pub fn committed(servers: &str, topic: &str, partitions: i32) -> TopicPartitionList {
    let tool: BaseConsumer = client(servers).set("group.id", topic).create().unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions - 1);
    tool.committed_offsets(asked, Duration::from_secs(10)).unwrap()
}

pub async fn create_topic(servers: &str, topic: &str, partitions: i32) {
    let admin = admin(servers);
    until(&format!("topic {topic} is made"), async || {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = admin.create_topics(&[new], &AdminOptions::new()).await.ok()?;
        made.into_iter().next()?.ok()
    })
    .await;
}

/// A topic whose batches may have so many bytes.
async fn create_topic_of_large_batches(servers: &str, topic: &str, bytes: &str) {
    create_topic_with(servers, topic, "max.message.bytes", bytes).await;
}

/// A topic with one partition and one setting of its own.
pub async fn create_topic_with(servers: &str, topic: &str, setting: &str, value: &str) {
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set(setting, value);
    let made = admin(servers).create_topics(&[new], &AdminOptions::new()).await.unwrap();
    made[0].as_ref().unwrap();
}

/// Deletes the records of partition 0 below this offset.
pub async fn delete_before(servers: &str, topic: &str, offset: i64) {
    let mut upto = TopicPartitionList::new();
    upto.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    admin(servers).delete_records(&upto, &AdminOptions::new()).await.unwrap();
}

pub async fn delete_topic(servers: &str, topic: &str) {
    let admin = admin(servers);
    admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let probe: BaseConsumer = client(servers).create().unwrap();
    until("the topic is gone", async || {
        let metadata = probe.fetch_metadata(None, Duration::from_secs(5)).ok()?;
        metadata.topics().iter().all(|found| found.name() != topic).then_some(())
    })
    .await;
}

/// Task events of real shape for one team, numbered from `first`.
pub fn events(first: u64, count: u64, url: &str) -> Vec<(String, String)> {
    let mut seed = Seed::new(first + 1);
    (first..first + count)
        .map(|n| {
            let task_id = format!("{n:024x}");
            let kind = Kind::ALL[n as usize % Kind::ALL.len()];
            let wanted = Wanted { kind, task_id: &task_id, callback_url: Some(url), is_test: false, items: 1 + n % 12 };
            let event_id = match n % 3 {
                0 => Some(samples::uuid_v7(1_764_000_000_000 + n, &mut seed)),
                1 => Some(format!("evt-{n}")),
                _ => None,
            };
            let task = samples::task(&wanted, &mut seed);
            (task_id, samples::envelope(TEAM, event_id.as_deref(), &task))
        })
        .collect()
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    partitions: i32,
    events: &[(String, String)],
) {
    for (n, (task, value)) in events.iter().enumerate() {
        let partition = i32::try_from(n).unwrap() % partitions;
        let record = BaseRecord::to(topic).partition(partition).key(task.as_str()).payload(value.as_str());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
}

pub fn produce(servers: &str, topic: &str, partitions: i32, events: &[(String, String)]) {
    let producer: ThreadedProducer<DefaultProducerContext> = client(servers).create().unwrap();
    send(&producer, topic, partitions, events);
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// Receipts by task.
pub fn by_task(receipts: &[Receipt]) -> HashMap<String, Vec<Receipt>> {
    let mut found: HashMap<String, Vec<Receipt>> = HashMap::new();
    for receipt in receipts {
        found.entry(receipt.task_id.clone()).or_default().push(receipt.clone());
    }
    found
}

/// So many tasks arrived, each once.
pub fn each_once(receiver: &Recorder, count: usize) {
    let tasks = by_task(&receiver.receipts());
    assert_eq!(tasks.len(), count);
    let repeated: Vec<_> = tasks.iter().filter(|(_, receipts)| receipts.len() != 1).map(|(task, _)| task).collect();
    assert!(repeated.is_empty(), "{} came more than once: {repeated:?}", repeated.len());
    assert!(receiver.refused().is_empty(), "{:?}", receiver.refused());
}

pub async fn at_the_end(harness: &Harness, servers: &str, partitions: i32) {
    let probe: BaseConsumer = client(servers).create().unwrap();
    harness
        .until("the watermarks stand at the ends", async || {
            let rows = harness.app().reads().offsets().await.ok()?;
            let at_end = rows.iter().filter(|row| {
                let ends = probe.fetch_watermarks(&harness.topic, row.partition.number, Duration::from_secs(5));
                ends.is_ok_and(|(_, high)| row.watermark.upto == high)
            });
            (at_end.count() == usize::try_from(partitions).unwrap()).then_some(())
        })
        .await;
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_arrive_once_through_transactions_and_a_broker_restart() {
    let mut broker = own_broker();
    let servers = broker.servers();
    create_topic(&servers, "ten-thousand", 8).await;
    let harness = Harness::on(&servers, None, "ten-thousand", &[("RETRY__HORIZON", "60s")], None).await;
    let receiver = harness.accepting().await;
    let plain = events(0, 5_000, &receiver.url("/plain"));
    let transactional = events(5_000, 5_000, &receiver.url("/transactional"));
    produce(&servers, "ten-thousand", 8, &plain[..2_500]);
    assert!(receiver.until(LONG, |receipts| receipts.len() >= 500).await);
    // The broker stops in the middle, and starts again.
    broker.stop();
    harness
        .until("the outage is seen", async || {
            (harness.app().ops.readiness().kafka_reachable == Some(false)).then_some(())
        })
        .await;
    assert!(harness.app().ops.readiness().ready, "the API is needed most when Kafka is down");
    broker.run().unwrap();
    produce(&servers, "ten-thousand", 8, &plain[2_500..]);
    let producer: ThreadedProducer<DefaultProducerContext> =
        client(&servers).set("transactional.id", "ten-thousand").create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    for (n, chunk) in transactional.chunks(500).enumerate() {
        producer.begin_transaction().unwrap();
        send(&producer, "ten-thousand", 8, chunk);
        producer.commit_transaction(Duration::from_secs(30)).unwrap();
        // Records of an aborted transaction are never delivered.
        producer.begin_transaction().unwrap();
        send(&producer, "ten-thousand", 8, &events(90_000 + 10 * n as u64, 10, &receiver.url("/aborted")));
        // The records must be sent before the abort: the broker refuses an abort that comes before its records.
        producer.flush(Duration::from_secs(30)).unwrap();
        producer.abort_transaction(Duration::from_secs(30)).unwrap();
    }
    assert!(receiver.until(LONG, |receipts| receipts.len() >= 10_000).await, "{}", receiver.count());
    at_the_end(&harness, &servers, 8).await;
    each_once(&receiver, 10_000);
    assert!(receiver.receipts().iter().all(|receipt| receipt.path != "/aborted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_consumer_that_joins_and_leaves_repeats_nothing() {
    let servers = shared_broker();
    create_topic(&servers, "rebalance", 8).await;
    let over = [
        ("DELIVER__HEAD_TIMEOUT", "30s"),
        ("DELIVER__TOTAL_TIMEOUT", "30s"),
        ("SHUTDOWN__GRACE", "40s"),
        ("DELIVER__PER_ENDPOINT", "64"),
        // No attempt is parked early, so only the revocation parks attempts in flight.
        ("DELIVER__PARK_AFTER", "30s"),
    ];
    let harness = Harness::on(&servers, None, "rebalance", &over, None).await;
    let release = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let receiver = harness.recorder(Arc::new(|_, _| Reply::status(200).after(Duration::from_secs(6)))).await;
    produce(&servers, "rebalance", 8, &events(0, 50, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 50).await, "50 POSTs hang");
    let joined = tokio::task::spawn_blocking({
        let (servers, release) = (servers.clone(), Arc::clone(&release));
        move || {
            let second: BaseConsumer = client(&servers)
                .set("group.id", "rebalance")
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("enable.auto.commit", "false")
                .create()
                .unwrap();
            second.subscribe(&["rebalance"]).unwrap();
            let mut owned = 0;
            let end = std::time::Instant::now() + LONG;
            while (owned == 0 || !release.load(std::sync::atomic::Ordering::SeqCst)) && std::time::Instant::now() < end
            {
                drop(second.poll(Duration::from_millis(100)));
                owned = second.assignment().map_or(0, |list| list.count());
            }
            second.unsubscribe();
            owned
        }
    });
    harness.until("partitions went", async || (harness.app().ops.readiness().partitions < 8).then_some(())).await;
    assert!(harness.metric("parked", "revoked") > 0, "attempts in flight got a row");
    release.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(joined.await.unwrap() > 0);
    harness.until("partitions came back", async || (harness.app().ops.readiness().partitions == 8).then_some(())).await;
    produce(&servers, "rebalance", 8, &events(50, 50, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() >= 100).await);
    at_the_end(&harness, &servers, 8).await;
    for n in 0..100 {
        let (_, rows, _) = harness.ended(&format!("{n:024x}")).await;
        assert_eq!(rows.settled.unwrap().ended, Ended::Delivered);
    }
    each_once(&receiver, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_reset_to_earliest_repeat_nothing() {
    let servers = shared_broker();
    create_topic(&servers, "reset", 4).await;
    let mut harness = Harness::on(&servers, None, "reset", &[], None).await;
    let receiver = harness.accepting().await;
    produce(&servers, "reset", 4, &events(0, 200, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 200).await);
    at_the_end(&harness, &servers, 4).await;
    harness.stop().await;
    let tool: BaseConsumer = client(&servers).set("group.id", "reset").create().unwrap();
    let mut offsets = TopicPartitionList::new();
    for partition in 0..4 {
        offsets.add_partition_offset("reset", partition, Offset::Offset(0)).unwrap();
    }
    let committed = committed(&servers, "reset", 4);
    let element = &committed.elements()[0];
    assert_eq!(element.offset(), Offset::Offset(50), "a clean stop commits the watermark");
    assert!(element.metadata().starts_with("st_"), "with the store's id");
    tool.commit(&offsets, CommitMode::Sync).unwrap();
    drop(tool);
    harness.run(None).await;
    produce(&servers, "reset", 4, &events(200, 20, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() >= 220).await);
    at_the_end(&harness, &servers, 4).await;
    each_once(&receiver, 220);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_re_created_while_we_were_down_is_read_anew() {
    let servers = shared_broker();
    create_topic(&servers, "recreated", 4).await;
    let mut harness = Harness::on(&servers, None, "recreated", &[], None).await;
    let receiver = harness.accepting().await;
    produce(&servers, "recreated", 4, &events(0, 100, &receiver.url("/old")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 100).await);
    at_the_end(&harness, &servers, 4).await;
    harness.stop().await;
    delete_topic(&servers, "recreated").await;
    create_topic(&servers, "recreated", 4).await;
    // Two partitions get as many records as before, one gets fewer, and the last gets none.
    let new = events(1_000, 60, &receiver.url("/new"));
    let producer: ThreadedProducer<DefaultProducerContext> = client(&servers).create().unwrap();
    for (n, (task, value)) in new.iter().enumerate() {
        let partition = [0, 0, 1, 1, 2][n % 5];
        let record = BaseRecord::to("recreated").partition(partition).key(task.as_str()).payload(value.as_str());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    harness.run(None).await;
    assert!(receiver.until(LONG, |receipts| receipts.len() >= 160).await, "{}", receiver.count());
    at_the_end(&harness, &servers, 4).await;
    each_once(&receiver, 160);
    assert!(harness.app().ops.metrics().partitions_started_over_total.get() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_waits_for_an_operator() {
    let servers = shared_broker();
    create_topic(&servers, "lost", 2).await;
    let mut harness = Harness::on(&servers, None, "lost", &[], None).await;
    let receiver = harness.accepting().await;
    produce(&servers, "lost", 2, &events(0, 20, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 20).await);
    at_the_end(&harness, &servers, 2).await;
    harness.stop().await;
    // The store is replaced by another one.
    let other = Harness::on(&servers, None, "lost", &[], None).await;
    other.until("it is blocked", async || (!other.app().ops.readiness().ready).then_some(())).await;
    let troubles = other.app().ops.readiness().troubles.join(" ");
    assert!(troubles.contains("another store") && troubles.contains("offsets accept --from"), "{troubles}");
    let second = other.accepting().await;
    produce(&servers, "lost", 2, &events(20, 10, &second.url("/")));
    let started = other.session().accept_offsets(AcceptFrom::Committed).await.unwrap();
    assert_eq!(started, 2);
    assert!(second.until(LONG, |receipts| receipts.len() == 10).await);
    assert!(other.app().ops.readiness().ready);
    at_the_end(&other, &servers, 2).await;
    each_once(&second, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_is_read_as_soon_as_it_is_there() {
    let servers = shared_broker();
    let properties = r#"{"topic.metadata.refresh.interval.ms":"500"}"#;
    let harness = Harness::on(&servers, None, "later", &[("KAFKA__PROPERTIES", properties)], None).await;
    let receiver = harness.accepting().await;
    harness
        .until("it is told", async || {
            let errors = &harness.app().ops.metrics().kafka_errors_total;
            (errors.with_label_values(&["topic_missing"]).get() > 0).then_some(())
        })
        .await;
    create_topic(&servers, "later", 1).await;
    produce(&servers, "later", 1, &events(0, 5, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 5).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_restored_from_an_older_copy_reads_again_under_the_same_ids() {
    let servers = shared_broker();
    create_topic(&servers, "restored", 2).await;
    let mut harness = Harness::on(&servers, None, "restored", &[], None).await;
    let receiver = harness.accepting().await;
    produce(&servers, "restored", 2, &events(0, 20, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 20).await);
    at_the_end(&harness, &servers, 2).await;
    harness.stop().await;
    let copy = harness.store().with_file_name("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(harness.store()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    harness.run(None).await;
    produce(&servers, "restored", 2, &events(20, 10, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 30).await);
    at_the_end(&harness, &servers, 2).await;
    harness.stop().await;
    std::fs::remove_dir_all(harness.store()).unwrap();
    std::fs::rename(&copy, harness.store()).unwrap();
    harness.run(None).await;
    // Callbacks that the older copy does not know come again with the same ids. Callbacks that it knows do not.
    assert!(receiver.until(LONG, |receipts| receipts.len() == 40).await, "{}", receiver.count());
    at_the_end(&harness, &servers, 2).await;
    let tasks = by_task(&receiver.receipts());
    for (task, receipts) in &tasks {
        let again = u64::from_str_radix(task, 16).unwrap() >= 20;
        assert_eq!(receipts.len(), if again { 2 } else { 1 }, "{task}");
        assert!(receipts.iter().all(|receipt| receipt.id == receipts[0].id && receipt.body == receipts[0].body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_kafka_deleted_are_told_and_passed() {
    let servers = shared_broker();
    create_topic(&servers, "retention", 1).await;
    let mut harness = Harness::on(&servers, None, "retention", &[], None).await;
    let receiver = harness.accepting().await;
    produce(&servers, "retention", 1, &events(0, 20, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 20).await);
    at_the_end(&harness, &servers, 1).await;
    harness.stop().await;
    produce(&servers, "retention", 1, &events(20, 30, &receiver.url("/")));
    delete_before(&servers, "retention", 40).await;
    harness.run(None).await;
    assert!(receiver.until(LONG, |receipts| receipts.len() == 30).await, "{}", receiver.count());
    at_the_end(&harness, &servers, 1).await;
    assert_eq!(
        harness.app().ops.metrics().records_lost_to_retention_total.get(),
        20,
        "lost records are always counted"
    );
    each_once(&receiver, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_topics_are_read() {
    let servers = shared_broker();
    for topic in ["several-a", "several-b"] {
        create_topic(&servers, topic, 2).await;
    }
    let harness = Harness::on(&servers, None, "several-a", &[("KAFKA__TOPICS", "several-a,several-b")], None).await;
    let receiver = harness.accepting().await;
    produce(&servers, "several-a", 2, &events(0, 10, &receiver.url("/")));
    produce(&servers, "several-b", 2, &events(10, 10, &receiver.url("/")));
    assert!(receiver.until(LONG, |receipts| receipts.len() == 20).await);
    assert_eq!(harness.app().ops.readiness().partitions, 4);
    each_once(&receiver, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_told_as_what_it_is() {
    let servers = shared_broker();
    create_topic(&servers, "held", 1).await;
    let harness = Harness::on(&servers, None, "held", &[], None).await;
    let receiver = harness.accepting().await;
    let producer: ThreadedProducer<DefaultProducerContext> =
        client(&servers).set("transactional.id", "held").create().unwrap();
    let patience = Duration::from_secs(20);
    producer.init_transactions(patience).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "held", 1, &events(0, 1, &receiver.url("/")));
    producer.flush(patience).unwrap();
    produce(&servers, "held", 1, &events(1, 2, &receiver.url("/")));
    let status = until("it is told", async || {
        let status = harness.session().status().await.ok()?;
        status.note.clone().filter(|note| note.contains("open transaction holds held[0] since"))?;
        Some(status)
    })
    .await;
    assert!(status.lag.is_some_and(|lag| lag >= 2), "{:?}", status.lag);
    until("its time is measured", async || {
        let page = harness.app().ops.metrics_page().await;
        let value = |name: &str| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        let (held, lag) = (value("callbackd_open_transaction_seconds "), value("callbackd_kafka_lag_seconds "));
        (held > Some(0.0) && lag >= held).then_some(())
    })
    .await;
    producer.abort_transaction(patience).unwrap();
    assert!(receiver.until(LONG, |receipts| receipts.len() == 2).await, "the others are delivered");
    until("it is over", async || harness.session().status().await.ok()?.note.is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_odd_headers_stop_nobody() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let servers = shared_broker();
    create_topic(&servers, "odd-headers", 1).await;
    let harness = Harness::on(&servers, None, "odd-headers", &[("INTAKE__TOMBSTONES", "dead_letter")], None).await;
    let receiver = harness.accepting().await;
    // No client of ours can write a header whose key is not UTF-8.
    for (n, headers) in [
        vec![&b"trace\xff\xfe=1"[..]],
        vec![b"team-id=", b"team-id"],
        vec![b"team-id=team_acme", b"team-id=", b"\xf0=\xf0"],
        vec![b"traceparent=a", b"traceparent=b", b"event-type="],
    ]
    .into_iter()
    .enumerate()
    {
        let value = &events(n as u64, 1, &receiver.url("/"))[0].1;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("value");
        std::fs::write(&file, value).unwrap();
        let mut kcat = std::process::Command::new("kcat");
        kcat.args(["-b", &servers, "-t", "odd-headers", "-p", "0", "-P", "-q"]);
        for header in headers {
            kcat.arg("-H").arg(OsStr::from_bytes(header));
        }
        assert!(kcat.arg(&file).status().expect("kcat is installed; say: make test").success());
    }
    assert!(receiver.until(LONG, |receipts| receipts.len() == 4).await, "{:?}", receiver.receipts().len());
    each_once(&receiver, 4);
    assert!(harness.app().ops.readiness().ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_larger_than_any_event_is_a_dead_letter_and_the_next_ones_arrive() {
    let servers = shared_broker();
    create_topic_of_large_batches(&servers, "large", "67108864").await;
    let harness = Harness::on(&servers, None, "large", &[], None).await;
    let receiver = harness.accepting().await;
    let producer: ThreadedProducer<DefaultProducerContext> = client(&servers)
        .set("message.max.bytes", "67108864")
        .set("queue.buffering.max.kbytes", "262144")
        .create()
        .unwrap();
    let small = events(0, 2, &receiver.url("/"));
    send(&producer, "large", 1, &small[..1]);
    producer.flush(Duration::from_secs(60)).unwrap();
    for mebibytes in [20, 60] {
        let (task, value) = &events(9, 1, &receiver.url("/"))[0];
        let large = value.replacen('{', &format!("{{\"response\":\"{}\",", "x".repeat(mebibytes << 20)), 1);
        send(&producer, "large", 1, &[(task.clone(), large)]);
        producer.flush(Duration::from_secs(60)).unwrap();
    }
    send(&producer, "large", 1, &small[1..]);
    producer.flush(Duration::from_secs(60)).unwrap();
    assert!(receiver.until(LONG, |receipts| receipts.len() == 2).await, "the small ones before and after them arrive");
    let letters = harness
        .until("the large ones are dead letters", async || {
            let page = callbackd::store::reads::Page { before: None, limit: 9 };
            let found = harness.app().reads().dead_letters(Default::default(), page).await.ok()?;
            (found.docs.len() == 2).then_some(found.docs)
        })
        .await;
    for letter in letters.into_iter().map(|row| row.letter) {
        assert_eq!(letter.reason, callbackd::model::dead_letter::Unreadable::TooLarge);
        assert!([1, 2].contains(&letter.record.offset) && letter.value_len > 20 << 20, "{}", letter.value_len);
        assert!(letter.value.starts_with(b"{\"response\":\"xxx"), "its first bytes are kept");
    }
}
