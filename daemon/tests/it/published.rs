//! Outcomes and dead letters are published to Kafka topics, at least once, also after an outage of the brokers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use callbackd::store::resends::ResendForm;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use scale_callback::receiver::Reply;
use serde_json::Value;

use crate::harness::{Event, Harness, until};
use crate::kafka::{create_topic, own_broker};

/// A message as it was read: its key, the header that says what it is, and its value.
struct Read {
    key: String,
    about: String,
    value: Value,
}

/// Reads a topic of one partition from its beginning.
struct Reader {
    consumer: BaseConsumer,
    read: std::sync::Mutex<Vec<Read>>,
}

impl Reader {
    fn of(servers: &str, topic: &str) -> Self {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", servers).set("group.id", "reader").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        Self { consumer, read: std::sync::Mutex::default() }
    }

    /// Waits for a number of messages.
    async fn until(&self, count: usize) {
        until(&format!("{count} messages"), async || {
            let mut read = self.read.lock().unwrap();
            while let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(10)) {
                let header = message.headers().unwrap().iter().find(|header| header.key == "callbackd-message");
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                read.push(Read {
                    key: text(message.key()),
                    about: text(header.unwrap().value),
                    value: serde_json::from_slice(message.payload().unwrap()).unwrap(),
                });
            }
            (read.len() >= count).then_some(())
        })
        .await;
    }

    /// The messages by task, each with its state and revision.
    fn by_task(&self) -> BTreeMap<String, Vec<(String, u64)>> {
        let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for Read { value, .. } in &*self.read.lock().unwrap() {
            let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            found.entry(text("task_id")).or_default().push((text("state"), value["revision"].as_u64().unwrap()));
        }
        found
    }

    /// Every member of the messages is described in the document, and every member that is described is there.
    fn is_as_documented(&self, chapter: &str) {
        let document = include_str!("../../../docs/outcomes.md");
        let chapter = document.split("\n## ").find(|part| part.starts_with(chapter)).unwrap();
        let described: Vec<&str> =
            chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        for Read { value, about, key } in &*self.read.lock().unwrap() {
            let members: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
            assert!(members.iter().all(|member| described.contains(member)), "{members:?} {described:?}");
            assert!(described.iter().all(|member| members.contains(member)), "{members:?} {described:?}");
            assert!(document.contains(&format!("`{about}`")), "{about}");
            let id = value["callback_id"].as_str().or(value["dead_letter_id"].as_str());
            assert_eq!(id, Some(&**key), "the key is the id");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_and_dead_letters_are_published_and_an_outage_of_kafka_loses_none() {
    let mut broker = own_broker();
    let servers = broker.servers();
    for topic in ["tasks", "outcomes", "letters"] {
        create_topic(&servers, topic, 1).await;
    }
    let over = [
        ("RETRY__RETRIES", "1"),
        ("RETRY__HORIZON", "1h"),
        ("RETRY__FIRST", "10ms"),
        ("OUTCOMES__TOPIC", "outcomes"),
        ("OUTCOMES__DEAD_LETTERS_TOPIC", "letters"),
    ];
    let harness = Harness::on(&servers, None, "tasks", &over, None).await;
    let status = Arc::new(AtomicU16::new(503));
    let now = Arc::clone(&status);
    let failing = harness.recorder(Arc::new(move |_: &_, _| Reply::status(now.load(Ordering::SeqCst)))).await;
    let good = harness.accepting().await;
    harness.produce_to(0, Some(Event::new("good").to(good.url("/")).json().as_bytes()), &[]);
    harness.produce_to(0, Some(Event::new("fails").to(failing.url("/")).json().as_bytes()), &[]);
    harness.produce_to(0, Some(Event::new("nowhere").json().as_bytes()), &[]);
    harness.produce_to(0, Some(b"no JSON"), &[]);
    let (outcomes, letters) = (Reader::of(&servers, "outcomes"), Reader::of(&servers, "letters"));
    outcomes.until(3).await;
    letters.until(1).await;
    let one = |state: &str| vec![(state.to_owned(), 1)];
    let expected = [("fails", one("exhausted")), ("good", one("delivered")), ("nowhere", one("abandoned"))];
    assert_eq!(outcomes.by_task(), expected.map(|(task, seen)| (task.to_owned(), seen)).into());
    assert_eq!(letters.read.lock().unwrap()[0].value["reason"], "not_json");
    outcomes.is_as_documented("Outcomes");
    letters.is_as_documented("Dead letters");

    // While Kafka is away, a callback ends: its message waits.
    broker.stop();
    status.store(204, Ordering::SeqCst);
    let session = harness.session();
    let (id, ..) = harness.ended("fails").await;
    session.resend_callback(&id.to_string(), ResendForm::default()).await.unwrap();
    harness.until("it arrived", async || (failing.receipts().len() == 3).then_some(())).await;
    let waits = || harness.app().ops.metrics().outbox_messages.get();
    harness.until("its message waits", async || (waits() == 1).then_some(())).await;
    let failures = || harness.app().ops.metrics().publish_failures_total.get();
    until("Kafka did not take it", async || (failures() >= 1).then_some(())).await;
    broker.run().unwrap();
    outcomes.until(4).await;
    harness.until("nothing waits", async || (waits() == 0).then_some(())).await;
    assert_eq!(outcomes.by_task()["fails"], [("exhausted".to_owned(), 1), ("delivered".to_owned(), 2)]);
}
