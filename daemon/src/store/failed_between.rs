//! How callbacks are searched by the time at which an attempt failed, where no other index fits the question better: along the
//! attempts, not along the callbacks. First deliveries, nearly all callbacks, have no attempt, so they cost nothing here.
//!
//! Attempts that failed have an index by the hour in which they began, and by id within an hour. So the hours of a short time are read
//! side by side, newest event first, from the place where the page begins: what is read depends on the page and on the failures at the
//! edges of the time, and not on how long ago it was. A long time would have too many hours. Its attempts are read in the order of their
//! ids, from the end of the time on, and only what an event of the future may have failed before that is looked for by hours.

use std::collections::HashSet;

use crate::model::callback::CallbackId;
use crate::store::reads::{CallbackFilter, Span};
use crate::store::search::{AHEAD, By, Range, Search, Table, ranges, time, ways};

/// The hours of the index.
pub(super) const HOUR_MILLIS: i64 = 3_600_000;
/// A time that touches at most so many hours is short: a day and an hour always is.
const HOURS: i64 = 26;

/// One way along the attempts, from the newest id to the oldest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    /// The first and the last hour in which the attempts began. Without it, all attempts are read.
    pub(super) hours: Option<(i64, i64)>,
    pub(super) range: Range,
    /// In which time an attempt must have failed.
    pub(super) span: Span,
    /// Whether the status of the last attempt is asked for.
    wants_status: bool,
}

impl Walk {
    /// The row of a callback in one of its two tables, with what the filter decides on.
    pub(super) fn search(&self, table: Table) -> Search {
        Search {
            table,
            by: By::All,
            range: self.range.clone(),
            wants_status: self.wants_status,
            failed: Some(self.span),
        }
    }
}

/// The ways that together pass every callback which may match, those of newer events first. `None` if the filter asks for no time of
/// a failure, or if another index gives fewer callbacks to look at.
pub(super) fn walks(
    filter: &CallbackFilter,
    queues: Option<&HashSet<i64>>,
    before: Option<CallbackId>,
) -> Option<Vec<Walk>> {
    let span = filter.failed?;
    let is_wide = |by: &By| matches!(by, By::All | By::FailedState(_));
    if !ways(filter, queues).iter().any(|(_, by)| is_wide(by)) {
        return None;
    }
    let walk = |hours, range| Walk { hours, range, span, wants_status: filter.status.is_some() };
    let (first, last) = hours(span);
    let ranges = ranges(filter.since, filter.until, before).into_iter();
    if last.saturating_sub(first) < HOURS {
        return Some(ranges.map(|range| walk(Some((first, last)), range)).collect());
    }
    // Nothing fails before its event, as far as clocks agree. So what failed before the time of its own id failed at most so long before
    // the end.
    let (late, _) = hours(Span { from: span.until.minus(AHEAD), ..span });
    let both = |range: Range| {
        let (newer, older) = halves(range, time(span.until));
        [walk(Some((late.max(first), last)), newer), walk(None, older)]
    };
    Some(ranges.flat_map(both).filter(|walk| walk.range.floor < walk.range.ceiling).collect())
}

/// The first and the last hour of a time. An empty time may have none.
fn hours(span: Span) -> (i64, i64) {
    (span.from.millis() / HOUR_MILLIS, span.until.millis().saturating_sub(1) / HOUR_MILLIS)
}

/// The part of a range at this place and above, and the part below it. One of them may be empty.
fn halves(range: Range, place: Vec<u8>) -> (Range, Range) {
    let newer = Range { floor: range.floor.clone().max(place.clone()), ..range.clone() };
    let older = Range { ceiling: range.ceiling.clone().min(place), ..range };
    (newer, older)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::model::attempt::Outcome;
    use crate::model::retry::Reason;
    use crate::model::state::State;

    const HOUR: i64 = HOUR_MILLIS;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn failed(from: i64, until: i64) -> CallbackFilter {
        CallbackFilter { failed: Some(Span { from: at(from), until: at(until) }), ..CallbackFilter::default() }
    }

    /// The hours and the ends of its range.
    type Walked = (Option<(i64, i64)>, Vec<u8>, Vec<u8>);

    fn walked(filter: &CallbackFilter) -> Vec<Walked> {
        let walks = walks(filter, None, None).expect("along the attempts");
        walks.into_iter().map(|walk| (walk.hours, walk.range.floor, walk.range.ceiling)).collect()
    }

    #[test]
    fn a_short_time_is_walked_by_its_hours_and_a_long_one_from_its_end_on() {
        let all = || (Vec::<u8>::new(), vec![0xff_u8; 17]);
        for (from, until, hours) in [
            (100 * HOUR, 101 * HOUR, (100, 100)),
            (100 * HOUR + 1, 101 * HOUR + 1, (100, 101)),
            (100 * HOUR, 126 * HOUR, (100, 125)),
            (100 * HOUR, 100 * HOUR, (100, 99)),
        ] {
            assert_eq!(walked(&failed(from, until)), [(Some(hours), all().0, all().1)], "{from} to {until}");
        }
        let (from, until) = (100 * HOUR, 127 * HOUR);
        let end = time(at(until));
        let newer = (Some((103, 126)), end.clone(), all().1);
        assert_eq!(walked(&failed(from, until)), [newer, (None, all().0, end.clone())]);
        // Events whose ids have no time are below all others.
        let since = CallbackFilter { since: Some(at(120 * HOUR)), ..failed(from, until) };
        let timeless = time(at(1));
        let expected =
            [(Some((103, 126)), end.clone(), all().1), (None, time(at(120 * HOUR)), end), (None, all().0, timeless)];
        assert_eq!(walked(&since), expected);
        let ended = CallbackFilter { until: Some(at(110 * HOUR)), ..failed(from, until) };
        let walks = walks(&ended, None, None).expect("along the attempts");
        assert!(walks.iter().all(|walk| walk.hours.is_none()), "no event of the future is asked for: {walks:?}");
        assert_eq!(walks.iter().filter(|walk| walk.range.read_at.is_some()).count(), 1, "{walks:?}");
    }

    #[test]
    fn what_a_better_index_finds_is_not_walked() {
        let queues = HashSet::from([7]);
        let any = || failed(100 * HOUR, 101 * HOUR);
        let exhausted = || CallbackFilter { state: Some(State::Exhausted), ..any() };
        let team = || Some("team_a".to_owned());
        for (filter, queues, is_walked) in [
            (CallbackFilter::default(), None, false),
            (any(), None, true),
            (CallbackFilter { team: team(), ..any() }, None, true),
            (any(), Some(&queues), true),
            (exhausted(), None, true),
            (CallbackFilter { undelivered: true, ..any() }, None, true),
            (CallbackFilter { state: Some(State::Pending), ..any() }, None, true),
            (CallbackFilter { outcome: Some(Outcome::Gone), ..any() }, None, true),
            (CallbackFilter { team: team(), ..exhausted() }, None, false),
            (exhausted(), Some(&queues), false),
            (CallbackFilter { reason: Some(Reason::Gone), ..any() }, None, false),
            (CallbackFilter { task: Some("task".to_owned()), ..any() }, None, false),
        ] {
            assert_eq!(walks(&filter, queues, None).is_some(), is_walked, "{filter:?}, {queues:?}");
        }
    }
}
