//! A task event that can't become a callback.

use bytes::Bytes;

use super::callback::CallbackId;
use super::event::RecordRef;
use super::hash::Hash;
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

/// How much is kept of a value that is too large for an event. Any other value is kept whole, within the store's budget.
pub const KEPT_OF_TOO_LARGE: usize = 64 * 1024;

/// How many bytes of dead letters' values the store keeps. A dead letter that has no room keeps everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueBudget {
    pub of_topic: u64,
    pub in_all: u64,
}

/// The bytes of values that the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValueBytes {
    pub of_topic: u64,
    pub in_all: u64,
}

impl ValueBudget {
    /// For tools that bury nothing, and for tests.
    pub const UNBOUNDED: Self = Self { of_topic: u64::MAX, in_all: u64::MAX };

    /// Whether a value of so many bytes has room beside those that are kept already.
    pub fn has_room(&self, kept: ValueBytes, value: usize) -> bool {
        let more = value as u64;
        kept.of_topic.saturating_add(more) <= self.of_topic && kept.in_all.saturating_add(more) <= self.in_all
    }
}

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
    /// The value, or its beginning, or nothing of it. `value_len` is how long it was.
    pub value: Bytes,
    pub value_len: u64,
    /// SHA-256 of the whole value. An earlier version did not store it.
    pub value_hash: Option<Hash>,
    /// Those of the record's headers that carry identity. An earlier version did not store them.
    pub headers: Option<IdentityHeaders>,
}

/// Headers of a record that say who it is for and what it is: names and values.
pub type IdentityHeaders = Vec<(String, Vec<u8>)>;

named! {
    /// What became of a dead letter.
    pub enum LetterState {
        Open = "open",
        /// It became a callback after all.
        Resent = "resent",
        /// An operator set it aside.
        Discarded = "discarded",
    }
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    #[default]
    Open,
    /// It became this callback, or is a copy of its event.
    Resent(CallbackId),
    Discarded,
}

impl Fate {
    pub fn state(self) -> LetterState {
        match self {
            Self::Open => LetterState::Open,
            Self::Resent(_) => LetterState::Resent,
            Self::Discarded => LetterState::Discarded,
        }
    }

    pub fn callback(self) -> Option<CallbackId> {
        match self {
            Self::Resent(id) => Some(id),
            Self::Open | Self::Discarded => None,
        }
    }

    /// What `state` and `callback` say together.
    pub fn read(state: Option<&str>, callback: Option<CallbackId>) -> Option<Self> {
        match (state.map_or(Some(LetterState::Open), LetterState::parse)?, callback) {
            (LetterState::Open, _) => Some(Self::Open),
            (LetterState::Resent, Some(id)) => Some(Self::Resent(id)),
            (LetterState::Resent, None) => None,
            (LetterState::Discarded, _) => Some(Self::Discarded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_room_in_its_topic_and_in_all() {
        let budget = ValueBudget { of_topic: 10, in_all: 15 };
        for (of_topic, in_all, value, has_room) in [
            (0, 0, 10, true),
            (0, 0, 11, false),
            (4, 4, 6, true),
            (4, 4, 7, false),
            (0, 10, 5, true),
            (0, 10, 6, false),
            (10, 15, 0, true),
            (u64::MAX, u64::MAX, 1, false),
        ] {
            let kept = ValueBytes { of_topic, in_all };
            assert_eq!(budget.has_room(kept, value), has_room, "{kept:?} and {value}");
        }
    }
}
