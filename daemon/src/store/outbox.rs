//! What is to be published, as the store keeps it: each transaction that has something to tell writes it into one row, and whoever
//! publishes a row deletes it afterwards. A row that is published twice tells nothing new: notices carry a revision.

use std::time::Duration;

use super::{Answer, InstanceId, StoreError};
use crate::model::callback::CallbackId;
use crate::model::notice::Notice;
use crate::model::settlement::Settled;

/// How long a row belongs to the instance that wrote it. Then another one may publish it.
pub(super) const HELD: Duration = Duration::from_secs(30);

/// The notices of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub id: i64,
    pub notices: Vec<Notice>,
}

/// The publisher's store.
pub trait Outbox: Send + Sync {
    /// Rows that this instance publishes, oldest first, a few at a time: its own, and those of instances that are gone.
    fn outbox(&self, instance: InstanceId, at_most: usize) -> Answer<'_, Vec<OutboxRow>>;

    /// These rows are published.
    fn published(&self, rows: Vec<i64>) -> Answer<'_, ()>;

    /// How these callbacks ended; `None` for one that has no such row.
    fn endings(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Settled>>>;
}

/// The bytes of a notice: the id, and the revision; 0 stands for a dead letter.
const SIZE: usize = 20;

pub(super) fn pack(notices: &[Notice]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(notices.len() * SIZE);
    for notice in notices {
        let (id, revision) = match notice {
            Notice::Ended(id, revision) => (id, *revision),
            Notice::Buried(id) => (id, 0),
        };
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&revision.to_be_bytes());
    }
    bytes
}

/// # Errors
/// `Broken` if the bytes are not those of notices.
pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<Notice>, StoreError> {
    let (whole, rest) = bytes.as_chunks::<SIZE>();
    if !rest.is_empty() {
        return Err(StoreError::Broken("a row of the outbox can't be read".to_owned()));
    }
    let read = |chunk: &[u8; SIZE]| {
        let (id, revision) = chunk.split_at(16);
        let id = CallbackId::from_bytes(id.try_into().expect("16 bytes"));
        match u32::from_be_bytes(revision.try_into().expect("4 bytes")) {
            0 => Notice::Buried(id),
            revision => Notice::Ended(id, revision),
        }
    };
    Ok(whole.iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_read_as_they_were_packed() {
        let id = |n| CallbackId::from_bytes([n; 16]);
        let notices = vec![Notice::Ended(id(1), 1), Notice::Buried(id(2)), Notice::Ended(id(3), u32::MAX)];
        let bytes = pack(&notices);
        assert_eq!(unpack(&bytes).unwrap(), notices);
        assert!(unpack(&bytes[1..]).is_err());
        assert_eq!(unpack(&[]).unwrap(), []);
    }
}
