//! Reads the bodies of callbacks from Kafka again, to send callbacks again whose bodies are not kept. A sandbox reads it: a
//! record beside it may be one that ends its reader.

mod absences;
mod letter;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::absences::{Absence, Absences};
use super::partition::Place;
use super::polled::Polled;
use super::sandbox::{Heard, Sandbox, Sandboxes};
use super::settings::LARGEST_EVENT;
use crate::model::callback::newest_builder;
use crate::model::event::PartitionKey;
use crate::model::lease::Facts;
use crate::model::no_body::NoBody;

/// Readings at once.
const AT_ONCE: usize = 1;
/// How long one reading may take, with the wait for its place.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a partition may bring nothing, so that one without a leader leaves time to the others.
const QUIET: Duration = Duration::from_secs(8);
/// How often it looks whether the sandbox has brought something.
const NEXT_LOOK: Duration = Duration::from_millis(5);
/// Records that lie farther apart are not read by one sandbox.
const FAR: i64 = 1_000;
/// The bodies of one reading have together about so many bytes at most.
const BYTES: usize = 8 << 20;

/// What one reading has brought so far.
struct Reading {
    /// `None` where there was no time or no room to ask.
    answers: Vec<Option<Result<Bytes, NoBody>>>,
    bytes: usize,
    at_most: usize,
}

impl Reading {
    /// False if there is no room for another body. The first one always has room.
    fn takes(&mut self, at: usize, answer: Result<Bytes, NoBody>) -> bool {
        self.bytes = self.bytes.saturating_add(answer.as_ref().map_or(0, Bytes::len));
        self.answers[at] = Some(answer);
        !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.at_most
    }
}

/// Reads bodies again.
#[derive(Clone)]
pub struct Rereader {
    sandboxes: Sandboxes,
    /// The bound of new events. It does not bound a body whose event was accepted before.
    max_event_bytes: usize,
    places: Arc<Semaphore>,
    absences: Arc<Mutex<Absences>>,
}

impl Rereader {
    pub(super) fn new(client: &ClientConfig, max_event_bytes: usize) -> Self {
        let sandboxes = Sandboxes::to_read_again(client, max_event_bytes);
        Self { sandboxes, max_event_bytes, places: Arc::new(Semaphore::new(AT_ONCE)), absences: Arc::default() }
    }

    /// The body of this callback, from the record that it came from.
    ///
    /// # Errors
    /// [`NoBody`].
    pub async fn read(&self, facts: &Arc<Facts>) -> Result<Bytes, NoBody> {
        let answers = self.read_all(std::slice::from_ref(facts)).await;
        answers.into_iter().next().unwrap_or(Err(NoBody::Silent))
    }

    /// The bodies of these callbacks, each from the record that it came from. Those that are not read in time, or would take too
    /// much memory, are `Silent`.
    pub async fn read_all(&self, wanted: &[Arc<Facts>]) -> Vec<Result<Bytes, NoBody>> {
        let answers = self.read_some(wanted, BYTES).await;
        answers.into_iter().map(|answer| answer.unwrap_or(Err(NoBody::Silent))).collect()
    }

    /// The bodies of these callbacks, until together they have so many bytes. `None` for those that were not asked for.
    pub async fn read_some(&self, wanted: &[Arc<Facts>], at_most: usize) -> Vec<Option<Result<Bytes, NoBody>>> {
        let mut reading = Reading { answers: vec![None; wanted.len()], bytes: 0, at_most: at_most.min(BYTES) };
        let end = Instant::now() + PATIENCE;
        let place = tokio::time::timeout_at(end, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else { return reading.answers };
        let mut of_partitions: BTreeMap<&Arc<PartitionKey>, Vec<(usize, &Arc<Facts>)>> = BTreeMap::new();
        for (at, facts) in wanted.iter().enumerate() {
            of_partitions.entry(&facts.record.partition).or_default().push((at, facts));
        }
        for records in of_partitions.values_mut() {
            records.sort_by_key(|(_, facts)| facts.record.offset);
            let mut left = &records[..];
            while !reading.is_full()
                && Instant::now() < end
                && let Some(rest) = self.read_run(left, end, &mut reading).await
            {
                left = rest;
            }
        }
        reading.answers
    }

    /// Reads records of one partition, which are in their order, in one sandbox. Returns those that lie too far ahead for it.
    async fn read_run<'w>(
        &self,
        mut left: &'w [(usize, &'w Arc<Facts>)],
        end: Instant,
        reading: &mut Reading,
    ) -> Option<&'w [(usize, &'w Arc<Facts>)]> {
        let (_, first) = left.first()?;
        let (partition, from) = (&first.record.partition, Place::Offset(first.record.offset));
        let wanted = left.iter().map(|(_, facts)| facts.record.offset).collect();
        let mut sandbox = self.sandboxes.wanting(wanted).sandbox(partition, from);
        loop {
            let quiet_until = end.min(Instant::now() + QUIET);
            let heard = match self.hear(&mut sandbox, partition, quiet_until).await {
                Ok(heard) => heard,
                Err(why) => {
                    left.iter().for_each(|(at, _)| reading.answers[*at] = Some(Err(why)));
                    return None;
                }
            };
            let offset = match &heard {
                Heard::Record(record) => record.offset,
                Heard::Unread(offset) => *offset,
                // The log ends below what is left.
                Heard::End(_) | Heard::Absent | Heard::Lost => i64::MAX,
            };
            // Nothing of what comes lies below this offset.
            while let Some((at, _)) = left.first().filter(|(_, facts)| facts.record.offset < offset) {
                reading.takes(*at, Err(NoBody::Gone));
                left = &left[1..];
            }
            let (at, facts) = left.first()?;
            if facts.record.offset == offset {
                let answer = match &heard {
                    Heard::Record(record) => {
                        Self::body(facts, &Polled::in_sandbox(&partition.topic, partition.number, record))
                    }
                    _ => Err(NoBody::Unreadable),
                };
                if !reading.takes(*at, answer) {
                    return None;
                }
                left = &left[1..];
            }
            if left.first()?.1.record.offset.saturating_sub(offset) > FAR {
                return Some(left);
            }
        }
    }

    /// What the sandbox of this partition brings next, or why it brings nothing.
    async fn hear(
        &self,
        sandbox: &mut Sandbox,
        partition: &Arc<PartitionKey>,
        until: Instant,
    ) -> Result<Heard, NoBody> {
        let mut looks = tokio::time::interval(NEXT_LOOK);
        loop {
            match sandbox.hear() {
                Some(Heard::Lost) => return Err(NoBody::Silent),
                Some(Heard::Absent) => return Err(self.absent(partition)),
                Some(heard) => {
                    self.absences().exists(partition);
                    return Ok(heard);
                }
                None if Instant::now() >= until => return Err(NoBody::Silent),
                None => {
                    looks.tick().await;
                }
            }
        }
    }

    /// Kafka says that this partition does not exist.
    fn absent(&self, partition: &Arc<PartitionKey>) -> NoBody {
        match self.absences().absent(partition, std::time::Instant::now()) {
            Absence::ForNow => NoBody::Absent,
            Absence::ForGood { is_news } => {
                if is_news {
                    tracing::warn!(%partition, "Kafka has said for a minute that this partition does not exist: callbacks whose bodies only it has can't be sent");
                }
                NoBody::TopicGone
            }
        }
    }

    fn absences(&self) -> MutexGuard<'_, Absences> {
        self.absences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body that a record gives, if the callback's event was made from it. It was accepted, so today's bound of new events does
    /// not matter.
    fn body(facts: &Facts, polled: &Polled<'_>) -> Result<Bytes, NoBody> {
        if polled.offset != facts.record.offset {
            return Err(NoBody::Gone);
        }
        if facts.builder > newest_builder() {
            return Err(NoBody::Newer);
        }
        let event = polled.decode(&facts.record, LARGEST_EVENT).map_err(|_| NoBody::Changed)?;
        let is_same = event.team == facts.team
            && event.event_id == facts.event_id
            && event.task_id == facts.task_id
            && event.content_hash == facts.content_hash;
        if is_same { Ok(event.body) } else { Err(NoBody::Changed) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::intake::decode::{Headers, Raw, decode};
    use crate::intake::sandbox::{SandboxedRecord, Value};
    use crate::model::callback::CallbackId;
    use crate::model::endpoint::{QueueKey, QueueTarget};
    use crate::model::event::{PartitionKey, RecordRef};
    use crate::model::team::Mode;

    const VALUE: &[u8] = br#"{"team_id":"team_a","event_id":"e1","task":{"task_id":"t1","x":1},"response":[1, 2]}"#;

    /// The facts of the callback that this value was accepted as.
    fn facts(value: &[u8]) -> Facts {
        let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
        let record = RecordRef { partition, offset: 7, timestamp: 1 };
        let event = decode(&Raw { record: &record, headers: Headers::default(), value }, LARGEST_EVENT).unwrap();
        Facts {
            id: CallbackId::from_bytes([1; 16]),
            record,
            team: Arc::clone(&event.team),
            task_id: event.task_id,
            event_id: event.event_id,
            event_type: event.event_type,
            queue: QueueKey { team: event.team, target: QueueTarget::Default(Mode::Live) },
            mode: event.mode,
            content_hash: event.content_hash,
            builder: 1,
        }
    }

    /// What is read at this offset for the callback that `VALUE` was accepted as.
    fn read(offset: i64, value: &[u8]) -> Result<Bytes, NoBody> {
        read_for(&facts(VALUE), offset, value)
    }

    fn read_for(facts: &Facts, offset: i64, value: &[u8]) -> Result<Bytes, NoBody> {
        let record =
            SandboxedRecord { offset, timestamp: Some(1), headers: Vec::new(), value: Value::Whole(value.to_vec()) };
        Rereader::body(facts, &Polled::in_sandbox("t", 0, &record))
    }

    #[test]
    fn a_body_is_the_one_that_was_sent_or_none() {
        let body = read(7, VALUE).unwrap();
        assert_eq!(&body[..], br#"{"task":{"task_id":"t1","x":1},"response":[1, 2],"task_id":"t1"}"#);
        assert_eq!(read(8, VALUE), Err(NoBody::Gone), "the first record that is left lies above it");
        let text = std::str::from_utf8(VALUE).unwrap();
        for other in [("\"x\":1", "\"x\":2"), ("team_a", "team_b"), ("\"e1\"", "\"e2\""), ("}", "")] {
            let changed = text.replacen(other.0, other.1, 1);
            assert_eq!(read(7, changed.as_bytes()), Err(NoBody::Changed), "{changed}");
        }
    }

    #[test]
    fn what_was_accepted_is_read_again_whatever_is_accepted_now() {
        // Such a team can't be created any more.
        let of_old_team = r#"{"team_id":"..","task":{"task_id":"t1"}}"#.to_owned();
        let large = format!(r#"{{"team_id":"team_a","task":{{"task_id":"t1","x":"{}"}}}}"#, "x".repeat(2 << 20));
        for value in [of_old_team, large] {
            assert!(read_for(&facts(value.as_bytes()), 7, value.as_bytes()).is_ok(), "{} bytes", value.len());
        }
    }

    #[test]
    fn what_kafka_says_at_one_moment_deletes_no_partition() {
        let rereader = Rereader::new(&ClientConfig::new(), 1 << 20);
        let partition = facts(VALUE).record.partition;
        for _ in 0..100 {
            assert_eq!(rereader.absent(&partition), NoBody::Absent, "all at one moment");
        }
        assert!(NoBody::TopicGone.is_final() && !NoBody::Absent.is_final());
    }
}
