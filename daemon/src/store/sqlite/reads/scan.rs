//! Pages of callbacks: a few ordered cursors, each over the index that fits the question best, merged newest first.
//!
//! What no index answers is decided row by row here and not in SQL, so that a search which finds little ends in time,
//! with what it has found and with the place where to go on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, Row, Rows, params, params_from_iter};

use super::super::error::SqliteError;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::state::State;
use crate::model::team::Mode;
use crate::store::reads::{CallbackFilter, Found, Page, QueueMatch};

/// A page is answered within this time, full or not.
pub(super) const BUDGET: Duration = Duration::from_millis(500);
/// Rows between two looks at the clock.
pub(super) const STRIDE: usize = 256;
/// At most this many queues get a cursor each. A filter with more queues is decided row by row.
const CURSORS: usize = 8;

/// The ids of callbacks that match.
pub(super) fn scan(
    connection: &Connection,
    filter: &CallbackFilter,
    page: &Page,
) -> Result<Found<CallbackId>, SqliteError> {
    let deadline = Instant::now() + BUDGET;
    let queues = filter.queues.as_ref().map(|queues| queue_numbers(connection, queues)).transpose()?;
    let searches = searches(filter, queues.as_ref(), page.before);
    let statements = searches.iter().map(|search| connection.prepare_cached(&search.sql));
    let mut statements = statements.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut cursors = Vec::with_capacity(searches.len());
    for (statement, search) in statements.iter_mut().zip(&searches) {
        cursors.push(Cursor::open(statement.query(params_from_iter(&search.values))?)?);
    }
    let mut found = Found { docs: Vec::with_capacity(page.limit), next: None };
    let mut last = None;
    for looked in 1_usize.. {
        let heads = cursors.iter().enumerate();
        let heads = heads.filter_map(|(at, cursor)| cursor.head.as_ref().map(|head| (head.id, at)));
        let Some((id, at)) = heads.max() else { return Ok(found) };
        let candidate = cursors[at].pop()?;
        // A callback that is sent again is in both tables.
        if last != Some(id) && candidate.is_some_and(|candidate| candidate.matches(filter, queues.as_ref())) {
            if found.docs.len() == page.limit {
                found.next = found.docs.last().copied();
                return Ok(found);
            }
            found.docs.push(id);
        }
        last = Some(id);
        if looked.is_multiple_of(STRIDE) && Instant::now() >= deadline {
            found.next = last;
            return Ok(found);
        }
    }
    Ok(found)
}

/// The ids between two times and below another: at or above the first, below the second. Ids begin with their time.
pub(super) fn bounds(
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    before: Option<CallbackId>,
) -> (Vec<u8>, Vec<u8>) {
    let time = |at: Timestamp| at.millis().max(0).to_be_bytes()[2..].to_vec();
    let ends = [until.map(time), before.map(|id| id.as_bytes().to_vec())];
    (since.map_or(Vec::new(), time), ends.into_iter().flatten().min().unwrap_or_else(|| vec![0xff; 17]))
}

/// One row of a cursor, with what a filter decides on.
struct Candidate {
    id: CallbackId,
    team: String,
    queue: i64,
    state: String,
    reason: Option<String>,
    outcome: Option<String>,
    test: bool,
}

impl Candidate {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: CallbackId::from_bytes(row.get(0)?),
            team: row.get(1)?,
            queue: row.get(2)?,
            state: row.get(3)?,
            reason: row.get(4)?,
            outcome: row.get(5)?,
            test: row.get(6)?,
        })
    }

    /// Whether the filter matches. Task and times are already in every cursor's condition.
    fn matches(&self, filter: &CallbackFilter, queues: Option<&HashSet<i64>>) -> bool {
        filter.team.as_ref().is_none_or(|team| *team == self.team)
            && filter.teams.as_ref().is_none_or(|teams| teams.contains(&self.team))
            && queues.is_none_or(|queues| queues.contains(&self.queue))
            && filter.state.is_none_or(|state| state.name() == self.state)
            && filter.reason.is_none_or(|reason| Some(reason.name()) == self.reason.as_deref())
            && filter.outcome.is_none_or(|outcome| Some(outcome.name()) == self.outcome.as_deref())
            && filter.mode.is_none_or(|mode| (mode == Mode::Test) == self.test)
    }
}

struct Cursor<'s> {
    rows: Rows<'s>,
    head: Option<Candidate>,
}

impl<'s> Cursor<'s> {
    fn open(rows: Rows<'s>) -> Result<Self, SqliteError> {
        let mut cursor = Self { rows, head: None };
        cursor.pop()?;
        Ok(cursor)
    }

    fn pop(&mut self) -> Result<Option<Candidate>, SqliteError> {
        let next = self.rows.next()?.map(Candidate::read).transpose()?;
        Ok(std::mem::replace(&mut self.head, next))
    }
}

/// A table of callbacks, and its columns for state, reason and outcome.
type Table = (&'static str, &'static str);
const PENDING: Table = ("pending", "'pending', NULL, last_outcome");
const SETTLED: Table = ("settled", "state, reason, outcome");

/// The statement of one cursor, with its values.
struct Search {
    sql: String,
    values: Vec<Value>,
}

/// The cursors that together give every callback which may match.
fn searches(filter: &CallbackFilter, queues: Option<&HashSet<i64>>, before: Option<CallbackId>) -> Vec<Search> {
    let (floor, ceiling) = bounds(filter.since, filter.until, before);
    let all = |(table, columns): Table| Search {
        sql: format!(
            "SELECT id, team, queue, {columns}, test FROM {table} WHERE id >= ?1 AND id < ?2 ORDER BY id DESC"
        ),
        values: vec![Value::Blob(floor.clone()), Value::Blob(ceiling.clone())],
    };
    // `INDEXED BY` makes a plan that would not use the index an error, found by the first test that asks.
    let by = |(table, columns): Table, index: &str, condition: &str, value: Value| Search {
        sql: format!(
            "SELECT id, team, queue, {columns}, test FROM {table} INDEXED BY {index}
             WHERE {condition} = ?3 AND id >= ?1 AND id < ?2 ORDER BY id DESC"
        ),
        values: vec![Value::Blob(floor.clone()), Value::Blob(ceiling.clone()), value],
    };
    let failed_by = |column: &str, value: Value| {
        by(SETTLED, &format!("settled_failed_{column}"), &format!("state <> 'delivered' AND {column}"), value)
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let task = filter.task.as_ref().map(|task| Value::Blob(task.as_bytes().to_vec()));
    let mut searches = Vec::new();
    if filter.state.is_none_or(|state| state == State::Pending) && filter.reason.is_none() {
        searches.push(match task.clone() {
            Some(task) => by(PENDING, "pending_task", "task", task),
            None => all(PENDING),
        });
    }
    if filter.state == Some(State::Pending) {
        return searches;
    }
    // Only abandoned callbacks have a reason.
    let failed = filter.reason.is_some() || filter.state.is_some_and(|state| state != State::Delivered);
    let few_queues = queues.filter(|queues| failed && queues.len() <= CURSORS);
    match (task, few_queues, filter.reason, &filter.team, filter.state) {
        (Some(task), ..) => searches.push(by(SETTLED, "settled_task", "task", task)),
        (None, Some(queues), ..) => {
            searches.extend(queues.iter().map(|queue| failed_by("queue", Value::Integer(*queue))));
        }
        (None, None, Some(reason), ..) => searches.push(failed_by("reason", text(reason.name()))),
        (None, None, None, Some(team), _) if failed => searches.push(failed_by("team", text(team))),
        (None, None, None, None, Some(state)) if failed => searches.push(failed_by("state", text(state.name()))),
        _ => searches.push(all(SETTLED)),
    }
    searches
}

fn queue_numbers(connection: &Connection, queues: &[QueueMatch]) -> Result<HashSet<i64>, SqliteError> {
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
