//! One batch in one transaction: epochs are checked, rows are merged by `apply`, watermarks are raised, and the
//! batch's number is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::moves::Moves;
use super::{dead_letters, kept, outbox, partition_offsets, rows};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::ValueBudget;
use crate::model::event::PartitionKey;
use crate::model::keeping::Keeping;
use crate::model::notice::{Notice, Notices};
use crate::model::settlement::{Change, Rows, Settle, Verdict, apply};
use crate::store::engine::{is_applied, went_back};
use crate::store::reads::Counts;
use crate::store::{Applied, Batch, EventClaim, InstanceId};

pub(super) fn write(
    connection: &Connection,
    ids: &mut IdCache,
    batch: &Batch,
    (values, keeping, notices): (ValueBudget, Keeping, Notices),
    now: Timestamp,
) -> Result<Applied, SqliteError> {
    let last: Option<u64> = connection
        .prepare_cached("SELECT batch FROM instance WHERE id = ?1")?
        .query_row([batch.instance.0], |row| row.get(0))
        .optional()?;
    if is_applied(last.ok_or_else(went_back)?, batch.number)? {
        return Ok(Applied { now, ..Applied::default() });
    }
    let mut work = Work {
        connection,
        ids,
        instance: batch.instance,
        values,
        keeping,
        notices,
        told: Vec::new(),
        now,
        epochs: BTreeMap::new(),
        moves: Moves::default(),
    };
    let mut applied = Applied { now, ..Applied::default() };
    for change in &batch.changes {
        let ours = match change.record() {
            Some((record, epoch)) => work.ours(&record.partition, epoch)?,
            None => true,
        };
        applied.verdicts.push(work.change(change, ours)?);
        if let (false, Some((record, epoch))) = (ours, change.record()) {
            applied.lost.push((Arc::clone(&record.partition), epoch));
        }
    }
    for raised in &batch.watermarks {
        if work.ours(&raised.partition, raised.epoch)? {
            partition_offsets::raise(connection, work.ids, raised, now)?;
        } else {
            applied.lost.push((Arc::clone(&raised.partition), raised.epoch));
        }
    }
    work.moves.raise_queues(connection)?;
    outbox::insert(connection, &work.told)?;
    let counts = Counts::of(&applied.verdicts);
    connection
        .prepare_cached(
            "UPDATE instance SET batch = ?2, heartbeat = ?3, delivered = delivered + ?4, exhausted = exhausted + ?5,
                                 abandoned = abandoned + ?6, dead_letters = dead_letters + ?7 WHERE id = ?1",
        )?
        .execute(params![
            batch.instance.0,
            batch.number,
            now.millis(),
            counts.delivered,
            counts.exhausted,
            counts.abandoned,
            counts.dead_letters
        ])?;
    applied.lost.sort();
    applied.lost.dedup();
    Ok(applied)
}

struct Work<'w> {
    connection: &'w Connection,
    ids: &'w mut IdCache,
    instance: InstanceId,
    values: ValueBudget,
    keeping: Keeping,
    notices: Notices,
    /// What this batch has to tell.
    told: Vec<Notice>,
    now: Timestamp,
    /// The epochs of the partitions that are this instance's.
    epochs: BTreeMap<Arc<PartitionKey>, Option<i64>>,
    moves: Moves,
}

impl Work<'_> {
    fn ours(&mut self, partition: &Arc<PartitionKey>, epoch: i64) -> Result<bool, SqliteError> {
        if let Some(stored) = self.epochs.get(partition) {
            return Ok(*stored == Some(epoch));
        }
        let owned = partition_offsets::owned(self.connection, partition)?;
        let stored = owned.filter(|(owner, _)| *owner == Some(self.instance)).map(|(_, epoch)| epoch);
        self.epochs.insert(Arc::clone(partition), stored);
        Ok(stored == Some(epoch))
    }

    fn change(&mut self, change: &Change, ours: bool) -> Result<Verdict, SqliteError> {
        if let Change::Bury(letter, _) = change {
            let keeps_value = !ours || dead_letters::bury(self.connection, self.ids, letter, self.values, self.now)?;
            if ours {
                self.told.extend(self.notices.of_letter(letter.id));
            }
            let verdict = apply(&Rows::default(), change, ours).verdict;
            return Ok(if keeps_value { verdict } else { Verdict::BuriedWithoutValue });
        }
        if let Change::Settle(settle) = change
            && ours
            && settle.epoch.is_some()
            && let Some(verdict) = self.first_try_that_ends(settle, change)?
        {
            return Ok(verdict);
        }
        let id = change.facts().expect("only a dead letter has none").id;
        let before = match rows::load(self.connection, self.ids, id) {
            Ok(rows) => rows,
            Err(SqliteError::Corrupt(what)) => {
                tracing::error!(callback = %id, what, "a row can't be read; what was to change of it is left out");
                return Ok(Verdict::Nothing);
            }
            Err(other) => return Err(other),
        };
        let step = apply(&before, change, ours);
        if let Some(attempt) = &step.attempt {
            rows::insert_attempt(self.connection, id, attempt)?;
        }
        if let Some(settled) = step.rows.settled.as_ref().filter(|row| Some(*row) != before.settled.as_ref()) {
            let settled = (before.settled.as_ref(), settled);
            rows::replace_settled(self.connection, self.ids, settled, self.now)?;
        }
        let body = body_of(change);
        let pending = (before.pending.as_ref(), step.rows.pending.as_ref());
        self.moves.follow(self.connection, self.ids, pending, &body, self.now)?;
        kept::follow(self.connection, self.keeping, id, (&before, &step.rows), &body)?;
        self.told.extend(self.notices.of(id, &before, &step.rows));
        Ok(step.verdict)
    }

    /// The hot path, rows 1 and 2: one insert. `None` where the id has a row already.
    fn first_try_that_ends(&mut self, settle: &Settle, change: &Change) -> Result<Option<Verdict>, SqliteError> {
        let step = apply(&Rows::default(), change, true);
        let Some(settled) = &step.rows.settled else { return Ok(None) };
        if !rows::insert_settled(self.connection, self.ids, settled, self.now)? {
            return Ok(None);
        }
        if let Some(attempt) = &step.attempt {
            rows::insert_attempt(self.connection, settle.facts.id, attempt)?;
        }
        kept::follow(self.connection, self.keeping, settle.facts.id, (&Rows::default(), &step.rows), &settle.body)?;
        self.told.extend(self.notices.of(settle.facts.id, &Rows::default(), &step.rows));
        Ok(Some(step.verdict))
    }
}

fn body_of(change: &Change) -> Bytes {
    match change {
        Change::Settle(settle) => settle.body.clone(),
        Change::Park(park) => park.body.clone(),
        Change::Release { .. } | Change::Bury(..) => Bytes::new(),
    }
}

pub(super) fn claim_event_ids(
    connection: &Connection,
    claims: &[EventClaim],
    now: Timestamp,
) -> Result<Vec<CallbackId>, SqliteError> {
    let mut insert =
        connection.prepare_cached("INSERT INTO dedupe (hash, id, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?;
    let mut winner = connection.prepare_cached("SELECT id FROM dedupe WHERE hash = ?1")?;
    claims
        .iter()
        .map(|claim| {
            if insert.execute(params![claim.hash, claim.id.as_bytes(), now.millis()])? == 1 {
                return Ok(claim.id);
            }
            let id: [u8; 16] = winner.query_row([claim.hash], |row| row.get(0))?;
            Ok(CallbackId::from_bytes(id))
        })
        .collect()
}
