//! Admission: a new event becomes a lease and is offered to its lane, a known event is skipped, and an event that can't
//! become a callback becomes a dead letter.
//!
//! A callback enters the table of what is under way *before* its id is looked up: a copy that settled earlier is then
//! found in the store, and one that comes later finds it under way.

pub(super) mod ids;
mod lane_streaks;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use self::lane_streaks::LaneStreaks;
use super::decode::unwanted;
use super::{Deps, Incoming, Stalled};
use crate::base::clock::Moment;
use crate::base::labels::ParkCause;
use crate::base::pace::Pace;
use crate::base::stop::Stop;
use crate::deliver::resolve::lane_of;
use crate::faults::{self, Fault};
use crate::flight::Begin;
use crate::flight::parked;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::Unreadable;
use crate::model::event::{PartitionKey, TaskEvent};
use crate::model::lease::{Lease, Right};
use crate::model::retry::Progress;
use crate::model::settlement::Change;
use crate::schedule::{LaneKey, Side};
use crate::store::{Answer, StoreError};

/// How often first tries that have waited too long in a lane at its cap are parked.
const STALE_CHECK: Duration = Duration::from_millis(250);

pub(super) struct Admit {
    pub(super) deps: Arc<Deps>,
    stalled: Arc<Stalled>,
    batches: mpsc::Receiver<Vec<Incoming>>,
    stop: Stop,
    streaks: LaneStreaks,
    /// First tries that found no room and wait for it, in order. Their partitions are stalled.
    waiting: HashMap<Arc<PartitionKey>, VecDeque<Ready>>,
}

/// An event that was read.
struct Event {
    event: TaskEvent,
    epoch: i64,
    below_seen: bool,
}

/// Copies of events that came in the same batch, by where they lie.
type Repeats = HashMap<(Arc<PartitionKey>, i64), (TaskEvent, i64)>;

/// An event with the lease that it will get.
struct New {
    event: TaskEvent,
    lease: Arc<Lease>,
    looked_up: bool,
}

/// A first try that may begin, with the lane it goes to.
struct Ready {
    lease: Arc<Lease>,
    lane: LaneKey,
}

/// Why an event becomes a dead letter although it could be read.
#[derive(Clone, Copy)]
struct Unwanted {
    reason: Unreadable,
    detail: &'static str,
}

const REUSED: Unwanted =
    Unwanted { reason: Unreadable::EventIdReused, detail: "the event id was used for another content" };
const UNKNOWN_TEAM: Unwanted = Unwanted { reason: Unreadable::UnknownTeam, detail: "no team of this id" };

impl Admit {
    pub(super) fn new(
        deps: Arc<Deps>,
        stalled: Arc<Stalled>,
        batches: mpsc::Receiver<Vec<Incoming>>,
        stop: Stop,
    ) -> Self {
        Self { deps, stalled, batches, stop, streaks: LaneStreaks::default(), waiting: HashMap::new() }
    }

    /// Admits batches until `stop`, which also ends its waits for the store.
    pub(super) async fn run(self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.admit_all() => {}
            () = stop.stopped() => {}
        }
    }

    async fn admit_all(mut self) {
        let mut stale_check = tokio::time::interval(STALE_CHECK);
        loop {
            let lanes = Arc::clone(&self.deps.delivery.lanes);
            tokio::select! {
                batch = self.batches.recv() => match batch {
                    Some(batch) => self.admit(batch).await,
                    None => return,
                },
                () = lanes.room_freed.notified(), if !self.waiting.is_empty() => {}
                _ = stale_check.tick() => self.park_stale().await,
            }
            self.offer_waiting().await;
        }
    }

    async fn admit(&mut self, batch: Vec<Incoming>) {
        assert!(!faults::is_on(Fault::AdmissionPanic), "a fault switch");
        let events = self.readable(batch).await;
        let (new, mut repeats) = self.begin(events).await;
        let new = self.without_known(new, &mut repeats).await;
        for New { event, lease, .. } in new {
            let Some(lane) = self.lane(&event, &lease, &mut repeats).await else { continue };
            self.streaks.note(&lease, &lane);
            self.offer_in_order(Ready { lease, lane }).await;
        }
    }

    /// The events of a batch. Dead letters are stored at once. Records of a partition that was given up are read again.
    async fn readable(&self, batch: Vec<Incoming>) -> Vec<Event> {
        let mut events = Vec::with_capacity(batch.len());
        for Incoming { partition, epoch, below_seen, decoded } in batch {
            if self.deps.flight.inflight.epoch(&partition) != Some(epoch) {
                continue;
            }
            match decoded {
                Ok(event) => events.push(Event { event, epoch, below_seen }),
                Err(letter) => self.deps.flight.settler.submit(Change::Bury(letter, epoch)).await,
            }
        }
        events
    }

    /// Enters events into the table of what is under way. Returns the new ones, and the copies of others.
    async fn begin(&self, events: Vec<Event>) -> (Vec<New>, Repeats) {
        let ids = self.ids(&events).await;
        let mut new = Vec::with_capacity(events.len());
        let mut repeats = Repeats::new();
        let mut reused = Vec::new();
        for (Event { event, epoch, below_seen }, id) in events.into_iter().zip(ids) {
            let looked_up = (below_seen && !faults::is_on(Fault::NoLookUp)) || event.event_id.is_some();
            let lease = self.lease(&event, id, epoch);
            match self.deps.flight.inflight.begin(&lease) {
                Begin::Begun => new.push(New { event, lease, looked_up }),
                Begin::Repeat => {
                    self.deps.metrics.repeats_skipped_total.inc();
                    repeats.insert((Arc::clone(&event.record.partition), event.record.offset), (event, epoch));
                }
                Begin::Reused => reused.push((event, epoch, id)),
                // Its partition was given up: it is read again.
                Begin::NotOurs => {}
            }
        }
        self.bury_unless_known(reused).await;
        (new, repeats)
    }

    /// Events whose ids are under way with another content. The other one may not have been looked up yet: if the store knows
    /// the id with the content of our event, ours is a repeat, and the other one uses its id again.
    async fn bury_unless_known(&self, reused: Vec<(TaskEvent, i64, CallbackId)>) {
        if reused.is_empty() {
            return;
        }
        let asked: Vec<_> = reused.iter().map(|(.., id)| *id).collect();
        let answers = self.insist(|| self.deps.store.known(asked.clone())).await;
        for ((event, epoch, _), known) in reused.into_iter().zip(answers) {
            if known.is_some_and(|known| known.content_hash == event.content_hash) {
                self.deps.metrics.repeats_skipped_total.inc();
                self.deps.flight.inflight.done_without_row(&event.record, epoch);
            } else {
                self.bury(&event, epoch, REUSED).await;
            }
        }
    }

    /// Removes the events that the store knows: they were read before, are repeated, or use an id of another event.
    async fn without_known(&self, new: Vec<New>, repeats: &mut Repeats) -> Vec<New> {
        let asked: Vec<_> = new.iter().filter(|new| new.looked_up).map(|new| new.lease.id()).collect();
        if asked.is_empty() {
            return new;
        }
        let mut answers = self.insist(|| self.deps.store.known(asked.clone())).await.into_iter();
        let mut unknown = Vec::with_capacity(new.len());
        for new in new {
            let known = if new.looked_up { answers.next().flatten() } else { None };
            match known {
                None => unknown.push(new),
                Some(known) if known.content_hash == new.event.content_hash => {
                    self.deps.metrics.repeats_skipped_total.inc();
                    self.deps.flight.inflight.known(&new.lease);
                }
                Some(_) => self.bury_with_repeats(&new.event, &new.lease, repeats, REUSED).await,
            }
        }
        unknown
    }

    /// The lane of a new callback. `None` if its team is not known: then it has become a dead letter.
    async fn lane(&self, event: &TaskEvent, lease: &Arc<Lease>, repeats: &mut Repeats) -> Option<LaneKey> {
        let mut pace = Pace::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match self.deps.delivery.directory.team(&event.team).await {
                Ok(Some(entry)) => return Some(lane_of(&lease.facts.queue, Some(&entry))),
                Ok(None) => {
                    self.bury_with_repeats(event, lease, repeats, UNKNOWN_TEAM).await;
                    return None;
                }
                // While the store is down, we can't know whether the team exists.
                Err(_) => tokio::time::sleep(pace.next_wait()).await,
            }
        }
    }

    /// Makes a dead letter of an event that was entered, and of its copies in the same batch. Other copies are read
    /// again.
    async fn bury_with_repeats(&self, event: &TaskEvent, lease: &Lease, repeats: &mut Repeats, why: Unwanted) {
        let waited = self.deps.flight.inflight.withdraw(lease);
        self.bury(event, lease.epoch().unwrap_or_default(), why).await;
        for record in waited {
            match repeats.remove(&(Arc::clone(&record.partition), record.offset)) {
                Some((copy, epoch)) => self.bury(&copy, epoch, why).await,
                None => self.deps.flight.inflight.read_again(&record),
            }
        }
    }

    async fn bury(&self, event: &TaskEvent, epoch: i64, why: Unwanted) {
        let letter = unwanted(event, why.reason, why.detail.to_owned());
        self.deps.flight.settler.submit(Change::Bury(letter, epoch)).await;
    }

    fn lease(&self, event: &TaskEvent, id: CallbackId, epoch: i64) -> Arc<Lease> {
        Arc::new(Lease {
            facts: Arc::new(ids::facts_of(event, id, self.deps.flight.inflight.builder())),
            url: event.callback_url.clone(),
            body: event.body.clone(),
            no_body: None,
            progress: Progress::default(),
            round: 0,
            new_id: false,
            token: self.deps.delivery.tokens.take(1),
            right: Right::Record { epoch },
            born_at: self.deps.clock.now(),
            born: Moment::now(),
            until: None,
            suspect: None,
        })
    }

    /// Offers a first try, or lets it wait if others of its partition wait already.
    async fn offer_in_order(&mut self, ready: Ready) {
        let partition = Arc::clone(&ready.lease.facts.record.partition);
        if let Some(queue) = self.waiting.get_mut(&partition) {
            queue.push_back(ready);
        } else if let Some(ready) = self.offer(ready).await {
            self.stalled.insert(Arc::clone(&partition));
            self.waiting.insert(partition, VecDeque::from([ready]));
        }
    }

    async fn offer_waiting(&mut self) {
        let partitions: Vec<_> = self.waiting.keys().cloned().collect();
        for partition in partitions {
            let Some(mut queue) = self.waiting.remove(&partition) else { continue };
            while let Some(ready) = queue.pop_front() {
                if let Some(ready) = self.offer(ready).await {
                    queue.push_front(ready);
                    break;
                }
            }
            if queue.is_empty() {
                self.stalled.remove(&partition);
            } else {
                self.waiting.insert(partition, queue);
            }
        }
    }

    /// Offers the first try to its lane. If the lane is full, it is parked, so that later records can pass. It is
    /// returned, and must wait, if the machine is the limit or its partition has records for one lane only.
    async fn offer(&self, ready: Ready) -> Option<Ready> {
        let partition = &ready.lease.facts.record.partition;
        if self.deps.flight.inflight.epoch(partition) != ready.lease.epoch() {
            // The partition was given up while we asked the store: the record is read again under the next epoch.
            self.forget(&ready.lease);
            return None;
        }
        if !self.deps.delivery.lanes.is_full(&ready.lane) {
            self.deps.delivery.lanes.offer(ready.lane, Side::Fresh, ready.lease);
            return None;
        }
        if self.deps.delivery.lanes.machine_is_the_limit() || self.streaks.serves_one_lane(&ready.lease) {
            return Some(ready);
        }
        self.park(&ready.lease).await;
        None
    }

    fn forget(&self, lease: &Lease) {
        for record in self.deps.flight.inflight.withdraw(lease) {
            self.deps.flight.inflight.read_again(&record);
        }
    }

    async fn park(&self, lease: &Arc<Lease>) {
        if self.deps.flight.inflight.park(lease) {
            self.deps.metrics.parked_total.with_label_values(&[ParkCause::NoRoom.name()]).inc();
            self.deps.flight.settler.submit(parked(lease, None)).await;
        }
    }

    /// Parks first tries that have waited too long in a lane at its cap, because they keep watermarks from rising.
    async fn park_stale(&mut self) {
        let others = |lease: &Arc<Lease>| !self.streaks.serves_one_lane(lease);
        for lease in self.deps.delivery.lanes.stale(self.deps.park_after, others) {
            self.park(&lease).await;
        }
        self.streaks.retain(|partition, epoch| self.deps.flight.inflight.epoch(partition) == Some(epoch));
    }

    /// Asks the store until it answers. Nothing is admitted before the answer.
    async fn insist<'s, T>(&'s self, ask: impl Fn() -> Answer<'s, T>) -> T {
        let mut pace = Pace::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error @ (StoreError::Broken(_) | StoreError::Superseded(_))) => {
                    self.deps.flight.settler.break_off(error).await;
                    std::future::pending::<()>().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "intake waits for the store");
                    tokio::time::sleep(pace.next_wait()).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
