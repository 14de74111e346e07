//! Reads the event of a dead letter once more, as its record was: from the value that is kept with it, or from Kafka.

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::super::decode::{Raw, decode};
use super::super::headers::identity;
use super::super::partition::Place;
use super::super::polled::Polled;
use super::super::sandbox::{Heard, SandboxedRecord, Value};
use super::{PATIENCE, Rereader};
use crate::model::dead_letter::DeadLetter;
use crate::model::event::{RecordRef, TaskEvent};
use crate::model::hash::Hash;
use crate::model::no_body::NoBody;

impl Rereader {
    /// The event that the dead letter's record is by now, or the dead letter that it still is.
    ///
    /// # Errors
    /// [`NoBody`] if the whole record can't be had.
    pub async fn read_letter(&self, letter: &DeadLetter) -> Result<Result<TaskEvent, Box<DeadLetter>>, NoBody> {
        let is_whole = letter.value.len() as u64 == letter.value_len && letter.value_hash.is_some();
        if let Some(headers) = letter.headers.as_ref().filter(|_| is_whole) {
            let pairs = headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice())));
            let raw = Raw { record: &letter.record, headers: identity(pairs), value: &letter.value };
            return Ok(decode(&raw, self.max_event_bytes));
        }
        let record = self.record(&letter.record).await?;
        let timestamp = record.timestamp.unwrap_or(-1);
        let is_same = match letter.value_hash {
            Some(hash) => hash_of(&record) == Some(hash),
            // Nobody could read it, or an earlier version did not store its hash.
            None => [-1, timestamp].contains(&letter.record.timestamp),
        };
        if !is_same {
            return Err(NoBody::Changed);
        }
        let own = RecordRef { timestamp, ..letter.record.clone() };
        let partition = &own.partition;
        let polled = Polled::in_sandbox(&partition.topic, partition.number, &record);
        Ok(polled.decode(&own, self.max_event_bytes))
    }

    /// One record of Kafka.
    async fn record(&self, record: &RecordRef) -> Result<SandboxedRecord, NoBody> {
        let end = Instant::now() + PATIENCE;
        let place = tokio::time::timeout_at(end, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(NoBody::Silent) };
        let mut sandbox = self.sandboxes.sandbox(&record.partition, Place::Offset(record.offset));
        match self.hear(&mut sandbox, &record.partition, end).await? {
            Heard::Record(found) if found.offset == record.offset => Ok(*found),
            Heard::Record(_) | Heard::End(_) => Err(NoBody::Gone),
            Heard::Unread(_) => Err(NoBody::Unreadable),
            Heard::Absent | Heard::Lost => Err(NoBody::Silent),
        }
    }
}

/// The hash of a record's value; `None` if it has none.
fn hash_of(record: &SandboxedRecord) -> Option<Hash> {
    match &record.value {
        Value::Tombstone => Some(Sha256::digest(b"").into()),
        Value::Cut(_, cut) => Some(cut.hash),
        Value::Whole(value) => Some(Sha256::digest(value).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use rdkafka::ClientConfig;

    use super::*;
    use crate::intake::decode::{CloudEvent, Headers, unwanted};
    use crate::model::dead_letter::Unreadable;
    use crate::model::event::PartitionKey;

    fn record() -> RecordRef {
        let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
        RecordRef { partition, offset: 7, timestamp: 1_764_000_000_000 }
    }

    async fn again(letter: &DeadLetter) -> TaskEvent {
        Rereader::new(&ClientConfig::new(), 1 << 20).read_letter(letter).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn an_event_whose_team_was_not_known_is_read_again_as_it_was() {
        let value = br#"{"task":{"task_id":"t1"},"response":[1, 2]}"#;
        let own = Headers { team_id: Some(b"team_a"), event_id: Some(b"e1"), ..Headers::default() };
        let cloud_event =
            CloudEvent { id: Some(b"1"), source: Some(b"/s"), kind: Some(b"task.done"), team: Some(b"team_a") };
        let cloud = Headers { cloud_event: Some(cloud_event), ..Headers::default() };
        for headers in [own, cloud] {
            let event = decode(&Raw { record: &record(), headers, value }, 1 << 20).unwrap();
            let letter = unwanted(&event, Unreadable::UnknownTeam, String::new());
            assert_eq!(format!("{:?}", again(&letter).await), format!("{event:?}"));
        }
    }

    #[test]
    fn of_headers_that_contradict_each_other_none_is_kept_and_of_long_ones_the_beginning() {
        let value = br#"{"task":{"task_id":"t1"}}"#;
        let pairs: [(&str, Option<&[u8]>); 2] = [("team-id", Some(b"team_a")), ("team-id", Some(b"team_b"))];
        let headers = identity(pairs.into_iter());
        let letter = decode(&Raw { record: &record(), headers, value }, 1 << 20).unwrap_err();
        assert_eq!((letter.reason, letter.headers), (Unreadable::ConflictingIdentity, None));
        let long = vec![b'x'; 100_000];
        let headers = Headers { team_id: Some(&long), ..Headers::default() };
        let letter = decode(&Raw { record: &record(), headers, value }, 1 << 20).unwrap_err();
        assert_eq!(letter.reason, Unreadable::InvalidId);
        assert_eq!(letter.headers.unwrap()[0].1.len(), 1_024);
    }

    #[tokio::test]
    async fn the_headers_of_a_record_that_could_not_be_read_are_kept() {
        let headers = Headers { team_id: Some(b"team_a"), event_type: Some(b"task.recalled"), ..Headers::default() };
        let value = br#"{"task":{"task_id":"t1","padding":"xxxxxxxxxxxxxxxxxxxx"}}"#;
        // It was larger than an event might be, and the bound was raised.
        let letter = decode(&Raw { record: &record(), headers, value }, 20).unwrap_err();
        assert_eq!(letter.reason, Unreadable::TooLarge);
        let event = again(&letter).await;
        assert_eq!((&*event.team, &*event.event_type), ("team_a", "task.recalled"));
        let still = Rereader::new(&ClientConfig::new(), 20).read_letter(&letter).await.unwrap().unwrap_err();
        assert_eq!(still.reason, Unreadable::TooLarge);
        let cut = DeadLetter { value: Bytes::from_static(b"{"), ..*letter };
        assert!(cut.value.len() as u64 != cut.value_len, "what is not whole is read from Kafka");
    }
}
