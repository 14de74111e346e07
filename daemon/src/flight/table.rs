//! The table of what is under way: our partitions with their offsets, and the callbacks by id. It is pure: it has no
//! lock and reads no clock.
//!
//! The room's `mod.rs` puts one lock around the table. So no attempt can begin while its partition is being given up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::composed::{Composed, Durable};
use super::offset_tracker::OffsetTracker;
use super::stage::Stage;
use super::{Begin, FirstTry, Received, ToPark};
use crate::base::clock::Moment;
use crate::faults::{self, Fault};
use crate::model::callback::{CallbackId, Hash};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::{Facts, Lease, Token};
use crate::model::offsets::Watermark;
use crate::model::settlement::{Change, Verdict};
use crate::store::PartitionWatermark;

pub(super) struct FlightTable {
    /// An epoch counts for so long after the store has confirmed it. A process that stood still longer does not know whether its
    /// partitions are still its own.
    trusted_for: Duration,
    partitions: HashMap<Arc<PartitionKey>, Owned>,
    flights: HashMap<CallbackId, Flight>,
    /// Partitions that must be taken again: another instance has a newer epoch, or one of their records got no row.
    again: HashSet<Arc<PartitionKey>>,
}

/// A partition that this instance reads under one epoch.
struct Owned {
    epoch: i64,
    /// The store has confirmed the epoch then, or later.
    confirmed_at: Moment,
    offsets: OffsetTracker,
    /// It is being given up: none of its callbacks begins, but a callback that ends still raises its watermark.
    leaving: bool,
    /// The oldest record that is not done, and since when it is the oldest.
    oldest_since: Option<(i64, Instant)>,
}

/// A callback under way.
pub(super) struct Flight {
    lease: Arc<Lease>,
    stage: Stage,
    /// Other records of the same event, each with its epoch. When this callback is done, they are done too.
    pub(super) copies: Vec<(RecordRef, i64)>,
}

impl Flight {
    /// `None` for a claimed row.
    fn as_first_try(&self) -> Option<FirstTry> {
        self.lease.epoch().map(|_| FirstTry {
            facts: Arc::clone(&self.lease.facts),
            since: self.lease.born_at,
            is_started: self.stage.is_started(),
        })
    }
}

impl Owned {
    fn is_ours(&self, epoch: i64) -> bool {
        self.epoch == epoch && !self.leaving
    }
}

impl FlightTable {
    pub(super) fn new(trusted_for: Duration) -> Self {
        Self { trusted_for, partitions: HashMap::new(), flights: HashMap::new(), again: HashSet::new() }
    }

    pub(super) fn take(&mut self, partition: Arc<PartitionKey>, epoch: i64, durable: Watermark, now: Moment) {
        let offsets = OffsetTracker::new(durable);
        let owned = Owned { epoch, confirmed_at: now, offsets, leaving: false, oldest_since: None };
        self.again.remove(&partition);
        self.partitions.insert(partition, owned);
    }

    pub(super) fn give_up(&mut self, partition: &PartitionKey) -> Vec<ToPark> {
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.leaving = true;
        }
        let mut to_park = Vec::new();
        let mut forgotten = Vec::new();
        for (id, flight) in &mut self.flights {
            if flight.lease.epoch().is_none() || *flight.lease.facts.record.partition != *partition {
                continue;
            }
            match flight.stage {
                Stage::Queued if faults::is_on(Fault::QueuedParkedAfterLoss) => {
                    flight.stage = Stage::Parking;
                    to_park.push(ToPark { lease: Arc::clone(&flight.lease), is_started: false });
                }
                Stage::Queued => forgotten.push(*id),
                Stage::Started if faults::is_on(Fault::NoParkAtRevoke) => {}
                // The task that began this park may not have submitted it yet. Two parks of one callback write one row.
                Stage::Parking => to_park.push(ToPark { lease: Arc::clone(&flight.lease), is_started: false }),
                Stage::Started => {
                    flight.stage = Stage::StartedWithRow;
                    to_park.push(ToPark { lease: Arc::clone(&flight.lease), is_started: true });
                }
                Stage::Claimed | Stage::StartedWithRow => {}
            }
        }
        for id in forgotten {
            let flight = self.flights.remove(&id);
            for (record, epoch) in flight.into_iter().flat_map(|flight| flight.copies) {
                // The forgotten callback had copies in partitions that we keep. They must be read again.
                if self.is_ours(&record.partition, epoch) {
                    self.again.insert(record.partition);
                }
            }
        }
        to_park
    }

    pub(super) fn gone(&mut self, partition: &PartitionKey) -> Option<i64> {
        let is_leaving = self.partitions.get(partition).is_some_and(|owned| owned.leaving);
        if is_leaving { self.partitions.remove(partition).map(|owned| owned.epoch) } else { None }
    }

    pub(super) fn take_again(&mut self) -> Vec<Arc<PartitionKey>> {
        self.again.drain().collect()
    }

    /// The store refused a watermark because this epoch is over. True if it is our current epoch of the partition.
    pub(super) fn fenced(&mut self, partition: &Arc<PartitionKey>, epoch: i64) -> bool {
        let current = self.is_ours(partition, epoch);
        if current {
            self.again.insert(Arc::clone(partition));
        }
        current
    }

    /// Our partitions, each with its epoch.
    pub(super) fn held(&self) -> Vec<(Arc<PartitionKey>, i64)> {
        let held = self.partitions.iter().filter(|(_, owned)| !owned.leaving);
        held.map(|(partition, owned)| (Arc::clone(partition), owned.epoch)).collect()
    }

    /// The store was asked at `at`, when these partitions were held, and says which epochs are this instance's; `None` if no other
    /// instance can have any. Returns the partitions that are not ours any more.
    pub(super) fn hear_epochs(
        &mut self,
        held: Vec<(Arc<PartitionKey>, i64)>,
        ours: Option<&HashMap<Arc<PartitionKey>, i64>>,
        at: Moment,
    ) -> Vec<Arc<PartitionKey>> {
        let mut lost = Vec::new();
        for (partition, epoch) in held {
            let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| owned.is_ours(epoch)) else {
                continue;
            };
            if ours.is_none_or(|ours| ours.get(&partition) == Some(&epoch)) {
                owned.confirmed_at = owned.confirmed_at.max(at);
            } else {
                self.again.insert(Arc::clone(&partition));
                lost.push(partition);
            }
        }
        lost
    }

    pub(super) fn epoch(&self, partition: &PartitionKey) -> Option<i64> {
        self.partitions.get(partition).filter(|owned| !owned.leaving).map(|owned| owned.epoch)
    }

    pub(super) fn durable(&self, partition: &PartitionKey) -> Option<Watermark> {
        self.partitions.get(partition).map(|owned| owned.offsets.durable())
    }

    pub(super) fn receive(
        &mut self,
        record: (&PartitionKey, i64),
        epoch: i64,
        hash: Hash,
        now: Instant,
    ) -> Option<Received> {
        let (partition, offset) = record;
        let owned = self.partitions.get_mut(partition).filter(|owned| owned.is_ours(epoch))?;
        // This offset is above all received ones, so `seen_upto` as the store had it at the take decides.
        let is_below_seen = offset < owned.offsets.durable().seen_upto;
        if !owned.offsets.receive(offset, hash) {
            return None;
        }
        owned.oldest_since.get_or_insert((offset, now));
        Some(Received { is_below_seen })
    }

    pub(super) fn outstanding(&self, partition: &PartitionKey) -> usize {
        self.partitions.get(partition).map_or(0, |owned| owned.offsets.outstanding())
    }

    /// Records of all partitions above their watermarks.
    pub(super) fn all_outstanding(&self) -> usize {
        self.partitions.values().map(|owned| owned.offsets.outstanding()).sum()
    }

    pub(super) fn at_position(&mut self, partition: &PartitionKey, position: i64) {
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.offsets.at_position(position);
        }
    }

    pub(super) fn watermark_ages(&self, now: Instant) -> HashMap<Arc<str>, Duration> {
        let mut ages = HashMap::new();
        for (partition, owned) in &self.partitions {
            let age = owned.oldest_since.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since));
            let oldest: &mut Duration = ages.entry(Arc::clone(&partition.topic)).or_default();
            *oldest = age.max(*oldest);
        }
        ages
    }

    pub(super) fn begin(&mut self, lease: &Arc<Lease>) -> Begin {
        let facts = &lease.facts;
        if let Some(epoch) = lease.epoch()
            && !self.is_ours(&facts.record.partition, epoch)
        {
            return Begin::NotOurs;
        }
        match self.flights.get_mut(&facts.id) {
            Some(flight) if flight.lease.facts.content_hash != facts.content_hash => Begin::Reused,
            Some(flight) => {
                if let Some(epoch) = lease.epoch() {
                    flight.copies.push((facts.record.clone(), epoch));
                }
                Begin::Repeat
            }
            None => {
                let stage = if lease.epoch().is_some() { Stage::Queued } else { Stage::Claimed };
                self.flights.insert(facts.id, Flight { lease: Arc::clone(lease), stage, copies: Vec::new() });
                Begin::Begun
            }
        }
    }

    /// A first try does not begin if the store has not confirmed its partition's epoch for long. Then the partition is taken again,
    /// and the record is read again.
    pub(super) fn start(&mut self, lease: &Lease, now: Moment) -> bool {
        let partition = &lease.facts.record.partition;
        if let Some(epoch) = lease.epoch()
            && let Some(owned) = self.partitions.get(partition).filter(|owned| owned.is_ours(epoch))
            && now.since(owned.confirmed_at) > self.trusted_for
        {
            self.again.insert(Arc::clone(partition));
            return false;
        }
        self.advance(lease, Stage::start)
    }

    pub(super) fn park(&mut self, lease: &Lease) -> bool {
        self.advance(lease, Stage::park)
    }

    /// Moves the callback of this lease to its next stage. False if it is not under way, or its stage does not allow
    /// it.
    fn advance(&mut self, lease: &Lease, step: impl FnOnce(Stage) -> Option<Stage>) -> bool {
        let flight = self.flights.get_mut(&lease.id()).filter(|flight| flight.lease.token == lease.token);
        let Some((flight, next)) = flight.and_then(|flight| step(flight.stage).map(|next| (flight, next))) else {
            return false;
        };
        flight.stage = next;
        true
    }

    pub(super) fn known(&mut self, lease: &Lease, now: Instant) {
        let Some(flight) = self.remove(lease.id(), lease.token) else { return };
        let own = lease.epoch().map(|epoch| (lease.facts.record.clone(), epoch));
        for (record, epoch) in flight.copies.iter().chain(own.iter()) {
            self.done(record, *epoch, false, now);
        }
    }

    pub(super) fn withdraw(&mut self, lease: &Lease) -> Vec<RecordRef> {
        let flight = self.remove(lease.id(), lease.token);
        flight.into_iter().flat_map(|flight| flight.copies).map(|(record, _)| record).collect()
    }

    pub(super) fn read_again(&mut self, partition: &Arc<PartitionKey>) {
        self.again.insert(Arc::clone(partition));
    }

    pub(super) fn compose(&mut self, changes: Vec<Change>, now: Instant) -> Composed {
        for change in &changes {
            if let Some((record, epoch)) = change.record() {
                self.done(record, epoch, true, now);
            }
        }
        let moved = self.partitions.iter_mut().filter_map(|(partition, owned)| {
            let watermark = owned.offsets.compose()?;
            Some(PartitionWatermark { partition: Arc::clone(partition), epoch: owned.epoch, watermark })
        });
        let mut watermarks: Vec<_> = moved.collect();
        watermarks.sort_by(|a, b| a.partition.cmp(&b.partition));
        Composed::new(changes, watermarks)
    }

    /// The batch is durable: its callbacks are no longer under way. They are returned, so that the caller can free their
    /// bodies after it has unlocked this table.
    pub(super) fn confirm(&mut self, batch: &Durable, now: Instant) -> Vec<Flight> {
        for written in batch.watermarks() {
            if let Some(owned) = self.partitions.get_mut(&written.partition).filter(|o| o.epoch == written.epoch) {
                owned.offsets.confirm(written.watermark);
            }
        }
        batch.changes().iter().filter_map(|(change, verdict)| self.land(change, *verdict, now)).collect()
    }

    /// The change was written or refused: its callback is no longer under way.
    fn land(&mut self, change: &Change, verdict: Verdict, now: Instant) -> Option<Flight> {
        let flight = match change {
            Change::Settle(settle) => self.remove(settle.facts.id, settle.token),
            Change::Release { facts, token } => self.remove(facts.id, *token),
            Change::Park(park) => {
                let is_parking = self.flights.get(&park.facts.id).is_some_and(|flight| flight.stage == Stage::Parking);
                if is_parking { self.remove(park.facts.id, park.token) } else { None }
            }
            Change::Bury(..) => None,
        }?;
        // If no row was written (row 29, or a park under an old epoch), the copies must be read and tried themselves.
        let left_no_row = verdict == Verdict::Nothing && !matches!(change, Change::Release { .. });
        for (record, epoch) in &flight.copies {
            if left_no_row {
                self.again.insert(Arc::clone(&record.partition));
            } else {
                self.done(record, *epoch, false, now);
            }
        }
        Some(flight)
    }

    pub(super) fn first_tries(&self, at_most: usize, wanted: impl Fn(&Facts) -> bool) -> Vec<FirstTry> {
        let flights = self.flights.values().filter(|flight| wanted(&flight.lease.facts));
        flights.filter_map(Flight::as_first_try).take(at_most).collect()
    }

    pub(super) fn first_try(&self, id: CallbackId) -> Option<FirstTry> {
        self.flights.get(&id).and_then(Flight::as_first_try)
    }

    pub(super) fn started(&self) -> Vec<Arc<Lease>> {
        let started = self.flights.values().filter(|flight| flight.stage.is_started());
        started.map(|flight| Arc::clone(&flight.lease)).collect()
    }

    /// Watermarks above every record received, durable or not. Only a fault switch of the tests writes them.
    pub(super) fn received_watermarks(&self) -> Vec<PartitionWatermark> {
        let received = self.partitions.iter().map(|(partition, owned)| {
            let watermark = owned.offsets.pretend_all_done();
            PartitionWatermark { partition: Arc::clone(partition), epoch: owned.epoch, watermark }
        });
        received.collect()
    }

    /// The record needs nothing more. This counts only if the partition still has the epoch under which it was read.
    pub(super) fn done(&mut self, record: &RecordRef, epoch: i64, has_row: bool, now: Instant) {
        let Some(owned) = self.partitions.get_mut(&record.partition).filter(|owned| owned.epoch == epoch) else {
            return;
        };
        owned.offsets.done(record.offset, has_row);
        let open = owned.offsets.oldest_open();
        if owned.oldest_since.is_some_and(|(offset, _)| offset < open) {
            owned.oldest_since = (owned.offsets.outstanding() > 0).then_some((open, now));
        }
    }

    fn is_ours(&self, partition: &PartitionKey, epoch: i64) -> bool {
        self.partitions.get(partition).is_some_and(|owned| owned.is_ours(epoch))
    }

    /// Removes the callback if this token holds it.
    fn remove(&mut self, id: CallbackId, token: Token) -> Option<Flight> {
        let is_held = self.flights.get(&id).is_some_and(|flight| flight.lease.token == token);
        if is_held { self.flights.remove(&id) } else { None }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
