//! The numbers of the partitions and queues that a batch names. They are found before its transaction begins.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use deadpool_postgres::Object;

use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::rows::{NumbersRead, RowNumbers};
use crate::base::clock::Timestamp;
use crate::model::endpoint::QueueKey;
use crate::model::event::PartitionKey;
use crate::model::lease::Facts;
use crate::model::settlement::Change;
use crate::store::Batch;
use crate::store::engine::last_use_of_queue;

/// The numbers of all partitions and queues that a batch names.
pub(super) struct Names {
    partitions: HashMap<Arc<PartitionKey>, Option<i64>>,
    queues: HashMap<QueueKey, i64>,
    /// Those of rows that were read: a round may wait in another queue than its callback did before, and a copy of the event may have come
    /// from another partition.
    pub(super) read: NumbersRead,
}

impl Names {
    pub(super) async fn of(
        store: &PostgresStore,
        client: &Object,
        batch: &Batch,
        now: Timestamp,
    ) -> Result<Self, PostgresError> {
        let mut partitions: HashSet<&Arc<PartitionKey>> =
            batch.watermarks.iter().map(|raised| &raised.partition).collect();
        let mut queues: HashSet<&QueueKey> = HashSet::new();
        let mut last_use = now;
        for change in &batch.changes {
            match (change, change.facts()) {
                (Change::Bury(letter, _), _) => partitions.insert(&letter.record.partition),
                (_, Some(facts)) => {
                    queues.insert(&facts.queue);
                    last_use = last_use.max(last_use_of_queue(facts.id, now));
                    partitions.insert(&facts.record.partition)
                }
                (_, None) => false,
            };
        }
        Self::find(store, client, (partitions, queues), last_use).await
    }

    /// The numbers of these partitions and queues. A queue that is not there yet is made.
    /// The queues are used until the given time.
    pub(super) async fn find(
        store: &PostgresStore,
        client: &Object,
        (partitions, queues): (HashSet<&Arc<PartitionKey>>, HashSet<&QueueKey>),
        last_use: Timestamp,
    ) -> Result<Self, PostgresError> {
        let mut names = Self { partitions: HashMap::new(), queues: HashMap::new(), read: NumbersRead::default() };
        for queue in queues {
            let number = store.numbers.queue(client, queue, last_use).await?;
            names.queues.insert(queue.clone(), number);
        }
        for partition in partitions {
            let number = store.numbers.partition(client, partition).await?;
            names.partitions.insert(Arc::clone(partition), number);
        }
        Ok(names)
    }

    /// The numbers of the queues that were asked for.
    pub(super) fn queue_numbers(&self) -> Vec<i64> {
        self.queues.values().copied().collect()
    }

    /// The partitions whose epochs this batch depends on.
    pub(super) fn fenced(&self, batch: &Batch) -> Vec<i64> {
        let of_changes = batch.changes.iter().filter_map(|change| change.record().map(|(record, _)| &record.partition));
        let all = of_changes.chain(batch.watermarks.iter().map(|raised| &raised.partition));
        let mut numbers: Vec<i64> = all.filter_map(|partition| self.partition(partition)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    pub(super) fn partition(&self, key: &Arc<PartitionKey>) -> Option<i64> {
        self.partitions.get(key).copied().flatten()
    }

    pub(super) fn queue(&self, key: &QueueKey) -> Option<i64> {
        self.queues.get(key).copied()
    }

    /// The numbers of a row that a change names, or that was read.
    pub(super) fn of_row(&self, facts: &Facts) -> Result<RowNumbers, PostgresError> {
        let (partition, queue) = (&facts.record.partition, &facts.queue);
        let known = self.partition(partition).or_else(|| self.read.partitions.get(partition).copied());
        let known = known.ok_or_else(|| PostgresError::Refused(format!("no partition {partition}")))?;
        let queue = self.queue(queue).or_else(|| self.read.queues.get(queue).copied());
        Ok(RowNumbers { partition: known, queue: queue.ok_or(PostgresError::Corrupt("a queue without a number"))? })
    }
}
