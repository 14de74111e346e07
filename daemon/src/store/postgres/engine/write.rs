//! One batch in one transaction. All locks are taken first and in one order (instance, partitions, queues, pending rows,
//! settled rows, each by key), so that batches of two processes never wait for each other in a circle. Then rows are merged by
//! `apply`, and what changed is written, a statement a table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::super::cells::{Table, Uuid, rows_of};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::transaction::Tx;
use super::kept::KeptChanges;
use super::names::Names;
use super::rows::{self, Locking, PendingTable, SettledTable};
use super::{answer, attempts, dead_letters, outbox, partition_offsets, queues};
use crate::base::clock::Timestamp;
use crate::faults::{self, Fault};
use crate::model::callback::CallbackId;
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::Facts;
use crate::model::notice::Notice;
use crate::model::settlement::{Change, NumberedAttempt, Rows, Settled, Verdict, apply};
use crate::store::engine::{is_applied, is_taken_all_the_same, went_back};
use crate::store::queue_changes::QueueChanges;
use crate::store::reads::Counts;
use crate::store::{Applied, Batch};

pub(super) async fn write(
    store: &PostgresStore,
    client: &mut Object,
    batch: &Batch,
    now: Timestamp,
) -> Result<Applied, PostgresError> {
    let names = Names::of(store, client, batch, now).await?;
    let transaction = client.transaction().await?;
    let instance = transaction.prepare_cached("SELECT batch, answer FROM instance WHERE id = $1 FOR UPDATE").await?;
    let last = transaction.query_opt(&instance, &[&batch.instance.0]).await?.ok_or_else(went_back)?;
    if is_applied(u64::try_from(last.try_get::<_, i64>(0)?).unwrap_or(0), batch.number)? {
        let answer: Option<&[u8]> = last.try_get(1)?;
        let applied = answer.and_then(|answer| answer::decode(batch, answer, now));
        let applied = applied.ok_or(PostgresError::Corrupt("the answer to a batch"))?;
        // It was applied, but nobody knows whether it is on all the disks that a commit waits for: a commit of ours says so.
        let read_back = transaction.prepare_cached("UPDATE instance SET heartbeat = $2 WHERE id = $1").await?;
        transaction.execute(&read_back, &[&batch.instance.0, &now.millis()]).await?;
        store.commit(transaction).await?;
        return Ok(applied);
    }
    let epochs = partition_offsets::lock(&transaction, batch.instance, &names.fenced(batch)).await?;
    let mut work = Work {
        store,
        transaction: &transaction,
        names,
        epochs,
        now,
        queues: QueueChanges::default(),
        kept: KeptChanges::default(),
        told: Vec::new(),
    };
    let mut applied = Applied { now, ..Applied::default() };
    for change in &batch.changes {
        if let Some((record, epoch)) = change.record()
            && !work.is_ours(&record.partition, epoch)
        {
            applied.lost.push((Arc::clone(&record.partition), epoch));
        }
    }
    applied.verdicts = work.changes(&batch.changes).await?;
    applied.lost.extend(work.raise_watermarks(batch).await?);
    applied.lost.sort();
    applied.lost.dedup();
    let (kept, told) = (work.kept, work.told);
    outbox::insert(&transaction, &told, Some(batch.instance), now).await?;
    count(&transaction, batch, &applied).await?;
    kept.write(&transaction, store.keeping).await?;
    store.commit(transaction).await?;
    Ok(applied)
}

/// The batch's number, sums and answer in the row of its instance.
async fn count(transaction: &Tx<'_>, batch: &Batch, applied: &Applied) -> Result<(), PostgresError> {
    let counts = Counts::of(&applied.verdicts);
    let sql = "UPDATE instance SET batch = $2, heartbeat = $3, delivered = delivered + $4, exhausted = exhausted + $5,
                                   abandoned = abandoned + $6, dead_letters = dead_letters + $7, answer = $8
               WHERE id = $1";
    let statement = transaction.prepare_cached(sql).await?;
    let sums = [counts.delivered, counts.exhausted, counts.abandoned, counts.dead_letters].map(number);
    let (last, at, answer) = (number(batch.number), applied.now.millis(), answer::encode(batch, applied));
    let values: [&(dyn ToSql + Sync); 8] =
        [&batch.instance.0, &last, &at, &sums[0], &sums[1], &sums[2], &sums[3], &answer];
    transaction.execute(&statement, &values).await?;
    Ok(())
}

/// A number as PostgreSQL has it.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The rows of one callback, before the transaction and now.
pub(super) struct Entry {
    pub(super) before: Rows,
    pub(super) now: Rows,
    /// The body, as far as a change of this transaction brings it.
    pub(super) body: Bytes,
}

/// What a transaction works with.
pub(super) struct Work<'w> {
    pub(super) store: &'w PostgresStore,
    pub(super) transaction: &'w Tx<'w>,
    pub(super) names: Names,
    /// The epochs of locked partitions, by number.
    pub(super) epochs: HashMap<i64, i64>,
    pub(super) now: Timestamp,
    pub(super) queues: QueueChanges,
    pub(super) kept: KeptChanges,
    /// What this transaction has to tell.
    pub(super) told: Vec<Notice>,
}

impl Work<'_> {
    fn is_ours(&self, partition: &Arc<PartitionKey>, epoch: i64) -> bool {
        is_held(&self.names, &self.epochs, partition, epoch)
    }

    fn is_our_change(&self, change: &Change) -> bool {
        is_owned(&self.names, &self.epochs, change)
    }

    /// Applies all changes. One verdict for each.
    async fn changes(&mut self, changes: &[Change]) -> Result<Vec<Verdict>, PostgresError> {
        let mut verdicts: Vec<Option<Verdict>> = vec![None; changes.len()];
        self.bury(changes, &mut verdicts).await?;
        self.first_tries_that_end(changes, &mut verdicts).await?;
        self.merge(changes, &mut verdicts).await?;
        verdicts
            .into_iter()
            .map(|verdict| verdict.ok_or(PostgresError::Corrupt("a change without a verdict")))
            .collect()
    }

    async fn bury(&mut self, changes: &[Change], verdicts: &mut [Option<Verdict>]) -> Result<(), PostgresError> {
        let mut letters = Vec::new();
        for (at, change) in changes.iter().enumerate() {
            let Change::Bury(letter, _) = change else { continue };
            let is_ours = self.is_our_change(change);
            verdicts[at] = Some(apply(&Rows::default(), change, is_ours).verdict);
            if is_ours {
                self.told.extend(self.store.notices.of_letter(letter.id));
                let partition = self.names.partition(&letter.record.partition);
                letters.push((at, &**letter, partition.ok_or(PostgresError::Corrupt("a partition without a number"))?));
            }
        }
        for at in dead_letters::bury(self.transaction, &letters, self.store.values, self.now).await? {
            verdicts[at] = Some(Verdict::BuriedWithoutValue);
        }
        Ok(())
    }

    /// The hot path, rows 1 and 2: one insert. A change whose id has a row already gets no verdict here.
    async fn first_tries_that_end(
        &mut self,
        changes: &[Change],
        verdicts: &mut [Option<Verdict>],
    ) -> Result<(), PostgresError> {
        let mut times: HashMap<CallbackId, usize> = HashMap::new();
        for facts in changes.iter().filter_map(Change::facts) {
            *times.entry(facts.id).or_default() += 1;
        }
        let mut first: Vec<(usize, Settled, Option<NumberedAttempt>, Verdict)> = Vec::new();
        for (at, change) in changes.iter().enumerate() {
            let Change::Settle(settle) = change else { continue };
            if settle.epoch.is_none() || times[&settle.facts.id] > 1 || !self.is_our_change(change) {
                continue;
            }
            let step = apply(&Rows::default(), change, true);
            if let Some(settled) = step.rows.settled {
                first.push((at, settled, step.attempt, step.verdict));
            }
        }
        let mut table = SettledTable::new();
        for (_, settled, ..) in &first {
            table.push(settled, self.names.of_row(&settled.facts)?);
        }
        let inserted: HashSet<CallbackId> = table.insert_new(self.transaction).await?.into_iter().collect();
        let mut made = Vec::new();
        for (at, settled, attempt, verdict) in &first {
            if inserted.contains(&settled.facts.id) {
                verdicts[*at] = Some(*verdict);
                if self.store.notices.outcomes {
                    self.told.push(Notice::Ended(settled.facts.id, settled.revision));
                }
                if self.store.keeping.keeps_ended(settled.ended) {
                    let rows = Rows { settled: Some(settled.clone()), pending: None };
                    let ends = (&Rows::default(), &rows);
                    self.kept.follow(self.store.keeping, settled.facts.id, ends, &body_of(&changes[*at]));
                }
                made.extend(attempt.clone().map(|attempt| (settled.facts.id, attempt)));
            }
        }
        attempts::insert(self.transaction, &made).await
    }

    /// All other changes, in their order: rows are read under a lock, merged, and written.
    async fn merge(&mut self, changes: &[Change], verdicts: &mut [Option<Verdict>]) -> Result<(), PostgresError> {
        let rest: Vec<usize> = (0..changes.len()).filter(|at| verdicts[*at].is_none()).collect();
        if rest.is_empty() {
            return Ok(());
        }
        let facts: Vec<&Arc<Facts>> = rest.iter().filter_map(|at| changes[*at].facts()).collect();
        let mut ids: Vec<Uuid> = facts.iter().map(|facts| facts.id.into()).collect();
        ids.sort_unstable();
        ids.dedup();
        let named = facts.iter().filter_map(|facts| self.names.queue(&facts.queue)).collect();
        queues::lock(self.transaction, named, &ids).await?;
        let mut entries: BTreeMap<CallbackId, Entry> = BTreeMap::new();
        let queues = &mut self.names.queues_read;
        let loaded = rows::load(self.transaction, &self.store.numbers, &ids, Locking::Update, queues).await?;
        let mut unreadable: HashSet<CallbackId> = HashSet::new();
        for (id, before) in loaded {
            match before {
                Ok(before) => drop(entries.insert(id, Entry { now: before.clone(), before, body: Bytes::new() })),
                Err(what) => {
                    tracing::error!(callback = %id, what, "a row can't be read; what was to change of it is left out");
                    unreadable.insert(id);
                }
            }
        }
        let mut made = Vec::new();
        for at in rest {
            let change = &changes[at];
            let Some(facts) = change.facts() else { continue };
            if unreadable.contains(&facts.id) {
                verdicts[at] = Some(Verdict::Nothing);
                continue;
            }
            let entry = entries.entry(facts.id).or_insert_with(|| Entry {
                before: Rows::default(),
                now: Rows::default(),
                body: Bytes::new(),
            });
            let is_ours = is_owned(&self.names, &self.epochs, change);
            let step = apply(&entry.now, change, is_ours);
            verdicts[at] = Some(step.verdict);
            made.extend(step.attempt.map(|attempt| (facts.id, attempt)));
            let body = body_of(change);
            if !body.is_empty() {
                entry.body = body;
            }
            entry.now = step.rows;
        }
        attempts::insert(self.transaction, &made).await?;
        self.write_rows(&entries).await
    }

    /// Writes what became of these rows, and of their queues.
    pub(super) async fn write_rows(&mut self, entries: &BTreeMap<CallbackId, Entry>) -> Result<(), PostgresError> {
        let (mut settled, mut pending) = (SettledTable::new(), PendingTable::new());
        let (mut new_settled, mut new_pending) = (SettledTable::new(), PendingTable::new());
        let mut bodies = Table::<2>::new();
        let mut ended: Vec<Uuid> = Vec::new();
        let mut others: Vec<i64> = Vec::new();
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
            match (&entry.before.pending, &entry.now.pending) {
                (Some(_), None) => ended.push((*id).into()),
                (before, Some(row)) if before.as_ref() != Some(row) => {
                    let numbers = self.names.of_row(&row.facts)?;
                    let table = if before.is_some() { &mut pending } else { &mut new_pending };
                    table.push(row, numbers);
                    let mut added = 0;
                    if before.is_none() {
                        bodies.push([(*id).into(), (&entry.body[..]).into()]);
                        added = i64::try_from(entry.body.len()).unwrap_or(i64::MAX);
                    }
                    self.queues.note(numbers.queue, row.token.is_none().then_some(row.due.millis()), added);
                }
                _ => {}
            }
        }
        new_settled.insert(self.transaction).await?;
        settled.replace(self.transaction).await?;
        new_pending.insert(self.transaction).await?;
        pending.replace(self.transaction).await?;
        if !bodies.is_empty() {
            let sql =
                format!("INSERT INTO body (id, bytes) {} ORDER BY id ON CONFLICT DO NOTHING", rows_of(BODY_COLUMNS));
            let statement = self.transaction.prepare_cached(&sql).await?;
            self.transaction.execute(&statement, &bodies.values()).await?;
        }
        self.delete_pending(&ended, entries).await?;
        queues::raise(self.transaction, &self.queues).await?;
        queues::note_use(self.transaction, &others, self.now).await
    }

    /// Deletes pending rows with their bodies.
    pub(super) async fn delete_pending(
        &mut self,
        ended: &[Uuid],
        entries: &BTreeMap<CallbackId, Entry>,
    ) -> Result<(), PostgresError> {
        if ended.is_empty() {
            return Ok(());
        }
        let statement = self.transaction.prepare_cached("DELETE FROM pending WHERE id = ANY($1)").await?;
        self.transaction.execute(&statement, &[&ended]).await?;
        let sql = "DELETE FROM body WHERE id = ANY($1) RETURNING id, octet_length(bytes)::bigint";
        let statement = self.transaction.prepare_cached(sql).await?;
        for row in self.transaction.query(&statement, &[&ended]).await? {
            let freed: i64 = row.try_get(1)?;
            let entry = entries.get(&rows::id_of(&row)?);
            if let Some(before) = entry.and_then(|entry| entry.before.pending.as_ref()) {
                let queue = self.names.of_row(&before.facts)?.queue;
                self.queues.note(queue, None, freed.saturating_neg());
            }
        }
        Ok(())
    }

    /// Raises watermarks, and returns those whose partitions have a newer epoch.
    async fn raise_watermarks(&self, batch: &Batch) -> Result<Vec<(Arc<PartitionKey>, i64)>, PostgresError> {
        let mut lost = Vec::new();
        let mut raised = BTreeMap::new();
        for watermark in &batch.watermarks {
            match self.names.partition(&watermark.partition) {
                Some(number) if self.is_ours(&watermark.partition, watermark.epoch) || is_fence_off() => {
                    let upto = raised.entry(number).or_insert(watermark.watermark);
                    if watermark.watermark.upto >= upto.upto {
                        *upto = watermark.watermark;
                    }
                }
                _ => lost.push((Arc::clone(&watermark.partition), watermark.epoch)),
            }
        }
        partition_offsets::raise(self.transaction, &raised, self.now).await?;
        Ok(lost)
    }
}

/// A fault switch of the tests lets watermarks of an epoch that is over count.
fn is_fence_off() -> bool {
    faults::is_on(Fault::FencedWriteWrites)
}

fn is_held(names: &Names, epochs: &HashMap<i64, i64>, partition: &Arc<PartitionKey>, epoch: i64) -> bool {
    names.partition(partition).and_then(|number| epochs.get(&number)) == Some(&epoch)
}

/// Whether the partition that a change brings is still this instance's.
fn is_owned(names: &Names, epochs: &HashMap<i64, i64>, change: &Change) -> bool {
    let is_held = |(record, epoch): (&RecordRef, i64)| is_held(names, epochs, &record.partition, epoch);
    change.record().is_none_or(is_held) || is_taken_all_the_same(change)
}

const BODY_COLUMNS: &str = "id uuid, bytes bytea";

fn body_of(change: &Change) -> Bytes {
    match change {
        Change::Settle(settle) => settle.body.clone(),
        Change::Park(park) => park.body.clone(),
        Change::Release { .. } | Change::Bury(..) => Bytes::new(),
    }
}
