//! Partitions: their epochs and how far they have come.

use rusqlite::{Connection, OptionalExtension, params};

use super::Failure;
use super::rows::Books;
use crate::base::clock::Timestamp;
use crate::model::event::SourceKey;
use crate::model::offsets::Reached;
use crate::store::{Mark, ProcessId, Taken};

/// Where a partition starts that starts anew.
pub(super) struct Anew {
    pub(super) start: i64,
    pub(super) log_end: i64,
    pub(super) accepted: Option<String>,
}

pub(super) fn epoch(connection: &Connection, key: &SourceKey) -> Result<Option<i64>, Failure> {
    Ok(connection
        .prepare_cached("SELECT epoch FROM source WHERE cluster = ?1 AND topic = ?2 AND partition = ?3")?
        .query_row(params![&*key.cluster, &*key.topic, key.partition], |row| row.get(0))
        .optional()?)
}

/// Rows 34 and 37: the next epoch is ours.
pub(super) fn take(
    connection: &Connection,
    books: &mut Books,
    process: ProcessId,
    key: &SourceKey,
    anew: Option<&Anew>,
    now: Timestamp,
) -> Result<Taken, Failure> {
    connection
        .prepare_cached(
            "INSERT INTO source (cluster, topic, partition, done_upto, seen_upto, epoch, moved_at)
             VALUES (?1, ?2, ?3, 0, 0, 0, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute(params![&*key.cluster, &*key.topic, key.partition, now.millis()])?;
    let number = books.source_number(connection, key)?.ok_or(Failure::Corrupt("a source that was just made"))?;
    connection
        .prepare_cached("UPDATE source SET epoch = epoch + 1, owner = ?2 WHERE id = ?1")?
        .execute(params![number, process.0])?;
    if let Some(anew) = anew {
        connection
            .prepare_cached(
                "UPDATE source SET done_upto = ?2, seen_upto = ?3, last_off = NULL, last_hash = NULL,
                                   accepted = coalesce(?4, accepted), moved_at = ?5 WHERE id = ?1",
            )?
            .execute(params![number, anew.start, anew.log_end, anew.accepted, now.millis()])?;
    }
    let taken = connection
        .prepare_cached("SELECT epoch, done_upto, seen_upto, last_off, last_hash, accepted FROM source WHERE id = ?1")?
        .query_row([number], |row| {
            let (reached, accepted) = (reached(row, 1)?, row.get::<_, Option<String>>(5)?);
            let fresh = reached.done_upto == 0 && reached.seen_upto == 0 && accepted.is_none();
            Ok(Taken { epoch: row.get(0)?, reached, fresh, accepted })
        })?;
    Ok(taken)
}

/// Four columns from `first`: done_upto, seen_upto, last_off, last_hash.
pub(super) fn reached(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Reached> {
    let last_off: Option<i64> = row.get(first + 2)?;
    let last_hash: Option<[u8; 32]> = row.get(first + 3)?;
    Ok(Reached { done_upto: row.get(first)?, seen_upto: row.get(first + 1)?, last: last_off.zip(last_hash) })
}

/// Raises a watermark, never lowers it.
pub(super) fn raise(connection: &Connection, books: &mut Books, mark: &Mark, now: Timestamp) -> Result<(), Failure> {
    let number =
        books.source_number(connection, &mark.source)?.ok_or(Failure::Corrupt("a source that had an epoch"))?;
    connection
        .prepare_cached(
            "UPDATE source SET done_upto = ?2, seen_upto = max(seen_upto, ?3), last_off = ?4, last_hash = ?5, moved_at = ?6
             WHERE id = ?1 AND done_upto <= ?2",
        )?
        .execute(params![
            number,
            mark.reached.done_upto,
            mark.reached.seen_upto,
            mark.reached.last.map(|(offset, _)| offset),
            mark.reached.last.map(|(_, hash)| hash),
            now.millis(),
        ])?;
    Ok(())
}
