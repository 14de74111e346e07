//! Pages of callbacks by when an attempt failed: attempts are read along the walks of a search, and a callback's rows are looked at
//! when one of them failed in the time that is asked for.

use std::collections::HashSet;

use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params_from_iter};

use super::super::error::SqliteError;
use super::scan::{self, Cursor};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::store::failed_between::{HOUR_MILLIS, Walk};
use crate::store::reads::{CallbackFilter, Found, Page};
use crate::store::search::{Candidate, Filling, STRIDE, Search, Table};

/// The ids of callbacks that match. `queues` has the numbers of the filter's queues.
pub(super) fn scan(
    connection: &Connection,
    filter: &CallbackFilter,
    queues: Option<&HashSet<i64>>,
    page: &Page,
    walks: &[Walk],
) -> Result<Found<CallbackId>, SqliteError> {
    let mut filling = Filling::new(page);
    for walk in walks {
        let attempts = attempts(walk);
        let statements = attempts.iter().map(|(sql, _)| connection.prepare_cached(sql));
        let mut statements = statements.collect::<rusqlite::Result<Vec<_>>>()?;
        let mut cursors = Vec::with_capacity(attempts.len());
        for (statement, (_, values)) in statements.iter_mut().zip(&attempts) {
            cursors.push(Cursor::open(statement.query(params_from_iter(values))?, read)?);
        }
        let mut pending = OneRow::of(connection, &walk.search(Table::Pending))?;
        let mut settled = OneRow::of(connection, &walk.search(Table::Settled))?;
        let (mut last, mut decided): (Option<CallbackId>, Option<CallbackId>) = (None, None);
        for looked in 1_usize.. {
            let heads = cursors.iter().enumerate();
            let heads = heads.filter_map(|(at, cursor)| cursor.head.as_ref().map(|head| (head.id, at)));
            let Some((id, at)) = heads.max() else { break };
            // All attempts of a callback are looked at before the page ends.
            if looked.is_multiple_of(STRIDE) && last.is_some_and(|last| last != id && filling.is_over(last)) {
                return Ok(filling.end());
            }
            let attempt = cursors[at].pop()?;
            last = Some(id);
            if decided == Some(id) || !attempt.is_some_and(|attempt| attempt.failed_in_time) {
                continue;
            }
            decided = Some(id);
            let matches = |row: Option<Candidate>| row.is_some_and(|row| row.matches(filter, queues));
            if (matches(pending.read(id)?) || matches(settled.read(id)?)) && !filling.list(id) {
                return Ok(filling.end());
            }
        }
    }
    Ok(filling.end())
}

struct Attempt {
    id: CallbackId,
    failed_in_time: bool,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    Ok(Attempt { id: CallbackId::from_bytes(row.get(0)?), failed_in_time: row.get(1)? })
}

/// The statements that together give the attempts of a walk, each newest event first. Whether an attempt is of the time that is asked
/// for is a column and no condition, so that a search which finds little ends in time.
fn attempts(walk: &Walk) -> Vec<(String, Vec<Value>)> {
    let ids = [&walk.range.floor, &walk.range.ceiling].map(|id| Value::Blob(id.clone()));
    let times = [walk.span.from, walk.span.until].map(|at| Value::Integer(at.millis()));
    let values: Vec<Value> = ids.into_iter().chain(times).collect();
    let (is_of_time, ids) = ("begun_at >= ?3 AND begun_at < ?4", "id >= ?1 AND id < ?2 ORDER BY id DESC");
    let Some((first, last)) = walk.hours else {
        let sql = format!("SELECT id, outcome <> 'ok' AND {is_of_time} FROM attempt WHERE {ids}");
        return vec![(sql, values)];
    };
    let sql = format!(
        "SELECT id, {is_of_time} FROM attempt INDEXED BY attempt_failed
         WHERE begun_at / {HOUR_MILLIS} = ?5 AND outcome <> 'ok' AND {ids}"
    );
    let of_hour = |hour| (sql.clone(), values.iter().cloned().chain([Value::Integer(hour)]).collect());
    (first..=last).map(of_hour).collect()
}

/// Reads a callback's row in one table.
struct OneRow<'c> {
    statement: CachedStatement<'c>,
    /// The first one is the id.
    values: Vec<Value>,
}

impl<'c> OneRow<'c> {
    fn of(connection: &'c Connection, search: &Search) -> Result<Self, SqliteError> {
        let mut values = vec![Value::Null];
        let mut next = |at: Timestamp| {
            values.push(Value::Integer(at.millis()));
            format!("?{}", values.len())
        };
        let (table, read_at) = (search.table.name(), search.table.read_at());
        let is_read_then = match search.range.read_at {
            Some((since, until)) => format!("AND {read_at} >= {} AND {read_at} < {}", next(since), next(until)),
            None => String::new(),
        };
        let columns = match search.failed {
            Some(span) => search.columns(&next(span.from), &next(span.until)),
            None => search.columns("", ""),
        };
        let sql = format!("SELECT id, {columns} FROM {table} WHERE id = ?1 {is_read_then}");
        Ok(Self { statement: connection.prepare_cached(&sql)?, values })
    }

    fn read(&mut self, id: CallbackId) -> Result<Option<Candidate>, SqliteError> {
        self.values[0] = Value::Blob(id.as_bytes().to_vec());
        Ok(self.statement.query_row(params_from_iter(&self.values), scan::read).optional()?)
    }
}
