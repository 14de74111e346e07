//! A task event that can't become a callback.

use bytes::Bytes;

use super::callback::CallbackId;
use super::event::RecordRef;
use crate::base::named::named;

named! {
    /// Why a record is a dead letter.
    pub enum Unreadable {
        NotJson = "not_json",
        NotObject = "not_object",
        InvalidUtf8 = "invalid_utf8",
        TooLarge = "too_large",
        MissingTask = "missing_task",
        MissingTaskId = "missing_task_id",
        MissingTeamId = "missing_team_id",
        WrongType = "wrong_type",
        DuplicateField = "duplicate_field",
        InvalidId = "invalid_id",
        ConflictingIdentity = "conflicting_identity",
        UnknownTeam = "unknown_team",
        EventIdReused = "event_id_reused",
        Tombstone = "tombstone",
        Skipped = "skipped",
        Poison = "poison",
    }
}

/// How much of a dead letter's value is kept.
pub const KEPT_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub id: CallbackId,
    pub record: RecordRef,
    pub reason: Unreadable,
    /// One sentence for a person. It may be empty.
    pub detail: String,
    /// As far as they could be read.
    pub team: Option<Box<str>>,
    pub task_id: Option<Box<str>>,
    pub event_id: Option<Box<str>>,
    /// The first [`KEPT_BYTES`] of the value, and how long it was.
    pub value: Bytes,
    pub value_len: u64,
}
