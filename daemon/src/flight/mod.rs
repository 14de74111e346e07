//! What is under way in this instance, and the way back to the store.
//!
//! One lock holds the partitions that are ours and the callbacks by id (`table`, pure). The settle task composes
//! batches from it, writes them, and tells it what became durable (`composed`, `settle`). Nothing here sends anything.

mod body_room;
mod composed;
mod offset_tracker;
mod pulse;
pub mod settle;
mod stage;
mod table;
#[cfg(test)]
mod testing;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

pub use body_room::BodyRoom;
pub use composed::{Composed, Durable};
pub use pulse::{Others, PulseTask};
use settle::{Notice, SettleDeps, SettleTask, Settler};
use table::FlightTable;

use crate::base::clock::{Clock, Moment, Timestamp};
use crate::base::metrics::Metrics;
use crate::model::callback::{CallbackId, FIRST_BUILDER, Hash};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::{Facts, LEASE_SLACK, Lease};
use crate::model::offsets::Watermark;
use crate::model::settlement::{Change, Park};
use crate::schedule::ClaimWaker;
use crate::store::batch::{BatchWriter, StoreUp};
use crate::store::{EngineStore, InstanceId, PartitionWatermark};

/// The handle: what delivery and intake use.
#[derive(Clone)]
pub struct Flight {
    pub inflight: Arc<Inflight>,
    pub settler: Settler,
    pub body_room: Arc<BodyRoom>,
    /// The other instances of this store.
    pub others: watch::Receiver<Others>,
}

/// What the room needs of those before it.
pub struct Deps {
    pub store: Arc<dyn EngineStore>,
    pub store_up: Arc<StoreUp>,
    pub instance: InstanceId,
    pub clock: Arc<dyn Clock>,
    pub waker: ClaimWaker,
    pub metrics: Arc<Metrics>,
    pub body_room: BodyRoom,
    /// How long an epoch counts after the store has confirmed it.
    pub trusted_for: Duration,
    /// Told of everything that became durable: the demo's screen, or a test.
    pub notices: Option<mpsc::Sender<Notice>>,
}

/// Builds the room: the table of what is under way, the task that writes batches, and the pulse.
pub fn build(deps: Deps) -> (Flight, SettleTask, PulseTask) {
    let Deps { store, store_up, instance, clock, waker, metrics, body_room, trusted_for, notices } = deps;
    let body_room = Arc::new(body_room);
    let inflight = Arc::new(Inflight::new(trusted_for));
    let writer = BatchWriter::new(Arc::clone(&store), instance, Arc::clone(&metrics), Arc::clone(&store_up));
    let applied = writer.applied();
    let (room, under_way) = (Arc::clone(&body_room), Arc::clone(&inflight));
    let deps = SettleDeps { writer, inflight: under_way, metrics, body_room: room, waker, notices };
    let (settler, task) = settle::build(deps);
    let (others, others_rx) = watch::channel(Others { runs: HashSet::new(), at: None });
    let (under_way, to_settle) = (Arc::clone(&inflight), settler.clone());
    let pulse =
        PulseTask { store, instance, applied, store_up, clock, inflight: under_way, settler: to_settle, others };
    (Flight { inflight, settler, body_room, others: others_rx }, task, pulse)
}

/// Whether a callback was entered, or why it was not.
#[derive(Debug, PartialEq, Eq)]
pub enum Begin {
    Begun,
    /// The same callback is under way: its end settles this record too.
    Repeat,
    /// Another event is under way under this id.
    Reused,
    /// The record's partition is no longer ours.
    NotOurs,
}

/// A record that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The store may already have a row for it, so its id is looked up first.
    pub is_below_seen: bool,
}

/// A first try that is under way.
#[derive(Debug, Clone)]
pub struct FirstTry {
    pub facts: Arc<Facts>,
    /// When its record was read.
    pub since: Timestamp,
    /// Its attempt has begun; before that it waits for its turn.
    pub is_started: bool,
}

/// A first try that needs its row because its partition is given up.
#[derive(Debug)]
pub struct ToPark {
    pub lease: Arc<Lease>,
    /// Its attempt is under way, so its row stays leased to this instance.
    pub is_started: bool,
}

/// The callbacks and partitions under way, behind one lock.
pub struct Inflight {
    table: Mutex<FlightTable>,
    /// Notified when a watermark may have moved although no change is on its way to the store.
    pub moved: Notify,
    /// The builder of new callbacks, once the store has told which ones the living instances know. 0 before that.
    builder: AtomicU8,
}

impl Inflight {
    fn new(trusted_for: Duration) -> Self {
        let table = Mutex::new(FlightTable::new(trusted_for));
        Self { table, moved: Notify::new(), builder: AtomicU8::new(0) }
    }

    fn table(&self) -> MutexGuard<'_, FlightTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which code joins the bodies of new callbacks: the newest that every living instance knows, so that each of them can send what
    /// this one leaves. Until the store has told, it is the first one, which all know.
    pub fn builder(&self) -> u8 {
        self.builder.load(Ordering::Relaxed).max(FIRST_BUILDER)
    }

    fn set_builder(&self, builder: u8) {
        self.builder.store(builder, Ordering::Relaxed);
    }

    /// The partition is ours from now on, in this epoch. `durable` is the watermark that the store has.
    pub fn take(&self, partition: Arc<PartitionKey>, epoch: i64, durable: Watermark) {
        self.table().take(partition, epoch, durable, Moment::now());
    }

    /// The partition is being given up: none of its callbacks begins any more. Returns the first tries that need a row
    /// now. Until [`gone`](Self::gone) is called, each change that becomes durable still raises the watermark.
    pub fn give_up(&self, partition: &PartitionKey) -> Vec<ToPark> {
        self.table().give_up(partition)
    }

    /// The partition is given up: no later batch changes its watermark. Returns the epoch under which it was ours.
    pub fn gone(&self, partition: &PartitionKey) -> Option<i64> {
        self.table().gone(partition)
    }

    /// The partitions that must be taken again, each once.
    pub fn take_again(&self) -> Vec<Arc<PartitionKey>> {
        self.table().take_again()
    }

    /// Our partitions, each with its epoch.
    fn held(&self) -> Vec<(Arc<PartitionKey>, i64)> {
        self.table().held()
    }

    /// See [`FlightTable::hear_epochs`].
    fn hear_epochs(
        &self,
        held: Vec<(Arc<PartitionKey>, i64)>,
        ours: Option<&HashMap<Arc<PartitionKey>, i64>>,
        at: Moment,
    ) -> Vec<Arc<PartitionKey>> {
        self.table().hear_epochs(held, ours, at)
    }

    /// The epoch under which the partition is ours.
    pub fn epoch(&self, partition: &PartitionKey) -> Option<i64> {
        self.table().epoch(partition)
    }

    /// The watermark that the store has of a partition of ours. Kafka's committed offset follows it.
    pub fn watermark(&self, partition: &PartitionKey) -> Option<Watermark> {
        self.table().durable(partition)
    }

    /// Takes a record in. `None` if the record must be ignored.
    pub fn receive(&self, partition: &PartitionKey, epoch: i64, offset: i64, hash: Hash) -> Option<Received> {
        let now = Instant::now();
        self.table().receive((partition, offset), epoch, hash, now)
    }

    /// Records of the partition above its watermark.
    pub fn outstanding(&self, partition: &PartitionKey) -> usize {
        self.table().outstanding(partition)
    }

    /// Records of all our partitions above their watermarks.
    pub fn all_outstanding(&self) -> usize {
        self.table().all_outstanding()
    }

    /// The consumer has read the partition up to this offset.
    pub fn at_position(&self, partition: &PartitionKey, position: i64) {
        self.table().at_position(partition, position);
        self.moved.notify_one();
    }

    /// How long the oldest record of any partition has been under way, by topic.
    pub fn watermark_ages(&self) -> HashMap<Arc<str>, Duration> {
        let now = Instant::now();
        self.table().watermark_ages(now)
    }

    /// Enters a first try or a claimed row, before it is offered to a lane.
    pub fn begin(&self, lease: &Arc<Lease>) -> Begin {
        self.table().begin(lease)
    }

    /// The attempt begins. False when it must not, because its partition was given up meanwhile.
    pub fn start(&self, lease: &Lease) -> bool {
        self.table().start(lease, Moment::now())
    }

    /// Takes the right to park this first try. False when it has a row already, or is not under way.
    pub fn park(&self, lease: &Lease) -> bool {
        self.table().park(lease)
    }

    /// The store knows this callback already, so its record and the copies of it need nothing more.
    pub fn known(&self, lease: &Lease) {
        let now = Instant::now();
        self.table().known(lease, now);
        self.moved.notify_one();
    }

    /// Removes a first try that becomes a dead letter, or is forgotten. Returns the records that waited for it: each of
    /// them must be decided by itself.
    pub fn withdraw(&self, lease: &Lease) -> Vec<RecordRef> {
        self.table().withdraw(lease)
    }

    /// The partition of this record is taken again, and read from its watermark.
    pub fn read_again(&self, record: &RecordRef) {
        self.table().read_again(&record.partition);
    }

    /// The partition is given up and taken again.
    pub fn take_partition_again(&self, partition: &Arc<PartitionKey>) {
        self.table().read_again(partition);
    }

    /// The record is skipped: it needs no callback and no row.
    pub fn done_without_row(&self, record: &RecordRef, epoch: i64) {
        let now = Instant::now();
        self.table().done(record, epoch, false, now);
        self.moved.notify_one();
    }

    /// Composes the next batch: these changes, and the watermarks that hold once they are durable.
    pub fn compose(&self, changes: Vec<Change>) -> Composed {
        let now = Instant::now();
        self.table().compose(changes, now)
    }

    /// The batch is durable. Returns how many partitions of ours it found fenced. They are taken again.
    pub fn confirm(&self, batch: &Durable) -> usize {
        let now = Instant::now();
        let mut table = self.table();
        let landed = table.confirm(batch, now);
        let fenced = batch.fenced().iter().filter(|(partition, epoch)| table.fenced(partition, *epoch)).count();
        drop(table);
        if landed.iter().any(|flight| !flight.copies.is_empty()) {
            // The copies are done now, so watermarks may rise.
            self.moved.notify_one();
        }
        fenced
    }

    /// The first tries of a task that are under way, at most `at_most` of them: in part the store has no row of them yet. It
    /// looks at every callback under way; the budget of bodies in memory bounds how many there are.
    pub fn first_tries_of_task(&self, task: &str, at_most: usize) -> Vec<FirstTry> {
        self.table().first_tries(at_most, |facts| *facts.task_id == *task)
    }

    /// The first try of this callback, if it is under way.
    pub fn first_try(&self, id: CallbackId) -> Option<FirstTry> {
        self.table().first_try(id)
    }

    /// The leases of the attempts that are under way.
    pub fn started(&self) -> Vec<Arc<Lease>> {
        self.table().started()
    }

    /// Watermarks above every record received, durable or not. Only a fault switch of the tests writes them.
    pub fn received_watermarks(&self) -> Vec<PartitionWatermark> {
        self.table().received_watermarks()
    }
}

/// The park of a first try. While its attempt is under way, the row stays leased until the attempt's deadline.
pub fn parked(lease: &Lease, under_way: Option<Duration>) -> Change {
    let now = lease.now();
    let lease_until = under_way.map(|deadline| now.plus(deadline.saturating_add(LEASE_SLACK)));
    Change::Park(Box::new(Park {
        facts: Arc::clone(&lease.facts),
        epoch: lease.epoch().expect("only a first try is parked"),
        url: lease.url.clone(),
        body: lease.body.clone(),
        due: now,
        token: lease.token,
        lease_until,
    }))
}
