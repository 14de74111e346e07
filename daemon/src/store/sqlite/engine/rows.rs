//! Converts between the rows of a callback and the model.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use crate::base::clock::Timestamp;
use crate::model::attempt::{Attempt, Outcome, SentWithId};
use crate::model::callback::CallbackId;
use crate::model::endpoint::CallbackUrl;
use crate::model::event::RecordRef;
use crate::model::lease::{Facts, Token};
use crate::model::retry::Progress;
use crate::model::settlement::{Ended, NumberedAttempt, Pending, Rows, Settled};
use crate::model::team::Mode;
use crate::store::Known;
use crate::store::engine::last_use_of_queue;

/// The columns that `pending` and `settled` share come first, in the order in which [`read_facts`] reads them.
const FACT_COLUMNS: usize = 11;

const SELECT_PENDING: &str = "SELECT
        partition_id, off, record_at, team, task, event_id, event_type, queue, test, content_hash, builder,
        url, since, horizon, tries, attempts, due, token, lease_until, starts, last_outcome, round, new_id
     FROM pending WHERE id = ?1";
const SELECT_SETTLED: &str = "SELECT
        partition_id, off, record_at, team, task, event_id, event_type, queue, test, content_hash, builder,
        state, reason, attempts, status, outcome, round, first_at, settled_at, revision, sent_with
     FROM settled WHERE id = ?1";

const INSERT_SETTLED: &str = "INSERT INTO settled (
        id, partition_id, off, record_at, team, task, event_id, event_type, queue, test, content_hash, builder,
        state, reason, attempts, status, outcome, round, first_at, settled_at, revision, sent_with)
     SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22
     WHERE NOT EXISTS (SELECT 1 FROM pending WHERE id = ?1) ON CONFLICT DO NOTHING";
const REPLACE_SETTLED: &str = "INSERT OR REPLACE INTO settled (
        id, partition_id, off, record_at, team, task, event_id, event_type, queue, test, content_hash, builder,
        state, reason, attempts, status, outcome, round, first_at, settled_at, revision, sent_with)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)";
const UPDATE_SETTLED: &str = "UPDATE settled SET
        queue = ?2, state = ?3, reason = ?4, attempts = ?5, status = ?6, outcome = ?7, round = ?8, first_at = ?9, settled_at = ?10,
        revision = ?11, sent_with = ?12
     WHERE id = ?1";
const REPLACE_PENDING: &str = "INSERT OR REPLACE INTO pending (
        id, partition_id, off, record_at, team, task, event_id, event_type, queue, test, content_hash, builder,
        url, since, horizon, tries, attempts, due, token, lease_until, starts, last_outcome, round, new_id)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
         ?24)";

/// Both rows of one callback.
pub(in crate::store::sqlite) fn load(
    connection: &Connection,
    ids: &mut IdCache,
    id: CallbackId,
) -> Result<Rows, SqliteError> {
    // Pending first: a callback moves from there to settled, so it can't be missed between the two reads.
    let pending = connection
        .prepare_cached(SELECT_PENDING)?
        .query_row([id.as_bytes()], |row| Ok(read_pending(connection, ids, id, row)))
        .optional()?
        .transpose()?;
    let settled = connection
        .prepare_cached(SELECT_SETTLED)?
        .query_row([id.as_bytes()], |row| Ok(read_settled(connection, ids, id, row)))
        .optional()?
        .transpose()?;
    Ok(Rows { settled, pending })
}

fn read_facts(
    connection: &Connection,
    ids: &mut IdCache,
    id: CallbackId,
    row: &Row<'_>,
) -> Result<Arc<Facts>, SqliteError> {
    let team: String = row.get(3)?;
    let event_type: String = row.get(6)?;
    Ok(Arc::new(Facts {
        id,
        record: RecordRef {
            partition: ids.partition_key(connection, row.get(0)?)?,
            offset: row.get(1)?,
            timestamp: row.get(2)?,
        },
        team: team.into(),
        task_id: text(row.get(4)?)?,
        event_id: row.get::<_, Option<Vec<u8>>>(5)?.map(text).transpose()?,
        event_type: event_type.into(),
        queue: ids.queue_name(connection, row.get(7)?)?,
        mode: if row.get(8)? { Mode::Test } else { Mode::Live },
        content_hash: row.get(9)?,
        builder: row.get(10)?,
    }))
}

fn read_settled(
    connection: &Connection,
    ids: &mut IdCache,
    id: CallbackId,
    row: &Row<'_>,
) -> Result<Settled, SqliteError> {
    let facts = read_facts(connection, ids, id, row)?;
    let column = |index: usize| FACT_COLUMNS + index;
    let (state, reason): (String, Option<String>) = (row.get(column(0))?, row.get(column(1))?);
    Ok(Settled {
        facts,
        ended: Ended::parse(&state, reason.as_deref()).ok_or(SqliteError::Corrupt("a settled row's state"))?,
        attempts: row.get(column(2))?,
        status: row.get(column(3))?,
        outcome: outcome(&row.get::<_, String>(column(4))?)?,
        round: row.get(column(5))?,
        first_at: Timestamp::from_millis(row.get(column(6))?),
        settled_at: Timestamp::from_millis(row.get(column(7))?),
        revision: row.get(column(8))?,
        sent_with: row.get::<_, Option<i64>>(column(9))?.map(SentWithId),
    })
}

fn read_pending(
    connection: &Connection,
    ids: &mut IdCache,
    id: CallbackId,
    row: &Row<'_>,
) -> Result<Pending, SqliteError> {
    let facts = read_facts(connection, ids, id, row)?;
    let column = |index: usize| FACT_COLUMNS + index;
    let time = |index: usize| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column(index))?.map(Timestamp::from_millis))
    };
    Ok(Pending {
        facts,
        url: row.get::<_, Option<Vec<u8>>>(column(0))?.map(text).transpose()?.map(|url| CallbackUrl::from(&*url)),
        progress: Progress {
            since: time(1)?,
            horizon: time(2)?,
            tries: row.get(column(3))?,
            attempts: row.get(column(4))?,
        },
        due: Timestamp::from_millis(row.get(column(5))?),
        token: row.get::<_, Option<i64>>(column(6))?.map(|token| Token(token.cast_unsigned())),
        lease_until: time(7)?,
        starts: row.get(column(8))?,
        last_outcome: row.get::<_, Option<String>>(column(9))?.map(|name| outcome(&name)).transpose()?,
        round: row.get(column(10))?,
        new_id: row.get(column(11))?,
    })
}

fn text(bytes: Vec<u8>) -> Result<Box<str>, SqliteError> {
    String::from_utf8(bytes).map(String::into_boxed_str).map_err(|_| SqliteError::Corrupt("an id that is not text"))
}

fn outcome(name: &str) -> Result<Outcome, SqliteError> {
    Outcome::parse(name).ok_or(SqliteError::Corrupt("an outcome's name"))
}

/// Inserts a settled row where the id is in neither table. False where it is in one: then nothing was written.
pub(super) fn insert_settled(
    connection: &Connection,
    ids: &mut IdCache,
    row: &Settled,
    now: Timestamp,
) -> Result<bool, SqliteError> {
    settled_statement(connection, ids, row, now, INSERT_SETTLED)
}

/// Writes what became of a settled row, or a new one. Of a row that stays that of its event, only what changed is written, so that no
/// index of the event is touched.
pub(super) fn replace_settled(
    connection: &Connection,
    ids: &mut IdCache,
    (before, row): (Option<&Settled>, &Settled),
    now: Timestamp,
) -> Result<(), SqliteError> {
    if !before.is_some_and(|before| before.facts.differ_in_queue_at_most(&row.facts)) {
        return settled_statement(connection, ids, row, now, REPLACE_SETTLED).map(|_| ());
    }
    let queue = ids.queue_number(connection, &row.facts.queue, last_use_of_queue(row.facts.id, now))?;
    connection.prepare_cached(UPDATE_SETTLED)?.execute(params![
        row.facts.id.as_bytes(),
        queue,
        row.ended.name(),
        row.ended.reason().map(|reason| reason.name()),
        row.attempts,
        row.status,
        row.outcome.name(),
        row.round,
        row.first_at.millis(),
        row.settled_at.millis(),
        row.revision,
        row.sent_with.map(|settings| settings.0),
    ])?;
    Ok(())
}

fn settled_statement(
    connection: &Connection,
    ids: &mut IdCache,
    row: &Settled,
    now: Timestamp,
    sql: &str,
) -> Result<bool, SqliteError> {
    let facts = &row.facts;
    let partition = partition_of(connection, ids, facts)?;
    let queue = ids.queue_number(connection, &facts.queue, last_use_of_queue(facts.id, now))?;
    let written = connection.prepare_cached(sql)?.execute(params![
        facts.id.as_bytes(),
        partition,
        facts.record.offset,
        facts.record.timestamp,
        &*facts.team,
        facts.task_id.as_bytes(),
        facts.event_id.as_ref().map(|id| id.as_bytes()),
        &*facts.event_type,
        queue,
        facts.mode == Mode::Test,
        facts.content_hash,
        facts.builder,
        row.ended.name(),
        row.ended.reason().map(|reason| reason.name()),
        row.attempts,
        row.status,
        row.outcome.name(),
        row.round,
        row.first_at.millis(),
        row.settled_at.millis(),
        row.revision,
        row.sent_with.map(|settings| settings.0),
    ])?;
    Ok(written == 1)
}

pub(super) fn replace_pending(
    connection: &Connection,
    ids: &mut IdCache,
    row: &Pending,
    now: Timestamp,
) -> Result<i64, SqliteError> {
    let facts = &row.facts;
    let partition = partition_of(connection, ids, facts)?;
    let queue = ids.queue_number(connection, &facts.queue, now)?;
    connection.prepare_cached(REPLACE_PENDING)?.execute(params![
        facts.id.as_bytes(),
        partition,
        facts.record.offset,
        facts.record.timestamp,
        &*facts.team,
        facts.task_id.as_bytes(),
        facts.event_id.as_ref().map(|id| id.as_bytes()),
        &*facts.event_type,
        queue,
        facts.mode == Mode::Test,
        facts.content_hash,
        facts.builder,
        row.url.as_ref().map(|url| url.as_bytes()),
        row.progress.since.map(Timestamp::millis),
        row.progress.horizon.map(Timestamp::millis),
        row.progress.tries,
        row.progress.attempts,
        row.due.millis(),
        row.token.map(|token| token.0.cast_signed()),
        row.lease_until.map(Timestamp::millis),
        row.starts,
        row.last_outcome.map(Outcome::name),
        row.round,
        row.new_id,
    ])?;
    Ok(queue)
}

/// Writes the lease of a row that is there. It touches no index but those of what is due and what is leased.
pub(super) fn lease(connection: &Connection, row: &Pending) -> Result<(), SqliteError> {
    connection.prepare_cached("UPDATE pending SET token = ?2, lease_until = ?3, starts = ?4 WHERE id = ?1")?.execute(
        params![
            row.facts.id.as_bytes(),
            row.token.map(|token| token.0.cast_signed()),
            row.lease_until.map(Timestamp::millis),
            row.starts,
        ],
    )?;
    Ok(())
}

/// Writes the round of a settled row. It touches no index.
pub(super) fn set_round(connection: &Connection, row: &Settled) -> Result<(), SqliteError> {
    let statement = "UPDATE settled SET round = ?2 WHERE id = ?1";
    connection.prepare_cached(statement)?.execute(params![row.facts.id.as_bytes(), row.round])?;
    Ok(())
}

fn partition_of(connection: &Connection, ids: &mut IdCache, facts: &Facts) -> Result<i64, SqliteError> {
    ids.partition_number(connection, &facts.record.partition)?
        .ok_or_else(|| SqliteError::Refused(format!("no partition {}", facts.record.partition)))
}

pub(super) fn insert_attempt(
    connection: &Connection,
    id: CallbackId,
    row: &NumberedAttempt,
) -> Result<(), SqliteError> {
    let attempt = &row.attempt;
    connection
        .prepare_cached(
            "INSERT INTO attempt (id, n, round, outcome, sent, status, begun_at, ms, peer, redialed, snippet,
                 sent_with)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            id.as_bytes(),
            row.n,
            row.round,
            attempt.outcome.name(),
            attempt.sent,
            attempt.status,
            attempt.begun_at.millis(),
            i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX),
            attempt.peer.map(|peer| peer.to_string()),
            attempt.redialed,
            &attempt.snippet[..],
            attempt.sent_with.map(|settings| settings.0),
        ])?;
    Ok(())
}

pub(in crate::store::sqlite) fn attempts(
    connection: &Connection,
    id: CallbackId,
) -> Result<Vec<NumberedAttempt>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT n, round, outcome, sent, status, begun_at, ms, peer, redialed, snippet, sent_with FROM attempt
         WHERE id = ?1 ORDER BY n",
    )?;
    let mut rows = statement.query([id.as_bytes()])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(NumberedAttempt {
            n: row.get(0)?,
            round: row.get(1)?,
            attempt: Attempt {
                outcome: outcome(&row.get::<_, String>(2)?)?,
                sent: row.get(3)?,
                status: row.get(4)?,
                begun_at: Timestamp::from_millis(row.get(5)?),
                took: Duration::from_millis(row.get::<_, i64>(6)?.try_into().unwrap_or(0)),
                peer: row.get::<_, Option<String>>(7)?.and_then(|peer| peer.parse().ok()),
                redialed: row.get(8)?,
                snippet: Bytes::from(row.get::<_, Vec<u8>>(9)?),
                sent_with: row.get::<_, Option<i64>>(10)?.map(SentWithId),
            },
        });
    }
    Ok(attempts)
}

pub(super) fn known(connection: &Connection, ids: &[CallbackId]) -> Result<Vec<Option<Known>>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT content_hash FROM pending WHERE id = ?1 UNION ALL SELECT content_hash FROM settled WHERE id = ?1",
    )?;
    ids.iter()
        .map(|id| {
            let hash = statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
            Ok(hash.map(|content_hash| Known { content_hash }))
        })
        .collect()
}
