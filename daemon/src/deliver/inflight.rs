//! What is under way in this process: the partitions that are ours with their offsets, and the callbacks by id.
//!
//! One lock holds both, so that a partition that is given up and an attempt that begins can't miss each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::model::callback::{CallbackId, Hash};
use crate::model::event::{RecordRef, SourceKey};
use crate::model::lease::Lease;
use crate::model::offsets::{Offsets, Reached};
use crate::model::settlement::{Change, Verdict};
use crate::store::Mark;

#[derive(Default)]
pub struct Inflight {
    state: Mutex<State>,
    /// A watermark may have moved though no change is on its way.
    pub news: Notify,
    /// Something came to its end.
    pub ended: Notify,
}

#[derive(Default)]
struct State {
    sources: HashMap<Arc<SourceKey>, Owned>,
    flights: HashMap<CallbackId, Flight>,
}

struct Owned {
    epoch: i64,
    offsets: Offsets,
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
    repeats: Vec<RecordRef>,
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
    pub fn take(&self, source: Arc<SourceKey>, epoch: i64, reached: Reached) {
        let offsets = Offsets::new(reached);
        self.state().sources.insert(source, Owned { epoch, offsets, oldest_since: None, lane: 0, streak: 0, seen: 0 });
    }

    /// A partition is no longer ours. Gives the leases of its records whose attempt has begun and which have no row.
    pub fn give_up(&self, source: &SourceKey) -> Vec<Arc<Lease>> {
        let mut state = self.state();
        state.sources.remove(source);
        let of_source =
            |flight: &Flight| flight.lease.epoch().is_some() && *flight.lease.facts.record.source == *source;
        state.flights.retain(|_, flight| flight.started || !of_source(flight));
        let started = state.flights.values_mut().filter(|flight| of_source(flight) && !flight.parked);
        started
            .map(|flight| {
                flight.parked = true;
                Arc::clone(&flight.lease)
            })
            .collect()
    }

    pub fn epoch(&self, source: &SourceKey) -> Option<i64> {
        self.state().sources.get(source).map(|owned| owned.epoch)
    }

    /// Takes a record in; false when it is not to be looked at. Tells whether its id must be looked up.
    pub fn receive(&self, source: &SourceKey, epoch: i64, offset: i64, hash: Hash) -> Option<Received> {
        let mut state = self.state();
        let owned = state.sources.get_mut(source).filter(|owned| owned.epoch == epoch)?;
        let below_seen = offset < owned.offsets.reached().seen_upto;
        if !owned.offsets.receive(offset, hash) {
            return None;
        }
        if owned.oldest_since.is_none() {
            owned.oldest_since = Some((offset, Instant::now()));
        }
        Some(Received { below_seen })
    }

    pub fn outstanding(&self, source: &SourceKey) -> usize {
        self.state().sources.get(source).map_or(0, |owned| owned.offsets.outstanding())
    }

    pub fn at_position(&self, source: &SourceKey, position: i64) {
        if let Some(owned) = self.state().sources.get_mut(source) {
            owned.offsets.at_position(position);
        }
        self.news.notify_one();
    }

    pub fn reached(&self, source: &SourceKey) -> Option<Reached> {
        self.state().sources.get(source).map(|owned| owned.offsets.reached())
    }

    /// The longest time that a partition's oldest record has been under way, by topic.
    pub fn watermark_ages(&self) -> HashMap<Arc<str>, Duration> {
        let mut ages = HashMap::new();
        for (source, owned) in &self.state().sources {
            let age = owned.oldest_since.map_or(Duration::ZERO, |(_, since)| since.elapsed());
            let entry: &mut Duration = ages.entry(Arc::clone(&source.topic)).or_default();
            *entry = (*entry).max(age);
        }
        ages
    }

    /// Enters a first try or a claimed row, before it is offered to a lane.
    pub fn begin(&self, lease: &Arc<Lease>) -> Begin {
        let facts = &lease.facts;
        let mut state = self.state();
        if let Some(epoch) = lease.epoch() {
            let ours = state.sources.get(&facts.record.source).is_some_and(|owned| owned.epoch == epoch);
            if !ours {
                return Begin::NotOurs;
            }
        }
        match state.flights.get_mut(&facts.id) {
            Some(flight) if flight.content != facts.content_hash => Begin::Reused,
            Some(flight) => {
                if lease.epoch().is_some() {
                    flight.repeats.push(facts.record.clone());
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
    pub fn park(&self, id: CallbackId) -> bool {
        match self.state().flights.get_mut(&id) {
            Some(flight) if !flight.parked => {
                flight.parked = true;
                true
            }
            _ => false,
        }
    }

    /// Takes it out without an end: it was forgotten before it began.
    pub fn forget(&self, lease: &Lease) {
        let mut state = self.state();
        if state.flights.get(&lease.id()).is_some_and(|flight| flight.lease.token == lease.token) {
            state.flights.remove(&lease.id());
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// The store knows this callback already: its record needs nothing more, nor do those that repeat it.
    pub fn known(&self, lease: &Lease) {
        let mut state = self.state();
        if state.flights.get(&lease.id()).is_some_and(|flight| flight.lease.token == lease.token)
            && let Some(flight) = state.flights.remove(&lease.id())
        {
            for record in flight.repeats.iter().chain([&lease.facts.record]) {
                mark_done(&mut state, record, false);
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// Takes a first try out that becomes a dead letter. Gives the partitions of records that waited for it: they are
    /// read again, and judged for themselves.
    pub fn buried(&self, lease: &Lease) -> Vec<Arc<SourceKey>> {
        let mut state = self.state();
        if state.flights.get(&lease.id()).is_none_or(|flight| flight.lease.token != lease.token) {
            return Vec::new();
        }
        let repeats = state.flights.remove(&lease.id()).map(|flight| flight.repeats).unwrap_or_default();
        repeats.into_iter().map(|record| record.source).collect()
    }

    /// Notes the lane that a record led to; tells whether the last thousand records of its partition led nowhere else.
    pub fn note_lane(&self, source: &SourceKey, lane: u64) {
        if let Some(owned) = self.state().sources.get_mut(source) {
            if owned.lane == lane {
                owned.streak = owned.streak.saturating_add(1);
            } else {
                owned.lane = lane;
                owned.streak = 1;
            }
            owned.seen = owned.seen.saturating_add(1);
        }
    }

    /// Whether a partition brings nothing for other lanes: then its backlog stays in Kafka.
    pub fn serves_one_lane(&self, source: &SourceKey) -> bool {
        self.state().sources.get(source).is_some_and(|owned| owned.streak >= owned.seen.min(ONE_LANE))
    }

    /// A record that needs nothing more: it was known, or it is skipped.
    pub fn done_without_row(&self, record: &RecordRef) {
        mark_done(&mut self.state(), record, false);
        self.news.notify_one();
    }

    /// The marks that go into the batch of these changes. The records they bring count as durable from here on: the
    /// batch is written until it is applied, and nothing is written before it.
    pub fn compose(&self, changes: &[Change]) -> Vec<Mark> {
        let mut state = self.state();
        for change in changes {
            if let Some((record, epoch)) = change.record() {
                if state.sources.get(&record.source).is_some_and(|owned| owned.epoch == epoch) {
                    mark_done(&mut state, record, true);
                }
            }
        }
        let news = state.sources.iter_mut().filter_map(|(source, owned)| {
            let reached = owned.offsets.take_news()?;
            Some(Mark { source: Arc::clone(source), epoch: owned.epoch, reached })
        });
        let mut marks: Vec<_> = news.collect();
        marks.sort_by(|a, b| a.source.cmp(&b.source));
        marks
    }

    /// Marks at everything received, durable or not: what a broken build would write.
    pub fn received_marks(&self) -> Vec<Mark> {
        let mut state = self.state();
        let mark = |(source, owned): (&Arc<SourceKey>, &mut Owned)| {
            let reached = owned.offsets.pretend_all_done();
            Mark { source: Arc::clone(source), epoch: owned.epoch, reached }
        };
        state.sources.iter_mut().map(mark).collect()
    }

    /// A change is durable, or came to nothing. Gives the partitions whose records waited for it in vain: they must be
    /// read again (row 30 after row 29).
    pub fn durable(&self, change: &Change, verdict: Verdict) -> Vec<Arc<SourceKey>> {
        let settle = match change {
            Change::Settle(settle) => settle,
            Change::Release { facts, token } => {
                let mut state = self.state();
                if state.flights.get(&facts.id).is_some_and(|flight| flight.lease.token == *token) {
                    state.flights.remove(&facts.id);
                }
                drop(state);
                self.ended.notify_waiters();
                return Vec::new();
            }
            // Its row tells the rest: the record, and those that repeat it, need no more.
            Change::Park(park) => {
                let mut state = self.state();
                let waiting = state.flights.get(&park.facts.id).is_some_and(|flight| flight.parked && !flight.started);
                if waiting
                    && park.lease.is_none()
                    && let Some(flight) = state.flights.remove(&park.facts.id)
                {
                    for record in &flight.repeats {
                        mark_done(&mut state, record, false);
                    }
                }
                return Vec::new();
            }
            Change::Bury(..) => return Vec::new(),
        };
        let mut orphans = Vec::new();
        let mut state = self.state();
        let holder = state.flights.get(&settle.facts.id).is_some_and(|flight| flight.lease.token == settle.token);
        if holder && let Some(flight) = state.flights.remove(&settle.facts.id) {
            if verdict == Verdict::Nothing {
                orphans.extend(flight.repeats.iter().map(|record| Arc::clone(&record.source)));
            } else {
                for record in &flight.repeats {
                    mark_done(&mut state, record, false);
                }
                if !flight.repeats.is_empty() {
                    self.news.notify_one();
                }
            }
        }
        drop(state);
        self.ended.notify_waiters();
        orphans
    }

    /// Attempts of this process that are under way.
    pub fn started(&self) -> Vec<Arc<Lease>> {
        let state = self.state();
        state.flights.values().filter(|flight| flight.started).map(|flight| Arc::clone(&flight.lease)).collect()
    }

    /// Attempts of a partition's records that are under way and not known to be durable.
    pub fn unparked(&self, source: &SourceKey) -> usize {
        let state = self.state();
        let of_source = |flight: &&Flight| flight.started && *flight.lease.facts.record.source == *source;
        state.flights.values().filter(of_source).filter(|flight| !flight.parked).count()
    }
}

fn mark_done(state: &mut State, record: &RecordRef, row: bool) {
    let Some(owned) = state.sources.get_mut(&record.source) else { return };
    owned.offsets.done(record.offset, row);
    let upto = owned.offsets.reached().done_upto;
    if owned.oldest_since.is_some_and(|(offset, _)| offset < upto) {
        owned.oldest_since = (owned.offsets.outstanding() > 0).then(|| (upto, Instant::now()));
    }
}

/// A record that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// A row may stand for it: its id is looked up before anything else.
    pub below_seen: bool,
}
