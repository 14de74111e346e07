//! An operator's change of one callback.

use rusqlite::Connection;

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::moves::Moves;
use super::{kept, rows};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment, amend as decide};
use crate::model::callback::CallbackId;
use crate::model::keeping::Keeping;

pub(super) fn amend(
    connection: &Connection,
    ids: &mut IdCache,
    keeping: Keeping,
    id: CallbackId,
    amendment: &Amendment,
    now: Timestamp,
) -> Result<Amended, SqliteError> {
    let before = rows::load(connection, ids, id)?;
    let (after, amended) = decide(&before, amendment, now);
    if amended != Amended::Changed {
        return Ok(amended);
    }
    let body = match amendment {
        Amendment::Resend(resend) => resend.body.to_vec(),
        Amendment::RetryNow => Vec::new(),
        Amendment::Cancel => kept::body(connection, id)?.unwrap_or_default(),
    };
    if let Some(settled) = after.settled.as_ref().filter(|row| Some(*row) != before.settled.as_ref()) {
        rows::replace_settled(connection, ids, settled, now)?;
    }
    if before.settled.is_none() && after.settled.is_some() {
        // It is counted with the store, because it belongs to no instance's batch.
        connection.prepare_cached("UPDATE store SET abandoned = abandoned + 1")?.execute([])?;
    }
    let mut moves = Moves::default();
    // A void row makes way for the row of a round, with its body.
    let void = before.pending.as_ref().filter(|_| before.live().is_none());
    if void.is_some() {
        moves.follow(connection, ids, (void, None), &[], now)?;
    }
    moves.follow(connection, ids, (before.live(), after.pending.as_ref()), &body, now)?;
    moves.raise_queues(connection)?;
    kept::follow(connection, keeping, id, (&before, &after), &body)?;
    Ok(amended)
}
