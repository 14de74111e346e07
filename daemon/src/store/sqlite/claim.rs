//! Taking due rows, in O(taken): queues by their next time, rows by (queue, due) up to the lane's room. A queue that
//! was served goes to the back.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::Failure;
use super::rows::{self, IdCache};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::lease::Token;
use crate::model::settlement::{Claim, apply_claim};
use crate::store::{ClaimAsk, Claimed};

/// Queues looked at in one claim, so that many full lanes can't make it long.
const QUEUES_AT_MOST: i64 = 1_000;
/// How long a queue or a row that can't be read is left alone.
const SET_ASIDE: Duration = Duration::from_secs(60);

pub(super) fn claim(
    connection: &Connection,
    books: &mut IdCache,
    ask: &ClaimAsk,
    now: Timestamp,
) -> Result<Claimed, Failure> {
    let due: Vec<i64> = connection
        .prepare_cached(
            "SELECT id FROM queue WHERE next_at <= ?1 AND paused = 0 AND rest_until <= ?1 ORDER BY next_at LIMIT ?2",
        )?
        .query_map(params![now.millis(), QUEUES_AT_MOST], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut claimed = Claimed { now, rows: Vec::new(), next_at: None };
    let mut token = ask.first_token.0;
    let mut bytes = 0_usize;
    for queue in due {
        let left = ask.at_most.saturating_sub(claimed.rows.len());
        if left == 0 || bytes > ask.bytes {
            break;
        }
        let key = match books.queue_name(connection, queue) {
            Ok(key) => key,
            Err(Failure::Corrupt(what)) => {
                tracing::error!(queue, what, "a queue can't be read; its rows wait, the others go on");
                set_aside(connection, queue, now)?;
                continue;
            }
            Err(other) => return Err(other),
        };
        let room = ask.room.get(&key).copied().unwrap_or(ask.usual_room);
        let wanted = left.min(usize::try_from(room).unwrap_or(usize::MAX));
        for id in due_rows(connection, queue, now, wanted)? {
            if bytes > ask.bytes {
                break;
            }
            let claim = Claim { token: Token(token), until: now.plus(ask.lease) };
            let before = match rows::load(connection, books, id) {
                Ok(rows) => rows,
                Err(Failure::Corrupt(what)) => {
                    tracing::error!(callback = %id, what, "a row can't be read; it waits, the others go on");
                    postpone(connection, id, now)?;
                    continue;
                }
                Err(other) => return Err(other),
            };
            let after = apply_claim(&before, &claim);
            match after.pending {
                None => drop_void(connection, id)?,
                Some(pending) => {
                    token = token.wrapping_add(1);
                    rows::replace_pending(connection, books, &pending)?;
                    let body = body(connection, id)?;
                    bytes = bytes.saturating_add(body.len());
                    claimed.rows.push((pending, body));
                }
            }
        }
        // Also without room: whoever has none must not stand before the others.
        to_the_back(connection, queue, now)?;
    }
    claimed.next_at = connection
        .prepare_cached("SELECT min(next_at) FROM queue WHERE next_at IS NOT NULL AND paused = 0")?
        .query_row([], |row| row.get::<_, Option<i64>>(0))?
        .map(Timestamp::from_millis);
    Ok(claimed)
}

fn due_rows(connection: &Connection, queue: i64, now: Timestamp, at_most: usize) -> Result<Vec<CallbackId>, Failure> {
    let ids = connection
        .prepare_cached(
            "SELECT id FROM pending WHERE queue = ?1 AND token IS NULL AND due <= ?2 ORDER BY due LIMIT ?3",
        )?
        .query_map(params![queue, now.millis(), i64::try_from(at_most).unwrap_or(i64::MAX)], |row| {
            row.get::<_, [u8; 16]>(0).map(CallbackId::from_bytes)
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}

fn set_aside(connection: &Connection, queue: i64, now: Timestamp) -> Result<(), Failure> {
    connection
        .prepare_cached("UPDATE queue SET next_at = ?2 WHERE id = ?1")?
        .execute(params![queue, now.plus(SET_ASIDE).millis()])?;
    Ok(())
}

fn postpone(connection: &Connection, id: CallbackId, now: Timestamp) -> Result<(), Failure> {
    connection
        .prepare_cached("UPDATE pending SET due = ?2 WHERE id = ?1")?
        .execute(params![id.as_bytes(), now.plus(SET_ASIDE).millis()])?;
    Ok(())
}

fn drop_void(connection: &Connection, id: CallbackId) -> Result<(), Failure> {
    connection.prepare_cached("DELETE FROM pending WHERE id = ?1")?.execute([id.as_bytes()])?;
    connection.prepare_cached("DELETE FROM body WHERE id = ?1")?.execute([id.as_bytes()])?;
    Ok(())
}

fn body(connection: &Connection, id: CallbackId) -> Result<Bytes, Failure> {
    let body: Option<Vec<u8>> = connection
        .prepare_cached("SELECT bytes FROM body WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(body.map(Bytes::from).unwrap_or_default())
}

fn to_the_back(connection: &Connection, queue: i64, now: Timestamp) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE queue SET next_at =
                 (SELECT max(?2, min(due)) FROM pending WHERE queue = ?1 AND token IS NULL) WHERE id = ?1",
        )?
        .execute(params![queue, now.millis()])?;
    Ok(())
}
