//! The fourth record: what the daemons published to Kafka about callbacks that ended, and about dead letters. It is read at the end,
//! from the beginning of both topics.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use super::event::number_of;
use super::produced::Place;

pub(crate) const TOPIC: &str = "ledger.outcomes";
pub(crate) const DEAD_LETTERS_TOPIC: &str = "ledger.dead-letters";
/// Both topics have so many partitions.
pub(crate) const PARTITIONS: i32 = 3;
/// How long messages may be missing: what a dead daemon has left is published by another one half a minute later.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(300);
const CALL: Duration = Duration::from_secs(10);

/// A message about a callback that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) revision: u32,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) task: Option<u64>,
    /// A hash of all members but `attempts`: a settle that comes late raises their count, and is no new revision.
    pub(crate) contents: u64,
}

/// A message about a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    pub(crate) id: String,
    pub(crate) reason: String,
    pub(crate) topic: String,
    pub(crate) place: Place,
    pub(crate) contents: u64,
}

/// All messages, in the order in which they were read. What can't be read is described.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) letters: Vec<DeadLetter>,
    pub(crate) unreadable: Vec<String>,
}

/// What must be there before reading ends: each ending, and each dead letter.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    pub(crate) endings: HashSet<(String, u32)>,
    pub(crate) letters: HashSet<String>,
}

impl Missing {
    fn is_empty(&self) -> bool {
        self.endings.is_empty() && self.letters.is_empty()
    }
}

/// Reads both topics to their ends. It waits for what is missing, but not for ever. It blocks.
///
/// # Errors
/// Kafka does not answer.
pub(crate) fn read(servers: &str, mut missing: Missing) -> anyhow::Result<Published> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("group.id", "ledger-reads-outcomes").set("log_level", "0");
    client.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = client.create().context("make a consumer of outcomes")?;
    let mut list = TopicPartitionList::new();
    for topic in [TOPIC, DEAD_LETTERS_TOPIC] {
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    let mut published = Published::default();
    let end = Instant::now() + PATIENCE;
    loop {
        match consumer.poll(POLL) {
            Some(Ok(message)) => published.take(&message, &mut missing),
            // A client that can't reach the broker for a moment says so, and goes on by itself.
            Some(Err(_)) | None => {
                let is_complete = missing.is_empty() && has_reached_ends(&consumer).unwrap_or(false);
                if is_complete || Instant::now() >= end {
                    return Ok(published);
                }
            }
        }
    }
}

fn has_reached_ends(consumer: &BaseConsumer) -> anyhow::Result<bool> {
    for at in consumer.position()?.elements() {
        let (first, end) = consumer.fetch_watermarks(at.topic(), at.partition(), CALL)?;
        let position = if let Offset::Offset(offset) = at.offset() { offset } else { first };
        if position < end {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Published {
    fn take(&mut self, message: &BorrowedMessage<'_>, missing: &mut Missing) {
        let at = (message.partition(), message.offset());
        if let Err(error) = self.parsed(message, missing) {
            self.unreadable.push(format!("{} {at:?}: {error:#}", message.topic()));
        }
    }

    fn parsed(&mut self, message: &BorrowedMessage<'_>, missing: &mut Missing) -> anyhow::Result<()> {
        let header = message.headers().and_then(|headers| headers.iter().find(|one| one.key == "callbackd-message"));
        let kind = header.and_then(|header| header.value).context("no header says what it is")?;
        let mut value: Value = serde_json::from_slice(message.payload().context("no value")?)?;
        let key = message.key().context("no key")?;
        match (message.topic(), kind) {
            (TOPIC, b"outcome.v1") => {
                let outcome = Outcome::of(&mut value)?;
                anyhow::ensure!(outcome.id.as_bytes() == key, "the key is not the id");
                missing.endings.remove(&(outcome.id.clone(), outcome.revision));
                self.outcomes.push(outcome);
            }
            (DEAD_LETTERS_TOPIC, b"dead_letter.v1") => {
                let letter = DeadLetter::of(&value)?;
                anyhow::ensure!(letter.id.as_bytes() == key, "the key is not the id");
                missing.letters.remove(&letter.id);
                self.letters.push(letter);
            }
            _ => anyhow::bail!("it has another kind"),
        }
        Ok(())
    }
}

impl Outcome {
    fn of(value: &mut Value) -> anyhow::Result<Self> {
        let id = text(value, "callback_id")?;
        let revision = u32::try_from(value["revision"].as_u64().context("no revision")?)?;
        let (state, reason) = (text(value, "state")?, value["reason"].as_str().map(str::to_owned));
        let is_delivered = value["delivered"].as_bool().context("no member delivered")?;
        anyhow::ensure!(is_delivered == (state == "delivered"), "delivered is {is_delivered} and the state {state}");
        let task = number_of(&text(value, "task_id")?);
        value.as_object_mut().context("no object")?.remove("attempts");
        Ok(Self { id, revision, state, reason, task, contents: hash(value) })
    }
}

impl DeadLetter {
    fn of(value: &Value) -> anyhow::Result<Self> {
        let partition = i32::try_from(value["partition"].as_i64().context("no partition")?)?;
        Ok(Self {
            id: text(value, "dead_letter_id")?,
            reason: text(value, "reason")?,
            topic: text(value, "topic")?,
            place: (partition, value["offset"].as_i64().context("no offset")?),
            contents: hash(value),
        })
    }
}

fn text(value: &Value, name: &str) -> anyhow::Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("no member {name}"))
}

fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_attempts_is_no_part_of_the_contents() {
        let read = |attempts: u32, settled_at: &str| {
            let mut value = serde_json::json!({
                "callback_id": "cb_1", "revision": 1, "state": "delivered", "reason": null, "delivered": true,
                "task_id": "00000000000000000000004d", "attempts": attempts, "settled_at": settled_at,
            });
            Outcome::of(&mut value).unwrap()
        };
        let first = read(1, "2026-12-01T00:00:00Z");
        assert_eq!(first.task, Some(77));
        assert_eq!(first, read(2, "2026-12-01T00:00:00Z"));
        assert_ne!(first, read(1, "2026-12-01T00:00:01Z"));
    }
}
