//! Bodies of callbacks that have ended. Where they have no room, the oldest go.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use crate::model::callback::CallbackId;
use crate::model::keeping::Keeping;
use crate::model::settlement::Rows;
use crate::store::packed::{pack, unpack};

/// How many go at once, and how often for one that comes. Where the budget was lowered, a transaction stays short, and the bodies
/// that come later bring the others down to it.
const PIECE: i64 = 16;
const PIECES: usize = 4;

/// Keeps a body, or drops it, as the callback's rows before and after a change say.
pub(super) fn follow(
    connection: &Connection,
    keeping: Keeping,
    id: CallbackId,
    (before, after): (&Rows, &Rows),
    body: &[u8],
) -> Result<(), SqliteError> {
    match (keeping.keeps(before), keeping.keeps(after)) {
        (false, true) => keep(connection, keeping, id, body),
        (_, false) if before.settled.is_some() && before != after => forget(connection, id),
        _ => Ok(()),
    }
}

fn keep(connection: &Connection, keeping: Keeping, id: CallbackId, body: &[u8]) -> Result<(), SqliteError> {
    let packed = pack(body);
    if body.is_empty() || packed.len() as u64 > keeping.bytes {
        return Ok(());
    }
    forget(connection, id)?;
    connection.prepare_cached("INSERT INTO kept_body (id, size, bytes) VALUES (?1, ?2, ?3)")?.execute(params![
        id.as_bytes(),
        body.len(),
        packed
    ])?;
    let mut kept = count(connection, i64::try_from(packed.len()).unwrap_or(i64::MAX))?;
    for _ in 0..PIECES {
        if kept <= keeping.bytes {
            break;
        }
        let mut oldest = connection.prepare_cached(
            "DELETE FROM kept_body WHERE id IN (SELECT id FROM kept_body ORDER BY id LIMIT ?1) RETURNING length(bytes)",
        )?;
        let freed = oldest.query_map([PIECE], |row| row.get::<_, i64>(0))?.sum::<rusqlite::Result<i64>>()?;
        kept = count(connection, -freed)?;
    }
    Ok(())
}

fn forget(connection: &Connection, id: CallbackId) -> Result<(), SqliteError> {
    let freed: Option<i64> = connection
        .prepare_cached("DELETE FROM kept_body WHERE id = ?1 RETURNING length(bytes)")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    if let Some(freed) = freed {
        count(connection, -freed)?;
    }
    Ok(())
}

/// Adds to the bytes of all kept bodies, and gives their sum.
pub(super) fn count(connection: &Connection, bytes: i64) -> Result<u64, SqliteError> {
    let sum = connection
        .prepare_cached("UPDATE store SET kept_bytes = max(0, kept_bytes + ?1) RETURNING kept_bytes")?
        .query_row([bytes], |row| row.get(0))?;
    Ok(sum)
}

/// The body of a callback, pending or ended.
pub(in crate::store::sqlite) fn body(connection: &Connection, id: CallbackId) -> Result<Option<Vec<u8>>, SqliteError> {
    let pending = connection
        .prepare_cached("SELECT bytes FROM body WHERE id = ?1 AND length(bytes) > 0")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    if pending.is_some() {
        return Ok(pending);
    }
    let kept: Option<(usize, Vec<u8>)> = connection
        .prepare_cached("SELECT size, bytes FROM kept_body WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let unpacked = |(size, bytes): (usize, Vec<u8>)| {
        let body = unpack(&bytes, size);
        if body.is_none() {
            tracing::error!(callback = %id, "a kept body can't be read; Kafka may still have it");
        }
        body
    };
    Ok(kept.and_then(unpacked))
}
