//! The begin and end of an instance, and the repair of queues, leases and times.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use crate::base::clock::Timestamp;
use crate::model::endpoint::QueueKey;
use crate::store::engine::{VERSION, host, new_run};
use crate::store::{Begun, InstanceId, SetBack, Space, SpaceAsk, endpoint_histories};

/// One process at a time holds a SQLite store, so every lease of an earlier instance is void when one begins.
pub(super) fn begin(connection: &Connection, name: Option<&str>, now: Timestamp) -> Result<Begun, SqliteError> {
    let store_id: String = connection.query_row("SELECT id FROM store", [], |row| row.get(0))?;
    let unclean = close_earlier(connection)?;
    let earlier_runs = connection
        .prepare("SELECT run FROM instance WHERE run IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let run = new_run(now);
    connection.execute(
        "INSERT INTO instance (batch, heartbeat, started_at, clean, run, name, host, version)
         VALUES (0, ?1, ?1, 0, ?2, ?3, ?4, ?5)",
        params![now.millis(), run, name, host(), VERSION],
    )?;
    let instance = InstanceId(connection.last_insert_rowid());
    Ok(Begun { instance, store_id, run, earlier_runs, unclean, now })
}

/// Ends what earlier instances have left: their leases and partitions are free. True if the last one did not end cleanly.
pub(in crate::store::sqlite) fn close_earlier(connection: &Connection) -> Result<bool, SqliteError> {
    let unclean: bool =
        connection.query_row("SELECT EXISTS (SELECT 1 FROM instance WHERE clean = 0)", [], |row| row.get(0))?;
    // clean is 0 while an instance runs, 1 when it ended cleanly, 2 when its successor found that it did not.
    connection.execute("UPDATE instance SET clean = 2 WHERE clean = 0", [])?;
    // Earlier instances are kept for the record, the last hundred of them.
    connection.execute_batch(
        "UPDATE store SET (delivered, exhausted, abandoned, dead_letters) = (
             SELECT store.delivered + coalesce(sum(instance.delivered), 0),
                    store.exhausted + coalesce(sum(instance.exhausted), 0),
                    store.abandoned + coalesce(sum(instance.abandoned), 0),
                    store.dead_letters + coalesce(sum(instance.dead_letters), 0)
             FROM instance WHERE instance.id <= (SELECT max(id) - 100 FROM instance))",
    )?;
    connection.execute("DELETE FROM instance WHERE id <= (SELECT max(id) - 100 FROM instance)", [])?;
    // Whoever owns a partition at this point has died. A watermark that moved since says that it was not the record above it.
    connection.execute(
        "UPDATE partition_offsets SET deaths = CASE WHEN taken_upto = watermark THEN deaths + 1 ELSE 1 END, owner = NULL
         WHERE owner IS NOT NULL",
        [],
    )?;
    void_leases(connection, i64::MAX)?;
    Ok(unclean)
}

pub(super) fn space(connection: &Connection, directory: &Path, ask: SpaceAsk) -> Result<Space, SqliteError> {
    let parked_bytes = connection
        .prepare_cached("SELECT coalesce(sum(parked_bytes), 0) FROM queue WHERE parked_bytes > 0")?
        .query_row([], |row| row.get(0))?;
    let kept_bytes = connection.prepare_cached("SELECT kept_bytes FROM store")?.query_row([], |row| row.get(0))?;
    let notices =
        connection.prepare_cached("SELECT coalesce(sum(notices), 0) FROM outbox")?.query_row([], |row| row.get(0))?;
    let full_queues = connection
        .prepare_cached("SELECT team, target FROM queue WHERE parked_bytes > ?1 ORDER BY parked_bytes DESC LIMIT 1000")?
        .query_map([ask.queue_bytes], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    let pending = match ask.count_pending_upto {
        0 => None,
        upto => connection
            .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM pending LIMIT ?1)")?
            .query_row([upto], |row| row.get(0))?,
    };
    let full_queues = full_queues.into_iter().filter_map(|(team, target)| QueueKey::read(&team, &target)).collect();
    Ok(Space { parked_bytes, kept_bytes, notices, free_bytes: free_bytes(directory), full_queues, pending })
}

/// What the disk has left.
pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

pub(super) fn newest_time(connection: &Connection) -> Result<Option<Timestamp>, SqliteError> {
    let newest: Option<i64> = connection.query_row("SELECT max(heartbeat) FROM instance", [], |row| row.get(0))?;
    Ok(newest.map(Timestamp::from_millis))
}

/// A row that was written while the clock was ahead has its times ahead by as much. Rows that were due that late for another
/// reason come earlier than planned.
pub(super) fn set_back(connection: &Connection, back: &SetBack) -> Result<usize, SqliteError> {
    let (by, now) = (i64::try_from(back.by.as_millis()).unwrap_or(i64::MAX), back.now.millis());
    let from = back.from.millis();
    connection.execute("UPDATE instance SET heartbeat = ?1 WHERE heartbeat > ?1", [now])?;
    connection.execute("UPDATE instance SET started_at = ?1 WHERE started_at > ?1", [now])?;
    connection.execute("UPDATE partition_offsets SET moved_at = ?1 WHERE moved_at > ?1", [now])?;
    connection.execute(&endpoint_histories::set_back("?1"), [now])?;
    let rows = connection.execute(
        "UPDATE pending SET due = CASE WHEN due >= ?2 THEN due - ?1 ELSE due END,
                            lease_until = CASE WHEN lease_until >= ?2 THEN lease_until - ?1 ELSE lease_until END,
                            since = CASE WHEN since > ?3 THEN since - ?1 ELSE since END,
                            horizon = CASE WHEN since > ?3 THEN horizon - ?1 ELSE horizon END
         WHERE due >= ?2 OR lease_until >= ?2 OR since > ?3",
        [by, from, now],
    )?;
    connection.execute("UPDATE queue SET next_at = next_at - ?1 WHERE next_at >= ?2", [by, from])?;
    Ok(rows)
}

pub(super) fn has_ended_leases(connection: &Connection, now: Timestamp) -> Result<bool, SqliteError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pending WHERE token IS NOT NULL AND lease_until <= ?1)";
    Ok(connection.prepare_cached(sql)?.query_row([now.millis()], |row| row.get(0))?)
}

/// Frees the leases that end until then.
pub(super) fn void_leases(connection: &Connection, until: i64) -> Result<usize, SqliteError> {
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
    connection.execute("UPDATE partition_offsets SET owner = NULL, deaths = 0 WHERE owner = ?1", [instance.0])?;
    Ok(())
}

/// Repairs the queues in `found`, which a reader has just read: a next time that is missing or too late is set. One that is
/// too early does no harm; the next claim corrects it.
pub(super) fn repair(connection: &Connection, found: &[QueueSeen]) -> Result<(), SqliteError> {
    let mut repair = connection.prepare_cached(
        "UPDATE queue SET next_at = CASE WHEN ?2 IS NULL THEN next_at ELSE min(coalesce(next_at, ?2), ?2) END,
                          parked_bytes = max(0, parked_bytes + ?3) WHERE id = ?1",
    )?;
    for seen in found {
        repair.execute(params![seen.queue, seen.due, seen.bytes])?;
    }
    Ok(())
}

/// A queue whose row does not agree with its pending rows.
pub(super) struct QueueSeen {
    queue: i64,
    due: Option<i64>,
    /// What its sum of bytes lacks. It is as true later: whoever parks or ends rows changes the sum by as much.
    bytes: i64,
}

/// The sums of the pending rows beside what the queues say. A join with the bodies would be sorted by queue with all
/// bodies in it.
pub(super) const QUEUES_SEEN: &str =
    "SELECT queue.id, seen.due, coalesce(seen.bytes, 0) - queue.parked_bytes FROM queue LEFT JOIN (
         SELECT queue, min(CASE WHEN token IS NULL THEN due END) AS due,
                sum((SELECT length(bytes) FROM body WHERE body.id = pending.id)) AS bytes
         FROM pending GROUP BY queue
     ) AS seen ON seen.queue = queue.id
     WHERE queue.parked_bytes <> coalesce(seen.bytes, 0)
        OR (seen.due IS NOT NULL AND (queue.next_at IS NULL OR queue.next_at > seen.due))";

/// One pass over the pending rows, on a reading connection, bounded in time like every read.
pub(super) fn look_at_queues(connection: &Connection) -> Result<Vec<QueueSeen>, SqliteError> {
    let mut statement = connection.prepare_cached(QUEUES_SEEN)?;
    let rows =
        statement.query_map([], |row| Ok(QueueSeen { queue: row.get(0)?, due: row.get(1)?, bytes: row.get(2)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Makes rows of a queue due now that wait for a later time, the earliest first.
pub(super) fn retry_queue(
    connection: &Connection,
    queue: &QueueKey,
    at_most: usize,
    now: Timestamp,
) -> Result<usize, SqliteError> {
    let number: Option<i64> = connection
        .prepare_cached("SELECT id FROM queue WHERE team = ?1 AND target = ?2")?
        .query_row(params![&*queue.team, queue.target.name()], |row| row.get(0))
        .optional()?;
    let Some(number) = number else { return Ok(0) };
    let changed = connection
        .prepare_cached(
            "UPDATE pending SET due = ?2 WHERE id IN (
                 SELECT id FROM pending WHERE queue = ?1 AND token IS NULL AND due > ?2 ORDER BY due LIMIT ?3)",
        )?
        .execute(params![number, now.millis(), i64::try_from(at_most).unwrap_or(i64::MAX)])?;
    if changed > 0 {
        connection
            .prepare_cached("UPDATE queue SET next_at = min(coalesce(next_at, ?2), ?2) WHERE id = ?1")?
            .execute(params![number, now.millis()])?;
    }
    Ok(changed)
}
