//! Admission: what is new becomes a lease and is offered to its lane; what is known is passed; what can't become a
//! callback is buried.
//!
//! A callback enters the books of what is under way *before* its id is looked up: a copy that settled earlier is then
//! found in the store, and one that comes later finds it under way.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::decode::unwanted;
use super::{Incoming, Stalled};
use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::base::pace::Pace;
use crate::base::stop::Stop;
use crate::deliver::directory::Directory;
use crate::deliver::inflight::{Begin, Inflight};
use crate::deliver::lease_tokens::LeaseTokens;
use crate::deliver::parked;
use crate::deliver::resolve::{lane_of, queue_of};
use crate::deliver::settle::Settler;
use crate::faults::{self, Fault};
use crate::model::callback::{BUILDER, CallbackId, EventKey, time_inside};
use crate::model::dead_letter::Unreadable;
use crate::model::event::{PartitionKey, TaskEvent};
use crate::model::lease::{Facts, Lease, Right};
use crate::model::retry::Progress;
use crate::model::settlement::Change;
use crate::schedule::{LaneKey, Lanes, Side};
use crate::store::{EventClaim, Store, StoreError};

pub struct Admit {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub inflight: Arc<Inflight>,
    pub lanes: Arc<Lanes>,
    pub directory: Arc<Directory>,
    pub settler: Settler,
    pub tokens: Arc<LeaseTokens>,
    pub stalled: Arc<Stalled>,
    pub metrics: Arc<Metrics>,
    pub park_after: Duration,
    pub batches: mpsc::Receiver<Vec<Incoming>>,
    pub stop: Stop,
}

/// Copies of events that came in the same batch, by where they lie.
type Repeats = HashMap<(Arc<PartitionKey>, i64), (TaskEvent, i64)>;

const REUSED: &str = "the event id was used for another content; the callback's body is kept";

/// A first try that may begin, with the lane it goes to.
struct Ready {
    lease: Arc<Lease>,
    lane: LaneKey,
}

/// An event with its lease-to-be.
struct New {
    event: TaskEvent,
    lease: Arc<Lease>,
    looked_up: bool,
}

impl Admit {
    /// Admits batches until `stop`, which also ends its waits for the store.
    pub async fn run(self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.admit_all() => {}
            () = stop.stopped() => {}
        }
    }

    async fn admit_all(mut self) {
        let mut waiting: HashMap<Arc<PartitionKey>, VecDeque<Ready>> = HashMap::new();
        let mut stale_check = tokio::time::interval(Duration::from_millis(250));
        loop {
            let lanes = Arc::clone(&self.lanes);
            tokio::select! {
                batch = self.batches.recv() => match batch {
                    Some(batch) => self.admit(batch, &mut waiting).await,
                    None => return,
                },
                () = lanes.progress.notified(), if !waiting.is_empty() => {}
                _ = stale_check.tick() => self.park_stale().await,
            }
            self.offer_waiting(&mut waiting).await;
        }
    }

    async fn admit(&self, batch: Vec<Incoming>, waiting: &mut HashMap<Arc<PartitionKey>, VecDeque<Ready>>) {
        let mut events = Vec::with_capacity(batch.len());
        for incoming in batch {
            // Given up meanwhile: it is read again.
            if self.inflight.epoch(&incoming.partition) != Some(incoming.epoch) {
                continue;
            }
            match incoming.decoded {
                Ok(event) => events.push((event, incoming.epoch, incoming.below_seen)),
                Err(letter) => self.settler.submit(Change::Bury(letter, incoming.epoch)).await,
            }
        }
        let ids = self.ids(&events).await;
        let mut new = Vec::with_capacity(events.len());
        let mut repeats = Repeats::new();
        for ((event, epoch, below_seen), id) in events.into_iter().zip(ids) {
            let looked_up = (below_seen && !faults::is_on(Fault::NoLookUp)) || event.event_id.is_some();
            let lease = self.lease(&event, id, epoch);
            match self.inflight.begin(&lease) {
                Begin::Begun => new.push(New { event, lease, looked_up }),
                Begin::Repeat => {
                    self.metrics.repeats_skipped_total.inc();
                    repeats.insert((Arc::clone(&event.record.partition), event.record.offset), (event, epoch));
                }
                Begin::Reused => self.bury(&event, epoch, Unreadable::EventIdReused, REUSED.to_owned()).await,
                Begin::NotOurs => {}
            }
        }
        let new = self.without_known(new, &mut repeats).await;
        for New { event, lease, .. } in new {
            let Some(lane) = self.lane(&event, &lease, &mut repeats).await else { continue };
            let partition = Arc::clone(&lease.facts.record.partition);
            self.inflight.note_lane(&partition, lane_hash(&lane));
            let ready = Ready { lease, lane };
            match waiting.get_mut(&partition) {
                Some(queue) => queue.push_back(ready),
                None => {
                    if let Some(ready) = self.offer(ready).await {
                        self.stalled.insert(Arc::clone(&partition));
                        waiting.insert(partition, VecDeque::from([ready]));
                    }
                }
            }
        }
    }

    /// The callbacks' ids. An event id without a time is claimed first, and takes the id that it belongs to.
    async fn ids(&self, events: &[(TaskEvent, i64, bool)]) -> Vec<CallbackId> {
        let mut ids: Vec<_> = events.iter().map(|(event, _, _)| id_of(event)).collect();
        let mut claims = Vec::new();
        let mut claimed = Vec::new();
        for (index, (event, _, _)) in events.iter().enumerate() {
            if let Some(event_id) = event.event_id.as_deref().filter(|id| time_inside(id).is_none()) {
                claims.push(EventClaim { hash: event_hash(&event.team, event_id), id: ids[index] });
                claimed.push(index);
            }
        }
        if !claims.is_empty() {
            let winners = self.insist(|| self.store.claim_event_ids(claims.clone())).await;
            for (index, id) in claimed.into_iter().zip(winners) {
                ids[index] = id;
            }
        }
        ids
    }

    /// Takes out what the store knows: read again, repeated, or an id used for something else.
    async fn without_known(&self, new: Vec<New>, repeats: &mut Repeats) -> Vec<New> {
        let asked: Vec<_> = new.iter().filter(|new| new.looked_up).map(|new| new.lease.id()).collect();
        if asked.is_empty() {
            return new;
        }
        let mut answers = self.insist(|| self.store.known(asked.clone())).await.into_iter();
        let mut unknown = Vec::with_capacity(new.len());
        for new in new {
            let known = if new.looked_up { answers.next().flatten() } else { None };
            match known {
                None => unknown.push(new),
                Some(known) if known.content_hash == new.event.content_hash => {
                    self.metrics.repeats_skipped_total.inc();
                    self.inflight.known(&new.lease);
                }
                Some(_) => {
                    self.bury_with_repeats(&new.event, &new.lease, repeats, Unreadable::EventIdReused, REUSED).await;
                }
            }
        }
        unknown
    }

    /// The lane of a new callback; `None` when its team is not known, and it was buried.
    async fn lane(&self, event: &TaskEvent, lease: &Arc<Lease>, repeats: &mut Repeats) -> Option<LaneKey> {
        let mut pace = Pace::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match self.directory.team(&event.team).await {
                Ok(Some(entry)) => return Some(lane_of(&lease.facts.queue, Some(&entry))),
                Ok(None) => {
                    let reason = Unreadable::UnknownTeam;
                    self.bury_with_repeats(event, lease, repeats, reason, "no team of this id").await;
                    return None;
                }
                Err(_) => tokio::time::sleep(pace.next_wait()).await,
            }
        }
    }

    /// Buries an event that had begun, and its copies: those that came with it are at hand, others are read again.
    async fn bury_with_repeats(
        &self,
        event: &TaskEvent,
        lease: &Lease,
        repeats: &mut Repeats,
        reason: Unreadable,
        detail: &str,
    ) {
        let waited = self.inflight.withdraw(lease);
        self.bury(event, lease.epoch().unwrap_or_default(), reason, detail.to_owned()).await;
        for record in waited {
            match repeats.remove(&(Arc::clone(&record.partition), record.offset)) {
                Some((copy, epoch)) => self.bury(&copy, epoch, reason, detail.to_owned()).await,
                None => self.inflight.read_again(&record),
            }
        }
    }

    async fn bury(&self, event: &TaskEvent, epoch: i64, reason: Unreadable, detail: String) {
        let letter = unwanted(event, None, reason, detail);
        self.settler.submit(Change::Bury(letter, epoch)).await;
    }

    fn lease(&self, event: &TaskEvent, id: CallbackId, epoch: i64) -> Arc<Lease> {
        let url = event.callback_url.clone();
        Arc::new(Lease {
            facts: Arc::new(Facts {
                id,
                record: event.record.clone(),
                team: Arc::clone(&event.team),
                task_id: event.task_id.clone(),
                event_id: event.event_id.clone(),
                event_type: Arc::clone(&event.event_type),
                queue: queue_of(&event.team, url.as_deref(), event.mode),
                mode: event.mode,
                content_hash: event.content_hash,
                builder: BUILDER,
            }),
            url,
            body: event.body.clone(),
            progress: Progress::default(),
            token: self.tokens.take(1),
            right: Right::Record { epoch },
            born_at: self.clock.now(),
            born: Instant::now(),
            until: None,
        })
    }

    /// Offers to the lane, or parks for the others' sake. Gives back what has to wait: the machine is the limit, or
    /// its partition brings nothing for anyone else.
    async fn offer(&self, ready: Ready) -> Option<Ready> {
        let partition = &ready.lease.facts.record.partition;
        if self.inflight.epoch(partition) != ready.lease.epoch() {
            // Given up while we asked the store: it is read again under its next epoch.
            self.forget(&ready.lease);
            return None;
        }
        if !self.lanes.is_full(&ready.lane) {
            self.lanes.offer(ready.lane, Side::Fresh, ready.lease);
            return None;
        }
        if self.lanes.machine_is_the_limit() || self.inflight.serves_one_lane(partition) {
            return Some(ready);
        }
        self.park(&ready.lease).await;
        None
    }

    fn forget(&self, lease: &Lease) {
        for record in self.inflight.withdraw(lease) {
            self.inflight.read_again(&record);
        }
    }

    async fn park(&self, lease: &Arc<Lease>) {
        if self.inflight.park(lease) {
            self.metrics.parked_total.with_label_values(&["no_room"]).inc();
            self.settler.submit(parked(lease, None)).await;
        }
    }

    /// What has waited too long behind a lane at its cap holds a watermark: it gets its row.
    async fn park_stale(&self) {
        let others = |lease: &Arc<Lease>| !self.inflight.serves_one_lane(&lease.facts.record.partition);
        for lease in self.lanes.stale(self.park_after, others) {
            self.park(&lease).await;
        }
    }

    async fn offer_waiting(&self, waiting: &mut HashMap<Arc<PartitionKey>, VecDeque<Ready>>) {
        let partitions: Vec<_> = waiting.keys().cloned().collect();
        for partition in partitions {
            let Some(queue) = waiting.get_mut(&partition) else { continue };
            while let Some(ready) = queue.pop_front() {
                if let Some(ready) = self.offer(ready).await {
                    queue.push_front(ready);
                    break;
                }
            }
            if queue.is_empty() {
                waiting.remove(&partition);
                self.stalled.remove(&partition);
            }
        }
    }

    /// Asks the store until it answers: nothing is admitted past a question.
    async fn insist<'s, T>(&'s self, ask: impl Fn() -> crate::store::Answer<'s, T>) -> T {
        let mut pace = Pace::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error @ StoreError::Broken(_)) => {
                    self.settler.break_off(error).await;
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

fn id_of(event: &TaskEvent) -> CallbackId {
    if faults::is_on(Fault::RandomIds) {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
        return CallbackId::from_bytes(bytes);
    }
    let key = match &event.event_id {
        Some(id) => EventKey::Id(id),
        None => EventKey::Record {
            partition: &event.record.partition,
            offset: event.record.offset,
            content: &event.content_hash,
        },
    };
    CallbackId::of(&event.team, key, event.record.timestamp)
}

fn event_hash(team: &str, event_id: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(u32::try_from(team.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(team);
    hash.update(event_id);
    hash.finalize().into()
}

fn lane_hash(lane: &LaneKey) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(lane)
}
