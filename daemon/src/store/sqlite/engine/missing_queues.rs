//! Queues that pending rows name and that have no row. Nothing would ever claim from them. No write should leave such rows behind, but a
//! mistake may, or a repair by hand, and `store verify` only tells of them.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use crate::base::clock::Timestamp;
use crate::model::endpoint::QueueKey;
use crate::model::team::Mode;
use crate::store::QueueOf;

/// So many queues are made at once, and so many rows of each are moved. The next sweep goes on.
const AT_ONCE: i64 = 100;
const ROWS: i64 = 10_000;

/// Their numbers, as pending rows name them.
pub(super) fn look(connection: &Connection) -> Result<Vec<i64>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT queue FROM pending WHERE NOT EXISTS (SELECT 1 FROM queue WHERE queue.id = pending.queue) LIMIT ?1",
    )?;
    let numbers = statement.query_map([AT_ONCE], |row| row.get(0))?;
    Ok(numbers.collect::<rusqlite::Result<_>>()?)
}

/// Makes the rows of these queues again. A queue that was made anew meanwhile has another number, and its rows are moved there.
pub(super) fn repair(
    connection: &Connection,
    ids: &mut IdCache,
    missing: &[i64],
    queue_of: QueueOf,
    now: Timestamp,
) -> Result<(), SqliteError> {
    for named in missing.iter().copied() {
        let Some(key) = key(connection, named, queue_of)? else { continue };
        let (team, target) = (&*key.team, key.target.name());
        connection
            .prepare_cached(
                "INSERT INTO queue (id, team, target, used_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            )?
            .execute(params![named, team, target, now.millis()])?;
        let number: Option<i64> = connection
            .prepare_cached("SELECT id FROM queue WHERE team = ?1 AND target = ?2")?
            .query_row(params![team, target], |row| row.get(0))
            .optional()?;
        let Some(number) = number else { continue };
        if number != named {
            connection
                .prepare_cached(
                    "UPDATE pending SET queue = ?2 WHERE id IN (SELECT id FROM pending WHERE queue = ?1 LIMIT ?3)",
                )?
                .execute([named, number, ROWS])?;
        }
        count(connection, number)?;
        tracing::warn!(queue = named, number, team, endpoint = %target, "callbacks waited in a queue without a row");
    }
    ids.forget_queues();
    Ok(())
}

/// Which queue it is follows from any pending row, as when the callback was read.
fn key(connection: &Connection, named: i64, queue_of: QueueOf) -> Result<Option<QueueKey>, SqliteError> {
    let found: Option<(String, Option<Vec<u8>>, bool)> = connection
        .prepare_cached("SELECT team, url, test FROM pending WHERE queue = ?1 LIMIT 1")?
        .query_row([named], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(found.map(|(team, url, is_test)| {
        let url = url.as_deref().map(String::from_utf8_lossy);
        queue_of(&team.into(), url.as_deref(), if is_test { Mode::Test } else { Mode::Live })
    }))
}

fn count(connection: &Connection, queue: i64) -> Result<(), SqliteError> {
    connection
        .prepare_cached(
            "UPDATE queue SET
                 next_at = (SELECT min(due) FROM pending WHERE pending.queue = ?1 AND token IS NULL),
                 parked_bytes = (SELECT coalesce(sum((SELECT length(bytes) FROM body WHERE body.id = pending.id)), 0)
                                 FROM pending WHERE pending.queue = ?1)
             WHERE id = ?1",
        )?
        .execute([queue])?;
    Ok(())
}
