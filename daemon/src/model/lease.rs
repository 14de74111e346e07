//! The right of this instance to settle one callback, with everything that an attempt needs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::callback::CallbackId;
use super::endpoint::{CallbackUrl, QueueKey};
use super::event::RecordRef;
use super::no_body::NoBody;
use super::retry::Progress;
use super::team::Mode;
use crate::base::clock::{Moment, Timestamp};

/// Names one lease. A settle must show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// How long a lease outlives its attempt's deadline, so that the settle still finds the lease.
pub const LEASE_SLACK: Duration = Duration::from_secs(5);

/// The facts that never change in a callback's life. They are the same in `pending` and in `settled`.
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

impl Facts {
    /// Whether both are of one event. A re-send may have moved one of them to another queue.
    pub fn differ_in_queue_at_most(&self, other: &Self) -> bool {
        *self == Self { queue: self.queue.clone(), ..other.clone() }
    }
}

/// Where a lease comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// A first try without a row. The partition is ours in this epoch.
    Record { epoch: i64 },
    /// A row that was claimed with the lease's token.
    Row,
}

/// The attempt may end the process that makes it, so it is made in a process of its own.
#[derive(Debug)]
pub struct Suspect {
    /// The attempt before was a failure of its own: it panicked, or it ended its process.
    pub failed_before: bool,
    /// Its place among the few that are tried at once. It is free again when the lease is dropped.
    pub place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub struct Lease {
    pub facts: Arc<Facts>,
    /// The task's own URL, as the event had it.
    pub url: Option<CallbackUrl>,
    pub body: Bytes,
    /// Why the body could not be had, if it could not: then nothing is sent, and the callback ends.
    pub no_body: Option<NoBody>,
    pub progress: Progress,
    /// 0, or which re-send of an ended callback this is.
    pub round: u32,
    /// In this round the callback has an id of its own.
    pub new_id: bool,
    pub token: Token,
    pub right: Right,
    /// The store's clock and the boot-time clock when the lease began.
    pub born_at: Timestamp,
    pub born: Moment,
    /// When the lease of a claimed row ends. The lease of a record has no end of its own.
    pub until: Option<Moment>,
    /// Set if the callback is a suspect. Only a claimed row can be one.
    pub suspect: Option<Suspect>,
}

impl Lease {
    pub fn id(&self) -> CallbackId {
        self.facts.id
    }

    /// The id that the receiver sees.
    pub fn webhook_id(&self) -> String {
        if self.new_id { format!("{}_r{}", self.id(), self.round) } else { self.id().to_string() }
    }

    /// Whether the callback was never tried. One that was cancelled before its first attempt and is sent again does not count.
    pub fn is_first_attempt(&self) -> bool {
        self.progress.attempts == 0 && self.round == 0
    }

    /// The store's clock now: its time at the claim, plus the time that has passed since on the boot-time clock.
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
        self.until.is_none_or(|until| until.since(Moment::now()) >= deadline.saturating_add(LEASE_SLACK))
    }
}
