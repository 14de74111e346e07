//! The consumer's thread: polls, verifies that each log is the one we know, decodes, and hands batches over. It keeps
//! polling whatever happens, so that rebalances are served.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::context::Context;
use super::decode::{self, Raw};
use super::headers::headers;
use super::partitions::{AcceptFrom, PartitionState};
use super::{Config, Incoming, Tombstones, lag, settings};
use crate::base::pace::Pace;
use crate::base::stop::Stop;
use crate::model::event::RecordRef;

const POLL: Duration = Duration::from_millis(50);
const COMMIT: Duration = Duration::from_secs(5);
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// How long intake waits for room before it pauses its partitions.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same once they are paused: rebalances are served meanwhile.
const BRIEFLY: Duration = Duration::from_millis(20);
/// Records in one batch for admission.
const BATCH: usize = 256;

/// What others may ask of the consumer's thread.
pub enum Ask {
    /// Start the blocked partitions from there; answers how many did.
    Accept(AcceptFrom, oneshot::Sender<Result<usize, String>>),
}

pub struct Consumer {
    pub config: Config,
    pub make_context: Box<dyn Fn(Arc<str>) -> Context + Send>,
    pub batches: mpsc::Sender<Vec<Incoming>>,
    pub budget: Arc<Semaphore>,
    pub asks: mpsc::Receiver<Ask>,
    /// True: partitions are paused, and polled on.
    pub quiet: Stop,
    /// True: a last commit, and the end.
    pub stop: Stop,
}

/// How one client came to its end.
enum End {
    Stopped,
    Fatal,
}

impl Consumer {
    /// Runs until `stop`, on the calling thread, which must not be one of the runtime's.
    pub fn run(mut self) {
        let mut pace = Pace::new(Duration::from_millis(500), Duration::from_secs(30));
        while !self.stop.is_on() {
            match self.run_client() {
                Ok(End::Stopped) => return,
                Ok(End::Fatal) => {}
                Err(error) => tracing::error!(%error, "the Kafka client can't be made; trying again"),
            }
            let until = Instant::now() + pace.next_wait();
            while Instant::now() < until && !self.stop.is_on() {
                std::thread::park_timeout(POLL);
            }
        }
    }

    fn run_client(&mut self) -> Result<End, KafkaError> {
        let Some(cluster) = self.cluster_id()? else { return Ok(End::Stopped) };
        let context = (self.make_context)(cluster);
        let consumer = BaseConsumer::from_config_and_context(&settings::client(&self.config), context)?;
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        let end = Session::new(self, &consumer).run();
        if matches!(end, End::Stopped) {
            commit(&consumer, CommitMode::Sync);
        } else {
            // The next client takes them anew, and reads what was not durable again.
            let partitions: Vec<_> = consumer.context().partitions().values().map(|p| Arc::clone(&p.key)).collect();
            consumer.context().give_up(&partitions);
        }
        // At a stop all that was in flight was settled or cut off before this thread came here.
        consumer.context().partitions().clear();
        Ok(end)
    }

    /// The cluster's id, which names its partitions in the store. Waits for a broker, however long it takes.
    fn cluster_id(&self) -> Result<Option<Arc<str>>, KafkaError> {
        let context = (self.make_context)("".into());
        let probe = BaseConsumer::from_config_and_context(&settings::client(&self.config), context)?;
        while !self.stop.is_on() {
            if let Some(id) = probe.client().fetch_cluster_id(Duration::from_millis(500)) {
                return Ok(Some(id.into()));
            }
            // Errors of the connection show here.
            if let Some(Err(error)) = probe.poll(Duration::ZERO) {
                probe.context().trouble(&error);
            }
        }
        Ok(None)
    }
}

/// One client's life.
pub(super) struct Session<'s> {
    owner: &'s mut Consumer,
    pub(super) consumer: &'s BaseConsumer<Context>,
    batch: Vec<Incoming>,
    /// Records that found no room in the byte budget, in order.
    held: VecDeque<Incoming>,
    last_commit: Instant,
    last_housekeeping: Instant,
    full: bool,
    end: Option<End>,
}

impl<'s> Session<'s> {
    fn new(owner: &'s mut Consumer, consumer: &'s BaseConsumer<Context>) -> Self {
        let now = Instant::now();
        Self {
            owner,
            consumer,
            batch: Vec::with_capacity(BATCH),
            held: VecDeque::new(),
            last_commit: now,
            last_housekeeping: now,
            full: false,
            end: None,
        }
    }

    pub(super) fn context(&self) -> &'s Context {
        self.consumer.context()
    }

    fn run(mut self) -> End {
        loop {
            if self.owner.stop.is_on() {
                return End::Stopped;
            }
            if let Some(end) = self.end.take() {
                return end;
            }
            self.full = !self.make_room();
            // While a batch gathers nothing waits for more: it goes as soon as no record is at hand.
            let patience = if self.batch.is_empty() { POLL } else { Duration::ZERO };
            match self.consumer.poll(patience) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => self.trouble(&error),
                None => self.flush(),
            }
            if self.batch.len() >= BATCH {
                self.flush();
            }
            self.housekeeping();
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let context = self.context();
        let key = (Arc::<str>::from(message.topic()), message.partition());
        let mut partitions = context.partitions();
        let Some(partition) = partitions.get_mut(&key) else { return };
        if !partition.reads() {
            return;
        }
        let record = RecordRef {
            partition: Arc::clone(&partition.key),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
        };
        let decoded = self.decode(message, &record);
        let hash = decode::log_hash(&record, message.payload());
        if let PartitionState::Verifying(offset, known) = partition.standing {
            if record.offset == offset && hash == known {
                partition.standing = PartitionState::Reading;
                return;
            }
            if record.offset <= offset || self.log_begins_at_or_below(&record.partition, offset) {
                let partition = Arc::clone(&record.partition);
                drop(partitions);
                self.start_anew(&partition, "the record below the watermark is another one");
                return;
            }
            // The record was removed by retention: nothing to compare with.
            partition.standing = PartitionState::Reading;
        }
        partition.progress.read(record.offset, record.timestamp, context.clock.now());
        let epoch = partition.epoch;
        drop(partitions);
        tracing::trace!(partition = %record.partition, offset = record.offset, "a record was read");
        context.metrics.records_total.inc();
        context.metrics.record_bytes_total.inc_by(message.payload_len() as u64);
        let Some(received) = context.inflight.receive(&record.partition, epoch, record.offset, hash) else { return };
        if message.payload().is_none() && self.owner.config.tombstones == Tombstones::Skip {
            context.inflight.done_without_row(&record, epoch);
            return;
        }
        let incoming = Incoming { partition: record.partition, epoch, below_seen: received.below_seen, decoded };
        self.hold(incoming);
    }

    fn decode(
        &self,
        message: &BorrowedMessage<'_>,
        record: &RecordRef,
    ) -> Result<crate::model::event::TaskEvent, Box<crate::model::dead_letter::DeadLetter>> {
        match message.payload() {
            None => Err(decode::tombstone(record)),
            Some(value) => {
                let raw = Raw { record, headers: headers(message), value };
                decode::decode(&raw, self.owner.config.max_event_bytes)
            }
        }
    }

    /// Puts the record into the batch, or behind those that wait for room.
    fn hold(&mut self, incoming: Incoming) {
        if self.held.is_empty() && self.budgeted() {
            self.admit_within_budget(incoming);
        } else {
            self.held.push_back(incoming);
        }
    }

    fn budgeted(&self) -> bool {
        self.owner.budget.available_permits() > 0
    }

    /// The body counts against the budget for as long as any copy of it lives.
    fn admit_within_budget(&mut self, mut incoming: Incoming) {
        if let Ok(event) = &mut incoming.decoded {
            let wanted = u32::try_from(event.body.len().min(self.owner.config.body_budget)).unwrap_or(u32::MAX);
            match Arc::clone(&self.owner.budget).try_acquire_many_owned(wanted) {
                Ok(permit) => event.body = Bytes::from_owner(Budgeted { body: event.body.clone(), _permit: permit }),
                Err(_) => {
                    self.held.push_front(incoming);
                    return;
                }
            }
        }
        self.batch.push(incoming);
    }

    /// Waits a while for what is held; without room the partitions are paused, and polled on.
    fn make_room(&mut self) -> bool {
        while let Some(held) = self.held.pop_front() {
            let wanted = held.decoded.as_ref().map_or(0, |event| event.body.len()).min(self.owner.config.body_budget);
            if self.owner.budget.available_permits() < wanted {
                self.flush();
                let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
                let patience = if self.full { BRIEFLY } else { PATIENCE };
                let budget = Arc::clone(&self.owner.budget);
                let room = async { tokio::time::timeout(patience, budget.acquire_many(wanted)).await.is_ok() };
                if !self.context().runtime.block_on(room) {
                    self.held.push_front(held);
                    return false;
                }
            }
            self.admit_within_budget(held);
            if self.batch.len() >= BATCH {
                self.flush();
            }
        }
        true
    }

    /// Hands the batch over. Admission that is behind holds us, bounded; then the partitions are paused.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let patience = if self.full { BRIEFLY } else { PATIENCE };
        let batches = self.owner.batches.clone();
        let reserved =
            self.context().runtime.block_on(async { tokio::time::timeout(patience, batches.reserve()).await });
        match reserved {
            Ok(Ok(place)) => place.send(std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH))),
            // Admission has ended: so will we.
            Ok(Err(_)) => self.batch.clear(),
            Err(_) => self.full = true,
        }
    }

    fn answer_asks(&mut self) {
        while let Ok(Ask::Accept(from, answer)) = self.owner.asks.try_recv() {
            let _ = answer.send(self.accept(from));
        }
    }

    fn housekeeping(&mut self) {
        self.answer_asks();
        for partition in self.context().inflight.take_again() {
            self.take_again(&partition);
        }
        if self.last_housekeeping.elapsed() < HOUSEKEEPING && !self.full {
            return;
        }
        self.last_housekeeping = Instant::now();
        self.take_what_waits();
        self.verify_what_is_silent();
        self.pass_positions();
        self.pause_and_resume();
        lag::measure(self.context());
        let taken = self.owner.config.body_budget.saturating_sub(self.owner.budget.available_permits());
        self.context().metrics.body_bytes.set(i64::try_from(taken).unwrap_or(i64::MAX));
        let context = self.context();
        context.publish(&context.partitions());
        if self.last_commit.elapsed() >= COMMIT {
            self.last_commit = Instant::now();
            commit(self.consumer, CommitMode::Async);
        }
    }

    /// Control records at a partition's end bring no message: its position passes them.
    fn pass_positions(&self) {
        let Ok(positions) = self.consumer.position() else { return };
        if !self.batch.is_empty() || !self.held.is_empty() {
            return;
        }
        let partitions = self.context().partitions();
        for element in positions.elements() {
            let key = (Arc::<str>::from(element.topic()), element.partition());
            let Some(partition) = partitions.get(&key) else { continue };
            if let (Offset::Offset(position), PartitionState::Reading) = (element.offset(), &partition.standing) {
                self.context().inflight.at_position(&partition.key, position);
            }
        }
    }

    fn pause_and_resume(&self) {
        let context = self.context();
        let quiet = self.owner.quiet.is_on();
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for ((topic, number), partition) in context.partitions().iter_mut() {
            let outstanding = context.inflight.outstanding(&partition.key);
            let window = self.owner.config.window;
            let far = if partition.paused { outstanding > window / 2 } else { outstanding >= window };
            let wanted = self.full || quiet || far || !partition.reads() || context.stalled.contains(&partition.key);
            match partition.turn(wanted) {
                Some(true) => pause.add_partition(topic, *number),
                Some(false) => resume.add_partition(topic, *number),
                None => continue,
            };
        }
        if pause.count() > 0 {
            let _ = self.consumer.pause(&pause);
        }
        if resume.count() > 0 {
            let _ = self.consumer.resume(&resume);
        }
    }

    fn trouble(&mut self, error: &KafkaError) {
        self.context().trouble(error);
        match error {
            KafkaError::MessageConsumptionFatal(_) => self.end = Some(End::Fatal),
            KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.check_ranges(),
            _ => {}
        }
    }
}

/// Commits what the store has reached, with the store's id: a copy for lag tools, never inside a rebalance.
fn commit(consumer: &BaseConsumer<Context>, mode: CommitMode) {
    let context = consumer.context();
    let mut offsets = TopicPartitionList::new();
    for ((topic, number), partition) in context.partitions().iter_mut() {
        let Some(watermark) = context.inflight.stored(&partition.key).filter(|_| partition.reads()) else { continue };
        if watermark.upto > partition.committed && watermark.upto > 0 {
            partition.committed = watermark.upto;
            let _ = offsets.add_partition_offset(topic, *number, Offset::Offset(watermark.upto));
        }
    }
    if offsets.count() == 0 {
        return;
    }
    for mut element in offsets.elements() {
        element.set_metadata(&context.store_id);
    }
    if let Err(error) = consumer.commit(&offsets, mode) {
        tracing::debug!(%error, "offsets were not committed");
        for partition in context.partitions().values_mut() {
            partition.committed = -1;
        }
    }
}

/// A body with its place in the budget.
struct Budgeted {
    body: Bytes,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}
