//! Row 36: what is older than it is to be kept is deleted, in pieces.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use super::super::id_cache::{IdCache, USE_NOTED};
use super::{dead_letters, endpoints, kept};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::store::{PruneAsk, Pruned};

/// A callback with a pending row stays, and so does one that settled since the cutoff.
pub(super) fn prune(connection: &Connection, ids: &mut IdCache, ask: &PruneAsk) -> Result<Pruned, SqliteError> {
    let limit = i64::try_from(ask.at_most).unwrap_or(i64::MAX);
    let (settled, next) = prune_settled(connection, ask, limit)?;
    let dead_letters = dead_letters::prune(connection, ask.dead_letters_before, limit)?;
    let event_ids = connection
        .prepare_cached("DELETE FROM dedupe WHERE hash IN (SELECT hash FROM dedupe WHERE at < ?1 LIMIT ?2)")?
        .execute(params![ask.event_ids_before.millis(), limit])?;
    // Settled rows name their queues, so queues go only after a whole pass over the settled rows.
    if next.is_none() {
        endpoints::prune(connection, ask.settled_before)?;
    }
    let queues = if next.is_none() { prune_queues(connection, ask, limit)? } else { 0 };
    if queues > 0 {
        ids.forget_queues();
    }
    Ok(Pruned { settled, dead_letters, event_ids, queues, more_days: false, next })
}

/// One piece: ids in order, after those of the last piece. Ids begin with the time of their event. Nothing settles
/// before its event, so ids from the cutoff on need no look, except those whose time lies ahead of now and is wrong.
fn prune_settled(
    connection: &Connection,
    ask: &PruneAsk,
    limit: i64,
) -> Result<(usize, Option<CallbackId>), SqliteError> {
    let mut settled = 0;
    let mut left = limit;
    let mut after = ask.after.map_or([0; 16], |id| *id.as_bytes());
    let ranges = [([0; 16], first_id(ask.settled_before)), (first_id(ask.now), [0xff; 16])];
    for (begin, end) in ranges {
        after = after.max(begin);
        if after >= end {
            continue;
        }
        let piece = Piece { settled_before: ask.settled_before, after, end };
        let (looked_at, last) = piece.bounds(connection, left)?;
        settled += piece.delete(connection, last.unwrap_or(end))?;
        if let Some(last) = last {
            return Ok((settled, Some(CallbackId::from_bytes(last))));
        }
        left -= looked_at;
    }
    Ok((settled, None))
}

/// The smallest id of events of this time.
fn first_id(at: Timestamp) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&at.millis().max(0).to_be_bytes()[2..]);
    id
}

struct Piece {
    settled_before: Timestamp,
    after: [u8; 16],
    end: [u8; 16],
}

impl Piece {
    /// How many rows the piece has, up to the limit, and the last of them if the limit ends it.
    fn bounds(&self, connection: &Connection, limit: i64) -> Result<(i64, Option<[u8; 16]>), SqliteError> {
        let last = connection
            .prepare_cached("SELECT id FROM settled WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT 1 OFFSET ?3")?
            .query_row(params![self.after, self.end, limit.saturating_sub(1).max(0)], |row| row.get(0))
            .optional()?;
        if last.is_some() {
            return Ok((limit, last));
        }
        let rows = connection
            .prepare_cached("SELECT count(*) FROM settled WHERE id > ?1 AND id < ?2")?
            .query_row(params![self.after, self.end], |row| row.get(0))?;
        Ok((rows, None))
    }

    fn delete(&self, connection: &Connection, upto: [u8; 16]) -> Result<usize, SqliteError> {
        let rows = "settled_at < ?1 AND id > ?2 AND id <= ?3
                    AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = settled.id)";
        let values = params![self.settled_before.millis(), self.after, upto];
        let mut kept = connection.prepare_cached(&format!(
            "DELETE FROM kept_body WHERE id IN (SELECT id FROM settled WHERE {rows}) RETURNING length(bytes)"
        ))?;
        let freed = kept.query_map(values, |row| row.get::<_, i64>(0))?.sum::<rusqlite::Result<i64>>()?;
        if freed > 0 {
            kept::count(connection, -freed)?;
        }
        connection
            .prepare_cached(&format!("DELETE FROM attempt WHERE id IN (SELECT id FROM settled WHERE {rows})"))?
            .execute(values)?;
        Ok(connection.prepare_cached(&format!("DELETE FROM settled WHERE {rows}"))?.execute(values)?)
    }
}

/// Queues whose last use is older than every settled row but those with an open round, and that have no pending row.
fn prune_queues(connection: &Connection, ask: &PruneAsk, limit: i64) -> Result<usize, SqliteError> {
    let unused_since = ask.settled_before.minus(USE_NOTED);
    let queues = connection
        .prepare_cached(
            "DELETE FROM queue WHERE id IN (
                 SELECT id FROM queue
                 WHERE used_at < ?1 AND next_at IS NULL AND paused = 0 AND rest_until <= ?2
                   AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.queue = queue.id AND token IS NULL)
                   AND id NOT IN (SELECT queue FROM pending WHERE token IS NOT NULL)
                   AND id NOT IN (SELECT settled.queue FROM pending JOIN settled ON settled.id = pending.id
                                  WHERE pending.round > 0)
                 LIMIT ?3)",
        )?
        .execute(params![unused_since.millis(), ask.now.millis(), limit])?;
    Ok(queues)
}
