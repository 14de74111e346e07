//! One client's life on the consumer's thread: it polls, decodes, hands records over, and carries out the actions of
//! its partitions. It never stops polling, so that rebalances are served. `serving` holds what operators ask for.
//!
//! The time of one turn is bounded, even with many partitions: a turn serves one question for the ends of a log, or one
//! round of partitions that are given up or taken (see [`Session::serve_one`]).

mod serving;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::consumer_parts::Consumer;
use super::context::Context;
use super::gather::Gather;
use super::interpret::{Interpreter, Told, real};
use super::partition::{Action, Event, Flow, PartitionState};
use super::polled::Polled;
use super::sandbox::Heard;
use super::twin::{LOOK, Mark, RENEWAL};
use super::{Incoming, Tombstones, lag};
use crate::faults::{self, Fault};
use crate::model::event::RecordRef;
use crate::store::Begun;
use serving::Serving;

/// How long one poll waits for a record.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// The same while a sandbox reads as well.
const SANDBOX_POLL: Duration = Duration::from_millis(2);
/// Records of one sandbox in one turn.
const SANDBOXED_AT_ONCE: usize = 64;
const COMMIT: Duration = Duration::from_secs(5);
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// Why one client's session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Stopped,
    Fatal,
    /// The client did not read a partition as it should.
    Renewed,
    /// Another daemon runs on a copy of our store, and began earlier.
    Second,
    Panicked,
}

pub(super) struct Session<'s> {
    owner: &'s mut Consumer,
    consumer: &'s BaseConsumer<Context>,
    gather: Gather,
    last_commit: Instant,
    last_renewal: Instant,
    last_look: Instant,
    last_housekeeping: Instant,
    /// Partitions that are not taken are to be tried again, as soon as nothing else waits.
    is_tick_due: bool,
    /// The number of ticks. Each tick checks another silent partition.
    ticks: usize,
    serving: Option<Serving>,
    /// Why the session ends, once it must.
    end: Option<End>,
}

impl<'s> Session<'s> {
    pub(super) fn new(owner: &'s mut Consumer, consumer: &'s BaseConsumer<Context>, gather: Gather) -> Self {
        let now = Instant::now();
        Self {
            owner,
            consumer,
            gather,
            last_commit: now,
            last_renewal: now,
            last_look: now,
            last_housekeeping: now,
            is_tick_due: false,
            ticks: 0,
            serving: None,
            end: None,
        }
    }

    fn context(&self) -> &'s Context {
        self.consumer.context()
    }

    pub(super) fn run(&mut self) -> End {
        loop {
            if self.owner.stop.is_on() {
                return End::Stopped;
            }
            if let Some(end) = self.end {
                return end;
            }
            self.gather.make_room();
            // A batch that has records does not wait: it is handed over as soon as no further record is ready.
            let is_asked = !self.context().questions().is_empty() || self.serves_step_by_step();
            let at_once = self.take_sandboxed() || self.gather.has_begun() || is_asked;
            let wait = if self.context().sandboxed().is_empty() { POLL } else { SANDBOX_POLL };
            match self.consumer.poll(if at_once { Duration::ZERO } else { wait }) {
                Some(Ok(message)) => self.take(&Polled::by_client(&message)),
                Some(Err(error)) => self.report(&error),
                None => self.gather.flush(),
            }
            self.gather.flush_if_large();
            self.housekeeping();
        }
    }

    pub(super) fn drive(&self, events: Vec<Told>) {
        if !events.is_empty() {
            Interpreter::new(self.consumer).drive(events);
        }
    }

    fn take(&mut self, polled: &Polled<'_>) {
        assert!(!faults::is_on(Fault::ConsumerPanic), "a fault switch");
        let context = self.context();
        let mut partitions = context.partitions();
        let Some(assigned) = partitions.get_mut(polled.topic, polled.partition) else { return };
        if !assigned.machine.reads() {
            return;
        }
        let partition = Arc::clone(&assigned.key);
        let record = RecordRef { partition, offset: polled.offset, timestamp: polled.timestamp };
        let hash = polled.log_hash();
        let mut is_admitted = false;
        let mut asked = Vec::new();
        for action in assigned.machine.on(Event::Read { offset: record.offset, hash }) {
            match action {
                Action::Admit => is_admitted = true,
                other => asked.push((Arc::clone(&record.partition), other)),
            }
        }
        let epoch = assigned.machine.epoch();
        if is_admitted {
            if let Some(time) = record.time() {
                context.deps.clock.witness(time);
            }
            assigned.recorded.read(record.offset, record.time(), context.deps.clock.now());
        }
        drop(partitions);
        if !asked.is_empty() {
            Interpreter::new(self.consumer).carry_out(asked);
        }
        if !is_admitted {
            return;
        }
        tracing::trace!(partition = %record.partition, offset = record.offset, "a record was read");
        context.deps.metrics.records_total.inc();
        context.deps.metrics.record_bytes_total.inc_by(polled.bytes());
        let received = context.deps.flight.inflight.receive(&record.partition, epoch, record.offset, hash);
        let Some(received) = received else { return };
        if polled.is_tombstone() && self.owner.config.tombstones == Tombstones::Skip {
            context.deps.flight.inflight.done_without_row(&record, epoch);
            return;
        }
        let decoded = polled.decode(&record, self.owner.config.max_event_bytes);
        let partition = record.partition;
        self.gather.take(Incoming { partition, epoch, below_seen: received.is_below_seen, decoded });
    }

    /// Takes what sandboxes have read. False if there was nothing.
    fn take_sandboxed(&mut self) -> bool {
        let mut has_heard = false;
        for key in self.context().sandboxed() {
            for _ in 0..SANDBOXED_AT_ONCE {
                if self.gather.is_full() {
                    return has_heard;
                }
                let Some(heard) = self.context().hear(&key, self.owner.config.window) else { break };
                has_heard = true;
                match heard {
                    Heard::Record(record) => self.take(&Polled::in_sandbox(&key.topic, key.number, &record)),
                    Heard::Unread(offset) => self.take(&Polled::unread(&key.topic, key.number, offset)),
                    Heard::End(next) => Interpreter::new(self.consumer).leave_sandbox(&key, next),
                    Heard::Absent | Heard::Lost => self.drive(vec![(Arc::clone(&key), Event::Fenced)]),
                }
                self.gather.flush_if_large();
            }
        }
        has_heard
    }

    fn report(&mut self, error: &KafkaError) {
        let context = self.context();
        context.troubles.report(error);
        match error {
            KafkaError::MessageConsumptionFatal(_) => self.end = Some(End::Fatal),
            // Kafka does not say which partition it is, so all are compared with their logs, one in each turn.
            KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                let keys = context.partitions().keys(|_| true);
                self.drive(keys.into_iter().map(|key| (key, Event::OutOfRange)).collect());
            }
            _ => {}
        }
    }

    fn housekeeping(&mut self) {
        let is_due = self.last_housekeeping.elapsed() >= HOUSEKEEPING || self.gather.is_full();
        self.take_ask();
        self.is_tick_due |= is_due;
        self.serve_one();
        self.answer_accepted();
        if !is_due {
            return;
        }
        self.last_housekeeping = Instant::now();
        self.pass_positions();
        self.pause_and_resume();
        let context = self.context();
        lag::measure(context);
        let bytes = context.deps.bodies.used();
        context.deps.metrics.body_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        context.publish();
        // Without its store, this run must not look as if it worked.
        if self.last_renewal.elapsed() >= RENEWAL && context.deps.flight.others.borrow().are_known() {
            self.last_renewal = Instant::now();
            self.renew_marks();
        }
        if self.last_commit.elapsed() >= COMMIT {
            self.last_commit = Instant::now();
            self.commit(false);
        }
    }

    /// Serves the first of these that is waiting, so that the time of one turn is bounded:
    /// - partitions to be taken again are given up together: at most the rebalance's grace, and 5 s for the store;
    /// - one question for the ends of a log: at most 5 s for Kafka, then the grace or 5 s for the store;
    /// - one partition that an operator asks about, at most 15 s for Kafka, or moves: at most the grace and 20 s;
    /// - a look for other daemons on copies of our store: at most 3 s for Kafka;
    /// - partitions that are not taken: at most 5 s for Kafka, one commit that shows whether the group knows us, then 10 s
    ///   for the store.
    ///
    /// If a record is not the one we know, a turn waits at most twice the grace plus 15 s.
    fn serve_one(&mut self) {
        let context = self.context();
        let mut again = context.deps.flight.inflight.take_again();
        if !again.is_empty() {
            again.retain(|key| context.partitions().of(key).is_some());
            for partition in &again {
                tracing::warn!(%partition, "this partition is given up, and taken again");
            }
            self.drive(again.into_iter().map(|key| (key, Event::Fenced)).collect());
            return;
        }
        let question = context.questions().pop_front();
        if let Some((key, check)) = question {
            let mut interpreter = Interpreter::new(self.consumer);
            interpreter.answer_ends(&key, &check);
            self.note_failure(&check, interpreter.failure);
        } else if self.serves_step_by_step() {
            self.serve_step();
        } else if self.last_look.elapsed() >= LOOK {
            self.last_look = Instant::now();
            if self.owner.look_for_twins(self.consumer, &context.cluster) == Some(true) {
                self.end = Some(End::Second);
            }
        } else if std::mem::take(&mut self.is_tick_due) {
            self.tick();
        }
    }

    /// Tries again to take partitions, and checks one log that has brought no record yet.
    fn tick(&mut self) {
        let partitions = self.context().partitions();
        let waiting = partitions.keys(|machine| *machine.state() == PartitionState::NotTaken);
        let silent = partitions.keys(|machine| matches!(machine.state(), PartitionState::Verifying { .. }));
        drop(partitions);
        self.ticks = self.ticks.wrapping_add(1);
        let silent = if silent.is_empty() { None } else { silent.get(self.ticks % silent.len()).cloned() };
        self.drive(waiting.into_iter().chain(silent).map(|key| (key, Event::Tick)).collect());
    }

    /// The client delivers no control records at a partition's end; only its position passes them.
    fn pass_positions(&self) {
        let Ok(positions) = self.consumer.position() else { return };
        if !self.gather.is_empty() {
            return;
        }
        let context = self.context();
        let mut partitions = context.partitions();
        let told = positions.elements().into_iter().filter_map(|element| {
            let assigned = partitions.get_mut(element.topic(), element.partition())?;
            // The client stands elsewhere while a sandbox reads.
            let is_read_here = !context.is_sandboxed(&assigned.key);
            is_read_here.then(|| (Arc::clone(&assigned.key), Event::Position(real(element.offset()))))
        });
        let told: Vec<Told> = told.collect();
        drop(partitions);
        self.drive(told);
    }

    fn pause_and_resume(&self) {
        let context = self.context();
        let hold =
            self.gather.is_full() || self.owner.quiet.is_on() || context.deps.delivery.space_short.borrow().is_some();
        let (now, window) = (Instant::now(), self.owner.config.window);
        let told = context.partitions().keys(|_| true).into_iter().map(|key| {
            let outstanding = context.deps.flight.inflight.outstanding(&key);
            let hold = hold || context.stalled.contains(&key);
            (key, Event::Flow(Flow { now, hold, outstanding, window }))
        });
        self.drive(told.collect());
    }

    /// The next commit writes the marks of all partitions again.
    fn renew_marks(&self) {
        for assigned in self.context().partitions().iter_mut() {
            assigned.machine.on(Event::CommitFailed);
        }
    }

    /// Commits what is durable, with the store's id: a copy for tools that show the lag. Never inside a rebalance.
    /// The last commit of a run says that the run ends, and waits for the answer.
    pub(super) fn commit(&self, is_last: bool) {
        let context = self.context();
        let Begun { store_id, run, .. } = &context.deps.begun;
        let mark = Mark::new(store_id, run, (!is_last).then(|| context.deps.clock.now())).to_string();
        if is_last {
            self.renew_marks();
        }
        let mut offsets = TopicPartitionList::new();
        for assigned in context.partitions().iter_mut() {
            let durable = context.deps.flight.inflight.watermark(&assigned.key);
            let Some(durable_upto) = durable.map(|watermark| watermark.upto) else { continue };
            for action in assigned.machine.on(Event::CommitDue { durable_upto }) {
                let Action::Commit(offset) = action else { continue };
                let key = &assigned.key;
                if let Err(error) = offsets.add_partition_offset(&key.topic, key.number, Offset::Offset(offset)) {
                    tracing::debug!(partition = %key, %error, "an offset can't be committed");
                }
            }
        }
        if offsets.count() == 0 {
            return;
        }
        for mut element in offsets.elements() {
            element.set_metadata(&mark);
        }
        let mode = if is_last { CommitMode::Sync } else { CommitMode::Async };
        if let Err(error) = self.consumer.commit(&offsets, mode) {
            tracing::debug!(%error, "offsets were not committed");
            self.renew_marks();
        }
    }
}
