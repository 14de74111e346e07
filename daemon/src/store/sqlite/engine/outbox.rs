//! The outbox on SQLite. One process holds the store, so every row is its own.

use rusqlite::{Connection, params};

use super::super::connection::SqliteStore;
use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::rows;
use crate::model::callback::CallbackId;
use crate::model::notice::Notice;
use crate::model::settlement::Settled;
use crate::store::outbox::{Outbox, OutboxRow, pack, unpack};
use crate::store::{Answer, InstanceId};

/// Writes what a transaction has to tell.
pub(super) fn insert(connection: &Connection, notices: &[Notice]) -> Result<(), SqliteError> {
    if notices.is_empty() {
        return Ok(());
    }
    connection
        .prepare_cached("INSERT INTO outbox (notices, entries) VALUES (?1, ?2)")?
        .execute(params![notices.len(), pack(notices)])?;
    Ok(())
}

impl Outbox for SqliteStore {
    fn outbox(&self, _: InstanceId, at_most: usize) -> Answer<'_, Vec<OutboxRow>> {
        Box::pin(async move {
            let read = move |connection: &Connection| {
                let rows = connection
                    .prepare_cached("SELECT id, entries FROM outbox ORDER BY id LIMIT ?1")?
                    .query_map([at_most], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()?;
                Ok(rows)
            };
            let rows = self.read_for_delivery(read).await?;
            rows.into_iter().map(|(id, entries)| Ok(OutboxRow { id, notices: unpack(&entries)? })).collect()
        })
    }

    fn published(&self, rows: Vec<i64>) -> Answer<'_, ()> {
        self.in_transaction(move |transaction, _, _| {
            let mut delete = transaction.prepare_cached("DELETE FROM outbox WHERE id = ?1")?;
            for row in rows {
                delete.execute([row])?;
            }
            Ok(())
        })
    }

    fn endings(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Settled>>> {
        self.read_for_delivery(move |connection| {
            let mut names = IdCache::default();
            let ending = |id: &CallbackId| match rows::load(connection, &mut names, *id) {
                Ok(rows) => Ok(rows.settled),
                Err(SqliteError::Corrupt(what)) => {
                    tracing::error!(callback = %id, what, "a row can't be read; its ending is not published");
                    Ok(None)
                }
                Err(other) => Err(other),
            };
            ids.iter().map(ending).collect()
        })
    }
}
