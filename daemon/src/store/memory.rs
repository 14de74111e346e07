//! The store as a model: maps under one lock, merged by `apply` alone. For tests; what SQL stores are compared with.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{
    Answer, Applied, Batch, Begun, ClaimAsk, Claimed, EventClaim, InstanceId, Known, PruneAsk, Pruned, Store,
    StoreError, Taken,
};
use crate::base::clock::{Clock, Timestamp};
use crate::model::callback::{CallbackId, Hash};
use crate::model::dead_letter::DeadLetter;
use crate::model::endpoint::QueueKey;
use crate::model::event::PartitionKey;
use crate::model::lease::Token;
use crate::model::offsets::Watermark;
use crate::model::settlement::{Change, Claim, NumberedAttempt, Rows, apply, apply_claim};

pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<i64, (u64, bool)>,
    partitions: BTreeMap<PartitionKey, SourceState>,
    rows: BTreeMap<CallbackId, Rows>,
    bodies: HashMap<CallbackId, Bytes>,
    attempts: BTreeMap<(CallbackId, u32), NumberedAttempt>,
    dead_letters: BTreeMap<CallbackId, DeadLetter>,
    dedupe: HashMap<Hash, (CallbackId, Timestamp)>,
    served: HashMap<QueueKey, u64>,
    turn: u64,
}

#[derive(Clone)]
struct SourceState {
    epoch: i64,
    watermark: Watermark,
    accepted: Option<String>,
}

impl MemoryStore {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn rows(&self, id: CallbackId) -> Rows {
        self.state().rows.get(&id).cloned().unwrap_or_default()
    }

    pub fn attempts(&self, id: CallbackId) -> Vec<NumberedAttempt> {
        self.state().attempts.range((id, 0)..=(id, u32::MAX)).map(|(_, attempt)| attempt.clone()).collect()
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.state().dead_letters.values().cloned().collect()
    }

    pub fn watermark(&self, partition: &PartitionKey) -> Option<Watermark> {
        self.state().partitions.get(partition).map(|state| state.watermark)
    }
}

fn done<'a, T: Send + 'a>(value: Result<T, StoreError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}

impl State {
    fn write(&mut self, batch: &Batch, now: Timestamp) -> Result<Applied, StoreError> {
        let Some((last, _)) = self.instances.get_mut(&batch.instance.0) else {
            return Err(StoreError::Broken("this instance is not registered".to_owned()));
        };
        if *last >= batch.number {
            return Ok(Applied { now, ..Applied::default() });
        }
        *last = batch.number;
        let mut applied = Applied { now, ..Applied::default() };
        for change in &batch.changes {
            let ours = change.record().is_none_or(|(record, epoch)| self.ours(&record.partition, epoch));
            let verdict = self.change(change, ours);
            applied.verdicts.push(verdict);
            if let (false, Some((record, epoch))) = (ours, change.record()) {
                applied.lost.push((Arc::clone(&record.partition), epoch));
            }
        }
        for mark in &batch.watermarks {
            if self.ours(&mark.partition, mark.epoch) {
                let state = self.partitions.get_mut(&*mark.partition).expect("it is ours, so it is there");
                if mark.watermark.upto >= state.watermark.upto {
                    let seen_upto = state.watermark.seen_upto.max(mark.watermark.seen_upto);
                    state.watermark = Watermark { seen_upto, ..mark.watermark };
                }
            } else {
                applied.lost.push((Arc::clone(&mark.partition), mark.epoch));
            }
        }
        applied.lost.sort();
        applied.lost.dedup();
        Ok(applied)
    }

    fn ours(&self, partition: &PartitionKey, epoch: i64) -> bool {
        self.partitions.get(partition).is_some_and(|state| state.epoch == epoch)
    }

    fn change(&mut self, change: &Change, ours: bool) -> crate::model::settlement::Verdict {
        if let Change::Bury(letter, _) = change {
            if ours {
                self.dead_letters.entry(letter.id).or_insert_with(|| (**letter).clone());
            }
            return apply(&Rows::default(), change, ours).verdict;
        }
        let id = change.facts().expect("only a dead letter has none").id;
        let before = self.rows.get(&id).cloned().unwrap_or_default();
        let step = apply(&before, change, ours);
        if let Some(attempt) = step.attempt {
            self.attempts.entry((id, attempt.n)).or_insert(attempt);
        }
        match (&before.pending, &step.rows.pending) {
            (None, Some(_)) => {
                let body = match change {
                    Change::Settle(settle) => settle.body.clone(),
                    Change::Park(park) => park.body.clone(),
                    _ => Bytes::new(),
                };
                self.bodies.insert(id, body);
            }
            (Some(_), None) => {
                self.bodies.remove(&id);
            }
            _ => {}
        }
        if step.rows == Rows::default() {
            self.rows.remove(&id);
        } else {
            self.rows.insert(id, step.rows);
        }
        step.verdict
    }

    fn claim(&mut self, ask: &ClaimAsk, now: Timestamp) -> Claimed {
        let mut due: Vec<_> = self
            .rows
            .iter()
            .filter_map(|(id, rows)| rows.pending.as_ref().map(|pending| (*id, pending)))
            .filter(|(_, pending)| pending.due <= now && pending.lease_until.is_none_or(|until| until <= now))
            .map(|(id, pending)| {
                let served = self.served.get(&pending.facts.queue).copied().unwrap_or(0);
                (served, pending.facts.queue.clone(), pending.due, id)
            })
            .collect();
        due.sort();
        let mut claimed = Claimed { now, rows: Vec::new(), next_at: None };
        let mut taken: HashMap<QueueKey, u32> = HashMap::new();
        let (mut token, mut bytes) = (ask.first_token.0, 0);
        for (_, queue, _, id) in due {
            let room = ask.room.get(&queue).copied().unwrap_or(ask.usual_room);
            let used = taken.entry(queue.clone()).or_default();
            if *used >= room || claimed.rows.len() >= ask.at_most || bytes > ask.bytes {
                continue;
            }
            let claim = Claim { token: Token(token), until: now.plus(ask.lease) };
            let rows = self.rows.get_mut(&id).expect("it was listed");
            *rows = apply_claim(rows, &claim);
            if let Some(pending) = rows.pending.clone() {
                *used += 1;
                token = token.wrapping_add(1);
                let body = self.bodies.get(&id).cloned().unwrap_or_default();
                bytes += body.len();
                claimed.rows.push((pending, body));
                self.turn += 1;
                self.served.insert(queue, self.turn);
            }
        }
        let unleased = self.rows.values().filter_map(|rows| rows.pending.as_ref()).filter(|p| p.token.is_none());
        claimed.next_at = unleased.map(|pending| pending.due).min();
        claimed
    }

    fn take(&mut self, partition: &PartitionKey, start: Option<(i64, i64, Option<String>)>) -> Taken {
        let zero = Watermark { upto: 0, seen_upto: 0, last: None };
        let state = self.partitions.entry(partition.clone()).or_insert(SourceState {
            epoch: 0,
            watermark: zero,
            accepted: None,
        });
        state.epoch += 1;
        if let Some((start, log_end, accepted)) = start {
            state.watermark = Watermark { upto: start, seen_upto: log_end, last: None };
            state.accepted = accepted.or(state.accepted.take());
        }
        let fresh = state.watermark.upto == 0 && state.watermark.seen_upto == 0 && state.accepted.is_none();
        Taken { epoch: state.epoch, watermark: state.watermark, fresh, accepted: state.accepted.clone() }
    }
}

impl Store for MemoryStore {
    fn begin(&self) -> Answer<'_, Begun> {
        let mut state = self.state();
        let unclean = state.instances.values().any(|(_, clean)| !clean);
        let instance = state.instances.keys().max().map_or(1, |last| last + 1);
        state.instances.insert(instance, (0, false));
        for rows in state.rows.values_mut() {
            if let Some(pending) = rows.pending.as_mut() {
                pending.token = None;
                pending.lease_until = None;
            }
        }
        let store_id = "memory".to_owned();
        done(Ok(Begun { instance: InstanceId(instance), store_id, unclean, now: self.clock.now() }))
    }

    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied> {
        done(self.state().write(&batch, self.clock.now()))
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, Claimed> {
        done(Ok(self.state().claim(&ask, self.clock.now())))
    }

    fn known(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Known>>> {
        let state = self.state();
        let known = |id: &CallbackId| {
            let rows = state.rows.get(id)?;
            let pending = rows.pending.as_ref().map(|pending| &pending.facts);
            let facts = pending.or_else(|| rows.settled.as_ref().map(|settled| &settled.facts))?;
            Some(Known { content_hash: facts.content_hash })
        };
        done(Ok(ids.iter().map(known).collect()))
    }

    fn claim_event_ids(&self, claims: Vec<EventClaim>) -> Answer<'_, Vec<CallbackId>> {
        let now = self.clock.now();
        let mut state = self.state();
        done(Ok(claims.iter().map(|claim| state.dedupe.entry(claim.hash).or_insert((claim.id, now)).0).collect()))
    }

    fn take(&self, _process: InstanceId, partition: Arc<PartitionKey>) -> Answer<'_, Taken> {
        done(Ok(self.state().take(&partition, None)))
    }

    fn start_anew(
        &self,
        _process: InstanceId,
        partition: Arc<PartitionKey>,
        start: i64,
        log_end: i64,
        accepted: Option<String>,
    ) -> Answer<'_, Taken> {
        done(Ok(self.state().take(&partition, Some((start, log_end, accepted)))))
    }

    fn sweep(&self) -> Answer<'_, usize> {
        let now = self.clock.now();
        let mut expired = 0;
        for rows in self.state().rows.values_mut() {
            if let Some(pending) = rows.pending.as_mut().filter(|p| p.lease_until.is_some_and(|until| until <= now)) {
                pending.token = None;
                pending.lease_until = None;
                expired += 1;
            }
        }
        done(Ok(expired))
    }

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned> {
        let mut state = self.state();
        let old: Vec<_> = state
            .rows
            .iter()
            .filter(|(_, rows)| rows.pending.is_none())
            .filter(|(_, rows)| rows.settled.as_ref().is_some_and(|row| row.settled_at < ask.settled_before))
            .map(|(id, _)| *id)
            .take(ask.at_most)
            .collect();
        for id in &old {
            state.rows.remove(id);
            state.attempts.retain(|(of, _), _| of != id);
        }
        let before = state.dedupe.len();
        state.dedupe.retain(|_, (_, at)| *at >= ask.event_ids_before);
        done(Ok(Pruned { settled: old.len(), dead_letters: 0, event_ids: before - state.dedupe.len(), next: None }))
    }

    fn end(&self, instance: InstanceId) -> Answer<'_, ()> {
        if let Some((_, clean)) = self.state().instances.get_mut(&instance.0) {
            *clean = true;
        }
        done(Ok(()))
    }
}
