//! Writes the rows of callbacks, a statement a table. `rows` reads them.

use std::sync::LazyLock;

use super::super::cells::{Cell, Table, rows_of};
use super::super::pipeline::Pipeline;
use super::rows::{FACTS, PENDING_ALL, RowNumbers, SETTLED_ALL, names};
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::lease::Facts;
use crate::model::settlement::{Pending, Settled};
use crate::model::team::Mode;

static INSERT_SETTLED: LazyLock<String> = LazyLock::new(|| insert("settled", &SETTLED_ALL));
static INSERT_PENDING: LazyLock<String> = LazyLock::new(|| insert("pending", &PENDING_ALL));
static REPLACE_SETTLED: LazyLock<String> = LazyLock::new(|| replace("settled", &SETTLED_ALL));
static REPLACE_PENDING: LazyLock<String> = LazyLock::new(|| replace("pending", &PENDING_ALL));

/// Rows go in by id, so that two processes with the same ids wait for each other in one direction only.
fn insert(table: &str, columns: &str) -> String {
    format!("INSERT INTO {table} ({}) {} ORDER BY id", names(columns), rows_of(columns))
}

fn replace(table: &str, columns: &str) -> String {
    format!("{} ON CONFLICT (id) DO UPDATE SET {}", insert(table, columns), from_excluded(columns))
}

/// What an upsert sets where the row is there already.
fn from_excluded(columns: &str) -> String {
    let names = columns.split(',').map(|pair| pair.trim().split(' ').next().unwrap_or_default());
    names.skip(1).map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ")
}

fn fact_cells(facts: &Facts, numbers: RowNumbers) -> [Cell<'_>; FACTS] {
    [
        facts.id.into(),
        numbers.partition.into(),
        facts.record.offset.into(),
        facts.record.timestamp.into(),
        numbers.queue.into(),
        i64::from(facts.builder).into(),
        (facts.mode == Mode::Test).into(),
        (&*facts.team).into(),
        facts.task_id.as_bytes().into(),
        facts.event_id.as_ref().map(|id| id.as_bytes()).into(),
        (&*facts.event_type).into(),
        (&facts.content_hash[..]).into(),
    ]
}

/// Settled rows on their way into the table.
pub(super) struct SettledTable<'v>(Table<'v, 22>);

impl<'v> SettledTable<'v> {
    pub(super) fn new() -> Self {
        Self(Table::new())
    }

    pub(super) fn push(&mut self, row: &'v Settled, numbers: RowNumbers) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = fact_cells(&row.facts, numbers);
        self.0.push([
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            row.first_at.millis().into(),
            row.settled_at.millis().into(),
            row.attempts.into(),
            row.status.into(),
            row.round.into(),
            row.revision.into(),
            row.ended.name().into(),
            row.ended.reason().map(|reason| reason.name()).into(),
            row.outcome.name().into(),
            row.sent_with.map(|settings| settings.0).into(),
        ]);
    }

    /// Inserts the rows, which were not there a moment ago.
    pub(super) fn insert(self, last: &mut Pipeline<'v>) {
        if !self.0.is_empty() {
            last.push_new(INSERT_SETTLED.as_str(), self.0.into_params());
        }
    }

    /// Writes the rows. Each replaces an earlier one.
    pub(super) fn replace(self, last: &mut Pipeline<'v>) {
        if !self.0.is_empty() {
            last.push(REPLACE_SETTLED.as_str(), self.0.into_params());
        }
    }
}

/// Pending rows on their way into the table.
pub(super) struct PendingTable<'v>(Table<'v, 24>);

impl<'v> PendingTable<'v> {
    pub(super) fn new() -> Self {
        Self(Table::new())
    }

    pub(super) fn push(&mut self, row: &'v Pending, numbers: RowNumbers) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = fact_cells(&row.facts, numbers);
        self.0.push([
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            row.due.millis().into(),
            row.progress.since.map(Timestamp::millis).into(),
            row.progress.horizon.map(Timestamp::millis).into(),
            row.token.map(|token| token.0.cast_signed()).into(),
            row.lease_until.map(Timestamp::millis).into(),
            row.progress.tries.into(),
            row.progress.attempts.into(),
            row.starts.into(),
            row.round.into(),
            row.url.as_ref().map(|url| url.as_bytes()).into(),
            row.last_outcome.map(Outcome::name).into(),
            row.new_id.into(),
        ]);
    }

    /// Inserts the rows, which were not there a moment ago.
    pub(super) fn insert(self, last: &mut Pipeline<'v>) {
        if !self.0.is_empty() {
            last.push_new(INSERT_PENDING.as_str(), self.0.into_params());
        }
    }

    /// Writes the rows. Each replaces an earlier one.
    pub(super) fn replace(self, last: &mut Pipeline<'v>) {
        if !self.0.is_empty() {
            last.push(REPLACE_PENDING.as_str(), self.0.into_params());
        }
    }
}
