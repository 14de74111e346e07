//! The reads for people, on SQLite: lists by id, newest event first, single rows, and counts.
//!
//! Every read runs on a connection of its own kind and within a bounded time, so that no question holds delivery up.

mod dead_letters;
mod failed_between;
mod queues;
mod scan;

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::connection::SqliteStore;
use super::engine::{kept, partition_offsets, rows};
use super::error::SqliteError;
use super::id_cache::IdCache;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::event::PartitionKey;
use crate::model::settlement::{NumberedAttempt, Rows};
use crate::store::Answer;
use crate::store::failed_between::walks;
use crate::store::reads::{
    BuriedLetter, CallbackFilter, Counts, DeadLetterFilter, Found, InstanceEnd, InstanceRow, LastAttempt, Page,
    PartitionOffsets, QueueAsk, QueueRow, Reads, Totals,
};

impl Reads for SqliteStore {
    fn rows(&self, id: CallbackId) -> Answer<'_, Rows> {
        self.read_for_people(move |connection| rows::load(connection, &mut IdCache::default(), id))
    }

    fn attempts(&self, id: CallbackId) -> Answer<'_, Vec<NumberedAttempt>> {
        self.read_for_people(move |connection| rows::attempts(connection, id))
    }

    fn last_attempts(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<LastAttempt>>> {
        self.read_for_people(move |connection| {
            let sql = "SELECT status, begun_at, ms FROM attempt WHERE id = ?1 ORDER BY n DESC LIMIT 1";
            let mut statement = connection.prepare_cached(sql)?;
            let last = |id: &CallbackId| -> rusqlite::Result<Option<LastAttempt>> {
                let read = |row: &rusqlite::Row<'_>| {
                    let took = Duration::from_millis(row.get(2)?);
                    let begun_at = Timestamp::from_millis(row.get(1)?);
                    Ok(LastAttempt { status: row.get(0)?, ended_at: begun_at.plus(took) })
                };
                statement.query_row([id.as_bytes()], read).optional()
            };
            Ok(ids.iter().map(last).collect::<rusqlite::Result<_>>()?)
        })
    }

    fn body(&self, id: CallbackId) -> Answer<'_, Option<Bytes>> {
        self.read_for_people(move |connection| Ok(kept::body(connection, id)?.map(Bytes::from)))
    }

    fn bodies(&self, ids: Vec<CallbackId>, at_most: usize) -> Answer<'_, Vec<Option<Bytes>>> {
        self.read_for_people(move |connection| {
            let (mut bodies, mut bytes) = (Vec::new(), 0_usize);
            for id in ids {
                let body = kept::body(connection, id)?.map(Bytes::from);
                bytes = bytes.saturating_add(body.as_ref().map_or(0, Bytes::len));
                if bytes > at_most && !bodies.is_empty() {
                    break;
                }
                bodies.push(body);
            }
            Ok(bodies)
        })
    }

    fn callback_ids(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<CallbackId>> {
        self.read_for_people(move |connection| find(connection, &filter, &page))
    }

    fn untried_rounds(&self, team: Option<&str>, at_most: usize) -> Answer<'_, usize> {
        let team = team.map(str::to_owned);
        self.read_for_people(move |connection| {
            let of_team = if team.is_some() { "team = ?2 AND" } else { "?2 IS NULL AND" };
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM pending INDEXED BY pending_untried
                                       WHERE {of_team} round > 0 AND tries = 0 LIMIT ?1)"
            );
            Ok(connection.prepare_cached(&sql)?.query_row(rusqlite::params![at_most, team], |row| row.get(0))?)
        })
    }

    fn callbacks(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<(CallbackId, Rows)>> {
        self.read_for_people(move |connection| callbacks(connection, &filter, &page))
    }

    fn dead_letters(&self, filter: DeadLetterFilter, page: Page) -> Answer<'_, Found<BuriedLetter>> {
        self.read_for_people(move |connection| dead_letters::page(connection, &filter, &page))
    }

    fn nameless_dead_letters(&self, at_most: usize) -> Answer<'_, usize> {
        self.read_for_people(move |connection| dead_letters::nameless(connection, at_most))
    }

    fn dead_letter(&self, id: CallbackId) -> Answer<'_, Option<BuriedLetter>> {
        self.read_for_people(move |connection| dead_letters::one(connection, id))
    }

    fn offsets(&self) -> Answer<'_, Vec<PartitionOffsets>> {
        self.read_for_people(offsets)
    }

    fn queues(&self, ask: QueueAsk) -> Answer<'_, Vec<QueueRow>> {
        self.read_for_people(move |connection| queues::list(connection, &ask))
    }

    fn instances(&self, at_most: usize) -> Answer<'_, Vec<InstanceRow>> {
        self.read_for_people(move |connection| {
            let sql = "SELECT id, coalesce(run, CAST(id AS TEXT)), name, host, version,
                              (SELECT count(*) FROM partition_offsets WHERE owner = instance.id), started_at, heartbeat, clean
                       FROM instance ORDER BY id DESC LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([at_most], |row| {
                Ok(InstanceRow {
                    id: row.get(0)?,
                    run: row.get(1)?,
                    name: row.get(2)?,
                    host: row.get(3)?,
                    version: row.get(4)?,
                    partitions: row.get(5)?,
                    started_at: Timestamp::from_millis(row.get(6)?),
                    seen_at: Timestamp::from_millis(row.get(7)?),
                    end: match row.get(8)? {
                        0 => None,
                        1 => Some(InstanceEnd::Clean),
                        _ => Some(InstanceEnd::Died),
                    },
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn backlog(&self) -> Answer<'_, (u64, Option<Timestamp>)> {
        self.read_for_people(backlog)
    }

    fn counts(&self) -> Answer<'_, (Counts, Timestamp)> {
        self.read_for_people(counts)
    }

    fn totals(&self) -> Answer<'_, Totals> {
        self.read_for_people(totals)
    }
}

/// The ids of callbacks that match, by the index that fits the filter best.
fn find(connection: &Connection, filter: &CallbackFilter, page: &Page) -> Result<Found<CallbackId>, SqliteError> {
    let queues = filter.queues.as_ref().map(|queues| scan::queue_numbers(connection, queues)).transpose()?;
    match walks(filter, queues.as_ref(), page.before) {
        Some(walks) => failed_between::scan(connection, filter, queues.as_ref(), page, &walks),
        None => scan::scan(connection, filter, queues.as_ref(), page),
    }
}

fn callbacks(
    connection: &Connection,
    filter: &CallbackFilter,
    page: &Page,
) -> Result<Found<(CallbackId, Rows)>, SqliteError> {
    let found = find(connection, filter, page)?;
    let mut ids = IdCache::default();
    let mut docs = Vec::with_capacity(found.docs.len());
    for id in found.docs {
        match rows::load(connection, &mut ids, id) {
            Ok(rows) => docs.push((id, rows)),
            Err(SqliteError::Corrupt(what)) => {
                tracing::error!(callback = %id, what, "a row can't be read; the others are listed");
            }
            Err(other) => return Err(other),
        }
    }
    Ok(Found { docs, next: found.next })
}

fn counts(connection: &Connection) -> Result<(Counts, Timestamp), SqliteError> {
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Counts> {
        Ok(Counts { delivered: row.get(0)?, exhausted: row.get(1)?, abandoned: row.get(2)?, dead_letters: row.get(3)? })
    };
    let of_instances = connection
        .prepare_cached(
            "SELECT coalesce(sum(delivered), 0), coalesce(sum(exhausted), 0), coalesce(sum(abandoned), 0),
                    coalesce(sum(dead_letters), 0) FROM instance",
        )?
        .query_row([], read)?;
    let (earlier, since) = connection
        .prepare_cached("SELECT delivered, exhausted, abandoned, dead_letters, counted_since FROM store")?
        .query_row([], |row| Ok((read(row)?, Timestamp::from_millis(row.get(4)?))))?;
    Ok((of_instances.and(earlier), since))
}

fn totals(connection: &Connection) -> Result<Totals, SqliteError> {
    let (pending, oldest_due) = backlog(connection)?;
    let settled = connection
        .prepare("SELECT state, reason, count(*) FROM settled GROUP BY state, reason ORDER BY state, reason")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Totals { pending, oldest_due, settled, dead_letters: dead_letters::counts(connection)? })
}

fn offsets(connection: &Connection) -> Result<Vec<PartitionOffsets>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT cluster, topic, partition, epoch, owner, moved_at, watermark, seen_upto, last_off, last_hash
         FROM partition_offsets ORDER BY cluster, topic, partition",
    )?;
    let rows = statement.query_map([], |row| {
        let (cluster, topic): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(PartitionOffsets {
            partition: PartitionKey { cluster: cluster.into(), topic: topic.into(), number: row.get(2)? },
            epoch: row.get(3)?,
            owner: row.get(4)?,
            moved_at: Timestamp::from_millis(row.get(5)?),
            watermark: partition_offsets::watermark(row, 6)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn backlog(connection: &Connection) -> Result<(u64, Option<Timestamp>), SqliteError> {
    let pending = connection.prepare_cached("SELECT count(*) FROM pending")?.query_row([], |row| row.get(0))?;
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT min(due) FROM pending WHERE token IS NULL")?
        .query_row([], |row| row.get(0))?;
    Ok((pending, oldest.map(Timestamp::from_millis)))
}
