//! Pages of callbacks: the cursors of a search, each a statement on an index, merged newest first.

use std::collections::HashSet;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, Rows, params, params_from_iter};

use super::super::error::SqliteError;
use crate::model::callback::CallbackId;
use crate::store::reads::{CallbackFilter, Found, Page, QueueMatch};
use crate::store::search::{By, Candidate, Filling, Range, STRIDE, Search, searches};

/// The ids of callbacks that match. `queues` has the numbers of the filter's queues.
pub(super) fn scan(
    connection: &Connection,
    filter: &CallbackFilter,
    queues: Option<&HashSet<i64>>,
    page: &Page,
) -> Result<Found<CallbackId>, SqliteError> {
    let mut filling = Filling::new(page);
    let searches: Vec<_> = searches(filter, queues, page.before).iter().map(statement).collect();
    let statements = searches.iter().map(|(sql, _)| connection.prepare_cached(sql));
    let mut statements = statements.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut cursors = Vec::with_capacity(searches.len());
    for (statement, (_, values)) in statements.iter_mut().zip(&searches) {
        cursors.push(Cursor::open(statement.query(params_from_iter(values))?, read)?);
    }
    let mut last: Option<CallbackId> = None;
    for looked in 1_usize.. {
        let heads = cursors.iter().enumerate();
        let heads = heads.filter_map(|(at, cursor)| cursor.head.as_ref().map(|head| (head.id, at)));
        let Some((id, at)) = heads.max() else { break };
        // Both rows of a callback are looked at before the page ends.
        if looked.is_multiple_of(STRIDE) && last.is_some_and(|last| last != id && filling.is_over(last)) {
            break;
        }
        let candidate = cursors[at].pop()?;
        if candidate.is_some_and(|candidate| candidate.matches(filter, queues)) && !filling.list(id) {
            break;
        }
        last = Some(id);
    }
    Ok(filling.end())
}

/// The condition on the id, and on `read_at` where it counts. Its parameters are added to `values`.
pub(super) fn condition(range: &Range, read_at: &str, values: &mut Vec<Value>) -> String {
    let mut next = |value| {
        values.push(value);
        values.len()
    };
    let (floor, ceiling) = (Value::Blob(range.floor.clone()), Value::Blob(range.ceiling.clone()));
    let mut condition = format!("id >= ?{} AND id < ?{}", next(floor), next(ceiling));
    if let Some((since, until)) = range.read_at {
        let (since, until) = (Value::Integer(since.millis()), Value::Integer(until.millis()));
        condition += &format!(" AND {read_at} >= ?{} AND {read_at} < ?{}", next(since), next(until));
    }
    condition
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    Ok(Candidate {
        id: CallbackId::from_bytes(row.get(0)?),
        team: row.get(1)?,
        queue: row.get(2)?,
        state: row.get(3)?,
        reason: row.get(4)?,
        outcome: row.get(5)?,
        test: row.get(6)?,
        status: row.get(7)?,
        failed: row.get(8)?,
    })
}

/// The rows of a statement, of which the next one is known.
pub(super) struct Cursor<'s, T> {
    rows: Rows<'s>,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
    pub(super) head: Option<T>,
}

impl<'s, T> Cursor<'s, T> {
    pub(super) fn open(rows: Rows<'s>, read: fn(&Row<'_>) -> rusqlite::Result<T>) -> Result<Self, SqliteError> {
        let mut cursor = Self { rows, read, head: None };
        cursor.pop()?;
        Ok(cursor)
    }

    pub(super) fn pop(&mut self) -> Result<Option<T>, SqliteError> {
        let next = self.rows.next()?.map(self.read).transpose()?;
        Ok(std::mem::replace(&mut self.head, next))
    }
}

/// The statement of one cursor, with its values. `INDEXED BY` makes a plan that would not use the index an error, found by the
/// first test that asks.
pub(super) fn statement(search: &Search) -> (String, Vec<Value>) {
    let text = |text: &str| Value::Text(text.to_owned());
    let table = search.table.name();
    let failed = |column: &str| (format!("{table}_failed_{column}"), format!("state <> 'delivered' AND {column}"));
    let (found, value) = match &search.by {
        By::All => (None, None),
        By::Task(task) => {
            (Some((format!("{table}_task"), "task".to_owned())), Some(Value::Blob(task.as_bytes().to_vec())))
        }
        By::FailedQueue(queue) => (Some(failed("queue")), Some(Value::Integer(*queue))),
        By::FailedReason(reason) => (Some(failed("reason")), Some(text(reason))),
        By::FailedTeam(team) => (Some(failed("team")), Some(text(team))),
        By::FailedState(state) => (Some(failed("state")), Some(text(state))),
    };
    let mut values: Vec<Value> = value.into_iter().collect();
    let ids = condition(&search.range, search.table.read_at(), &mut values);
    let (index, first) = match found {
        Some((index, equal)) => (format!("INDEXED BY {index}"), format!("{equal} = ?1 AND ")),
        None => (String::new(), String::new()),
    };
    let at = values.len();
    values.extend(search.failed.iter().flat_map(|span| [span.from, span.until]).map(|at| Value::Integer(at.millis())));
    let columns = search.columns(&format!("?{}", at + 1), &format!("?{}", at + 2));
    let sql = format!("SELECT id, {columns} FROM {table} {index} WHERE {first}{ids} ORDER BY id DESC");
    (sql, values)
}

/// The numbers of queues.
pub(super) fn queue_numbers(connection: &Connection, queues: &[QueueMatch]) -> Result<HashSet<i64>, SqliteError> {
    let mut numbers = HashSet::new();
    let mut of_all = connection.prepare_cached("SELECT id FROM queue WHERE target = ?1")?;
    let mut of_team = connection.prepare_cached("SELECT id FROM queue WHERE target = ?1 AND team = ?2")?;
    for queue in queues {
        let mut rows = match &queue.team {
            Some(team) => of_team.query(params![queue.target, team])?,
            None => of_all.query(params![queue.target])?,
        };
        while let Some(row) = rows.next()? {
            numbers.insert(row.get(0)?);
        }
    }
    Ok(numbers)
}
