//! A record that was read, by Kafka's client here or in a sandbox.

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::decode::{self, Headers, Raw};
use super::headers::{headers, identity};
use super::sandbox::{CutValue, SandboxedRecord, Value};
use crate::model::callback::Hash;
use crate::model::dead_letter::DeadLetter;
use crate::model::event::{RecordRef, TaskEvent};
use crate::model::offsets::UNREAD;

pub(super) struct Polled<'m> {
    pub(super) topic: &'m str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Milliseconds; -1 if it has none.
    pub(super) timestamp: i64,
    content: Content<'m>,
}

enum Content<'m> {
    Tombstone,
    Whole(Headers<'m>, &'m [u8]),
    /// The first bytes of a value that is larger than an event may be.
    Cut(&'m [u8], CutValue),
    Unread,
}

impl<'m> Polled<'m> {
    pub(super) fn by_client(message: &'m BorrowedMessage<'_>) -> Self {
        Self {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
            content: message.payload().map_or(Content::Tombstone, |value| Content::Whole(headers(message), value)),
        }
    }

    pub(super) fn in_sandbox(topic: &'m str, partition: i32, record: &'m SandboxedRecord) -> Self {
        let content = match &record.value {
            Value::Tombstone => Content::Tombstone,
            Value::Cut(first, cut) => Content::Cut(first, *cut),
            Value::Whole(value) => {
                let headers = record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
                Content::Whole(identity(headers), value)
            }
        };
        Self { topic, partition, offset: record.offset, timestamp: record.timestamp.unwrap_or(-1), content }
    }

    /// A record that ends whoever reads it.
    pub(super) fn unread(topic: &'m str, partition: i32, offset: i64) -> Self {
        Self { topic, partition, offset, timestamp: -1, content: Content::Unread }
    }

    pub(super) fn log_hash(&self) -> Hash {
        match &self.content {
            Content::Tombstone => decode::log_hash(self.timestamp, None),
            Content::Whole(_, value) => decode::log_hash(self.timestamp, Some(value)),
            Content::Cut(_, cut) => cut.log_hash,
            Content::Unread => UNREAD,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match &self.content {
            Content::Tombstone | Content::Unread => 0,
            Content::Whole(_, value) => value.len() as u64,
            Content::Cut(_, cut) => cut.bytes,
        }
    }

    pub(super) fn is_tombstone(&self) -> bool {
        matches!(self.content, Content::Tombstone)
    }

    pub(super) fn decode(&self, record: &RecordRef, max_bytes: usize) -> Result<TaskEvent, Box<DeadLetter>> {
        match &self.content {
            Content::Tombstone => Err(decode::tombstone(record)),
            Content::Whole(headers, value) => decode::decode(&Raw { record, headers: *headers, value }, max_bytes),
            Content::Cut(first, cut) => Err(decode::cut(record, first, cut.bytes, cut.hash, max_bytes)),
            Content::Unread => Err(decode::poison(record)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::model::dead_letter::{KEPT_OF_TOO_LARGE, Unreadable};
    use crate::model::event::PartitionKey;

    fn record(timestamp: i64) -> RecordRef {
        let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
        RecordRef { partition, offset: 3, timestamp }
    }

    #[test]
    fn a_value_that_a_sandbox_cut_gives_the_dead_letter_of_the_whole_value() {
        let value = vec![b'x'; 100_000];
        let whole = decode::decode(&Raw { record: &record(7), headers: Headers::default(), value: &value }, 99_999);
        let whole = whole.unwrap_err();
        let cut = CutValue {
            bytes: 100_000,
            hash: Sha256::digest(&value).into(),
            log_hash: decode::log_hash(7, Some(&value)),
        };
        let value = Value::Cut(value[..KEPT_OF_TOO_LARGE].to_vec(), cut);
        let read = SandboxedRecord { offset: 3, timestamp: Some(7), headers: Vec::new(), value };
        let polled = Polled::in_sandbox("t", 0, &read);
        assert_eq!((polled.log_hash(), polled.bytes()), (cut.log_hash, 100_000));
        let letter = polled.decode(&record(7), 99_999).unwrap_err();
        assert_eq!(format!("{letter:?}"), format!("{whole:?}"));
    }

    #[test]
    fn a_record_that_nobody_can_read_is_a_dead_letter() {
        let polled = Polled::unread("t", 0, 3);
        let letter = polled.decode(&record(-1), 99_999).unwrap_err();
        assert_eq!((polled.log_hash(), letter.reason, letter.value_hash), (UNREAD, Unreadable::Poison, None));
    }
}
