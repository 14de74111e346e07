//! One batch in one transaction, and usually in two round trips.
//!
//! The first one begins, takes all locks, and reads what they guard: [`Asked::of`] shows the order. Then `apply` merges the rows, and
//! nothing waits. The second one brings everything that is written, and COMMIT.
//!
//! Callbacks that end with their first try are nearly all. Their rows are not read, because they have none: their settled rows are
//! inserted, and an insert that meets a row undoes the whole batch. Then the batch is written again with this callback among those whose
//! rows are read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::super::cells::{Uuid, param};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::pipeline::{Pipeline, Place};
use super::super::transaction::Open;
use super::dead_letters::{LettersAsked, LettersFound};
use super::names::Names;
use super::rows::{Readable, RowsAsked, id_of};
use super::work::{Entry, Work, finish};
use super::{answer, attempts, dead_letters, known, outbox, partition_offsets, queues, rows};
use crate::base::clock::Timestamp;
use crate::faults::{self, Fault};
use crate::model::callback::CallbackId;
use crate::model::dead_letter::DeadLetter;
use crate::model::event::PartitionKey;
use crate::model::lease::Facts;
use crate::model::notice::Notice;
use crate::model::offsets::Watermark;
use crate::model::settlement::{Change, NumberedAttempt, Rows, Settled, Verdict, apply};
use crate::store::engine::{is_applied, went_back};
use crate::store::reads::Counts;
use crate::store::{Applied, Batch};

/// Writes a batch. `with_rows` has the callbacks of first tries that are known to have a row. If the answer is [`PostgresError::Met`],
/// there are more of them than before, and the batch is to be written again.
pub(super) async fn write(
    store: &PostgresStore,
    client: &mut Object,
    batch: &Batch,
    with_rows: &mut HashSet<CallbackId>,
    now: Timestamp,
) -> Result<Applied, PostgresError> {
    let written = write_once(store, client, batch, with_rows, now).await;
    if matches!(written, Err(PostgresError::Met)) {
        let ids: Vec<CallbackId> = batch.changes.iter().filter_map(Change::facts).map(|facts| facts.id).collect();
        let known = known::known(&*client, &ids).await?;
        with_rows.extend(ids.into_iter().zip(known).filter_map(|(id, known)| known.map(|_| id)));
    }
    written
}

async fn write_once(
    store: &PostgresStore,
    client: &mut Object,
    batch: &Batch,
    with_rows: &mut HashSet<CallbackId>,
    now: Timestamp,
) -> Result<Applied, PostgresError> {
    let mut work = Work::new(store, Names::of(store, client, batch, now).await?, now);
    let split = Split::of(batch, with_rows);
    let mut first = Pipeline::new();
    let asked = Asked::of(&mut first, batch, &split, &work.names);
    let (transaction, mut answers) = Open::begin(client, first).await?;
    let last_batch = answers.take(asked.instance).pop().ok_or_else(went_back)?;
    if is_applied(u64::try_from(last_batch.try_get::<_, i64>(0)?).unwrap_or(0), batch.number)? {
        return read_back(store, transaction, batch, &last_batch, now).await;
    }
    work.epochs = partition_offsets::held(&answers.take(asked.partitions), batch.instance)?;
    let others = split.others(batch, &work, &answers.take(asked.waiting))?;
    if !others.is_empty() {
        with_rows.extend(others);
        return Err(PostgresError::Met);
    }
    let letters = LettersFound::read(&mut answers, asked.letters)?;
    let found = work.found(&transaction, &mut answers, asked.rows).await?;
    let mut decided = Decided::of(&mut work, batch, split, found)?;
    let mut applied = Applied { now, ..Applied::default() };
    let raised = fences(&work, batch, &mut applied.lost);
    let mut last = Pipeline::new();
    for at in dead_letters::bury(&mut last, &decided.letters, letters, store.values, now) {
        decided.verdicts[at] = Some(Verdict::BuriedWithoutValue);
    }
    applied.verdicts = decided.all_verdicts()?;
    attempts::insert(&mut last, &decided.attempts);
    work.write_rows(&mut last, &decided.entries, &decided.first)?;
    partition_offsets::raise(&mut last, &raised, now);
    outbox::insert(&mut last, &work.told, Some(batch.instance), now);
    count(&mut last, batch, &applied);
    finish(store, transaction, last, work.kept).await?;
    Ok(applied)
}

/// The changes of a batch by what is done with them, each by its place in the batch.
#[derive(Default)]
struct Split {
    letters: Vec<usize>,
    /// Callbacks that end with their first try (rows 1 and 2), if they have no row.
    first: Vec<FirstTry>,
    /// Changes of rows that are read.
    rest: Vec<usize>,
}

/// A first try that ends its callback, and what comes of it if the callback has no row.
struct FirstTry {
    at: usize,
    settled: Settled,
    attempt: Option<NumberedAttempt>,
    verdict: Verdict,
}

impl Split {
    fn of(batch: &Batch, with_rows: &HashSet<CallbackId>) -> Self {
        let mut times: HashMap<CallbackId, usize> = HashMap::new();
        for facts in batch.changes.iter().filter_map(Change::facts) {
            *times.entry(facts.id).or_default() += 1;
        }
        let is_alone = |id: CallbackId| times.get(&id) == Some(&1) && !with_rows.contains(&id);
        let mut split = Self::default();
        for (at, change) in batch.changes.iter().enumerate() {
            let step = match change {
                Change::Bury(..) => {
                    split.letters.push(at);
                    continue;
                }
                Change::Settle(settle) if settle.epoch.is_some() && is_alone(settle.facts.id) => {
                    Some(apply(&Rows::default(), change, true))
                }
                _ => None,
            };
            match step.map(|step| (step.rows.settled, step.attempt, step.verdict)) {
                Some((Some(settled), attempt, verdict)) => {
                    split.first.push(FirstTry { at, settled, attempt, verdict });
                }
                _ => split.rest.push(at),
            }
        }
        split
    }

    /// First tries whose rows must be read all the same: their partition is not ours any more, or they have a pending row.
    fn others(&self, batch: &Batch, work: &Work<'_>, waiting: &[Row]) -> Result<Vec<CallbackId>, PostgresError> {
        let waiting: HashSet<CallbackId> = waiting.iter().map(id_of).collect::<Result<_, PostgresError>>()?;
        let ids = self.first.iter().map(|first| (first.settled.facts.id, &batch.changes[first.at]));
        let others = ids.filter(|(id, change)| waiting.contains(id) || !work.is_our_change(change));
        Ok(others.map(|(id, _)| id).collect())
    }
}

/// Where the answers to the first round trip stand.
struct Asked {
    instance: Place,
    partitions: Option<Place>,
    rows: Option<RowsAsked>,
    waiting: Option<Place>,
    letters: Option<LettersAsked>,
}

impl Asked {
    /// This is the order of all locks: the instance, partitions, queues, pending rows, settled rows, each by key. Whoever takes locks
    /// takes them in this order, so that two processes never wait for each other in a circle. Rows that are inserted come after all of
    /// them.
    fn of(first: &mut Pipeline<'_>, batch: &Batch, split: &Split, names: &Names) -> Self {
        let facts: Vec<&Arc<Facts>> = split.rest.iter().filter_map(|at| batch.changes[*at].facts()).collect();
        let mut ids: Vec<Uuid> = facts.iter().map(|facts| facts.id.into()).collect();
        ids.sort_unstable();
        ids.dedup();

        let sql = "SELECT batch, answer FROM instance WHERE id = $1 FOR UPDATE";
        let instance = first.push(sql, vec![param(batch.instance.0)]);
        let partitions = partition_offsets::lock(first, names.fenced(batch));
        if !ids.is_empty() {
            queues::lock(first, facts.iter().filter_map(|facts| names.queue(&facts.queue)).collect(), &ids);
        }
        let rows = rows::lock(first, &ids);

        // The rest takes no locks. What it reads was committed before the locks were ours, or is of another partition.
        let first_tries: Vec<Uuid> = split.first.iter().map(|first| first.settled.facts.id.into()).collect();
        let waiting = (!first_tries.is_empty())
            .then(|| first.push("SELECT id FROM pending WHERE id = ANY($1)", vec![param(first_tries)]));
        let letters = split.letters.iter().filter_map(|at| letter_of(&batch.changes[*at]));
        let letters = dead_letters::look(first, letters.map(|letter| letter.id.into()).collect());
        Self { instance, partitions, rows, waiting, letters }
    }
}

/// It was applied, but nobody knows whether it is on all the disks that a commit waits for: a commit of ours says so.
async fn read_back(
    store: &PostgresStore,
    transaction: Open<'_>,
    batch: &Batch,
    last_batch: &Row,
    now: Timestamp,
) -> Result<Applied, PostgresError> {
    let answer: Option<&[u8]> = last_batch.try_get(1)?;
    let applied = answer.and_then(|answer| answer::decode(batch, answer, now));
    let applied = applied.ok_or(PostgresError::Corrupt("the answer to a batch"))?;
    let mut last = Pipeline::new();
    let sql = "UPDATE instance SET heartbeat = $2 WHERE id = $1";
    last.push(sql, vec![param(batch.instance.0), param(now.millis())]);
    transaction.commit(last, &store.warnings).await?;
    Ok(applied)
}

/// What a batch comes to.
struct Decided<'b> {
    verdicts: Vec<Option<Verdict>>,
    /// Settled rows of callbacks that ended with their first try.
    first: Vec<Settled>,
    entries: BTreeMap<CallbackId, Entry>,
    attempts: Vec<(CallbackId, NumberedAttempt)>,
    /// Each with its place in the batch and the number of its partition.
    letters: Vec<(usize, &'b DeadLetter, i64)>,
}

impl<'b> Decided<'b> {
    fn of(
        work: &mut Work<'_>,
        batch: &'b Batch,
        split: Split,
        found: HashMap<CallbackId, Readable<Rows>>,
    ) -> Result<Self, PostgresError> {
        let mut decided = Self {
            verdicts: vec![None; batch.changes.len()],
            first: Vec::with_capacity(split.first.len()),
            entries: BTreeMap::new(),
            attempts: Vec::new(),
            letters: Vec::new(),
        };
        decided.bury(work, batch, &split.letters)?;
        for first in split.first {
            decided.first_try(work, &batch.changes[first.at], first);
        }
        decided.merge(work, batch, &split.rest, found);
        Ok(decided)
    }

    fn bury(&mut self, work: &mut Work<'_>, batch: &'b Batch, letters: &[usize]) -> Result<(), PostgresError> {
        for at in letters.iter().copied() {
            let change = &batch.changes[at];
            let Some(letter) = letter_of(change) else { continue };
            let is_ours = work.is_our_change(change);
            self.verdicts[at] = Some(apply(&Rows::default(), change, is_ours).verdict);
            if is_ours {
                work.told.extend(work.store.notices.of_letter(letter.id));
                let partition = work.names.partition(&letter.record.partition);
                let partition = partition.ok_or(PostgresError::Corrupt("a partition without a number"))?;
                self.letters.push((at, letter, partition));
            }
        }
        Ok(())
    }

    fn first_try(&mut self, work: &mut Work<'_>, change: &Change, first: FirstTry) {
        let FirstTry { at, settled, attempt, verdict } = first;
        let id = settled.facts.id;
        self.verdicts[at] = Some(verdict);
        self.attempts.extend(attempt.map(|attempt| (id, attempt)));
        if work.store.notices.outcomes {
            work.told.push(Notice::Ended(id, settled.revision));
        }
        if work.store.keeping.keeps_ended(settled.ended) {
            let rows = Rows { settled: Some(settled.clone()), pending: None };
            work.kept.follow(work.store.keeping, id, (&Rows::default(), &rows), &body_of(change));
        }
        self.first.push(settled);
    }

    /// Merges changes with the rows that were read, in their order.
    fn merge(
        &mut self,
        work: &Work<'_>,
        batch: &Batch,
        rest: &[usize],
        mut found: HashMap<CallbackId, Readable<Rows>>,
    ) {
        let mut unreadable: HashSet<CallbackId> = HashSet::new();
        for at in rest.iter().copied() {
            let change = &batch.changes[at];
            let Some(facts) = change.facts() else { continue };
            match found.remove(&facts.id) {
                Some(Ok(before)) => {
                    let now = before.clone();
                    self.entries.insert(facts.id, Entry { before, now, body: Bytes::new() });
                }
                Some(Err(what)) => {
                    tracing::error!(
                        callback = %facts.id,
                        what,
                        "a row can't be read; what was to change of it is left out"
                    );
                    unreadable.insert(facts.id);
                }
                None => {}
            }
            if unreadable.contains(&facts.id) {
                self.verdicts[at] = Some(Verdict::Nothing);
                continue;
            }
            let entry = self.entries.entry(facts.id).or_default();
            let step = apply(&entry.now, change, work.is_our_change(change));
            self.verdicts[at] = Some(step.verdict);
            self.attempts.extend(step.attempt.map(|attempt| (facts.id, attempt)));
            let body = body_of(change);
            if !body.is_empty() {
                entry.body = body;
            }
            entry.now = step.rows;
        }
    }

    /// One verdict for each change.
    fn all_verdicts(&mut self) -> Result<Vec<Verdict>, PostgresError> {
        let verdicts = std::mem::take(&mut self.verdicts).into_iter();
        verdicts.map(|verdict| verdict.ok_or(PostgresError::Corrupt("a change without a verdict"))).collect()
    }
}

/// The watermarks that rise, by the numbers of their partitions. The partitions that a batch names and that have a newer epoch are added
/// to `lost`.
fn fences(work: &Work<'_>, batch: &Batch, lost: &mut Vec<(Arc<PartitionKey>, i64)>) -> BTreeMap<i64, Watermark> {
    for (record, epoch) in batch.changes.iter().filter_map(Change::record) {
        if !work.is_ours(&record.partition, epoch) {
            lost.push((Arc::clone(&record.partition), epoch));
        }
    }
    let mut raised = BTreeMap::new();
    for watermark in &batch.watermarks {
        match work.names.partition(&watermark.partition) {
            Some(number) if work.is_ours(&watermark.partition, watermark.epoch) || is_fence_off() => {
                let upto = raised.entry(number).or_insert(watermark.watermark);
                if watermark.watermark.upto >= upto.upto {
                    *upto = watermark.watermark;
                }
            }
            _ => lost.push((Arc::clone(&watermark.partition), watermark.epoch)),
        }
    }
    lost.sort();
    lost.dedup();
    raised
}

/// A fault switch of the tests lets watermarks of an epoch that is over count.
fn is_fence_off() -> bool {
    faults::is_on(Fault::FencedWriteWrites)
}

/// The batch's number, sums and answer in the row of its instance.
fn count(last: &mut Pipeline<'_>, batch: &Batch, applied: &Applied) {
    let sums = Counts::of(&applied.verdicts);
    let sql = "UPDATE instance SET batch = $2, heartbeat = $3, delivered = delivered + $4, exhausted = exhausted + $5,
                                   abandoned = abandoned + $6, dead_letters = dead_letters + $7, answer = $8
               WHERE id = $1";
    let mut params = vec![param(batch.instance.0), param(number(batch.number)), param(applied.now.millis())];
    params.extend([sums.delivered, sums.exhausted, sums.abandoned, sums.dead_letters].map(|sum| param(number(sum))));
    params.push(param(answer::encode(batch, applied)));
    last.push(sql, params);
}

/// A number as PostgreSQL has it.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn letter_of(change: &Change) -> Option<&DeadLetter> {
    match change {
        Change::Bury(letter, _) => Some(letter),
        _ => None,
    }
}

fn body_of(change: &Change) -> Bytes {
    match change {
        Change::Settle(settle) => settle.body.clone(),
        Change::Park(park) => park.body.clone(),
        Change::Release { .. } | Change::Bury(..) => Bytes::new(),
    }
}
