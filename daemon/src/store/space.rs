//! How much space a store takes.

use crate::model::endpoint::QueueKey;

/// What is asked of the disk space of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceAsk {
    /// Queues with more bytes of bodies than this are named.
    pub queue_bytes: u64,
    /// Pending callbacks are counted up to this number; 0 counts none.
    pub count_pending_upto: u64,
}

impl SpaceAsk {
    /// Names no queue and counts nothing.
    pub const BYTES: Self = Self { queue_bytes: u64::MAX >> 1, count_pending_upto: 0 };
}

/// The disk space of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the bodies of pending callbacks.
    pub parked_bytes: u64,
    /// Bytes of the bodies of callbacks that have ended, as they are stored.
    pub kept_bytes: u64,
    /// Notices that wait to be published.
    pub notices: u64,
    /// Bytes that the disk has left, if the store knows its disk.
    pub free_bytes: Option<u64>,
    /// Queues with more bytes than was asked for, a thousand at most, those with the most first.
    pub full_queues: Vec<QueueKey>,
    /// Pending callbacks, if they were to be counted.
    pub pending: Option<u64>,
}
