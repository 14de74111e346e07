//! A lane: the state of one endpoint. What waits there, what is under way, and whether it was seen to answer in time.
//! Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gate::Line;
use super::history::RecentOutcomes;
use crate::model::endpoint::{Origin, QueueTarget};

/// An endpoint that answered within this time is trusted with all fast permits.
pub const PROMPT: Duration = Duration::from_secs(2);
/// How long that trust lasts.
pub(super) const TRUST: Duration = Duration::from_secs(600);

/// An endpoint. It has no origin where its team's callbacks have no URL that could give one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaneKey {
    pub team: Arc<str>,
    pub origin: Option<Origin>,
}

/// What a callback comes from: a record that was just read, or a row that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Fresh,
    Due,
}

/// Where a lane stands. Each place but the first two is one line of one gate, and the lane stands in no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing waits in it.
    Idle,
    /// It has as many requests under way as an endpoint may have.
    AtOwnCap,
    /// It waits for its turn among its team's lanes: in the main line of the team's gate.
    Ready,
    WaitsFor(Limit),
}

/// The gate that a lane found full at its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The slots of its origin over all teams: in that line of the origin's gate.
    Origin(Line),
    /// The unproven permits: in the unproven line of the team's gate.
    Unproven,
}

pub(super) struct Waiting<T> {
    pub(super) item: T,
    pub(super) bytes: usize,
    pub(super) since: Instant,
}

pub(super) struct Lane<T> {
    pub(super) key: LaneKey,
    /// The numbers of its gates.
    pub(super) team: usize,
    pub(super) origin: Option<usize>,
    pub(super) place: Place,
    pub(super) fresh: VecDeque<Waiting<T>>,
    pub(super) due: VecDeque<Waiting<T>>,
    pub(super) fresh_bytes: usize,
    pub(super) fresh_in_flight: usize,
    pub(super) due_in_flight: usize,
    pub(super) prompt_at: Option<Instant>,
    pub(super) used_at: Instant,
    /// The queues that led here.
    pub(super) queues: Vec<QueueTarget>,
    pub(super) recent: RecentOutcomes,
}

impl<T> Lane<T> {
    pub(super) fn new(key: LaneKey, team: usize, origin: Option<usize>, now: Instant) -> Self {
        Self {
            key,
            team,
            origin,
            place: Place::Idle,
            fresh: VecDeque::new(),
            due: VecDeque::new(),
            fresh_bytes: 0,
            fresh_in_flight: 0,
            due_in_flight: 0,
            prompt_at: None,
            used_at: now,
            queues: Vec::new(),
            recent: RecentOutcomes::default(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.fresh_in_flight + self.due_in_flight
    }

    pub(super) fn has_work(&self) -> bool {
        !self.fresh.is_empty() || !self.due.is_empty()
    }

    pub(super) fn is_used(&self) -> bool {
        self.in_flight() > 0 || self.has_work()
    }

    /// Whether an answer in time was seen lately.
    pub(super) fn is_proven(&self, now: Instant) -> bool {
        self.prompt_at.is_some_and(|at| now.duration_since(at) < TRUST)
    }

    pub(super) fn push(&mut self, side: Side, waiting: Waiting<T>) {
        match side {
            Side::Fresh => {
                self.fresh_bytes += waiting.bytes;
                self.fresh.push_back(waiting);
            }
            Side::Due => self.due.push_back(waiting),
        }
    }

    /// Begins the item whose turn it is. Due rows get up to half of the lane's slots before fresh callbacks, and all that
    /// fresh callbacks leave.
    pub(super) fn begin(&mut self, cap: usize) -> Option<(Side, T)> {
        let due_first = self.due_in_flight < half(cap) || self.fresh.is_empty();
        if due_first && let Some(waiting) = self.due.pop_front() {
            self.due_in_flight += 1;
            return Some((Side::Due, waiting.item));
        }
        let waiting = self.fresh.pop_front()?;
        self.fresh_bytes -= waiting.bytes;
        self.fresh_in_flight += 1;
        Some((Side::Fresh, waiting.item))
    }

    pub(super) fn end(&mut self, side: Side) {
        let in_flight = match side {
            Side::Fresh => &mut self.fresh_in_flight,
            Side::Due => &mut self.due_in_flight,
        };
        *in_flight = in_flight.checked_sub(1).expect("a slot ends once");
    }

    /// How many due rows it can take: half of the slots while fresh callbacks wait. A lane that others hold back keeps
    /// one row at hand, so that fresh callbacks never take its turn from due rows.
    pub(super) fn room_for_due(&self, cap: usize, is_held_back: bool) -> usize {
        if is_held_back {
            return 1_usize.saturating_sub(self.due.len());
        }
        let allowed = if self.fresh.is_empty() { cap } else { half(cap) };
        allowed.saturating_sub(self.due.len() + self.due_in_flight)
    }

    /// Takes out the oldest fresh items: those that have waited for `age`, up to the first that may not go.
    pub(super) fn take_stale(&mut self, age: Duration, now: Instant, may_go: impl Fn(&T) -> bool, into: &mut Vec<T>) {
        let is_stale = |first: &mut Waiting<T>| now.duration_since(first.since) >= age && may_go(&first.item);
        while let Some(first) = self.fresh.pop_front_if(is_stale) {
            self.fresh_bytes -= first.bytes;
            into.push(first.item);
        }
    }

    /// Takes out what waits and matches.
    pub(super) fn forget(&mut self, matches: &mut impl FnMut(&T) -> bool, into: &mut Vec<T>) {
        let fresh = take_matching(&mut self.fresh, matches, into);
        self.fresh_bytes -= fresh;
        take_matching(&mut self.due, matches, into);
    }
}

/// The slots that due rows have before fresh callbacks.
fn half(cap: usize) -> usize {
    cap.div_ceil(2)
}

/// Gives the bytes of what was taken out.
fn take_matching<T>(
    queue: &mut VecDeque<Waiting<T>>,
    matches: &mut impl FnMut(&T) -> bool,
    into: &mut Vec<T>,
) -> usize {
    let mut bytes = 0;
    for waiting in std::mem::take(queue) {
        if matches(&waiting.item) {
            bytes += waiting.bytes;
            into.push(waiting.item);
        } else {
            queue.push_back(waiting);
        }
    }
    bytes
}
