//! From Kafka records to leases. A thread of its own polls Kafka, decodes records and carries out what the partitions'
//! machine decides; a task looks ids up, finds teams, and offers what is new to the lanes.

mod admit;
mod assigned;
pub mod check;
mod consumer;
mod consumer_parts;
mod context;
pub mod decode;
mod gather;
mod headers;
mod interpret;
mod lag;
mod log_watch;
mod marks;
mod member;
pub mod partition;
mod polled;
mod rebalance;
mod reread;
pub mod sandbox;
pub mod security;
mod session;
pub mod settings;
mod task;
mod topic_retention;
mod trouble;
mod twin;

pub use admit::ids::{callback_id, event_claim, facts_of};
pub use consumer_parts::{Ask, Look, Looked, Moved};
pub use reread::Rereader;
pub use task::{Deps, Intake, IntakeHandle, IntakeTask, Stops, build};

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::model::dead_letter::DeadLetter;
use crate::model::event::{PartitionKey, TaskEvent};

/// What to do with a record without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    Skip,
    DeadLetter,
}

#[derive(Clone)]
pub struct Config {
    pub brokers: String,
    pub group: String,
    /// The name of this member of the group, if it has one: after a short stop it gets its partitions back, and no other
    /// member notices it.
    pub member: Option<Arc<str>>,
    pub topics: Vec<String>,
    /// Properties for librdkafka. Names that we set ourselves are refused.
    pub properties: BTreeMap<String, String>,
    /// The largest record value that is read.
    pub max_event_bytes: usize,
    /// Records of one partition above its watermark.
    pub window: usize,
    pub tombstones: Tombstones,
    /// How long a rebalance waits until the attempts under way are parked.
    pub rebalance_grace: Duration,
}

/// Omits the values of properties, since passwords are among them.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        f.debug_struct("Config").field("brokers", &self.brokers).field("properties", &names).finish_non_exhaustive()
    }
}

/// A record that was read: an event, or a dead letter.
pub struct Incoming {
    pub partition: Arc<PartitionKey>,
    pub epoch: i64,
    pub below_seen: bool,
    pub decoded: Result<TaskEvent, Box<DeadLetter>>,
}

/// Partitions that admission holds back: they are paused until it catches up.
#[derive(Default)]
pub struct Stalled(Mutex<HashSet<Arc<PartitionKey>>>);

impl Stalled {
    fn set(&self) -> MutexGuard<'_, HashSet<Arc<PartitionKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert(&self, partition: Arc<PartitionKey>) {
        self.set().insert(partition);
    }

    pub fn remove(&self, partition: &PartitionKey) {
        self.set().remove(partition);
    }

    pub fn contains(&self, partition: &PartitionKey) -> bool {
        self.set().contains(partition)
    }
}

/// The state of intake, for other rooms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KafkaState {
    pub reachable: bool,
    pub assigned: usize,
    /// Why partitions wait for an operator, if any do.
    pub blocked: Option<String>,
    /// This daemon waits, because another one runs on a copy of its store: a sentence for people.
    pub twin: Option<String>,
    pub partitions: Vec<PartitionRead>,
    /// An operator started the daemon without intake: nothing is read.
    pub held: bool,
    /// The topics of the configuration.
    pub topics: Vec<String>,
    /// What the Kafka client said last about a topic or a right that is missing. Forgotten when every topic is read.
    pub refusal: Option<&'static str>,
}

impl KafkaState {
    /// Which topics have no partition here, and what the Kafka client said about it: a sentence for people. `None` if it said
    /// nothing, because another member of the group may have them.
    pub fn unread_topics(&self) -> Option<String> {
        let why = self.refusal?;
        let is_read = |topic: &str| self.partitions.iter().any(|read| &*read.partition.topic == topic);
        let unread: Vec<&str> = self.topics.iter().map(String::as_str).filter(|topic| !is_read(topic)).collect();
        (!unread.is_empty()).then(|| format!("no partition of {} is read: {why}", unread.join(", ")))
    }

    /// Which partition an open transaction holds for the longest time: a sentence for people.
    pub fn held_by_transaction(&self) -> Option<String> {
        let held = self.partitions.iter().filter_map(|read| Some((read.held_since?, &read.partition)));
        let (since, partition) = held.min()?;
        Some(format!(
            "a producer's open transaction holds {partition} since {since}: what it and others wrote there after that can't be read before it ends"
        ))
    }

    /// All records of our partitions up to this time are durable. `None` while this is not known for one of them.
    pub fn recorded_upto(&self) -> Option<Timestamp> {
        self.partitions.iter().map(|partition| partition.recorded_upto).min().flatten()
    }
}

/// How far one partition of ours was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRead {
    pub partition: Arc<PartitionKey>,
    /// Records between the watermark and the last known end of the log.
    pub lag: i64,
    pub recorded_upto: Option<Timestamp>,
    /// An open transaction keeps the rest of the partition from being read, since then.
    pub held_since: Option<Timestamp>,
    /// The client that reads takes its records as they come: it is not paused, and no sandbox reads it.
    pub is_flowing: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_not_read_is_named_with_what_the_client_said() {
        let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "here".into(), number: 0 });
        let read = PartitionRead { partition, lag: 0, recorded_upto: None, held_since: None, is_flowing: true };
        let topics = vec!["here".to_owned(), "nope".to_owned()];
        let state =
            |partitions, refusal| KafkaState { partitions, refusal, topics: topics.clone(), ..KafkaState::default() };
        assert_eq!(state(vec![read.clone()], None).unread_topics(), None, "another member may read it");
        let told = state(vec![read], Some("a topic does not exist")).unread_topics();
        assert_eq!(told.as_deref(), Some("no partition of nope is read: a topic does not exist"));
        let told = state(Vec::new(), Some("a topic does not exist")).unread_topics();
        assert_eq!(told.as_deref(), Some("no partition of here, nope is read: a topic does not exist"));
    }
}
