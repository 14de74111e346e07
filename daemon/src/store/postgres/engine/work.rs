//! What a transaction decides about callbacks, and the statements that write it. Everything is decided from rows that are locked, and
//! nothing here waits for the server except for names that this process has not read yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::super::cells::{Table, Uuid, rows_of};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::pipeline::{Answers, Pipeline};
use super::super::transaction::Open;
use super::kept::KeptChanges;
use super::names::Names;
use super::queues;
use super::rows::{self, Readable, RowsAsked};
use super::tables::{PendingTable, SettledTable};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::notice::Notice;
use crate::model::settlement::{Change, Rows, Settled};
use crate::store::engine::is_taken_all_the_same;
use crate::store::queue_changes::QueueChanges;

/// The rows of one callback, before the transaction and now.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) before: Rows,
    pub(super) now: Rows,
    /// The body, as far as a change of this transaction brings it.
    pub(super) body: Bytes,
}

/// What a transaction works with.
pub(super) struct Work<'w> {
    pub(super) store: &'w PostgresStore,
    pub(super) names: Names,
    /// The epochs of locked partitions, by number.
    pub(super) epochs: HashMap<i64, i64>,
    pub(super) now: Timestamp,
    pub(super) queues: QueueChanges,
    pub(super) kept: KeptChanges,
    /// What this transaction has to tell.
    pub(super) told: Vec<Notice>,
}

impl<'w> Work<'w> {
    /// For changes that need no epoch.
    pub(super) fn new(store: &'w PostgresStore, names: Names, now: Timestamp) -> Self {
        let (epochs, queues, kept) = (HashMap::new(), QueueChanges::default(), KeptChanges::default());
        Self { store, names, epochs, now, queues, kept, told: Vec::new() }
    }

    /// Locks the queues that were named, and then these callbacks, as every transaction does.
    pub(super) fn lock(&self, first: &mut Pipeline<'_>, ids: &[Uuid]) -> Option<RowsAsked> {
        queues::lock(first, self.names.queue_numbers(), ids);
        rows::lock(first, ids)
    }

    /// The rows that were locked.
    pub(super) async fn found(
        &mut self,
        transaction: &Open<'_>,
        answers: &mut Answers,
        asked: Option<RowsAsked>,
    ) -> Result<HashMap<CallbackId, Readable<Rows>>, PostgresError> {
        let (mut pending, settled) = asked.map(|asked| asked.take(answers)).unwrap_or_default();
        rows::lock_opened(transaction.client(), &mut pending, &settled).await?;
        rows::read(transaction.client(), &self.store.numbers, (pending, settled), &mut self.names.read).await
    }

    pub(super) fn is_ours(&self, partition: &Arc<PartitionKey>, epoch: i64) -> bool {
        self.names.partition(partition).and_then(|number| self.epochs.get(&number)) == Some(&epoch)
    }

    /// Whether the partition that a change brings is still this instance's.
    pub(super) fn is_our_change(&self, change: &Change) -> bool {
        let is_held = |(record, epoch): (&RecordRef, i64)| self.is_ours(&record.partition, epoch);
        change.record().is_none_or(is_held) || is_taken_all_the_same(change)
    }

    /// Writes what became of these rows, and of their queues, and settled rows of callbacks that had no row before.
    pub(super) fn write_rows<'e>(
        &mut self,
        last: &mut Pipeline<'e>,
        entries: &'e BTreeMap<CallbackId, Entry>,
        first_tries: &'e [Settled],
    ) -> Result<(), PostgresError> {
        let (mut new_settled, mut settled) = (SettledTable::new(), SettledTable::new());
        let mut others: Vec<i64> = Vec::new();
        for row in first_tries {
            new_settled.push(row, self.names.of_row(&row.facts)?);
        }
        for (id, entry) in entries {
            self.kept.follow(self.store.keeping, *id, (&entry.before, &entry.now), &entry.body);
            self.told.extend(self.store.notices.of(*id, &entry.before, &entry.now));
            if let Some(row) = entry.now.settled.as_ref().filter(|row| Some(*row) != entry.before.settled.as_ref()) {
                let numbers = self.names.of_row(&row.facts)?;
                let table = if entry.before.settled.is_some() { &mut settled } else { &mut new_settled };
                table.push(row, numbers);
                // The round of a callback may wait in another queue than that of its settled row.
                if self.names.queue(&row.facts.queue).is_none() {
                    others.push(numbers.queue);
                }
            }
        }
        new_settled.insert(last);
        settled.replace(last);
        self.write_pending(last, entries)?;
        queues::raise(last, &self.queues);
        queues::note_use(last, others, self.now);
        Ok(())
    }

    fn write_pending<'e>(
        &mut self,
        last: &mut Pipeline<'e>,
        entries: &'e BTreeMap<CallbackId, Entry>,
    ) -> Result<(), PostgresError> {
        let (mut new_pending, mut pending) = (PendingTable::new(), PendingTable::new());
        let mut bodies = Table::<2>::new();
        let mut ended: Vec<(Uuid, i64)> = Vec::new();
        for (id, entry) in entries {
            match (&entry.before.pending, &entry.now.pending) {
                (Some(before), None) => ended.push(((*id).into(), self.names.of_row(&before.facts)?.queue)),
                (before, Some(row)) if before.as_ref() != Some(row) => {
                    let numbers = self.names.of_row(&row.facts)?;
                    let mut added = 0;
                    if before.is_none() {
                        new_pending.push(row, numbers);
                        bodies.push([(*id).into(), (&entry.body[..]).into()]);
                        added = i64::try_from(entry.body.len()).unwrap_or(i64::MAX);
                    } else {
                        pending.push(row, numbers);
                    }
                    self.queues.note(numbers.queue, row.token.is_none().then_some(row.due.millis()), added);
                }
                _ => {}
            }
        }
        new_pending.insert(last);
        pending.replace(last);
        if !bodies.is_empty() {
            let rows = rows_of("id uuid, bytes bytea");
            last.push(
                format!("INSERT INTO body (id, bytes) {rows} ORDER BY id ON CONFLICT DO NOTHING"),
                bodies.into_params(),
            );
        }
        queues::delete_pending(last, &ended);
        Ok(())
    }
}

/// Writes and commits. Only kept bodies cost further round trips: how many of them have room decides which of the older ones go.
pub(super) async fn finish(
    store: &PostgresStore,
    transaction: Open<'_>,
    last: Pipeline<'_>,
    kept: KeptChanges,
) -> Result<(), PostgresError> {
    if kept.is_empty() {
        return transaction.commit(last, &store.warnings).await;
    }
    transaction.run(last).await?;
    kept.write(transaction.client(), store.keeping).await?;
    transaction.commit(Pipeline::new(), &store.warnings).await
}
