//! The trait of the hot path: batches of changes, claims of due callbacks, partitions and their epochs.
//!
//! It knows nothing about teams and keys, and people do not use it. They use other traits, so that no read for people
//! can delay delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::letters::{LetterResend, LetterResent};
use super::resends::ResendCounts;
use super::space::{Space, SpaceAsk};
use super::versions::{Programs, SetAside};
use super::{Answer, StoreError};
use crate::base::clock::Timestamp;
use crate::faults::{self, Fault};
use crate::model::amendment::{Amended, Amendment, Resend};
use crate::model::callback::{CallbackId, Hash};
use crate::model::endpoint::QueueKey;
use crate::model::endpoint_history::EndpointHistory;
use crate::model::event::PartitionKey;
use crate::model::lease::Token;
use crate::model::offsets::Watermark;
use crate::model::pause::PausedQueues;
use crate::model::settlement::{Change, Pending, Verdict};
use crate::model::team::Mode;

/// Names one instance: one run of a daemon on a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(pub i64);

/// The changes of one transaction, with the watermarks that hold once they are durable.
#[derive(Debug, Clone)]
pub struct Batch {
    pub instance: InstanceId,
    /// Rises by one with each batch. A batch whose number the store knows is already applied.
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
    /// One verdict for each change. Empty if the batch had been applied before, on a store that one instance uses.
    pub verdicts: Vec<Verdict>,
    /// Partitions that have a newer epoch than the batch named, each with the epoch of the batch.
    pub lost: Vec<(Arc<PartitionKey>, i64)>,
    /// The store's clock at this write.
    pub now: Timestamp,
}

/// Event times that lie further ahead are taken for no time at all.
const FURTHEST_AHEAD: Duration = Duration::from_secs(400 * 86_400);

/// The last use of its queue, for a callback that has a settled row from now on. That row goes by the time in its id, which lies ahead if
/// the event's clock was wrong, and it names its queue until then.
pub(super) fn last_use_of_queue(id: CallbackId, now: Timestamp) -> Timestamp {
    now.max(id.time().min(now.plus(FURTHEST_AHEAD)))
}

/// A queue that is paused goes to the back for this long, so that a claim does not look at it each time.
pub(super) const PAUSED_LOOK: Duration = Duration::from_secs(3);

/// Which due rows an instance has room for.
#[derive(Debug, Clone)]
pub struct ClaimAsk {
    pub instance: InstanceId,
    pub at_most: usize,
    /// The bodies of all rows together have at most so many bytes. The claim ends at the first row that has no room.
    pub bytes: usize,
    /// Whether the first row is taken even if its body alone is larger.
    pub takes_larger_body_alone: bool,
    pub lease: Duration,
    /// The room of a queue that `room` does not name.
    pub usual_room: u32,
    pub room: HashMap<QueueKey, u32>,
    /// Queues that give no row. They are looked at again some seconds later.
    pub paused: PausedQueues,
    /// The token of the first row; each further row takes the next number.
    pub first_token: Token,
}

#[derive(Debug)]
pub struct Claimed {
    /// The store's clock at the claim.
    pub now: Timestamp,
    pub rows: Vec<(Pending, Bytes)>,
    /// When the next row of any queue may be due.
    pub next_at: Option<Timestamp>,
    pub set_aside: SetAside,
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

/// Who asks for a partition.
#[derive(Debug, Clone)]
pub struct TakeAsk {
    pub instance: InstanceId,
    pub partition: Arc<PartitionKey>,
    /// How long an owner that lives may take to give the partition up. After that it is taken all the same.
    pub patience: Duration,
}

impl TakeAsk {
    /// Without patience: an owner that lives is asked once, and at the next ask it loses the partition.
    pub fn at_once(instance: InstanceId, partition: Arc<PartitionKey>) -> Self {
        Self { instance, partition, patience: Duration::ZERO }
    }
}

/// The answer to a [`TakeAsk`].
#[derive(Debug, Clone)]
pub enum Take {
    Taken(Taken),
    /// Its owner lives and was told that another one wants the partition: ask again in a moment.
    Held {
        owner: InstanceId,
    },
}

impl Take {
    /// The partition, if nobody else has it.
    pub fn taken(self) -> Option<Taken> {
        match self {
            Self::Taken(taken) => Some(taken),
            Self::Held { .. } => None,
        }
    }
}

/// Where a partition starts that is read as a new log.
#[derive(Debug, Clone)]
pub struct NewLog {
    pub start: i64,
    /// Ids of records below may have rows already.
    pub log_end: i64,
    /// The foreign store id that an operator accepted.
    pub accepted: Option<String>,
}

/// A partition as it was taken over.
#[derive(Debug, Clone)]
pub struct Taken {
    pub epoch: i64,
    pub watermark: Watermark,
    /// The store has never read this partition and was not told where to start.
    pub fresh: bool,
    /// The store has read something of this Kafka cluster, of whichever partition.
    pub knows_cluster: bool,
    /// The foreign store id that an operator accepted for it.
    pub accepted: Option<String>,
    /// How often, one time after the other, an instance died that had read the partition from this watermark.
    pub deaths: u32,
}

/// A step of a job that sends many callbacks again.
#[derive(Debug, Clone)]
pub struct ResendStep {
    pub job: String,
    /// The instance that holds the job.
    pub instance: InstanceId,
    /// Where the cursor of the job must stand.
    pub from: Option<CallbackId>,
    /// Where it stands afterwards.
    pub to: Option<CallbackId>,
    /// Nothing is left to look at: the job is done.
    pub is_last: bool,
    pub rounds: Vec<(CallbackId, Resend)>,
    /// What the job looked at and leaves alone.
    pub left: ResendCounts,
}

impl ResendStep {
    /// What the step did, if it opened so many of its rounds.
    pub(super) fn counts(&self, opened: usize) -> ResendCounts {
        let busy = self.rounds.len().saturating_sub(opened) as u64;
        ResendCounts { opened: self.left.opened + opened as u64, busy: self.left.busy + busy, ..self.left }
    }
}

/// Which old rows to delete. Pending rows are never deleted.
#[derive(Debug, Clone, Copy)]
pub struct PruneAsk {
    /// The store's clock now. An event whose time lies after this is old by when its callback settled.
    pub now: Timestamp,
    pub settled_before: Timestamp,
    /// Go on after this id, where the last piece of settled rows ended.
    pub after: Option<CallbackId>,
    pub dead_letters_before: Timestamp,
    pub event_ids_before: Timestamp,
    /// The most rows of each kind in one call.
    pub at_most: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub settled: usize,
    pub dead_letters: usize,
    pub event_ids: usize,
    /// Queues that no row has named for as long as settled rows are kept.
    pub queues: usize,
    /// A day of settled rows went at once, and there may be another one.
    pub more_days: bool,
    /// Where this piece of settled rows ended; `None` when all of them were looked at.
    pub next: Option<CallbackId>,
}

/// What an instance learns when it begins.
#[derive(Debug, Clone)]
pub struct Begun {
    pub instance: InstanceId,
    pub store_id: String,
    /// The id of this run, and those of the last hundred runs before it.
    pub run: String,
    pub earlier_runs: Vec<String>,
    /// An earlier instance did not end cleanly, so callbacks may be repeated.
    pub unclean: bool,
    pub now: Timestamp,
}

/// What an instance learns while it runs, once a second.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// The time of the database's clock, where the store has a clock of its own.
    pub now: Option<Timestamp>,
    /// The epochs of this instance's partitions; `None` where one instance at a time uses the store.
    pub epochs: Option<HashMap<Arc<PartitionKey>, i64>>,
    /// Partitions of this instance that another one wants.
    pub wanted: Vec<Arc<PartitionKey>>,
    /// Runs of other instances that work on this very store, or have worked on it since this instance began.
    pub others: Vec<String>,
    /// The programs of the living instances; `None` where one instance at a time uses the store.
    pub programs: Option<Programs>,
}

/// The version of this program, and the name of its machine, as an instance tells them.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether the batch of this number is applied, if `last` is the number of the last one.
///
/// # Errors
/// The batch is not applied, and it is not the next one either.
pub(super) fn is_applied(last: u64, number: u64) -> Result<bool, StoreError> {
    match number.checked_sub(last) {
        Some(0) => Ok(!faults::is_on(Fault::BatchTwice)),
        Some(1) => Ok(false),
        _ => Err(went_back()),
    }
}

/// Whether the store takes this change although it does not find its partition to be ours. Only fault switches of the tests
/// allow it.
pub(super) fn is_taken_all_the_same(change: &Change) -> bool {
    let is_queued = matches!(change, Change::Park(park) if park.lease_until.is_none());
    faults::is_on(Fault::FencedWriteWrites) || (is_queued && faults::is_on(Fault::QueuedParkedAfterLoss))
}

/// The store's row of this instance does not agree with what the instance knows of itself.
pub(super) fn went_back() -> StoreError {
    StoreError::Superseded(
        "the store went back to an earlier state, and does not know the last batches of this instance".to_owned(),
    )
}

/// The id of a run that begins now. The ids are in the order of their times.
pub(super) fn new_run(now: Timestamp) -> String {
    let mut random = [0_u8; 4];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    format!("{:012x}-{}", now.millis().max(0), scale_callback_serve::text::hex(&random))
}

/// The store's clock was set back by `by`, to `now`. It may have been wrong since it showed `from`.
#[derive(Debug, Clone, Copy)]
pub struct SetBack {
    pub by: Duration,
    pub now: Timestamp,
    pub from: Timestamp,
}

/// The queue in which a callback waits, by its team, the URL of its own if it has one, and its mode.
pub type QueueOf = fn(&Arc<str>, Option<&str>, Mode) -> QueueKey;

/// The engine's store.
pub trait EngineStore: Send + Sync {
    /// How much disk space parked bodies take, and how much is left.
    fn space(&self, ask: SpaceAsk) -> Answer<'_, Space>;

    /// The newest time at which an earlier instance wrote. `None` for a new store.
    fn newest_time(&self) -> Answer<'_, Option<Timestamp>>;

    /// Takes back times of pending rows that lie in the future because the clock was wrong, and what instances wrote of
    /// themselves and of endpoints. A retry may come earlier for it, never later.
    fn set_back(&self, back: SetBack) -> Answer<'_, usize>;

    /// Registers this instance. Where one instance at a time uses the store, the leases of earlier ones become void.
    fn begin(&self) -> Answer<'_, Begun>;

    /// Says that this instance lives, and asks what others want of it. Its batches up to the number `applied` are known to be
    /// applied: a store that does not have them went back.
    fn pulse(&self, instance: InstanceId, applied: u64) -> Answer<'_, Pulse>;

    /// Applies a batch in one transaction. A batch whose number the store knows changes nothing.
    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied>;

    /// Takes due rows under a lease, in O(rows taken): queues in the order of their next time, rows by due time.
    fn claim(&self, ask: ClaimAsk) -> Answer<'_, Claimed>;

    /// Changes callbacks as an operator asks, each of another id, in one transaction. Answers for the first of them, as many as are
    /// done together: all, or fewer if their bodies would take much memory, and at least one.
    fn amend(&self, changes: Vec<(CallbackId, Amendment)>) -> Answer<'_, Vec<Amended>>;

    /// Opens rounds, and moves the cursor of their job, in one transaction. Answers with what it did; `None` if the job does not run
    /// any more, is held by another instance, or stands elsewhere.
    fn resend(&self, step: ResendStep) -> Answer<'_, Option<ResendCounts>>;

    /// Makes a callback of a dead letter, and records that it is one now (row 33).
    fn resend_letter(&self, resend: LetterResend) -> Answer<'_, LetterResent>;

    /// Sets a dead letter aside. False if there is none of this id, or if it became a callback.
    fn discard_letter(&self, letter: CallbackId) -> Answer<'_, bool>;

    /// Makes pending callbacks of a queue due now that wait for a later time and are not under way: the earliest first, at
    /// most so many. Answers with their number.
    fn retry_queue(&self, queue: QueueKey, at_most: usize) -> Answer<'_, usize>;

    /// Which of these ids have a row, pending or settled.
    fn known(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Known>>>;

    /// Claims event ids in one transaction; for each, the callback that the event id belongs to from now on.
    fn claim_event_ids(&self, claims: Vec<EventClaim>) -> Answer<'_, Vec<CallbackId>>;

    /// Takes a partition over, in its next epoch. From an owner that lives only after its time to give it up.
    fn take(&self, ask: TakeAsk) -> Answer<'_, Take>;

    /// Takes a partition over in its next epoch, to read it as a new log. `None` if another one has taken it since `epoch`.
    fn start_over(
        &self,
        instance: InstanceId,
        partition: Arc<PartitionKey>,
        epoch: i64,
        log: NewLog,
    ) -> Answer<'_, Option<Taken>>;

    /// Gives partitions back, each as it was taken in this epoch: nothing of them is under way without a row.
    fn release(&self, instance: InstanceId, partitions: Vec<(Arc<PartitionKey>, i64)>) -> Answer<'_, ()>;

    /// Frees leases that ran out. Returns how many there were. No lease is longer than `lease`.
    fn free_leases(&self, lease: Duration) -> Answer<'_, usize>;

    /// Repairs the next times and parked bytes of queues, and makes the row of a queue that pending callbacks name and that has none.
    fn sweep(&self, queue_of: QueueOf) -> Answer<'_, ()>;

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned>;

    /// Adds what this instance knows of these endpoints to what others have noted.
    fn note_endpoints(&self, histories: Vec<EndpointHistory>) -> Answer<'_, ()>;

    /// The histories of endpoints, those that were used last first.
    fn endpoint_histories(&self, at_most: usize) -> Answer<'_, Vec<EndpointHistory>>;

    /// Records that the instance ends cleanly: no attempt of it is under way.
    fn end(&self, instance: InstanceId) -> Answer<'_, ()>;
}
