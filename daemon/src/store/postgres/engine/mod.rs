//! The engine's trait on PostgreSQL: what each call runs, and on which connection.

mod amend;
mod answer;
pub(super) mod attempts;
mod claim;
pub(super) mod days;
mod dead_letters;
mod endpoints;
mod event_ids;
mod instances;
pub(super) mod kept;
mod known;
mod letter_resend;
mod missing_queues;
mod names;
mod outbox;
pub(super) mod partition_offsets;
mod prune;
mod queues;
mod resend;
pub(super) mod rows;
mod tables;
mod upkeep;
mod work;
mod write;

use std::sync::Arc;
use std::time::Duration;

use super::connection::PostgresStore;
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment};
use crate::model::callback::CallbackId;
use crate::model::dead_letter::Fate;
use crate::model::endpoint::QueueKey;
use crate::model::endpoint_history::EndpointHistory;
use crate::model::event::PartitionKey;
use crate::store::resends::ResendCounts;
use crate::store::{
    Answer, Applied, Batch, Begun, ClaimAsk, Claimed, EngineStore, EventClaim, InstanceId, Known, LetterResend,
    LetterResent, NewLog, PruneAsk, Pruned, Pulse, QueueOf, ResendStep, SetBack, Space, SpaceAsk, Take, TakeAsk, Taken,
};

/// How often a transaction is done again at once that met another process at the same rows and gave way.
const MEETINGS: u32 = 10;

/// Does it again while it gives way to another process.
macro_rules! unless_met {
    ($transaction:expr) => {{
        let mut met = 0;
        loop {
            match $transaction.await {
                Err(error) if error.is_meeting() && met < MEETINGS => met += 1,
                answer => break answer,
            }
        }
    }};
}

impl EngineStore for PostgresStore {
    fn note_endpoints(&self, histories: Vec<EndpointHistory>) -> Answer<'_, ()> {
        Box::pin(async move { Ok(endpoints::note(&self.writer().await?, &histories).await?) })
    }

    fn endpoint_histories(&self, at_most: usize) -> Answer<'_, Vec<EndpointHistory>> {
        Box::pin(async move { Ok(endpoints::newest(&self.delivery_reader().await?, at_most).await?) })
    }

    fn space(&self, ask: SpaceAsk) -> Answer<'_, Space> {
        Box::pin(async move { Ok(upkeep::space(&self.delivery_reader().await?, ask).await?) })
    }

    fn newest_time(&self) -> Answer<'_, Option<Timestamp>> {
        Box::pin(async move { Ok(upkeep::newest_time(&self.delivery_reader().await?).await?) })
    }

    fn set_back(&self, back: SetBack) -> Answer<'_, usize> {
        Box::pin(async move { Ok(upkeep::set_back(&mut self.writer().await?, &back).await?) })
    }

    fn begin(&self) -> Answer<'_, Begun> {
        Box::pin(async move { Ok(instances::begin(self, &mut self.writer().await?).await?) })
    }

    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied> {
        Box::pin(async move {
            let (mut client, mut with_rows) = (self.writer().await?, self.parked.among(&batch.changes));
            let applied = unless_met!(write::write(self, &mut client, &batch, &mut with_rows, self.clock.now()))?;
            self.parked.follow(&batch.changes);
            Ok(applied)
        })
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, Claimed> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(claim::claim(self, &mut client, &ask, self.clock.now()))?)
        })
    }

    fn amend(&self, changes: Vec<(CallbackId, Amendment)>) -> Answer<'_, Vec<Amended>> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(amend::amend(self, &mut client, &changes, self.clock.now()))?)
        })
    }

    fn resend(&self, step: ResendStep) -> Answer<'_, Option<ResendCounts>> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(resend::step(self, &mut client, &step, self.clock.now()))?)
        })
    }

    fn resend_letter(&self, resend: LetterResend) -> Answer<'_, LetterResent> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(letter_resend::resend(self, &mut client, &resend, self.clock.now()))?)
        })
    }

    fn discard_letter(&self, letter: CallbackId) -> Answer<'_, bool> {
        Box::pin(async move {
            let client = self.writer().await?;
            Ok(letter_resend::become_of(&client, letter, Fate::Discarded).await?)
        })
    }

    fn retry_queue(&self, queue: QueueKey, at_most: usize) -> Answer<'_, usize> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(upkeep::retry_queue(&mut client, &queue, at_most, self.clock.now()))?)
        })
    }

    fn known(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Known>>> {
        Box::pin(async move { Ok(known::known(&self.delivery_reader().await?, &ids).await?) })
    }

    fn claim_event_ids(&self, claims: Vec<EventClaim>) -> Answer<'_, Vec<CallbackId>> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(event_ids::claim(self, &mut client, &claims, self.clock.now()))?)
        })
    }

    fn pulse(&self, instance: InstanceId, applied: u64) -> Answer<'_, Pulse> {
        Box::pin(async move { Ok(instances::pulse(self, instance, applied, self.clock.now()).await?) })
    }

    fn take(&self, ask: TakeAsk) -> Answer<'_, Take> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(partition_offsets::take(self, &mut client, &ask, self.clock.now()))?)
        })
    }

    fn start_over(
        &self,
        instance: InstanceId,
        partition: Arc<PartitionKey>,
        epoch: i64,
        log: NewLog,
    ) -> Answer<'_, Option<Taken>> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            let by = (instance, epoch);
            Ok(partition_offsets::start_over(self, &mut client, by, (&partition, &log), self.clock.now()).await?)
        })
    }

    fn release(&self, instance: InstanceId, partitions: Vec<(Arc<PartitionKey>, i64)>) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(partition_offsets::release(self, &mut client, instance, &partitions))?)
        })
    }

    fn free_leases(&self, lease: Duration) -> Answer<'_, usize> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            Ok(unless_met!(upkeep::free_leases(self, &mut client, lease, self.clock.now()))?)
        })
    }

    fn sweep(&self, queue_of: QueueOf) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            days::look_ahead(&self.days_rest, &mut client, self.clock.now()).await;
            Ok(upkeep::repair(self, &mut client, queue_of, self.clock.now()).await?)
        })
    }

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned> {
        Box::pin(async move {
            let mut client = self.writer().await?;
            let more_days = days::drop_old(&mut client, ask.settled_before).await;
            let pruned = prune::prune(self, &mut client, &ask).await?;
            Ok(Pruned { more_days, ..pruned })
        })
    }

    fn end(&self, instance: InstanceId) -> Answer<'_, ()> {
        Box::pin(async move { Ok(instances::end(&mut self.writer().await?, instance).await?) })
    }
}
