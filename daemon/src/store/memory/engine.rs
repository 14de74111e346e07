//! The engine's trait on the model.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{MemoryStore, State, done};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment};
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Fate, ValueBudget, ValueBytes};
use crate::model::endpoint::QueueKey;
use crate::model::endpoint_history::EndpointHistory;
use crate::model::event::PartitionKey;
use crate::model::keeping::Keeping;
use crate::model::offsets::Watermark;
use crate::model::settlement::{Change, Pending, Rows, Verdict, apply};
use crate::store::engine::{is_applied, went_back};
use crate::store::reads::{BuriedLetter, Counts};
use crate::store::resends::ResendCounts;
use crate::store::{
    Answer, Applied, Batch, Begun, ClaimAsk, Claimed, EngineStore, EventClaim, InstanceId, Known, LetterResend,
    LetterResent, NewLog, PartitionWatermark, PruneAsk, Pruned, Pulse, QueueOf, ResendStep, SetBack, Space, SpaceAsk,
    StoreError, Take, TakeAsk, Taken,
};

impl EngineStore for MemoryStore {
    fn note_endpoints(&self, histories: Vec<EndpointHistory>) -> Answer<'_, ()> {
        let mut state = self.state();
        for history in histories {
            let name = (history.team.to_string(), history.origin.to_string());
            match state.endpoints.entry(name) {
                Entry::Occupied(mut known) => known.get_mut().recent.merge(history.recent),
                Entry::Vacant(new) => {
                    new.insert(history);
                }
            }
        }
        done(Ok(()))
    }

    fn endpoint_histories(&self, at_most: usize) -> Answer<'_, Vec<EndpointHistory>> {
        let mut histories: Vec<_> = self.state().endpoints.values().cloned().collect();
        histories.sort_by_key(|history| std::cmp::Reverse(history.recent.last_at));
        histories.truncate(at_most);
        done(Ok(histories))
    }

    fn space(&self, ask: SpaceAsk) -> Answer<'_, Space> {
        let state = self.state();
        done(Ok(Space {
            full_queues: state.full_queues(ask.queue_bytes),
            pending: (ask.count_pending_upto > 0).then(|| (state.pending_rows() as u64).min(ask.count_pending_upto)),
            parked_bytes: state.bodies.values().map(|body| body.len() as u64).sum(),
            kept_bytes: state.kept_bytes(),
            notices: state.outbox.values().map(|notices| notices.len() as u64).sum(),
            free_bytes: None,
        }))
    }

    fn newest_time(&self) -> Answer<'_, Option<Timestamp>> {
        done(Ok(self.state().instances.values().map(|instance| instance.seen_at).max()))
    }

    fn set_back(&self, back: SetBack) -> Answer<'_, usize> {
        done(Ok(self.state().set_back(&back)))
    }

    fn begin(&self) -> Answer<'_, Begun> {
        done(Ok(self.state().begin(self.clock.now())))
    }

    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied> {
        done(self.state().write(&batch, (self.values, self.keeping), self.clock.now()))
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
        let winner = |claim: &EventClaim| state.event_ids.entry(claim.hash).or_insert((claim.id, now)).0;
        done(Ok(claims.iter().map(winner).collect()))
    }

    fn amend(&self, changes: Vec<(CallbackId, Amendment)>) -> Answer<'_, Vec<Amended>> {
        let now = self.clock.now();
        let mut state = self.state();
        let amended = changes.iter().map(|(id, amendment)| state.amend(*id, amendment, self.keeping, now)).collect();
        state.tell();
        done(Ok(amended))
    }

    fn resend(&self, step: ResendStep) -> Answer<'_, Option<ResendCounts>> {
        done(Ok(self.send_again(&step)))
    }

    fn resend_letter(&self, resend: LetterResend) -> Answer<'_, LetterResent> {
        done(Ok(self.send_letter(&resend)))
    }

    fn discard_letter(&self, letter: CallbackId) -> Answer<'_, bool> {
        done(Ok(self.set_aside(letter)))
    }

    fn retry_queue(&self, queue: QueueKey, at_most: usize) -> Answer<'_, usize> {
        let now = self.clock.now();
        let mut state = self.state();
        let waits = |row: &&mut Pending| row.facts.queue == queue && row.token.is_none() && row.due > now;
        let mut later: Vec<_> =
            state.rows.values_mut().filter_map(|rows| rows.pending.as_mut()).filter(waits).collect();
        later.sort_by_key(|row| row.due);
        later.truncate(at_most);
        later.iter_mut().for_each(|row| row.due = now);
        done(Ok(later.len()))
    }

    fn pulse(&self, instance: InstanceId, applied: u64) -> Answer<'_, Pulse> {
        done(self.state().pulse(instance, applied))
    }

    fn take(&self, ask: TakeAsk) -> Answer<'_, Take> {
        done(Ok(self.state().ask(&ask, self.clock.now())))
    }

    fn start_over(
        &self,
        instance: InstanceId,
        partition: Arc<PartitionKey>,
        epoch: i64,
        log: NewLog,
    ) -> Answer<'_, Option<Taken>> {
        let now = self.clock.now();
        let mut state = self.state();
        if state.partitions.get(&*partition).is_none_or(|taken| taken.epoch != epoch) {
            return done(Ok(None));
        }
        let taken = state.take(instance, &partition, now);
        taken.watermark = Watermark { upto: log.start, seen_upto: log.log_end, last: None };
        (taken.taken_upto, taken.deaths, taken.wanted_at) = (log.start, 0, None);
        taken.accepted = log.accepted.or(taken.accepted.take());
        taken.moved_at = now;
        done(Ok(state.taken(&partition)))
    }

    fn release(&self, instance: InstanceId, partitions: Vec<(Arc<PartitionKey>, i64)>) -> Answer<'_, ()> {
        let mut state = self.state();
        for (key, epoch) in partitions {
            let owned = state.partitions.get_mut(&*key);
            if let Some(owned) = owned.filter(|owned| (owned.owner, owned.epoch) == (Some(instance.0), epoch)) {
                owned.give_up();
            }
        }
        done(Ok(()))
    }

    fn free_leases(&self, _: Duration) -> Answer<'_, usize> {
        let now = self.clock.now();
        done(Ok(self.state().void_leases(|until| until <= now)))
    }

    fn sweep(&self, _: QueueOf) -> Answer<'_, ()> {
        done(Ok(()))
    }

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned> {
        done(Ok(self.state().prune(&ask, &BTreeSet::new())))
    }

    fn end(&self, instance: InstanceId) -> Answer<'_, ()> {
        self.state().end(instance);
        done(Ok(()))
    }
}

impl State {
    fn set_back(&mut self, back: &SetBack) -> usize {
        let by = |at: &mut Timestamp| *at = at.minus(back.by);
        for instance in self.instances.values_mut() {
            instance.seen_at = instance.seen_at.min(back.now);
            instance.started_at = instance.started_at.min(back.now);
        }
        for partition in self.partitions.values_mut() {
            partition.moved_at = partition.moved_at.min(back.now);
        }
        self.endpoints.values_mut().for_each(|history| history.recent.set_back(back.now));
        let mut rows = 0;
        for pending in self.rows.values_mut().filter_map(|rows| rows.pending.as_mut()) {
            let before = pending.clone();
            if pending.due >= back.from {
                by(&mut pending.due);
            }
            pending.lease_until.as_mut().filter(|until| **until >= back.from).map(by);
            if pending.progress.since.is_some_and(|since| since > back.now) {
                pending.progress.since.as_mut().map(by);
                pending.progress.horizon.as_mut().map(by);
            }
            rows += usize::from(*pending != before);
        }
        rows
    }

    pub(super) fn void_leases(&mut self, ended: impl Fn(Timestamp) -> bool) -> usize {
        let mut voided = 0;
        for pending in self.rows.values_mut().filter_map(|rows| rows.pending.as_mut()) {
            if pending.lease_until.is_some_and(&ended) {
                pending.token = None;
                pending.lease_until = None;
                voided += 1;
            }
        }
        voided
    }

    fn write(&mut self, batch: &Batch, bounds: (ValueBudget, Keeping), now: Timestamp) -> Result<Applied, StoreError> {
        let Some(instance) = self.instances.get_mut(&batch.instance.0) else {
            return Err(went_back());
        };
        let mut applied = Applied { now, ..Applied::default() };
        if is_applied(instance.batch, batch.number)? {
            return Ok(applied);
        }
        instance.batch = batch.number;
        instance.seen_at = now;
        for change in &batch.changes {
            let ours =
                change.record().is_none_or(|(record, epoch)| self.owns(batch.instance, &record.partition, epoch));
            applied.verdicts.push(self.change(change, ours, bounds, now));
            if let (false, Some((record, epoch))) = (ours, change.record()) {
                applied.lost.push((Arc::clone(&record.partition), epoch));
            }
        }
        for raised in &batch.watermarks {
            if self.owns(batch.instance, &raised.partition, raised.epoch) {
                self.raise(raised, now);
            } else {
                applied.lost.push((Arc::clone(&raised.partition), raised.epoch));
            }
        }
        self.tell();
        self.counts = self.counts.and(Counts::of(&applied.verdicts));
        applied.lost.sort();
        applied.lost.dedup();
        Ok(applied)
    }

    /// Row 32. False if the budget had no room for the value.
    fn bury(&mut self, letter: &DeadLetter, values: ValueBudget, now: Timestamp) -> bool {
        if self.dead_letters.contains_key(&letter.id) {
            return true;
        }
        let mut kept = ValueBytes::default();
        for BuriedLetter { letter: other, .. } in self.dead_letters.values() {
            let bytes = other.value.len() as u64;
            kept.in_all += bytes;
            kept.of_topic += if other.record.partition.topic == letter.record.partition.topic { bytes } else { 0 };
        }
        let keeps_value = values.has_room(kept, letter.value.len());
        let value = if keeps_value { letter.value.clone() } else { Bytes::new() };
        let letter = DeadLetter { value, ..letter.clone() };
        self.dead_letters.insert(letter.id, BuriedLetter { letter, buried_at: now, fate: Fate::Open });
        keeps_value
    }

    pub(super) fn change(
        &mut self,
        change: &Change,
        ours: bool,
        (values, keeping): (ValueBudget, Keeping),
        now: Timestamp,
    ) -> Verdict {
        if let Change::Bury(letter, _) = change {
            if ours {
                self.told.extend(self.notices.of_letter(letter.id));
            }
            let keeps_value = !ours || self.bury(letter, values, now);
            let verdict = apply(&Rows::default(), change, ours).verdict;
            return if keeps_value { verdict } else { Verdict::BuriedWithoutValue };
        }
        let id = change.facts().expect("only a dead letter has none").id;
        let before = self.rows.get(&id).cloned().unwrap_or_default();
        let step = apply(&before, change, ours);
        if let Some(attempt) = step.attempt {
            self.attempts.entry((id, attempt.n)).or_insert(attempt);
        }
        match (&before.pending, &step.rows.pending) {
            (None, Some(_)) => {
                self.bodies.insert(id, body_of(change));
            }
            (Some(_), None) => {
                self.bodies.remove(&id);
            }
            _ => {}
        }
        self.follow(keeping, id, (&before, &step.rows), &body_of(change));
        self.told.extend(self.notices.of(id, &before, &step.rows));
        if step.rows == Rows::default() {
            self.rows.remove(&id);
        } else {
            self.rows.insert(id, step.rows);
        }
        step.verdict
    }

    /// Raises a watermark, never lowers it.
    fn raise(&mut self, raised: &PartitionWatermark, now: Timestamp) {
        let stored = self.partitions.get_mut(&*raised.partition).expect("a partition that is ours is there");
        if raised.watermark.upto >= stored.watermark.upto {
            let seen_upto = stored.watermark.seen_upto.max(raised.watermark.seen_upto);
            stored.watermark = Watermark { seen_upto, ..raised.watermark };
            stored.moved_at = now;
        }
    }
}

fn body_of(change: &Change) -> Bytes {
    match change {
        Change::Settle(settle) => settle.body.clone(),
        Change::Park(park) => park.body.clone(),
        Change::Release { .. } | Change::Bury(..) => Bytes::new(),
    }
}
