//! A task event: one decoded Kafka record.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::endpoint::CallbackUrl;
use super::hash::Hash;
use super::team::Mode;

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

/// An event that can become a callback. Its identity fields are checked. The rest is in `body`, which nobody parses.
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
}
