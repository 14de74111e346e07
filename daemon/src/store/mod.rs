//! What outlives memory. One trait for the engine, one for what people ask; SQL stands in this room alone.
//!
//! Every implementer merges by `model::settlement::apply`; `tests/it/store_contract.rs` holds each to it, pair by
//! pair. Times that are compared (due, leases, horizons) are made and compared by the store's clock.

pub mod admin;
pub mod batch;
pub mod faulty;
pub mod memory;
pub mod reads;
pub mod sqlite;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Timestamp;
use crate::model::callback::{CallbackId, Hash};
use crate::model::endpoint::QueueKey;
use crate::model::event::PartitionKey;
use crate::model::lease::Token;
use crate::model::offsets::Watermark;
use crate::model::settlement::{Change, Pending, Verdict};

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing happened, and it may work later: a full disk, a lock held by another, no connection.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It may have happened: write the same batch again.
    #[error("the store did not say whether the batch was applied: {0}")]
    Uncertain(String),
    /// The data itself was refused; nothing of the batch happened.
    #[error("the store refused the data: {0}")]
    Refused(String),
    /// Nothing can be trusted any more: the process must end.
    #[error("the store is broken: {0}")]
    Broken(String),
}

/// Names a running process within a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(pub i64);

/// The changes of one transaction, with how far their partitions have come once it is applied.
#[derive(Debug, Clone)]
pub struct Batch {
    pub instance: InstanceId,
    /// Rises by one; a number that the store has seen is applied already.
    pub number: u64,
    pub changes: Vec<Change>,
    pub watermarks: Vec<PartitionWatermark>,
}

#[derive(Debug, Clone)]
pub struct PartitionWatermark {
    pub partition: Arc<PartitionKey>,
    pub epoch: i64,
    pub watermark: Watermark,
}

#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// One a change; empty when the batch had been applied before.
    pub verdicts: Vec<Verdict>,
    /// Partitions named under an epoch that is no longer theirs.
    pub lost: Vec<(Arc<PartitionKey>, i64)>,
    /// Duplicates of what stood already do not count.
    pub now: Timestamp,
}

/// A wish for due rows.
#[derive(Debug, Clone)]
pub struct ClaimAsk {
    pub instance: InstanceId,
    pub at_most: usize,
    /// Bodies are taken until this many bytes are passed.
    pub bytes: usize,
    pub lease: Duration,
    /// Room for a queue that is not named in `room`.
    pub usual_room: u32,
    pub room: HashMap<QueueKey, u32>,
    /// The first token; each further row takes the next.
    pub first_token: Token,
}

#[derive(Debug)]
pub struct Claimed {
    /// The store's clock at the claim.
    pub now: Timestamp,
    pub rows: Vec<(Pending, Bytes)>,
    /// When the next row of any queue may be due.
    pub next_at: Option<Timestamp>,
}

/// An id that the store has a row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub content_hash: Hash,
}

/// The claim of an event id that carries no time.
#[derive(Debug, Clone, Copy)]
pub struct EventClaim {
    /// SHA-256 of team and event id.
    pub hash: Hash,
    pub id: CallbackId,
}

/// A partition as it was taken over.
#[derive(Debug, Clone)]
pub struct Taken {
    pub epoch: i64,
    pub watermark: Watermark,
    /// The store has never read it, and was not told where to start.
    pub fresh: bool,
    /// The foreign store id that an operator accepted for it.
    pub accepted: Option<String>,
}

/// What ages out. Nothing pending is ever touched.
#[derive(Debug, Clone, Copy)]
pub struct PruneAsk {
    pub settled_before: Timestamp,
    /// Go on behind this id: where the last piece of settled rows ended.
    pub after: Option<CallbackId>,
    pub dead_letters_before: Timestamp,
    pub event_ids_before: Timestamp,
    /// Rows of each kind in one call.
    pub at_most: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub settled: usize,
    pub dead_letters: usize,
    pub event_ids: usize,
    /// Where this piece of settled rows ended; `None` when all were looked at.
    pub next: Option<CallbackId>,
}

/// What a process learns when it begins.
#[derive(Debug, Clone)]
pub struct Begun {
    pub instance: InstanceId,
    pub store_id: String,
    /// An earlier process did not end cleanly: repeats are possible.
    pub unclean: bool,
    pub now: Timestamp,
}

/// The engine's store.
pub trait Store: Send + Sync {
    /// Registers this process; leases of earlier instances that can't run any more are void.
    fn begin(&self) -> Answer<'_, Begun>;

    /// One transaction, idempotent by the batch's number.
    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied>;

    /// Takes due rows under a lease, in O(taken): queues by their next time, rows by due.
    fn claim(&self, ask: ClaimAsk) -> Answer<'_, Claimed>;

    /// What stands under these ids, in either table.
    fn known(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Known>>>;

    /// Claims event ids in one transaction and answers with the id that each belongs to now.
    fn claim_event_ids(&self, claims: Vec<EventClaim>) -> Answer<'_, Vec<CallbackId>>;

    /// Takes a partition over in its next epoch.
    fn take(&self, instance: InstanceId, partition: Arc<PartitionKey>) -> Answer<'_, Taken>;

    /// Starts a partition anew: in its next epoch, from `start`, where all below `log_end` may be known.
    fn start_anew(
        &self,
        instance: InstanceId,
        partition: Arc<PartitionKey>,
        start: i64,
        log_end: i64,
        accepted: Option<String>,
    ) -> Answer<'_, Taken>;

    /// Repairs what claims rely on: queues' next times and bytes, leases that ran out. Answers how many did.
    fn sweep(&self) -> Answer<'_, usize>;

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned>;

    /// The process ends cleanly: nothing of it is under way.
    fn end(&self, instance: InstanceId) -> Answer<'_, ()>;
}
