//! Pages of callbacks: the cursors of a search, each read in pieces, merged newest first.

use std::collections::{HashSet, VecDeque};

use deadpool_postgres::GenericClient;
use futures_util::future::try_join_all;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::cells::{Cell, Uuid};
use super::super::engine::rows::{id_of, opt_small};
use super::super::error::PostgresError;
use crate::model::callback::CallbackId;
use crate::store::reads::{CallbackFilter, Found, Page, QueueMatch};
use crate::store::search::{By, Candidate, Filling, Range, STRIDE, Search, searches};

/// The most rows that are read at once.
const LONGEST_PIECE: usize = 2_048;

/// The ids of callbacks that match. `queues` has the numbers of the filter's queues.
pub(super) async fn scan(
    client: &impl GenericClient,
    filter: &CallbackFilter,
    queues: Option<&HashSet<i64>>,
    page: &Page,
) -> Result<Found<CallbackId>, PostgresError> {
    let mut filling = Filling::new(page);
    // The first piece of a cursor is as long as a page.
    let piece = page.limit.clamp(16, STRIDE);
    let searches = searches(filter, queues, page.before).into_iter();
    let mut cursors: Vec<_> = searches.map(|search| Cursor::new(search, piece)).collect();
    for cursor in &cursors {
        client.prepare_cached(&statement(&cursor.search).0).await?;
    }
    // All are sent at once, and the server reads one after the other: pending rows before settled ones. Statements that had to be
    // prepared first could come in another order.
    try_join_all(cursors.iter_mut().map(|cursor| cursor.fill(client))).await?;
    let mut last: Option<CallbackId> = None;
    for looked in 1_usize.. {
        let heads = cursors.iter().enumerate();
        let heads = heads.filter_map(|(at, cursor)| cursor.rows.front().map(|head| (head.id, at)));
        let Some((id, at)) = heads.max() else { break };
        // Both rows of a callback are looked at before the page ends.
        if looked.is_multiple_of(STRIDE) && last.is_some_and(|last| last != id && filling.is_over(last)) {
            break;
        }
        let candidate = cursors[at].pop(client).await?;
        if candidate.is_some_and(|candidate| candidate.matches(filter, queues)) && !filling.list(id) {
            break;
        }
        last = Some(id);
    }
    Ok(filling.end())
}

/// The least and the greatest id of a range, both in it; `None` for an empty one.
pub(super) fn bounds(range: &Range) -> Option<(Uuid, Uuid)> {
    let filled = |bytes: &[u8]| {
        let mut id = [0; 16];
        let length = bytes.len().min(16);
        id[..length].copy_from_slice(&bytes[..length]);
        id
    };
    let last = if range.ceiling.len() > 16 {
        [0xff; 16]
    } else {
        u128::from_be_bytes(filled(&range.ceiling)).checked_sub(1)?.to_be_bytes()
    };
    Some((Uuid(filled(&range.floor)), Uuid(last)))
}

/// The id just before this one.
pub(super) fn below(id: CallbackId) -> Option<Uuid> {
    u128::from_be_bytes(*id.as_bytes()).checked_sub(1).map(|below| Uuid(below.to_be_bytes()))
}

struct Cursor {
    search: Search,
    rows: VecDeque<Candidate>,
    /// The ids that were not read yet; `None` at the end.
    left: Option<(Uuid, Uuid)>,
    /// How many rows the next piece has.
    piece: usize,
}

impl Cursor {
    fn new(search: Search, piece: usize) -> Self {
        let left = bounds(&search.range);
        Self { search, rows: VecDeque::new(), left, piece }
    }

    async fn pop(&mut self, client: &impl GenericClient) -> Result<Option<Candidate>, PostgresError> {
        let next = self.rows.pop_front();
        if self.rows.is_empty() {
            self.fill(client).await?;
        }
        Ok(next)
    }

    /// Reads the next piece. Each one is longer than the last, because every piece costs the way to the server and back.
    async fn fill(&mut self, client: &impl GenericClient) -> Result<(), PostgresError> {
        let Some((floor, last)) = self.left else { return Ok(()) };
        let piece = self.piece;
        self.piece = piece.saturating_mul(4).min(LONGEST_PIECE);
        let times = self.search.range.read_at.map(|(since, until)| (since.millis(), until.millis()));
        let (sql, value) = statement(&self.search);
        let limit = i64::try_from(piece).unwrap_or(i64::MAX);
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&floor, &last, &limit];
        if let Some((since, until)) = &times {
            values.extend([since as &(dyn ToSql + Sync), until]);
        }
        if let Some(value) = &value {
            values.push(value);
        }
        let failed = self.search.failed.map(|span| (span.from.millis(), span.until.millis()));
        if let Some((from, until)) = &failed {
            values.extend([from as &(dyn ToSql + Sync), until]);
        }
        let statement = client.prepare_cached(&sql).await?;
        let rows = client.query(&statement, &values).await?;
        self.rows = rows.iter().map(read).collect::<Result<_, PostgresError>>()?;
        let oldest = self.rows.back().filter(|_| self.rows.len() == piece);
        self.left = oldest.and_then(|oldest| below(oldest.id)).map(|last| (floor, last));
        Ok(())
    }
}

pub(super) fn read(row: &Row) -> Result<Candidate, PostgresError> {
    Ok(Candidate {
        id: id_of(row)?,
        team: row.try_get(1)?,
        queue: row.try_get(2)?,
        state: row.try_get(3)?,
        reason: row.try_get(4)?,
        outcome: row.try_get(5)?,
        test: row.try_get(6)?,
        status: opt_small(row, 7)?,
        failed: row.try_get(8)?,
    })
}

/// The statement of one cursor, and the value that its index is asked for. The first three values are the range and the
/// number of rows.
///
/// Rows of one value are asked for by the value and the id together, and in that order. Only the cursor's own index gives them so. If
/// they were asked for in the order of their ids, the planner could choose to read all rows by their ids, and the newest rows may all
/// be of another value.
fn statement(search: &Search) -> (String, Option<Cell<'_>>) {
    let mut conditions = vec!["id >= $1 AND id <= $2".to_owned()];
    let mut next = 4;
    if search.range.read_at.is_some() {
        let read_at = search.table.read_at();
        conditions.push(format!("{read_at} >= $4 AND {read_at} < $5"));
        next = 6;
    }
    let (column, value) = match &search.by {
        By::All => (None, None),
        By::Task(task) => (Some("task"), Some(Cell::from(task.as_bytes()))),
        By::FailedQueue(queue) => (Some("queue"), Some((*queue).into())),
        By::FailedReason(reason) => (Some("reason"), Some((*reason).into())),
        By::FailedTeam(team) => (Some("team"), Some(team.as_str().into())),
        By::FailedState(state) => (Some("state"), Some((*state).into())),
    };
    let mut order = "id DESC".to_owned();
    if let Some(column) = column {
        conditions.push(format!("({column}, id) >= (${next}, $1) AND ({column}, id) <= (${next}, $2)"));
        order.insert_str(0, &format!("{column} DESC, "));
        next += 1;
    }
    if search.by.is_of_failed() {
        conditions.push("state <> 'delivered'".to_owned());
    }
    let (table, columns) = (search.table.name(), search.columns(&format!("${next}"), &format!("${}", next + 1)));
    let conditions = conditions.join(" AND ");
    let sql = format!("SELECT id, {columns} FROM {table} WHERE {conditions} ORDER BY {order} LIMIT $3");
    (sql, value)
}

/// The numbers of queues.
pub(super) async fn queue_numbers(
    client: &impl GenericClient,
    queues: &[QueueMatch],
) -> Result<HashSet<i64>, PostgresError> {
    let mut numbers = HashSet::new();
    for queue in queues {
        let sql = "SELECT id FROM queue WHERE target = $1 AND ($2::text IS NULL OR team = $2)";
        let statement = client.prepare_cached(sql).await?;
        for row in client.query(&statement, &[&queue.target, &queue.team]).await? {
            numbers.insert(row.try_get(0)?);
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::State;

    #[test]
    fn rows_of_one_value_are_asked_for_in_the_order_of_their_own_index() {
        let filter = CallbackFilter { state: Some(State::Exhausted), ..CallbackFilter::default() };
        let [search] = &searches(&filter, None, None)[..] else { panic!("one index has them all") };
        let (sql, value) = statement(search);
        assert!(value.is_some());
        assert!(sql.contains("(state, id) >= ($4, $1) AND (state, id) <= ($4, $2) AND state <> 'delivered'"), "{sql}");
        assert!(sql.ends_with(" ORDER BY state DESC, id DESC LIMIT $3"), "{sql}");
        let [_, all] = &searches(&CallbackFilter::default(), None, None)[..] else { panic!("both tables") };
        let (sql, value) = statement(all);
        assert!(value.is_none() && sql.ends_with(" WHERE id >= $1 AND id <= $2 ORDER BY id DESC LIMIT $3"), "{sql}");
    }
}
