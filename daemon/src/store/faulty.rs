//! An engine store around another that misbehaves by a seed: some writes happen but are reported as uncertain, some do
//! not happen, some are slow, and some data is refused. For tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::resends::ResendCounts;
use super::{
    Answer, Applied, Batch, Begun, ClaimAsk, Claimed, EngineStore, EventClaim, InstanceId, Known, LetterResend,
    LetterResent, NewLog, PruneAsk, Pruned, Pulse, QueueOf, ResendStep, SetBack, Space, SpaceAsk, StoreError, Take,
    TakeAsk, Taken,
};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment};
use crate::model::callback::CallbackId;
use crate::model::endpoint::QueueKey;
use crate::model::endpoint_history::EndpointHistory;
use crate::model::event::PartitionKey;
use crate::model::settlement::Change;

/// How often each fault happens, in a thousand writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub happened_but_uncertain: u64,
    pub did_not_happen: u64,
    pub slow: u64,
    pub slowness: Duration,
}

pub struct FaultyStore {
    inner: Arc<dyn EngineStore>,
    faults: Faults,
    seed: AtomicU64,
    down: AtomicBool,
    refused_task: Option<String>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn EngineStore>, seed: u64, faults: Faults) -> Self {
        Self { inner, faults, seed: AtomicU64::new(seed), down: AtomicBool::new(false), refused_task: None }
    }

    /// Refuses rows with content for this task.
    #[must_use]
    pub fn refusing(mut self, task: &str) -> Self {
        self.refused_task = Some(task.to_owned());
        self
    }

    /// While it is down, every call answers `Unavailable`.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn dice(&self) -> u64 {
        let seed = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) { Err(StoreError::Unavailable("a fault".to_owned())) } else { Ok(()) }
    }

    fn refuses(&self, batch: &Batch) -> bool {
        let Some(task) = self.refused_task.as_deref() else { return false };
        batch.changes.iter().any(|change| match change {
            Change::Settle(settle) => &*settle.facts.task_id == task && !settle.body.is_empty(),
            Change::Park(park) => &*park.facts.task_id == task && !park.body.is_empty(),
            _ => false,
        })
    }

    fn guarded<'a, T: Send + 'a>(&'a self, call: Answer<'a, T>) -> Answer<'a, T> {
        Box::pin(async move {
            self.check()?;
            call.await
        })
    }
}

impl EngineStore for FaultyStore {
    fn note_endpoints(&self, histories: Vec<EndpointHistory>) -> Answer<'_, ()> {
        self.guarded(self.inner.note_endpoints(histories))
    }

    fn endpoint_histories(&self, at_most: usize) -> Answer<'_, Vec<EndpointHistory>> {
        self.guarded(self.inner.endpoint_histories(at_most))
    }

    fn space(&self, ask: SpaceAsk) -> Answer<'_, Space> {
        self.guarded(self.inner.space(ask))
    }

    fn newest_time(&self) -> Answer<'_, Option<Timestamp>> {
        self.guarded(self.inner.newest_time())
    }

    fn set_back(&self, back: SetBack) -> Answer<'_, usize> {
        self.guarded(self.inner.set_back(back))
    }

    fn begin(&self) -> Answer<'_, Begun> {
        self.guarded(self.inner.begin())
    }

    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied> {
        Box::pin(async move {
            self.check()?;
            if self.refuses(&batch) {
                return Err(StoreError::Refused("a fault".to_owned()));
            }
            let dice = self.dice() % 1000;
            let Faults { happened_but_uncertain, did_not_happen, slow, slowness } = self.faults;
            if dice < happened_but_uncertain {
                self.inner.write(batch).await?;
                return Err(StoreError::Uncertain("a fault".to_owned()));
            }
            if dice < happened_but_uncertain + did_not_happen {
                return Err(StoreError::Uncertain("a fault".to_owned()));
            }
            if dice < happened_but_uncertain + did_not_happen + slow {
                tokio::time::sleep(slowness).await;
            }
            self.inner.write(batch).await
        })
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, Claimed> {
        self.guarded(self.inner.claim(ask))
    }

    fn amend(&self, changes: Vec<(CallbackId, Amendment)>) -> Answer<'_, Vec<Amended>> {
        self.guarded(self.inner.amend(changes))
    }

    fn resend(&self, step: ResendStep) -> Answer<'_, Option<ResendCounts>> {
        self.guarded(self.inner.resend(step))
    }

    fn resend_letter(&self, resend: LetterResend) -> Answer<'_, LetterResent> {
        self.guarded(self.inner.resend_letter(resend))
    }

    fn discard_letter(&self, letter: CallbackId) -> Answer<'_, bool> {
        self.guarded(self.inner.discard_letter(letter))
    }

    fn retry_queue(&self, queue: QueueKey, at_most: usize) -> Answer<'_, usize> {
        self.guarded(self.inner.retry_queue(queue, at_most))
    }

    fn known(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Known>>> {
        self.guarded(self.inner.known(ids))
    }

    fn claim_event_ids(&self, claims: Vec<EventClaim>) -> Answer<'_, Vec<CallbackId>> {
        self.guarded(self.inner.claim_event_ids(claims))
    }

    fn pulse(&self, instance: InstanceId, applied: u64) -> Answer<'_, Pulse> {
        self.guarded(self.inner.pulse(instance, applied))
    }

    fn take(&self, ask: TakeAsk) -> Answer<'_, Take> {
        self.guarded(self.inner.take(ask))
    }

    fn start_over(
        &self,
        instance: InstanceId,
        partition: Arc<PartitionKey>,
        epoch: i64,
        log: NewLog,
    ) -> Answer<'_, Option<Taken>> {
        self.guarded(self.inner.start_over(instance, partition, epoch, log))
    }

    fn release(&self, instance: InstanceId, partitions: Vec<(Arc<PartitionKey>, i64)>) -> Answer<'_, ()> {
        self.guarded(self.inner.release(instance, partitions))
    }

    fn free_leases(&self, lease: Duration) -> Answer<'_, usize> {
        self.guarded(self.inner.free_leases(lease))
    }

    fn sweep(&self, queue_of: QueueOf) -> Answer<'_, ()> {
        self.guarded(self.inner.sweep(queue_of))
    }

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned> {
        self.guarded(self.inner.prune(ask))
    }

    fn end(&self, instance: InstanceId) -> Answer<'_, ()> {
        self.guarded(self.inner.end(instance))
    }
}
