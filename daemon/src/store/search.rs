//! How callbacks are searched, in every database: a few ordered cursors, each over the index that fits the question best, merged
//! newest first. What no index answers is decided row by row here and not in SQL, so that a search which finds little ends in
//! time, with what it has found and with the place where to go on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::callback::CallbackId;
use crate::model::state::State;
use crate::model::team::Mode;
use crate::store::reads::{CallbackFilter, Found, Page, Span};

/// A page is answered within this time, full or not.
pub(super) const BUDGET: Duration = Duration::from_millis(500);
/// Rows between two looks at the clock.
pub(super) const STRIDE: usize = 256;
/// At most this many queues get a cursor each. A filter with more queues is decided row by row.
const CURSORS: usize = 8;
/// The latest time that an id has room for, in milliseconds.
const LATEST: i64 = (1 << 48) - 1;
/// The clocks of those who make event ids are not ahead of ours by more than this.
pub(super) const AHEAD: Duration = Duration::from_secs(86_400);

/// A page while it is filled, newest event first.
#[derive(Debug)]
pub(super) struct Filling {
    found: Found<CallbackId>,
    limit: usize,
    deadline: Instant,
}

impl Filling {
    /// A page whose time begins now.
    pub(super) fn new(page: &Page) -> Self {
        let docs = Vec::with_capacity(page.limit.min(STRIDE));
        Self { found: Found { docs, next: None }, limit: page.limit, deadline: Instant::now() + BUDGET }
    }

    /// Lists a callback that matches. False if the page is full already: then it ends before this one.
    pub(super) fn list(&mut self, id: CallbackId) -> bool {
        // A callback that is sent again is in both tables. It is listed once, whichever row matches.
        if self.found.docs.last() == Some(&id) {
            return true;
        }
        if self.found.docs.len() == self.limit {
            self.found.next = self.found.docs.last().copied();
            return false;
        }
        self.found.docs.push(id);
        true
    }

    /// Whether the time is over. Then the page ends after this callback, of which everything was looked at.
    pub(super) fn is_over(&mut self, looked_at: CallbackId) -> bool {
        let is_over = Instant::now() >= self.deadline;
        if is_over {
            self.found.next = Some(looked_at);
        }
        is_over
    }

    pub(super) fn end(self) -> Found<CallbackId> {
        self.found
    }
}

/// A range of ids: at or above `floor`, below `ceiling`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) floor: Vec<u8>,
    pub(super) ceiling: Vec<u8>,
    /// The ids of this range contain no time. Their rows are found by the time at which we read the record: at the
    /// first or later, and before the second.
    pub(super) read_at: Option<(Timestamp, Timestamp)>,
}

/// How the ids of events of this time begin.
pub(super) fn time(at: Timestamp) -> Vec<u8> {
    at.millis().clamp(1, LATEST).to_be_bytes()[2..].to_vec()
}

/// The ranges of ids between two times and below an id, the newest first. Ids begin with the time of their event, or with zeros where
/// that is not known.
pub(super) fn ranges(since: Option<Timestamp>, until: Option<Timestamp>, before: Option<CallbackId>) -> Vec<Range> {
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

/// A table of callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Pending,
    Settled,
}

impl Table {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Settled => "settled",
        }
    }

    /// Its columns for state, reason and outcome.
    pub(super) fn columns(self) -> &'static str {
        match self {
            Self::Pending => "'pending', NULL, last_outcome",
            Self::Settled => "state, reason, outcome",
        }
    }

    /// The HTTP status of the last attempt.
    pub(super) fn status(self) -> &'static str {
        match self {
            Self::Pending => "(SELECT status FROM attempt WHERE attempt.id = pending.id ORDER BY n DESC LIMIT 1)",
            Self::Settled => "status",
        }
    }

    /// The time at which the record was read.
    pub(super) fn read_at(self) -> &'static str {
        match self {
            Self::Pending => "coalesce(since, due)",
            Self::Settled => "first_at",
        }
    }
}

/// Which rows of the table: all of them, or those that an index finds. Indexes whose names begin with `Failed` have no row of a
/// delivered callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    All,
    Task(String),
    FailedQueue(i64),
    FailedReason(&'static str),
    FailedTeam(String),
    FailedState(&'static str),
}

impl By {
    /// Whether no row of a delivered callback is among them.
    pub(super) fn is_of_failed(&self) -> bool {
        !matches!(self, Self::All | Self::Task(_))
    }
}

/// One cursor.
#[derive(Debug, Clone)]
pub(super) struct Search {
    pub(super) table: Table,
    pub(super) by: By,
    pub(super) range: Range,
    /// Whether the status of the last attempt is asked for.
    pub(super) wants_status: bool,
    /// In which time an attempt must have failed.
    pub(super) failed: Option<Span>,
}

impl Search {
    /// The columns that a [`Candidate`] is read from, after the id. `first` and `end` stand for the values of
    /// [`failed`](Self::failed).
    pub(super) fn columns(&self, first: &str, end: &str) -> String {
        let (columns, status) =
            (self.table.columns(), if self.wants_status { self.table.status() } else { "CAST(NULL AS integer)" });
        let failed = match self.failed {
            // The limit makes PostgreSQL look at the attempts of one row after the other. Without it, it may read all attempts of all days
            // for each piece.
            Some(_) => format!(
                "coalesce((SELECT 1 = 1 FROM attempt WHERE attempt.id = {}.id AND attempt.outcome <> 'ok'
                           AND attempt.begun_at >= {first} AND attempt.begun_at < {end} LIMIT 1), 1 = 0)",
                self.table.name()
            ),
            None => "1 = 1".to_owned(),
        };
        format!("team, queue, {columns}, test, {status}, {failed}")
    }
}

/// The cursors that together give every callback which may match. `queues` has the numbers of the filter's queues.
pub(super) fn searches(
    filter: &CallbackFilter,
    queues: Option<&HashSet<i64>>,
    before: Option<CallbackId>,
) -> Vec<Search> {
    let ways = ways(filter, queues);
    // Nothing fails before its event.
    let until = filter.until.or(filter.failed.map(|span| span.until.plus(AHEAD)));
    let ranges = ranges(filter.since, until, before);
    let in_range = |range: Range| {
        let search = move |(table, by): &(Table, By)| Search {
            table: *table,
            by: by.clone(),
            range: range.clone(),
            wants_status: filter.status.is_some(),
            failed: filter.failed,
        };
        ways.iter().map(search).collect::<Vec<_>>()
    };
    ranges.into_iter().flat_map(in_range).collect()
}

/// The tables and indexes that together have every callback which may match.
pub(super) fn ways(filter: &CallbackFilter, queues: Option<&HashSet<i64>>) -> Vec<(Table, By)> {
    let mut ways = Vec::new();
    if filter.state.is_none_or(|state| state == State::Pending) && filter.reason.is_none() && !filter.undelivered {
        ways.push((Table::Pending, filter.task.clone().map_or(By::All, By::Task)));
    }
    if filter.state == Some(State::Pending) {
        return ways;
    }
    // Only abandoned callbacks have a reason, and only delivered ones ended with the outcome ok and a 2xx.
    let failed = filter.reason.is_some()
        || filter.undelivered
        || filter.state.is_some_and(|state| state != State::Delivered)
        || filter.status.is_some_and(|status| !(200..300).contains(&status))
        || filter.outcome.is_some_and(|outcome| outcome != Outcome::Ok);
    let few_queues = queues.filter(|queues| failed && queues.len() <= CURSORS);
    let by = match (&filter.task, few_queues, filter.reason, &filter.team, filter.state) {
        (Some(task), ..) => By::Task(task.clone()),
        (None, Some(queues), ..) => {
            ways.extend(queues.iter().map(|queue| (Table::Settled, By::FailedQueue(*queue))));
            return ways;
        }
        (None, None, Some(reason), ..) => By::FailedReason(reason.name()),
        (None, None, None, Some(team), _) if failed => By::FailedTeam(team.clone()),
        (None, None, None, None, Some(state)) if failed => By::FailedState(state.name()),
        (None, None, None, None, None) if failed => {
            let states = [State::Exhausted, State::Abandoned];
            ways.extend(states.map(|state| (Table::Settled, By::FailedState(state.name()))));
            return ways;
        }
        _ => By::All,
    };
    ways.push((Table::Settled, by));
    ways
}

/// One row of a cursor, with what a filter decides on.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) id: CallbackId,
    pub(super) team: String,
    pub(super) queue: i64,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) outcome: Option<String>,
    pub(super) test: bool,
    /// Of the last attempt, if it is asked for.
    pub(super) status: Option<u16>,
    /// Whether an attempt failed in the time that is asked for.
    pub(super) failed: bool,
}

impl Candidate {
    /// Whether the filter matches. Task and times are already in every cursor's condition.
    pub(super) fn matches(&self, filter: &CallbackFilter, queues: Option<&HashSet<i64>>) -> bool {
        filter.team.as_ref().is_none_or(|team| *team == self.team)
            && filter.teams.as_ref().is_none_or(|teams| teams.contains(&self.team))
            && queues.is_none_or(|queues| queues.contains(&self.queue))
            && filter.state.is_none_or(|state| state.name() == self.state)
            && !(filter.undelivered
                && [State::Pending, State::Delivered].iter().any(|state| state.name() == self.state))
            && filter.reason.is_none_or(|reason| Some(reason.name()) == self.reason.as_deref())
            && filter.outcome.is_none_or(|outcome| Some(outcome.name()) == self.outcome.as_deref())
            && filter.mode.is_none_or(|mode| (mode == Mode::Test) == self.test)
            && filter.status.is_none_or(|status| Some(status) == self.status)
            && self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_when_it_is_full_or_when_its_time_is_over() {
        let id = |n| CallbackId::from_bytes([n; 16]);
        let mut filling = Filling::new(&Page { before: None, limit: 2 });
        assert!(filling.list(id(9)) && filling.list(id(9)) && !filling.is_over(id(8)) && filling.list(id(7)));
        assert!(!filling.list(id(6)), "more may follow below the last one that is listed");
        let found = filling.end();
        assert_eq!((found.docs, found.next), (vec![id(9), id(7)], Some(id(7))));
        let mut filling = Filling::new(&Page { before: None, limit: 2 });
        filling.deadline = Instant::now();
        assert!(filling.list(id(9)) && filling.is_over(id(8)));
        let found = filling.end();
        assert_eq!((found.docs, found.next), (vec![id(9)], Some(id(8))), "more may follow below what was looked at");
    }
}
