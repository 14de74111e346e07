//! A lane: the state of one endpoint. It holds what waits there, counts what is under way, and knows whether the
//! endpoint is proven. It is pure.
//!
//! An endpoint is *proven* if it gave a prompt answer (within [`PROMPT`]) in the last ten minutes ([`PROVEN_FOR`]). Any
//! other endpoint is *unproven*: all unproven endpoints share a part of the fast permits, so that endpoints that hang
//! can't take all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gate::Line;
use crate::model::endpoint::{Origin, QueueTarget};

/// An answer within this time is prompt.
pub const PROMPT: Duration = Duration::from_secs(2);
/// How many due rows a proven endpoint may have for each of its slots. Those that wait are leased already, and they bound how much
/// one endpoint can take of what is claimed.
const AHEAD: usize = 4;
/// How long after a due row a proven endpoint has room for more than one.
const DUE_LATELY: Duration = Duration::from_secs(1);
/// How long an endpoint is proven after a prompt answer.
pub(super) const PROVEN_FOR: Duration = Duration::from_secs(600);

/// An endpoint. It has no origin if no URL is known for its callbacks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaneKey {
    pub team: Arc<str>,
    pub origin: Option<Origin>,
}

/// Where a callback comes from: a record that was just read, or a row that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Fresh,
    Due,
}

/// The place of a lane. Each place except the first two is one line of one gate, and the lane is in no other line.
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
    /// When a request for a due row ended last.
    pub(super) due_ended_at: Option<Instant>,
    pub(super) used_at: Instant,
    /// The queues whose callbacks came to this lane.
    pub(super) queues: Vec<QueueTarget>,
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
            due_ended_at: None,
            used_at: now,
            queues: Vec::new(),
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

    /// Whether it has a request under way, or a due row that waits.
    pub(super) fn is_engaged(&self) -> bool {
        self.in_flight() > 0 || !self.due.is_empty()
    }

    /// Whether more due rows are likely: a proven endpoint had one lately, and was faster than the claims.
    pub(super) fn expects_due(&self, now: Instant) -> bool {
        self.is_proven(now) && self.had_due_lately(now)
    }

    pub(super) fn had_due_lately(&self, now: Instant) -> bool {
        self.due_ended_at.is_some_and(|at| now.duration_since(at) < DUE_LATELY)
    }

    /// Whether the endpoint is proven.
    pub(super) fn is_proven(&self, now: Instant) -> bool {
        self.prompt_at.is_some_and(|at| now.duration_since(at) < PROVEN_FOR)
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

    /// Begins the item whose turn it is. Due rows go first until they have half of the lane's slots. Beyond that, they
    /// get a slot only if no fresh callback waits.
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

    /// How many due rows the lane can take: half of the slots while fresh callbacks wait. The lane of an endpoint that is proven takes
    /// some times as many, so that its slots are not empty until the next claim. A lane that is held back keeps one row ready, so that
    /// fresh callbacks do not take every turn.
    pub(super) fn room_for_due(&self, cap: usize, is_held_back: bool, is_proven: bool) -> usize {
        if is_held_back {
            return 1_usize.saturating_sub(self.due.len());
        }
        let slots = if self.fresh.is_empty() { cap } else { half(cap) };
        let allowed = if is_proven { slots * AHEAD } else { slots };
        allowed.saturating_sub(self.due.len() + self.due_in_flight)
    }

    /// Removes the oldest fresh items that have waited for `age`, up to the first one that `may_go` does not allow.
    pub(super) fn take_stale(&mut self, age: Duration, now: Instant, may_go: impl Fn(&T) -> bool, into: &mut Vec<T>) {
        let is_stale = |first: &mut Waiting<T>| now.duration_since(first.since) >= age && may_go(&first.item);
        while let Some(first) = self.fresh.pop_front_if(is_stale) {
            self.fresh_bytes -= first.bytes;
            into.push(first.item);
        }
    }

    /// Removes the waiting items that match.
    pub(super) fn forget(&mut self, matches: &mut impl FnMut(&T) -> bool, into: &mut Vec<T>) {
        let fresh = take_matching(&mut self.fresh, matches, into);
        self.fresh_bytes -= fresh;
        take_matching(&mut self.due, matches, into);
    }
}

/// The slots that due rows may take before fresh callbacks.
fn half(cap: usize) -> usize {
    cap.div_ceil(2)
}

/// Removes the items that match, and returns how many bytes they had.
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
