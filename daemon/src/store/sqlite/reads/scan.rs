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

/// A range of ids: at or above `floor`, below `ceiling`.
pub(super) struct Range {
    floor: Vec<u8>,
    ceiling: Vec<u8>,
    /// The ids of this range contain no time. Their rows are found by the time at which we read the record: at the
    /// first or later, and before the second.
    read_at: Option<(Timestamp, Timestamp)>,
}

/// The ranges of ids between two times and below an id. Ids begin with the time of their event, or with zeros where
/// that is not known.
pub(super) fn ranges(since: Option<Timestamp>, until: Option<Timestamp>, before: Option<CallbackId>) -> Vec<Range> {
    let time = |at: Timestamp| at.millis().max(1).to_be_bytes()[2..].to_vec();
    let below = |end: Option<Vec<u8>>| {
        let ends = [end, before.map(|id| id.as_bytes().to_vec())];
        ends.into_iter().flatten().min().unwrap_or_else(|| vec![0xff; 17])
    };
    if since.is_none() && until.is_none() {
        return vec![Range { floor: Vec::new(), ceiling: below(None), read_at: None }];
    }
    let (first, end) = (Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));
    let timeless_end = time(Timestamp::from_millis(1));
    vec![
        Range { floor: time(since.unwrap_or_default()), ceiling: below(until.map(time)), read_at: None },
        Range {
            floor: Vec::new(),
            ceiling: below(Some(timeless_end)),
            read_at: Some((since.unwrap_or(first), until.unwrap_or(end))),
        },
    ]
}

impl Range {
    /// The condition on the id, and on `read_at` where it counts. Its parameters are added to `values`.
    pub(super) fn condition(&self, read_at: &str, values: &mut Vec<Value>) -> String {
        let mut next = |value| {
            values.push(value);
            values.len()
        };
        let (floor, ceiling) = (Value::Blob(self.floor.clone()), Value::Blob(self.ceiling.clone()));
        let mut condition = format!("id >= ?{} AND id < ?{}", next(floor), next(ceiling));
        if let Some((since, until)) = self.read_at {
            let (since, until) = (Value::Integer(since.millis()), Value::Integer(until.millis()));
            condition += &format!(" AND {read_at} >= ?{} AND {read_at} < ?{}", next(since), next(until));
        }
        condition
    }
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

/// A table of callbacks, its columns for state, reason and outcome, and that for the time at which the record was read.
type Table = (&'static str, &'static str, &'static str);
const PENDING: Table = ("pending", "'pending', NULL, last_outcome", "coalesce(since, due)");
const SETTLED: Table = ("settled", "state, reason, outcome", "first_at");

/// The statement of one cursor, with its values.
struct Search {
    sql: String,
    values: Vec<Value>,
}

/// The cursors that together give every callback which may match.
fn searches(filter: &CallbackFilter, queues: Option<&HashSet<i64>>, before: Option<CallbackId>) -> Vec<Search> {
    let ranges = ranges(filter.since, filter.until, before);
    ranges.iter().flat_map(|range| searches_in(range, filter, queues)).collect()
}

fn searches_in(range: &Range, filter: &CallbackFilter, queues: Option<&HashSet<i64>>) -> Vec<Search> {
    let all = |(table, columns, read_at): Table| {
        let mut values = Vec::new();
        let ids = range.condition(read_at, &mut values);
        Search {
            sql: format!("SELECT id, team, queue, {columns}, test FROM {table} WHERE {ids} ORDER BY id DESC"),
            values,
        }
    };
    // `INDEXED BY` makes a plan that would not use the index an error, found by the first test that asks.
    let by = |(table, columns, read_at): Table, index: &str, condition: &str, value: Value| {
        let mut values = vec![value];
        let ids = range.condition(read_at, &mut values);
        Search {
            sql: format!(
                "SELECT id, team, queue, {columns}, test FROM {table} INDEXED BY {index}
                 WHERE {condition} = ?1 AND {ids} ORDER BY id DESC"
            ),
            values,
        }
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
