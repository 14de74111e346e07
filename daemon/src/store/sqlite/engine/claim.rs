//! Claims of due rows, in O(rows taken): queues by their next time, and of each queue the rows by due time, up to the
//! room of its lane. A queue that was served goes to the back.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::rows;
use crate::base::clock::Timestamp;
use crate::model::callback::{CallbackId, newest_builder};
use crate::model::lease::Token;
use crate::model::settlement::{Claim, Pending, apply_claim};
use crate::store::engine::PAUSED_LOOK;
use crate::store::versions::NEWER_LOOK;
use crate::store::{ClaimAsk, Claimed, SetAside};

/// Queues looked at in one claim, so that many full lanes can't make it long.
const QUEUES_AT_MOST: i64 = 1_000;
/// How long a queue or row that can't be read is skipped.
const SET_ASIDE: Duration = Duration::from_secs(60);

pub(super) fn claim(
    connection: &Connection,
    ids: &mut IdCache,
    ask: &ClaimAsk,
    now: Timestamp,
) -> Result<Claimed, SqliteError> {
    let mut claim = Claiming {
        connection,
        ids,
        ask,
        now,
        token: ask.first_token.0,
        bytes: 0,
        is_full: false,
        rows: Vec::new(),
        set_aside: SetAside::default(),
    };
    for queue in due_queues(connection, now)? {
        if claim.is_full || claim.rows.len() >= ask.at_most {
            break;
        }
        claim.queue(queue)?;
    }
    let next_at = connection
        .prepare_cached("SELECT min(next_at) FROM queue WHERE next_at IS NOT NULL AND paused = 0")?
        .query_row([], |row| row.get::<_, Option<i64>>(0))?
        .map(Timestamp::from_millis);
    Ok(Claimed { now, rows: claim.rows, next_at, set_aside: claim.set_aside })
}

/// A claim, and what it has taken so far.
struct Claiming<'c> {
    connection: &'c Connection,
    ids: &'c mut IdCache,
    ask: &'c ClaimAsk,
    now: Timestamp,
    token: u64,
    bytes: usize,
    /// The body of the next row has no room. No other row is taken, so that this one is not passed over for ever.
    is_full: bool,
    rows: Vec<(Pending, Bytes)>,
    set_aside: SetAside,
}

/// A due row, before it is read.
struct Due {
    id: Vec<u8>,
    builder: i64,
}

impl Claiming<'_> {
    fn queue(&mut self, queue: i64) -> Result<(), SqliteError> {
        let key = match self.ids.queue_name(self.connection, queue) {
            Ok(key) => key,
            Err(SqliteError::Corrupt(what)) => {
                tracing::error!(queue, what, "a queue can't be read; its rows wait, and other queues go on");
                self.set_aside.unreadable += 1;
                return set_aside(self.connection, queue, self.now.plus(SET_ASIDE));
            }
            Err(other) => return Err(other),
        };
        if self.ask.paused.include(&key) {
            return set_aside(self.connection, queue, self.now.plus(PAUSED_LOOK));
        }
        let room = self.ask.room.get(&key).copied().unwrap_or(self.ask.usual_room);
        let left = self.ask.at_most.saturating_sub(self.rows.len());
        let wanted = left.min(usize::try_from(room).unwrap_or(usize::MAX));
        let builder = i64::from(newest_builder());
        let mut due = due_rows(self.connection, queue, self.now, (wanted, i64::MAX))?;
        let newer = due.iter().filter(|row| row.builder > builder).count();
        if newer > 0 {
            // Rows for a newer program must not take the places of others.
            self.set_aside.unknown_builder += newer;
            due = due_rows(self.connection, queue, self.now, (wanted, builder))?;
        }
        for row in due {
            self.row(queue, &row.id)?;
            if self.is_full {
                // The queue keeps its place in front.
                return Ok(());
            }
        }
        // A queue without room goes to the back, too, so that it does not block the others.
        if newer > 0 {
            return to_the_back_beside_newer(self.connection, queue, self.now);
        }
        to_the_back(self.connection, queue, self.now)
    }

    fn row(&mut self, queue: i64, id: &[u8]) -> Result<(), SqliteError> {
        let Ok(bytes) = <[u8; 16]>::try_from(id) else {
            return self.postpone(id, "an id of another length");
        };
        let id = CallbackId::from_bytes(bytes);
        let before = match rows::load(self.connection, self.ids, id) {
            Ok(rows) => rows,
            Err(SqliteError::Corrupt(what)) => return self.postpone(&bytes, what),
            Err(other) => return Err(other),
        };
        let bytes = body_bytes(self.connection, id)?;
        let alone = self.rows.is_empty() && self.ask.takes_larger_body_alone;
        if self.bytes.saturating_add(bytes) > self.ask.bytes && !alone {
            self.is_full = true;
            return Ok(());
        }
        let claim = Claim { token: Token(self.token), until: self.now.plus(self.ask.lease) };
        let Some(pending) = apply_claim(&before, &claim).pending else { return drop_void(self.connection, queue, id) };
        self.token = self.token.wrapping_add(1);
        rows::lease(self.connection, &pending)?;
        let body = body(self.connection, id)?;
        self.bytes = self.bytes.saturating_add(bytes);
        self.rows.push((pending, body));
        Ok(())
    }

    /// A row that can't be read waits for a while.
    fn postpone(&mut self, id: &[u8], what: &'static str) -> Result<(), SqliteError> {
        let callback = scale_callback_serve::text::hex(id);
        let callback = <[u8; 16]>::try_from(id).map_or(callback, |id| CallbackId::from_bytes(id).to_string());
        tracing::error!(callback, what, "a row can't be read; it waits, and other rows go on");
        self.set_aside.unreadable += 1;
        self.connection
            .prepare_cached("UPDATE pending SET due = ?2 WHERE id = ?1")?
            .execute(params![id, self.now.plus(SET_ASIDE).millis()])?;
        Ok(())
    }
}

fn due_queues(connection: &Connection, now: Timestamp) -> Result<Vec<i64>, SqliteError> {
    let queues = connection
        .prepare_cached(
            "SELECT id FROM queue WHERE next_at <= ?1 AND paused = 0 AND rest_until <= ?1 ORDER BY next_at LIMIT ?2",
        )?
        .query_map(params![now.millis(), QUEUES_AT_MOST], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(queues)
}

/// The first due rows, at most so many, with builders up to this one.
fn due_rows(
    connection: &Connection,
    queue: i64,
    now: Timestamp,
    (at_most, builder): (usize, i64),
) -> Result<Vec<Due>, SqliteError> {
    let rows = connection
        .prepare_cached(
            "SELECT id, builder FROM pending WHERE queue = ?1 AND token IS NULL AND due <= ?2 AND builder <= ?4
             ORDER BY due LIMIT ?3",
        )?
        .query_map(params![queue, now.millis(), i64::try_from(at_most).unwrap_or(i64::MAX), builder], |row| {
            Ok(Due { id: row.get(0)?, builder: row.get(1)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

fn set_aside(connection: &Connection, queue: i64, until: Timestamp) -> Result<(), SqliteError> {
    connection
        .prepare_cached("UPDATE queue SET next_at = ?2 WHERE id = ?1")?
        .execute(params![queue, until.millis()])?;
    Ok(())
}

fn drop_void(connection: &Connection, queue: i64, id: CallbackId) -> Result<(), SqliteError> {
    connection.prepare_cached("DELETE FROM pending WHERE id = ?1")?.execute([id.as_bytes()])?;
    let freed: Option<i64> = connection
        .prepare_cached("DELETE FROM body WHERE id = ?1 RETURNING length(bytes)")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached("UPDATE queue SET parked_bytes = max(0, parked_bytes - ?2) WHERE id = ?1")?
        .execute(params![queue, freed.unwrap_or(0)])?;
    Ok(())
}

fn body_bytes(connection: &Connection, id: CallbackId) -> Result<usize, SqliteError> {
    let bytes = connection
        .prepare_cached("SELECT length(bytes) FROM body WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(bytes.unwrap_or(0))
}

fn body(connection: &Connection, id: CallbackId) -> Result<Bytes, SqliteError> {
    let body: Option<Vec<u8>> = connection
        .prepare_cached("SELECT bytes FROM body WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(body.map(Bytes::from).unwrap_or_default())
}

fn to_the_back(connection: &Connection, queue: i64, now: Timestamp) -> Result<(), SqliteError> {
    connection
        .prepare_cached(
            "UPDATE queue SET next_at =
                 (SELECT max(?2, min(due)) FROM pending WHERE queue = ?1 AND token IS NULL) WHERE id = ?1",
        )?
        .execute(params![queue, now.millis()])?;
    Ok(())
}

/// What is for a newer program leaves its queue in front, but not for us to look at it at once.
fn to_the_back_beside_newer(connection: &Connection, queue: i64, now: Timestamp) -> Result<(), SqliteError> {
    let of = "FROM pending WHERE queue = ?1 AND token IS NULL";
    let sql = format!(
        "UPDATE queue SET next_at = (
             SELECT coalesce(min(known, any_one), any_one) FROM (
                 SELECT (SELECT max(?2, min(due)) {of} AND builder <= ?4) AS known,
                        (SELECT max(?3, min(due)) {of}) AS any_one))
         WHERE id = ?1"
    );
    let later = now.plus(NEWER_LOOK).millis();
    connection.prepare_cached(&sql)?.execute(params![queue, now.millis(), later, newest_builder()])?;
    Ok(())
}
