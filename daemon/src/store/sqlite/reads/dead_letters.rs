//! Reads of the `dead_letter` table.

use std::time::Instant;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::scan;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Fate, LetterState, Unreadable};
use crate::model::event::RecordRef;
use crate::model::hash::Hash;
use crate::store::letters;
use crate::store::reads::{BuriedLetter, DeadLetterFilter, Found, LISTED_BYTES, Page};
use crate::store::search::{BUDGET, Range, STRIDE, ranges};

const ONE: &str =
    "SELECT id, partition_id, off, record_at, reason, detail, team, task, event_id, value, value_len, buried_at, value_hash,
            fate, callback, headers
     FROM dead_letter WHERE id = ?1";
/// The same with the first [`LISTED_BYTES`] of the value: a page of whole values would be megabytes. SQLite's `substr` of an
/// empty blob is NULL, but an empty value is a value.
const LISTED: &str =
    "SELECT id, partition_id, off, record_at, reason, detail, team, task, event_id, coalesce(substr(value, 1, ?2), x''),
        value_len, buried_at, value_hash, fate, callback, NULL
     FROM dead_letter WHERE id = ?1";

pub(super) fn one(connection: &Connection, id: CallbackId) -> Result<Option<BuriedLetter>, SqliteError> {
    let mut statement = connection.prepare_cached(ONE)?;
    let mut found = statement.query([id.as_bytes()])?;
    found.next()?.map(|row| read(connection, row)).transpose()
}

pub(super) fn nameless(connection: &Connection, at_most: usize) -> Result<usize, SqliteError> {
    let sql = "SELECT count(*) FROM (
                   SELECT 1 FROM dead_letter INDEXED BY dead_letter_nameless WHERE task IS NULL LIMIT ?1)";
    Ok(connection.prepare_cached(sql)?.query_row([at_most], |row| row.get(0))?)
}

/// Dead letters by reason.
pub(super) fn counts(connection: &Connection) -> Result<Vec<(Unreadable, u64)>, SqliteError> {
    let by_name: Vec<(String, u64)> = connection
        .prepare("SELECT reason, count(*) FROM dead_letter GROUP BY reason ORDER BY reason")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    by_name.into_iter().map(|(name, count)| Ok((reason(&name)?, count))).collect()
}

/// A page of dead letters. What no index answers is decided row by row, within the time of a page.
pub(super) fn page(
    connection: &Connection,
    filter: &DeadLetterFilter,
    page: &Page,
) -> Result<Found<BuriedLetter>, SqliteError> {
    let mut reading = Reading {
        connection,
        filter,
        limit: page.limit,
        deadline: Instant::now() + BUDGET,
        looked: 0,
        found: Found { docs: Vec::new(), next: None },
    };
    // The second range, if there is one, lies below the first.
    for range in ranges(filter.since, filter.until, page.before) {
        if reading.range(&range)? {
            break;
        }
    }
    Ok(reading.found)
}

/// A page that is being read.
struct Reading<'r> {
    connection: &'r Connection,
    filter: &'r DeadLetterFilter,
    limit: usize,
    deadline: Instant,
    looked: usize,
    found: Found<BuriedLetter>,
}

impl Reading<'_> {
    /// Reads one range of ids. True if the page ends in it.
    fn range(&mut self, range: &Range) -> Result<bool, SqliteError> {
        let mut values = Vec::new();
        let (index, of_task) = match &self.filter.task {
            Some(task) => {
                values.push(Value::Blob(task.as_bytes().to_vec()));
                ("INDEXED BY dead_letter_task", "task = ?1 AND ")
            }
            None => ("", ""),
        };
        let ids = scan::condition(range, "buried_at", &mut values);
        let sql =
            format!("SELECT id, team, reason, fate FROM dead_letter {index} WHERE {of_task}{ids} ORDER BY id DESC");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut whole = self.connection.prepare_cached(LISTED)?;
        let mut rows = statement.query(params_from_iter(&values))?;
        while let Some(row) = rows.next()? {
            let id: [u8; 16] = row.get(0)?;
            let team: Option<Vec<u8>> = row.get(1)?;
            let is_of = |own: &String| team.as_deref() == Some(own.as_bytes());
            let matches = self.filter.team.as_ref().is_none_or(is_of)
                && self.filter.teams.as_ref().is_none_or(|teams| teams.iter().any(is_of))
                && self
                    .filter
                    .reason
                    .is_none_or(|reason| row.get_ref(2).is_ok_and(|name| name.as_str() == Ok(reason.name())))
                && self.is_in_state(row)?;
            if matches {
                if self.found.docs.len() == self.limit {
                    self.found.next = self.found.docs.last().map(|letter| letter.letter.id);
                    return Ok(true);
                }
                let mut letters = whole.query(params![id, LISTED_BYTES])?;
                match letters.next()?.map(|row| read(self.connection, row)).transpose() {
                    Ok(letter) => self.found.docs.extend(letter),
                    Err(SqliteError::Corrupt(what)) => {
                        let letter = CallbackId::from_bytes(id).to_dead_letter_id();
                        tracing::error!(%letter, what, "a dead letter can't be read; the others are listed");
                    }
                    Err(other) => return Err(other),
                }
            }
            self.looked += 1;
            if self.looked.is_multiple_of(STRIDE) && Instant::now() >= self.deadline {
                self.found.next = Some(CallbackId::from_bytes(id));
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Reading<'_> {
    fn is_in_state(&self, row: &Row<'_>) -> Result<bool, SqliteError> {
        let fate: Option<String> = row.get(3)?;
        let open = LetterState::Open.name();
        Ok(self.filter.state.is_none_or(|state| state.name() == fate.as_deref().unwrap_or(open)))
    }
}

fn read(connection: &Connection, row: &Row<'_>) -> Result<BuriedLetter, SqliteError> {
    let text = |index: usize| -> rusqlite::Result<Option<Box<str>>> {
        let bytes: Option<Vec<u8>> = row.get(index)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into_boxed_str()))
    };
    let letter = DeadLetter {
        id: CallbackId::from_bytes(row.get(0)?),
        record: RecordRef {
            partition: IdCache::default().partition_key(connection, row.get(1)?)?,
            offset: row.get(2)?,
            timestamp: row.get(3)?,
        },
        reason: reason(&row.get::<_, String>(4)?)?,
        detail: row.get(5)?,
        team: text(6)?,
        task_id: text(7)?,
        event_id: text(8)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(9)?),
        value_len: row.get(10)?,
        value_hash: row.get::<_, Option<Hash>>(12)?,
        headers: row.get::<_, Option<String>>(15)?.as_deref().and_then(letters::read),
    };
    let fate = Fate::read(
        row.get::<_, Option<String>>(13)?.as_deref(),
        row.get::<_, Option<[u8; 16]>>(14)?.map(CallbackId::from_bytes),
    );
    let fate = fate.ok_or(SqliteError::Corrupt("what became of a dead letter"))?;
    Ok(BuriedLetter { letter, buried_at: Timestamp::from_millis(row.get(11)?), fate })
}

fn reason(name: &str) -> Result<Unreadable, SqliteError> {
    Unreadable::parse(name).ok_or(SqliteError::Corrupt("a dead letter's reason"))
}
