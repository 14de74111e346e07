//! The right of this process to settle one callback, with all that an attempt needs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::callback::CallbackId;
use super::endpoint::{CallbackUrl, QueueKey};
use super::event::RecordRef;
use super::retry::Progress;
use super::team::Mode;
use crate::base::clock::Timestamp;

/// Names one lease: whoever settles shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// A slack behind an attempt's deadline, so that its settle still finds its lease.
pub const LEASE_SLACK: Duration = Duration::from_secs(5);

/// What stays the same over a callback's life, in `pending` and `settled` alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub id: CallbackId,
    pub record: RecordRef,
    pub team: Arc<str>,
    pub task_id: Box<str>,
    pub event_id: Option<Box<str>>,
    pub event_type: Arc<str>,
    pub queue: QueueKey,
    pub mode: Mode,
    pub content_hash: [u8; 32],
    pub builder: u8,
}

/// Where a lease comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The partition is ours in this epoch: a first try, without a row.
    Record { epoch: i64 },
    /// A row that was claimed with the lease's token.
    Row,
}

#[derive(Debug)]
pub struct Lease {
    pub facts: Arc<Facts>,
    /// The task's own URL, as the event had it.
    pub url: Option<CallbackUrl>,
    pub body: Bytes,
    pub progress: Progress,
    pub token: Token,
    pub right: Right,
    /// The store's clock and the monotonic one at the lease's birth.
    pub born_at: Timestamp,
    pub born: Instant,
    /// A claimed row's lease ends here; a record's has no end of its own.
    pub until: Option<Instant>,
}

impl Lease {
    pub fn id(&self) -> CallbackId {
        self.facts.id
    }

    /// The store's clock now: what it said at the claim, plus what has passed since on the monotonic clock.
    pub fn now(&self) -> Timestamp {
        self.born_at.plus(self.born.elapsed())
    }

    pub fn epoch(&self) -> Option<i64> {
        match self.right {
            Right::Record { epoch } => Some(epoch),
            Right::Row => None,
        }
    }

    /// Whether an attempt of at most `deadline` still fits into the lease.
    pub fn has_room_for(&self, deadline: Duration) -> bool {
        self.until
            .is_none_or(|until| until.saturating_duration_since(Instant::now()) >= deadline.saturating_add(LEASE_SLACK))
    }
}
