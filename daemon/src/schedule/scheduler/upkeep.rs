//! What is done to the lanes from time to time: old callbacks are taken out, callbacks of revoked partitions are
//! forgotten, caps are changed, and unused lanes are dropped. None of it is on the hot path.

use std::time::{Duration, Instant};

use super::super::lane::{PROVEN_FOR, Place};
use super::{Caps, Scheduler};

impl<T> Scheduler<T> {
    /// Removes fresh items that have waited for `age` in a lane at its cap, if `may_go` allows it: they keep the
    /// watermark of their partition from rising. Looks only at lanes in which fresh callbacks wait.
    pub(in crate::schedule) fn stale(&mut self, age: Duration, now: Instant, may_go: impl Fn(&T) -> bool) -> Vec<T> {
        let mut stale = Vec::new();
        // From the end, since a lane that leaves the set lets the last one take its place.
        for place in (0..self.with_fresh.ids().len()).rev() {
            let id = self.with_fresh.ids()[place];
            if self.is_at_cap(&self.lanes[id], now) {
                let before = stale.len();
                self.lanes[id].take_stale(age, now, &may_go, &mut stale);
                self.waiting -= stale.len() - before;
                self.file(id, now);
            }
        }
        stale
    }

    /// Removes the waiting items that match. Looks at all lanes.
    pub(in crate::schedule) fn forget(&mut self, mut matches: impl FnMut(&T) -> bool, now: Instant) -> Vec<T> {
        let mut forgotten = Vec::new();
        for id in self.lanes.ids() {
            let lane = &mut self.lanes[id];
            let due = lane.due.len();
            lane.forget(&mut matches, &mut forgotten);
            if lane.place == Place::Ready {
                self.teams.take_due(lane.team, due - lane.due.len());
            }
            self.file(id, now);
        }
        self.waiting -= forgotten.len();
        forgotten
    }

    /// Changes the caps, except the bytes that may wait in a lane: these are a share of a budget that is fixed at the
    /// start. Looks at all lanes.
    pub(in crate::schedule) fn set_caps(&mut self, caps: Caps, now: Instant) {
        self.caps = Caps { lane_bytes: self.caps.lane_bytes, ..caps };
        self.pools.set_caps(&caps);
        self.teams.set_cap(caps.team);
        self.origins.set_cap(caps.origin);
        for id in self.lanes.ids() {
            self.file(id, now);
        }
    }

    /// Drops lanes that have not been used for so long that they can't be proven any more. Looks at all lanes.
    pub(in crate::schedule) fn sweep(&mut self, now: Instant) {
        for id in self.lanes.ids() {
            let lane = &self.lanes[id];
            if lane.is_used() || now.duration_since(lane.used_at) < PROVEN_FOR {
                continue;
            }
            self.had_due.set(id, false);
            let lane = self.lanes.remove(id);
            self.by_key.remove(&lane.key);
            self.teams.part(lane.team);
            if let Some(origin) = lane.origin {
                self.origins.part(origin);
            }
        }
    }
}
