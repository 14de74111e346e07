//! The state of the lanes, to be shown to people. No decision uses it.

use std::time::Instant;

use super::lane::{Lane, LaneKey};
use super::scheduler::Scheduler;

/// The present state of an endpoint's lane.
#[derive(Debug, Clone)]
pub struct LaneSnapshot {
    pub key: LaneKey,
    pub in_flight: usize,
    pub waiting: usize,
    /// Work waits, and a cap keeps it from starting.
    pub limited: bool,
}

impl<T> Scheduler<T> {
    /// The present state of every lane. Looks at all lanes.
    pub(super) fn snapshot(&self, now: Instant) -> Vec<LaneSnapshot> {
        let snapshot = |lane: &Lane<T>| LaneSnapshot {
            key: lane.key.clone(),
            in_flight: lane.in_flight(),
            waiting: lane.fresh.len() + lane.due.len(),
            limited: self.is_limited(lane, now),
        };
        self.lanes.iter().map(snapshot).collect()
    }

    /// How many lanes are not limited, and how many are. Looks at lanes with work or a request under way.
    pub(super) fn lane_states(&self, now: Instant) -> (usize, usize) {
        let fresh = self.with_fresh.ids().iter().map(|id| &self.lanes[*id]);
        let due_alone = self.engaged.ids().iter().map(|id| &self.lanes[*id]).filter(|lane| lane.fresh.is_empty());
        let limited = fresh.chain(due_alone).filter(|lane| self.is_limited(lane, now)).count();
        (self.count() - limited, limited)
    }

    fn is_limited(&self, lane: &Lane<T>, now: Instant) -> bool {
        lane.has_work() && self.is_at_cap(lane, now)
    }
}
