//! The begin and end of an instance, the repair of queues and leases, and pruning.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use super::dead_letters;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::store::{Begun, InstanceId, PruneAsk, Pruned};

/// One process at a time holds a SQLite store, so every lease of an earlier instance is void when one begins.
pub(super) fn begin(connection: &Connection, now: Timestamp) -> Result<Begun, SqliteError> {
    let store_id: String = connection.query_row("SELECT id FROM store", [], |row| row.get(0))?;
    let unclean: bool =
        connection.query_row("SELECT EXISTS (SELECT 1 FROM instance WHERE clean = 0)", [], |row| row.get(0))?;
    // clean is 0 while an instance runs, 1 when it ended cleanly, 2 when its successor found that it did not.
    connection.execute("UPDATE instance SET clean = 2 WHERE clean = 0", [])?;
    // Earlier instances are kept for the record, the last hundred of them.
    connection.execute("DELETE FROM instance WHERE id <= (SELECT max(id) - 100 FROM instance)", [])?;
    connection.execute("UPDATE partition_offsets SET owner = NULL", [])?;
    void_leases(connection, i64::MAX)?;
    connection
        .execute("INSERT INTO instance (batch, heartbeat, started_at, clean) VALUES (0, ?1, ?1, 0)", [now.millis()])?;
    let instance = InstanceId(connection.last_insert_rowid());
    Ok(Begun { instance, store_id, unclean, now })
}

fn void_leases(connection: &Connection, until: i64) -> Result<usize, SqliteError> {
    connection.execute(
        "UPDATE queue SET next_at = min(coalesce(next_at, 0), 0) WHERE id IN
             (SELECT queue FROM pending WHERE token IS NOT NULL AND lease_until <= ?1)",
        [until],
    )?;
    let voided = connection.execute(
        "UPDATE pending SET token = NULL, lease_until = NULL WHERE token IS NOT NULL AND lease_until <= ?1",
        [until],
    )?;
    Ok(voided)
}

pub(super) fn end(connection: &Connection, instance: InstanceId) -> Result<(), SqliteError> {
    connection.execute("UPDATE instance SET clean = 1 WHERE id = ?1", [instance.0])?;
    connection.execute("UPDATE partition_offsets SET owner = NULL WHERE owner = ?1", [instance.0])?;
    Ok(())
}

/// Frees leases that ran out, and repairs the queues in `found`, which a reader has just read: a next time that is
/// missing or too late is set. One that is too early does no harm; the next claim corrects it.
pub(super) fn sweep(connection: &Connection, now: Timestamp, found: &[QueueSeen]) -> Result<usize, SqliteError> {
    let expired = void_leases(connection, now.millis())?;
    let mut repair = connection.prepare_cached(
        "UPDATE queue SET next_at = CASE WHEN ?2 IS NULL THEN next_at ELSE min(coalesce(next_at, ?2), ?2) END,
                          parked_bytes = ?3 WHERE id = ?1",
    )?;
    for seen in found {
        repair.execute(params![seen.queue, seen.due, seen.bytes])?;
    }
    Ok(expired)
}

/// A queue whose row does not agree with its pending rows.
pub(super) struct QueueSeen {
    queue: i64,
    due: Option<i64>,
    bytes: i64,
}

/// One pass over the pending rows, on a reading connection, bounded in time like every read.
pub(super) fn look_at_queues(connection: &Connection) -> Result<Vec<QueueSeen>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT queue.id, seen.due, coalesce(seen.bytes, 0) FROM queue LEFT JOIN (
             SELECT queue, min(CASE WHEN token IS NULL THEN due END) AS due, sum(length(body.bytes)) AS bytes
             FROM pending LEFT JOIN body ON body.id = pending.id GROUP BY queue
         ) AS seen ON seen.queue = queue.id
         WHERE queue.parked_bytes <> coalesce(seen.bytes, 0)
            OR (seen.due IS NOT NULL AND (queue.next_at IS NULL OR queue.next_at > seen.due))",
    )?;
    let rows =
        statement.query_map([], |row| Ok(QueueSeen { queue: row.get(0)?, due: row.get(1)?, bytes: row.get(2)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Row 36, in pieces. A callback with a pending row stays, and so does one that settled since the cutoff.
pub(super) fn prune(connection: &Connection, ask: &PruneAsk) -> Result<Pruned, SqliteError> {
    let limit = i64::try_from(ask.at_most).unwrap_or(i64::MAX);
    let (settled, next) = prune_settled(connection, ask, limit)?;
    let dead_letters = dead_letters::prune(connection, ask.dead_letters_before, limit)?;
    let event_ids = connection
        .prepare_cached("DELETE FROM dedupe WHERE hash IN (SELECT hash FROM dedupe WHERE at < ?1 LIMIT ?2)")?
        .execute(params![ask.event_ids_before.millis(), limit])?;
    Ok(Pruned { settled, dead_letters, event_ids, next })
}

/// One piece: ids in order, after those of the last piece. Ids begin with the time of their event, and nothing settles
/// before its event, so ids from the cutoff on need no look.
fn prune_settled(
    connection: &Connection,
    ask: &PruneAsk,
    limit: i64,
) -> Result<(usize, Option<CallbackId>), SqliteError> {
    let after = ask.after.map_or([0; 16], |id| *id.as_bytes());
    let mut end = [0; 16];
    end[..6].copy_from_slice(&ask.settled_before.millis().max(0).to_be_bytes()[2..]);
    let last: Option<[u8; 16]> = connection
        .prepare_cached("SELECT id FROM settled WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT 1 OFFSET ?3")?
        .query_row(params![after, end, limit.saturating_sub(1).max(0)], |row| row.get(0))
        .optional()?;
    let upto = last.unwrap_or(end);
    let piece = "settled_at < ?1 AND id > ?2 AND id <= ?3
                 AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = settled.id)";
    let values = params![ask.settled_before.millis(), after, upto];
    connection
        .prepare_cached(&format!("DELETE FROM attempt WHERE id IN (SELECT id FROM settled WHERE {piece})"))?
        .execute(values)?;
    let settled = connection.prepare_cached(&format!("DELETE FROM settled WHERE {piece}"))?.execute(values)?;
    Ok((settled, last.map(CallbackId::from_bytes)))
}
