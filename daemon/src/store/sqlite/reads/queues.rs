//! Reads of the `queue` table with what waits in each queue.

use rusqlite::{Connection, params};

use super::super::error::SqliteError;
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::store::reads::{QueueAsk, QueueRow, Queues};

/// Queues whose rows say that a callback of theirs waits or is under way.
pub(super) fn list(connection: &Connection, ask: &QueueAsk) -> Result<Vec<QueueRow>, SqliteError> {
    let sql = |condition: &str| {
        format!(
            "SELECT queue.team, target, parked_bytes,
                    (SELECT count(*) FROM (
                         SELECT 1 FROM pending WHERE pending.queue = queue.id AND token IS NULL LIMIT ?1)),
                    first.due, first.last_outcome, first.tries
             FROM queue LEFT JOIN pending AS first ON first.id =
                 (SELECT id FROM pending WHERE pending.queue = queue.id AND token IS NULL ORDER BY due LIMIT 1)
             WHERE (next_at IS NOT NULL OR parked_bytes > 0) AND {condition}"
        )
    };
    let read = |row: &rusqlite::Row<'_>| {
        Ok(QueueRow {
            team: row.get(0)?,
            target: row.get(1)?,
            parked_bytes: row.get(2)?,
            pending: row.get(3)?,
            oldest_due: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
            last_outcome: row.get::<_, Option<String>>(5)?.and_then(|name| Outcome::parse(&name)),
            tries: row.get::<_, Option<u32>>(6)?.unwrap_or(0),
        })
    };
    let count = ask.count_upto;
    let mut found = Vec::new();
    match &ask.which {
        Queues::From { team, at_most } => {
            let mut statement =
                connection.prepare_cached(&sql("queue.team >= ?2 ORDER BY queue.team, target LIMIT ?3"))?;
            let rows = statement.query_map(params![count, team.as_deref().unwrap_or_default(), at_most], read)?;
            found.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Queues::Of(team) => {
            let mut statement = connection.prepare_cached(&sql("queue.team = ?2 ORDER BY target LIMIT 20000"))?;
            found.extend(statement.query_map(params![count, team], read)?.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Queues::These(queues) => {
            let mut statement = connection.prepare_cached(&sql("queue.team = ?2 AND target = ?3"))?;
            for (team, target) in queues {
                let rows = statement.query_map(params![count, team, target], read)?;
                found.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
            }
        }
    }
    Ok(found)
}
