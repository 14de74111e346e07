//! An operator's changes of callbacks.

use rusqlite::Connection;

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::moves::Moves;
use super::{kept, outbox, rows};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment, amend as decide};
use crate::model::callback::CallbackId;
use crate::model::keeping::Keeping;
use crate::model::notice::{Notice, Notices};
use crate::model::settlement::Settled;

pub(super) fn amend(
    connection: &Connection,
    ids: &mut IdCache,
    follows: (Keeping, Notices),
    changes: &[(CallbackId, Amendment)],
    now: Timestamp,
) -> Result<Vec<Amended>, SqliteError> {
    let mut amending = Amending::new(connection, ids, follows, now);
    let amended = changes.iter().map(|(id, amendment)| amending.amend(*id, amendment)).collect::<Result<_, _>>()?;
    amending.finish()?;
    Ok(amended)
}

/// The changes of one transaction.
pub(super) struct Amending<'a> {
    connection: &'a Connection,
    ids: &'a mut IdCache,
    keeping: Keeping,
    notices: Notices,
    /// What this transaction has to tell.
    told: Vec<Notice>,
    now: Timestamp,
    moves: Moves,
}

impl<'a> Amending<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        ids: &'a mut IdCache,
        (keeping, notices): (Keeping, Notices),
        now: Timestamp,
    ) -> Self {
        Self { connection, ids, keeping, notices, told: Vec::new(), now, moves: Moves::default() }
    }

    /// Changes one callback.
    pub(super) fn amend(&mut self, id: CallbackId, amendment: &Amendment) -> Result<Amended, SqliteError> {
        let (connection, now) = (self.connection, self.now);
        let before = match rows::load(connection, self.ids, id) {
            Ok(rows) => rows,
            Err(SqliteError::Corrupt(what)) => {
                tracing::error!(callback = %id, what, "a row can't be read; it is left alone");
                return Ok(Amended::Unknown);
            }
            Err(other) => return Err(other),
        };
        let (after, amended) = decide(&before, amendment, now);
        if amended != Amended::Changed {
            return Ok(amended);
        }
        let body = match amendment {
            Amendment::Resend(resend) => resend.body.to_vec(),
            Amendment::RetryNow => Vec::new(),
            Amendment::Cancel(_) => kept::body(connection, id)?.unwrap_or_default(),
        };
        match (&before.settled, &after.settled) {
            (Some(was), Some(row)) if Settled { round: row.round, ..was.clone() } == *row => {
                rows::set_round(connection, row)?;
            }
            (was, Some(row)) if was.as_ref() != Some(row) => {
                rows::replace_settled(connection, self.ids, (was.as_ref(), row), now)?;
            }
            _ => {}
        }
        if before.settled.is_none() && after.settled.is_some() {
            // It is counted with the store, because it belongs to no instance's batch.
            connection.prepare_cached("UPDATE store SET abandoned = abandoned + 1")?.execute([])?;
        }
        // A void row makes way for the row of a round, with its body.
        let void = before.pending.as_ref().filter(|_| before.live().is_none());
        if void.is_some() {
            self.moves.follow(connection, self.ids, (void, None), &[], now)?;
        }
        self.moves.follow(connection, self.ids, (before.live(), after.pending.as_ref()), &body, now)?;
        kept::follow(connection, self.keeping, id, (&before, &after), &body)?;
        self.told.extend(self.notices.of(id, &before, &after));
        Ok(amended)
    }

    /// The queues follow, and what there is to tell is written.
    pub(super) fn finish(self) -> Result<(), SqliteError> {
        outbox::insert(self.connection, &self.told)?;
        self.moves.raise_queues(self.connection)
    }
}
