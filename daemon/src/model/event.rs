//! A task event: one decoded Kafka record.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::endpoint::CallbackUrl;
use super::hash::Hash;
use super::team::Mode;
use crate::base::clock::Timestamp;

/// A partition of a topic of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    pub cluster: Arc<str>,
    pub topic: Arc<str>,
    pub number: i32,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.number)
    }
}

/// The place of one record, and its timestamp in milliseconds (-1 if it has none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRef {
    pub partition: Arc<PartitionKey>,
    pub offset: i64,
    pub timestamp: i64,
}

impl RecordRef {
    /// The record's time, if it has one that can be right.
    pub fn time(&self) -> Option<Timestamp> {
        Some(Timestamp::from_millis(self.timestamp)).filter(|time| time.is_plausible())
    }
}

/// An event that can become a callback. Its identity fields are checked. The rest is in `body`, which nobody parses.
/// The record's whole `value` is kept until the event is admitted, because it may still become a dead letter.
#[derive(Debug, Clone)]
pub struct TaskEvent {
    pub record: RecordRef,
    pub team: Arc<str>,
    pub task_id: Box<str>,
    pub event_id: Option<Box<str>>,
    pub event_type: Arc<str>,
    pub mode: Mode,
    pub callback_url: Option<CallbackUrl>,
    pub content_hash: Hash,
    pub body: Bytes,
    pub value: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_another_unit_is_none() {
        let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
        let time = |timestamp| RecordRef { partition: Arc::clone(&partition), offset: 0, timestamp }.time();
        let millis = 1_795_974_914_216;
        assert_eq!(time(millis), Some(Timestamp::from_millis(millis)));
        for wrong in [-1, 0, millis / 1_000, millis * 1_000, i64::MIN, i64::MAX] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}
