//! The engine's trait on SQLite: what each call runs, and on which connection.

mod amend;
mod claim;
mod dead_letters;
mod endpoints;
pub(super) mod kept;
mod missing_queues;
mod moves;
mod outbox;
pub(super) mod partition_offsets;
mod prune;
mod resend;
pub(super) mod rows;
mod upkeep;
#[cfg(test)]
mod values_tests;
mod write;

use std::sync::Arc;
use std::time::Duration;

pub(super) use upkeep::close_earlier;

use super::connection::SqliteStore;
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment};
use crate::model::callback::CallbackId;
use crate::model::dead_letter::Fate;
use crate::model::endpoint::QueueKey;
use crate::model::endpoint_history::EndpointHistory;
use crate::model::event::PartitionKey;
use crate::model::keeping::Keeping;
use crate::store::resends::ResendCounts;
use crate::store::{
    Answer, Applied, Batch, Begun, ClaimAsk, Claimed, EngineStore, EventClaim, InstanceId, Known, LetterResend,
    LetterResent, NewLog, PruneAsk, Pruned, Pulse, QueueOf, ResendStep, SetBack, Space, SpaceAsk, Take, TakeAsk, Taken,
};

impl SqliteStore {
    /// Which bodies are kept with so much of the disk left.
    fn keeping_now(&self) -> Keeping {
        self.keeping.with_free(upkeep::free_bytes(&self.directory))
    }
}

impl EngineStore for SqliteStore {
    fn note_endpoints(&self, histories: Vec<EndpointHistory>) -> Answer<'_, ()> {
        self.in_transaction(move |transaction, _, _| endpoints::note(transaction, &histories))
    }

    fn endpoint_histories(&self, at_most: usize) -> Answer<'_, Vec<EndpointHistory>> {
        self.read_for_delivery(move |connection| endpoints::newest(connection, at_most))
    }

    fn space(&self, ask: SpaceAsk) -> Answer<'_, Space> {
        let directory = self.directory.clone();
        self.read_for_delivery(move |connection| upkeep::space(connection, &directory, ask))
    }

    fn newest_time(&self) -> Answer<'_, Option<Timestamp>> {
        self.in_transaction(|transaction, _, _| upkeep::newest_time(transaction))
    }

    fn set_back(&self, back: SetBack) -> Answer<'_, usize> {
        self.in_transaction(move |transaction, _, _| upkeep::set_back(transaction, &back))
    }

    fn begin(&self) -> Answer<'_, Begun> {
        let name = self.name.clone();
        self.in_transaction(move |transaction, _, now| upkeep::begin(transaction, name.as_deref(), now))
    }

    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied> {
        let bounds = (self.values, self.keeping_now(), self.notices);
        self.in_transaction(move |transaction, ids, now| write::write(transaction, ids, &batch, bounds, now))
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, Claimed> {
        self.in_transaction(move |transaction, ids, now| claim::claim(transaction, ids, &ask, now))
    }

    fn amend(&self, changes: Vec<(CallbackId, Amendment)>) -> Answer<'_, Vec<Amended>> {
        let follows = (self.keeping_now(), self.notices);
        self.in_transaction(move |transaction, ids, now| amend::amend(transaction, ids, follows, &changes, now))
    }

    fn resend(&self, step: ResendStep) -> Answer<'_, Option<ResendCounts>> {
        let keeping = self.keeping_now();
        self.in_transaction(move |transaction, ids, now| resend::step(transaction, ids, keeping, &step, now))
    }

    fn resend_letter(&self, resend: LetterResend) -> Answer<'_, LetterResent> {
        self.in_transaction(move |transaction, ids, now| dead_letters::resend(transaction, ids, &resend, now))
    }

    fn discard_letter(&self, letter: CallbackId) -> Answer<'_, bool> {
        self.in_transaction(move |transaction, _, _| dead_letters::become_of(transaction, letter, Fate::Discarded))
    }

    fn retry_queue(&self, queue: QueueKey, at_most: usize) -> Answer<'_, usize> {
        self.in_transaction(move |transaction, _, now| upkeep::retry_queue(transaction, &queue, at_most, now))
    }

    fn known(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Known>>> {
        self.read_for_delivery(move |connection| rows::known(connection, &ids))
    }

    fn claim_event_ids(&self, claims: Vec<EventClaim>) -> Answer<'_, Vec<CallbackId>> {
        self.in_transaction(move |transaction, _, now| write::claim_event_ids(transaction, &claims, now))
    }

    fn pulse(&self, _: InstanceId, _: u64) -> Answer<'_, Pulse> {
        // One process at a time holds the store, so nobody asks for anything.
        Box::pin(std::future::ready(Ok(Pulse::default())))
    }

    fn take(&self, ask: TakeAsk) -> Answer<'_, Take> {
        self.in_transaction(move |transaction, ids, now| {
            let taken = partition_offsets::take(transaction, ids, (ask.instance, None), &ask.partition, now)?;
            Ok(Take::Taken(taken))
        })
    }

    fn start_over(
        &self,
        instance: InstanceId,
        partition: Arc<PartitionKey>,
        epoch: i64,
        log: NewLog,
    ) -> Answer<'_, Option<Taken>> {
        self.in_transaction(move |transaction, ids, now| {
            if partition_offsets::owned(transaction, &partition)?.is_none_or(|(_, current)| current != epoch) {
                return Ok(None);
            }
            partition_offsets::take(transaction, ids, (instance, Some(&log)), &partition, now).map(Some)
        })
    }

    fn release(&self, instance: InstanceId, partitions: Vec<(Arc<PartitionKey>, i64)>) -> Answer<'_, ()> {
        self.in_transaction(move |transaction, _, _| partition_offsets::release(transaction, instance, &partitions))
    }

    fn free_leases(&self, _: Duration) -> Answer<'_, usize> {
        Box::pin(async move {
            let now = self.clock.now();
            if !self.read_for_delivery(move |connection| upkeep::has_ended_leases(connection, now)).await? {
                return Ok(0);
            }
            self.in_transaction(|transaction, _, now| upkeep::void_leases(transaction, now.millis())).await
        })
    }

    fn sweep(&self, queue_of: QueueOf) -> Answer<'_, ()> {
        Box::pin(async move {
            let found = self.read_for_delivery(upkeep::look_at_queues).await?;
            self.in_transaction(move |transaction, _, _| upkeep::repair(transaction, &found)).await?;
            let missing = self.read_for_delivery(missing_queues::look).await?;
            if missing.is_empty() {
                return Ok(());
            }
            self.in_transaction(move |transaction, ids, now| {
                missing_queues::repair(transaction, ids, &missing, queue_of, now)
            })
            .await
        })
    }

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned> {
        self.in_transaction(move |transaction, ids, _| prune::prune(transaction, ids, &ask))
    }

    fn end(&self, instance: InstanceId) -> Answer<'_, ()> {
        self.in_transaction(move |transaction, _, _| upkeep::end(transaction, instance))
    }
}
