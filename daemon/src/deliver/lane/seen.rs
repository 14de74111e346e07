//! How lanes stand, for people; and what their last attempts came to.

use std::time::Instant;

use super::{Lane, LaneKey, Scheduler, Slot};
use crate::base::clock::Timestamp;
use crate::deliver::recent_outcomes::RecentOutcomes;
use crate::model::attempt::Outcome;

/// An endpoint as its lane stands now.
#[derive(Debug, Clone)]
pub struct LaneSnapshot {
    pub key: LaneKey,
    pub in_flight: usize,
    pub waiting: usize,
    /// Work waits, and a cap keeps it from going on.
    pub limited: bool,
    pub recent: RecentOutcomes,
}

impl<T> Scheduler<T> {
    /// Remembers what an attempt of this slot's lane came to.
    pub fn note(&mut self, slot: Slot, outcome: Outcome, at: Timestamp) {
        if let Some(lane) = self.lanes[slot.lane].as_mut() {
            lane.recent.note(outcome, at);
        }
    }

    /// Every lane, as it stands now.
    pub fn seen(&self, now: Instant) -> Vec<LaneSnapshot> {
        let lanes = self.lanes.iter().flatten();
        lanes
            .map(|lane| {
                let waiting = lane.fresh.len() + lane.due.len();
                LaneSnapshot {
                    key: lane.key.clone(),
                    in_flight: lane.in_flight(),
                    waiting,
                    limited: waiting > 0 && self.at_cap(lane, now),
                    recent: lane.recent.clone(),
                }
            })
            .collect()
    }

    /// How many lanes are free to go on, and how many are limited.
    pub fn lane_states(&self, now: Instant) -> (usize, usize) {
        let is_limited = |lane: &&Lane<T>| !(lane.fresh.is_empty() && lane.due.is_empty()) && self.at_cap(lane, now);
        let limited = self.lanes.iter().flatten().filter(is_limited).count();
        (self.by_key.len() - limited, limited)
    }
}
