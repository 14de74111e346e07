//! Pending rows with their bodies, as they come, change and go, and what that means for their queues.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::rows;
use crate::base::clock::Timestamp;
use crate::model::settlement::Pending;
use crate::store::queue_changes::QueueChanges;

/// What a transaction has changed so far.
#[derive(Default)]
pub(super) struct Moves {
    queues: QueueChanges,
}

impl Moves {
    /// Writes what became of a pending row. `body` is that of a new one.
    pub(super) fn follow(
        &mut self,
        connection: &Connection,
        ids: &mut IdCache,
        (before, after): (Option<&Pending>, Option<&Pending>),
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), SqliteError> {
        match (before, after) {
            (Some(before), None) => {
                let id = before.facts.id;
                let queue = ids.queue_number(connection, &before.facts.queue, now)?;
                connection.prepare_cached("DELETE FROM pending WHERE id = ?1")?.execute([id.as_bytes()])?;
                let freed: Option<i64> = connection
                    .prepare_cached("DELETE FROM body WHERE id = ?1 RETURNING length(bytes)")?
                    .query_row([id.as_bytes()], |row| row.get(0))
                    .optional()?;
                self.queues.note(queue, None, freed.unwrap_or(0).saturating_neg());
            }
            (before, Some(after)) if before != Some(after) => {
                let id = after.facts.id;
                let queue = rows::replace_pending(connection, ids, after, now)?;
                let mut added = 0;
                if before.is_none() {
                    connection
                        .prepare_cached("INSERT INTO body (id, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
                        .execute(params![id.as_bytes(), body])?;
                    added = i64::try_from(body.len()).unwrap_or(i64::MAX);
                }
                let due = after.token.is_none().then_some(after.due.millis());
                self.queues.note(queue, due, added);
            }
            _ => {}
        }
        Ok(())
    }

    /// The queues' rows follow.
    pub(super) fn raise_queues(self, connection: &Connection) -> Result<(), SqliteError> {
        let mut statement = connection.prepare_cached(
            "UPDATE queue SET next_at = CASE WHEN ?2 IS NULL THEN next_at ELSE min(coalesce(next_at, ?2), ?2) END,
                              parked_bytes = max(0, parked_bytes + ?3) WHERE id = ?1",
        )?;
        for (queue, due, bytes) in self.queues.iter() {
            statement.execute(params![queue, due, bytes])?;
        }
        Ok(())
    }
}
