//! Pages of callbacks: a few ordered cursors, each over the index that fits the question best, merged newest first.
//!
//! Whatever no index answers is decided row by row here, and not in SQL: so a search that finds little ends within its
//! time, with what it has found and where to go on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, Row, Rows as Cursor, params, params_from_iter};

use super::Failure;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::store::reads::{CallbackFilter, Found, Page, QueueMatch, State};

/// A page is answered within this, full or not.
pub(super) const BUDGET: Duration = Duration::from_millis(500);
/// Rows between two looks at the clock.
pub(super) const STRIDE: usize = 256;
/// Queues that get a cursor each; a filter that means more is decided row by row.
const CURSORS: usize = 8;

/// The ids of callbacks that match.
pub(super) fn scan(
    connection: &Connection,
    filter: &CallbackFilter,
    page: &Page,
) -> Result<Found<CallbackId>, Failure> {
    let deadline = Instant::now() + BUDGET;
    let filter = Prepared::new(connection, filter)?;
    let mut statements = filter.statements(connection, page.before)?;
    let mut partitions = Vec::with_capacity(statements.len());
    for (statement, values) in &mut statements {
        partitions.push(Source::open(statement.query(params_from_iter(values.iter()))?)?);
    }
    let mut found = Found { docs: Vec::with_capacity(page.limit), next: None };
    let mut last = None;
    for looked in 1_usize.. {
        let heads = partitions
            .iter()
            .enumerate()
            .filter_map(|(at, partition)| partition.head.as_ref().map(|head| (head.id, at)));
        let Some((id, at)) = heads.max() else { return Ok(found) };
        let candidate = partitions[at].pop()?;
        // A callback that is re-sent stands in both tables.
        if last != Some(id) && candidate.is_some_and(|candidate| filter.matches(&candidate)) {
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

/// What a filter decides on.
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
}

struct Source<'s> {
    cursor: Cursor<'s>,
    head: Option<Candidate>,
}

impl<'s> Source<'s> {
    fn open(cursor: Cursor<'s>) -> Result<Self, Failure> {
        let mut partition = Self { cursor, head: None };
        partition.pop()?;
        Ok(partition)
    }

    fn pop(&mut self) -> Result<Option<Candidate>, Failure> {
        let next = self.cursor.next()?.map(Candidate::read).transpose()?;
        Ok(std::mem::replace(&mut self.head, next))
    }
}

/// A filter with its queues' numbers.
struct Prepared<'f> {
    filter: &'f CallbackFilter,
    queues: Option<HashSet<i64>>,
}

impl<'f> Prepared<'f> {
    fn new(connection: &Connection, filter: &'f CallbackFilter) -> Result<Self, Failure> {
        let queues = filter.queues.as_ref().map(|queues| queue_numbers(connection, queues)).transpose()?;
        Ok(Self { filter, queues })
    }

    fn matches(&self, row: &Candidate) -> bool {
        let f = self.filter;
        f.team.as_ref().is_none_or(|team| *team == row.team)
            && self.queues.as_ref().is_none_or(|queues| queues.contains(&row.queue))
            && f.state.is_none_or(|state| state.name() == row.state)
            && f.reason.is_none_or(|reason| Some(reason.name()) == row.reason.as_deref())
            && f.outcome.is_none_or(|outcome| Some(outcome.name()) == row.outcome.as_deref())
            && f.mode.is_none_or(|mode| (mode == crate::model::team::Mode::Test) == row.test)
    }

    fn statements<'c>(
        &self,
        connection: &'c Connection,
        before: Option<CallbackId>,
    ) -> Result<Vec<(CachedStatement<'c>, Vec<Value>)>, Failure> {
        let (floor, ceiling) = bounds(self.filter.since, self.filter.until, before);
        let bounds = [Value::Blob(floor), Value::Blob(ceiling)];
        let drivers = self.drivers();
        drivers
            .into_iter()
            .map(|driver| {
                let statement = connection.prepare_cached(&driver.sql())?;
                Ok((statement, bounds.iter().cloned().chain(driver.value).collect()))
            })
            .collect()
    }

    fn drivers(&self) -> Vec<Driver> {
        let f = self.filter;
        let of_task = f.task.as_ref().map(|task| Value::Blob(task.as_bytes().to_vec()));
        let mut drivers = Vec::new();
        if f.state.is_none_or(|state| state == State::Pending) && f.reason.is_none() {
            drivers.push(match of_task.clone() {
                Some(task) => Driver::by(Table::Pending, "pending_task", "task = ?3", task),
                None => Driver::all(Table::Pending),
            });
        }
        if f.state == Some(State::Pending) {
            return drivers;
        }
        // Reasons are told of abandoned callbacks alone.
        let failed = f.reason.is_some() || f.state.is_some_and(|state| state != State::Delivered);
        let numbers = self.queues.as_ref().filter(|queues| failed && queues.len() <= CURSORS);
        let by = |index, column: &str, value| {
            Driver::by(Table::Settled, index, &format!("state <> 'delivered' AND {column} = ?3"), value)
        };
        match (of_task, numbers, f.reason, &f.team, f.state) {
            (Some(task), ..) => drivers.push(Driver::by(Table::Settled, "settled_task", "task = ?3", task)),
            (None, Some(numbers), ..) => drivers
                .extend(numbers.iter().map(|number| by("settled_failed_queue", "queue", Value::Integer(*number)))),
            (None, None, Some(reason), ..) => {
                drivers.push(by("settled_failed_reason", "reason", Value::Text(reason.name().to_owned())));
            }
            (None, None, None, Some(team), _) if failed => {
                drivers.push(by("settled_failed_team", "team", Value::Text(team.clone())));
            }
            (None, None, None, None, Some(state)) if failed => {
                drivers.push(by("settled_failed_state", "state", Value::Text(state.name().to_owned())));
            }
            _ => drivers.push(Driver::all(Table::Settled)),
        }
        drivers
    }
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

#[derive(Clone, Copy)]
enum Table {
    Pending,
    Settled,
}

/// One cursor: a table, the index it goes by, and the condition that index needs.
struct Driver {
    table: Table,
    index: Option<&'static str>,
    condition: String,
    value: Option<Value>,
}

impl Driver {
    fn all(table: Table) -> Self {
        Self { table, index: None, condition: String::new(), value: None }
    }

    fn by(table: Table, index: &'static str, condition: &str, value: Value) -> Self {
        Self { table, index: Some(index), condition: format!(" AND {condition}"), value: Some(value) }
    }

    /// `INDEXED BY` makes a plan that would not use the index an error, found by the first test that asks.
    fn sql(&self) -> String {
        let (columns, table) = match self.table {
            Table::Pending => ("'pending', NULL, last_outcome", "pending"),
            Table::Settled => ("state, reason, outcome", "settled"),
        };
        let index = self.index.map(|index| format!(" INDEXED BY {index}")).unwrap_or_default();
        let condition = &self.condition;
        format!(
            "SELECT id, team, queue, {columns}, test FROM {table}{index}
             WHERE id >= ?1 AND id < ?2{condition} ORDER BY id DESC"
        )
    }
}

fn queue_numbers(connection: &Connection, queues: &[QueueMatch]) -> Result<HashSet<i64>, Failure> {
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
