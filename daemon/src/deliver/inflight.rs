//! What is under way in this process: the partitions that are ours with their offsets, and the callbacks by id.
//!
//! One lock holds both, so that a partition that is given up and an attempt that begins can't miss each other.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::model::callback::{CallbackId, Hash};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::{Lease, Token};
use crate::model::offsets::{Offsets, Watermark};
use crate::model::settlement::{Change, Verdict};
use crate::store::PartitionWatermark;

#[derive(Default)]
pub struct Inflight {
    state: Mutex<State>,
    /// A watermark may have moved though no change is on its way.
    pub news: Notify,
}

#[derive(Default)]
struct State {
    partitions: HashMap<Arc<PartitionKey>, Owned>,
    flights: HashMap<CallbackId, Flight>,
    /// Partitions whose records were settled by nobody, or whose epoch is gone: to be taken anew.
    again: HashSet<Arc<PartitionKey>>,
}

struct Owned {
    epoch: i64,
    offsets: Offsets,
    /// What the store has: Kafka's committed offset follows it.
    stored: Watermark,
    /// It was given up: nothing of it begins, but what ends still counts.
    leaving: bool,
    /// When the oldest outstanding record was received.
    oldest_since: Option<(i64, Instant)>,
    /// The lane of the last record, how many in a row led there, and how many there were in all.
    lane: u64,
    streak: u32,
    seen: u32,
}

/// Records in a row for one lane that make a partition that lane's own.
const ONE_LANE: u32 = 1_000;

struct Flight {
    lease: Arc<Lease>,
    content: Hash,
    started: bool,
    /// It has a row, or one is on its way: its record is no longer needed.
    parked: bool,
    /// Records that its end settles too, with the epoch they were read under.
    repeats: Vec<(RecordRef, i64)>,
}

/// What begins, or why it does not.
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

impl Inflight {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition is ours from here on.
    pub fn take(&self, partition: Arc<PartitionKey>, epoch: i64, watermark: Watermark) {
        let owned = Owned {
            epoch,
            offsets: Offsets::new(watermark),
            stored: watermark,
            leaving: false,
            oldest_since: None,
            lane: 0,
            streak: 0,
            seen: 0,
        };
        let mut state = self.state();
        state.again.remove(&partition);
        state.partitions.insert(partition, owned);
    }

    /// A partition is being given up: nothing of it begins any more. Gives the leases of its records whose attempt has
    /// begun and which have no row. Until [`gone`](Self::gone) what they come to still raises its marks.
    pub fn give_up(&self, partition: &PartitionKey) -> Vec<Arc<Lease>> {
        let mut state = self.state();
        let State { partitions, flights, again } = &mut *state;
        if let Some(owned) = partitions.get_mut(partition) {
            owned.leaving = true;
        }
        let of_source =
            |flight: &Flight| flight.lease.epoch().is_some() && *flight.lease.facts.record.partition == *partition;
        flights.retain(|_, flight| {
            let forgotten = !flight.started && of_source(flight);
            if forgotten {
                let current = |record: &RecordRef, epoch: i64| {
                    partitions.get(&record.partition).is_some_and(|owned| owned.epoch == epoch && !owned.leaving)
                };
                let waiting = flight.repeats.iter().filter(|(record, epoch)| current(record, *epoch));
                again.extend(waiting.map(|(record, _)| Arc::clone(&record.partition)));
            }
            !forgotten
        });
        let started = flights.values_mut().filter(|flight| of_source(flight) && !flight.parked);
        started
            .map(|flight| {
                flight.parked = true;
                Arc::clone(&flight.lease)
            })
            .collect()
    }

    /// What was under way when the partition was given up is durable, or will not be.
    pub fn gone(&self, partition: &PartitionKey) {
        let mut state = self.state();
        if state.partitions.get(partition).is_some_and(|owned| owned.leaving) {
            state.partitions.remove(partition);
        }
    }

    /// Partitions that must be taken anew, each once.
    pub fn take_again(&self) -> Vec<Arc<PartitionKey>> {
        self.state().again.drain().collect()
    }

    /// A write found this epoch of a partition gone. True if it is still the one we work under.
    pub fn fenced(&self, partition: &Arc<PartitionKey>, epoch: i64) -> bool {
        let mut state = self.state();
        let current = state.partitions.get(partition).is_some_and(|owned| owned.epoch == epoch && !owned.leaving);
        if current {
            state.again.insert(Arc::clone(partition));
        }
        current
    }

    pub fn epoch(&self, partition: &PartitionKey) -> Option<i64> {
        self.state().partitions.get(partition).filter(|owned| !owned.leaving).map(|owned| owned.epoch)
    }

    /// What the store has of a partition.
    pub fn stored(&self, partition: &PartitionKey) -> Option<Watermark> {
        self.state().partitions.get(partition).map(|owned| owned.stored)
    }

    /// These marks are in the store.
    pub fn durable_upto(&self, watermarks: &[PartitionWatermark]) {
        let mut state = self.state();
        for mark in watermarks {
            if let Some(owned) = state.partitions.get_mut(&mark.partition).filter(|owned| owned.epoch == mark.epoch) {
                owned.stored = mark.watermark;
            }
        }
    }

    /// Takes a record in; false when it is not to be looked at. Tells whether its id must be looked up.
    pub fn receive(&self, partition: &PartitionKey, epoch: i64, offset: i64, hash: Hash) -> Option<Received> {
        let mut state = self.state();
        let owned = state.partitions.get_mut(partition).filter(|owned| owned.epoch == epoch && !owned.leaving)?;
        let below_seen = offset < owned.offsets.watermark().seen_upto;
        if !owned.offsets.receive(offset, hash) {
            return None;
        }
        if owned.oldest_since.is_none() {
            owned.oldest_since = Some((offset, Instant::now()));
        }
        Some(Received { below_seen })
    }

    pub fn outstanding(&self, partition: &PartitionKey) -> usize {
        self.state().partitions.get(partition).map_or(0, |owned| owned.offsets.outstanding())
    }

    pub fn at_position(&self, partition: &PartitionKey, position: i64) {
        if let Some(owned) = self.state().partitions.get_mut(partition) {
            owned.offsets.at_position(position);
        }
        self.news.notify_one();
    }

    pub fn watermark(&self, partition: &PartitionKey) -> Option<Watermark> {
        self.state().partitions.get(partition).map(|owned| owned.offsets.watermark())
    }

    /// The longest time that a partition's oldest record has been under way, by topic.
    pub fn watermark_ages(&self) -> HashMap<Arc<str>, Duration> {
        let mut ages = HashMap::new();
        for (partition, owned) in &self.state().partitions {
            let age = owned.oldest_since.map_or(Duration::ZERO, |(_, since)| since.elapsed());
            let entry: &mut Duration = ages.entry(Arc::clone(&partition.topic)).or_default();
            *entry = (*entry).max(age);
        }
        ages
    }

    /// Enters a first try or a claimed row, before it is offered to a lane.
    pub fn begin(&self, lease: &Arc<Lease>) -> Begin {
        let facts = &lease.facts;
        let mut state = self.state();
        if let Some(epoch) = lease.epoch() {
            let owned = state.partitions.get(&facts.record.partition);
            let ours = owned.is_some_and(|owned| owned.epoch == epoch && !owned.leaving);
            if !ours {
                return Begin::NotOurs;
            }
        }
        match state.flights.get_mut(&facts.id) {
            Some(flight) if flight.content != facts.content_hash => Begin::Reused,
            Some(flight) => {
                if let Some(epoch) = lease.epoch() {
                    flight.repeats.push((facts.record.clone(), epoch));
                }
                Begin::Repeat
            }
            None => {
                let flight = Flight {
                    lease: Arc::clone(lease),
                    content: facts.content_hash,
                    started: false,
                    parked: lease.epoch().is_none(),
                    repeats: Vec::new(),
                };
                state.flights.insert(facts.id, flight);
                Begin::Begun
            }
        }
    }

    /// The attempt begins; false when it must not: its partition was given up meanwhile.
    pub fn start(&self, lease: &Lease) -> bool {
        match self.state().flights.get_mut(&lease.id()).filter(|flight| flight.lease.token == lease.token) {
            Some(flight) => {
                flight.started = true;
                true
            }
            None => false,
        }
    }

    /// Takes the right to park this first try; false when it has a row already, or is not under way.
    pub fn park(&self, lease: &Lease) -> bool {
        match self.state().flights.get_mut(&lease.id()) {
            Some(flight) if !flight.parked && flight.lease.token == lease.token => {
                flight.parked = true;
                true
            }
            _ => false,
        }
    }

    /// The store knows this callback already: its record needs nothing more, nor do those that repeat it.
    pub fn known(&self, lease: &Lease) {
        let mut state = self.state();
        if let Some(flight) = state.take_flight(lease) {
            let own = lease.epoch().map(|epoch| (lease.facts.record.clone(), epoch));
            for (record, epoch) in flight.repeats.iter().chain(own.iter()) {
                state.mark_done(record, *epoch, false);
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// Takes a first try out that becomes a dead letter, or is forgotten. Gives the records that waited for it, which
    /// must be judged for themselves.
    pub fn withdraw(&self, lease: &Lease) -> Vec<RecordRef> {
        let flight = self.state().take_flight(lease);
        flight.map(|flight| flight.repeats.into_iter().map(|(record, _)| record).collect()).unwrap_or_default()
    }

    /// The partition of this record is taken anew, and read from its watermark.
    pub fn read_again(&self, record: &RecordRef) {
        self.state().again.insert(Arc::clone(&record.partition));
    }

    /// Notes the lane that a record led to.
    pub fn note_lane(&self, partition: &PartitionKey, lane: u64) {
        if let Some(owned) = self.state().partitions.get_mut(partition) {
            if owned.lane == lane {
                owned.streak = owned.streak.saturating_add(1);
            } else {
                owned.lane = lane;
                owned.streak = 1;
            }
            owned.seen = owned.seen.saturating_add(1);
        }
    }

    /// Whether the last thousand records of a partition led to one lane: then its backlog stays in Kafka.
    pub fn serves_one_lane(&self, partition: &PartitionKey) -> bool {
        self.state().partitions.get(partition).is_some_and(|owned| owned.streak >= owned.seen.min(ONE_LANE))
    }

    /// A record that needs nothing more: it was known, or it is skipped.
    pub fn done_without_row(&self, record: &RecordRef, epoch: i64) {
        self.state().mark_done(record, epoch, false);
        self.news.notify_one();
    }

    /// The marks that go into the batch of these changes. The records they bring count as durable from here on: the
    /// batch is written until it is applied, and nothing is written before it.
    pub fn compose(&self, changes: &[Change]) -> Vec<PartitionWatermark> {
        let mut state = self.state();
        for change in changes {
            if let Some((record, epoch)) = change.record() {
                state.mark_done(record, epoch, true);
            }
        }
        let news = state.partitions.iter_mut().filter_map(|(partition, owned)| {
            let watermark = owned.offsets.take_news()?;
            Some(PartitionWatermark { partition: Arc::clone(partition), epoch: owned.epoch, watermark })
        });
        let mut watermarks: Vec<_> = news.collect();
        watermarks.sort_by(|a, b| a.partition.cmp(&b.partition));
        watermarks
    }

    /// Marks at everything received, durable or not: what a broken build would write.
    pub fn received_marks(&self) -> Vec<PartitionWatermark> {
        let mut state = self.state();
        let mark = |(partition, owned): (&Arc<PartitionKey>, &mut Owned)| {
            let watermark = owned.offsets.pretend_all_done();
            PartitionWatermark { partition: Arc::clone(partition), epoch: owned.epoch, watermark }
        };
        state.partitions.iter_mut().map(mark).collect()
    }

    /// A change is durable, or came to nothing: what waited for it goes on.
    pub fn durable(&self, change: &Change, verdict: Verdict) {
        let mut state = self.state();
        let flight = match change {
            Change::Settle(settle) => state.take_flight_of(settle.facts.id, settle.token),
            Change::Release { facts, token } => state.take_flight_of(facts.id, *token),
            // Its row tells the rest, once it waits there without an attempt of ours.
            Change::Park(park) if park.lease_until.is_none() => {
                let id = park.facts.id;
                let waits = state.flights.get(&id).is_some_and(|flight| flight.parked && !flight.started);
                if waits { state.take_flight_of(id, park.token) } else { None }
            }
            Change::Park(_) | Change::Bury(..) => None,
        };
        let Some(flight) = flight else { return };
        // Row 29 left no row: the records that waited for it are first tries themselves, and are read again.
        let in_vain = verdict == Verdict::Nothing && matches!(change, Change::Settle(_));
        for (record, epoch) in &flight.repeats {
            if in_vain {
                state.again.insert(Arc::clone(&record.partition));
            } else {
                state.mark_done(record, *epoch, false);
            }
        }
        let repeated = !flight.repeats.is_empty();
        drop(state);
        if repeated {
            self.news.notify_one();
        }
    }

    /// Attempts of this process that are under way.
    pub fn started(&self) -> Vec<Arc<Lease>> {
        let state = self.state();
        state.flights.values().filter(|flight| flight.started).map(|flight| Arc::clone(&flight.lease)).collect()
    }
}

impl State {
    fn take_flight(&mut self, lease: &Lease) -> Option<Flight> {
        self.take_flight_of(lease.id(), lease.token)
    }

    /// The flight that this token holds.
    fn take_flight_of(&mut self, id: CallbackId, token: Token) -> Option<Flight> {
        let holds = self.flights.get(&id).is_some_and(|flight| flight.lease.token == token);
        if holds { self.flights.remove(&id) } else { None }
    }

    /// The record is durable; it counts only in the epoch it was read under.
    fn mark_done(&mut self, record: &RecordRef, epoch: i64, row: bool) {
        let Some(owned) = self.partitions.get_mut(&record.partition).filter(|owned| owned.epoch == epoch) else {
            return;
        };
        owned.offsets.done(record.offset, row);
        let upto = owned.offsets.watermark().upto;
        if owned.oldest_since.is_some_and(|(offset, _)| offset < upto) {
            owned.oldest_since = (owned.offsets.outstanding() > 0).then(|| (upto, Instant::now()));
        }
    }
}

/// A record that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// A row may stand for it: its id is looked up before anything else.
    pub below_seen: bool,
}
