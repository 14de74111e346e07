//! Recounts everything that the scheduler keeps, and compares.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::model::endpoint::QueueKey;

impl<T> Scheduler<T> {
    /// Each lane with work is in exactly the line that its place names, no gate holds more than it may, and all counts
    /// and indexes equal a recount. `loosest` are the widest caps so far, because a lower cap does not stop running
    /// requests.
    pub(in crate::schedule) fn check(&self, loosest: &Caps) {
        self.teams.check();
        self.origins.check();
        self.check_places();
        self.check_gates(loosest);
        self.check_indexes();
    }

    fn check_places(&self) {
        let mut stands: HashMap<usize, Vec<Place>> = HashMap::new();
        for id in self.teams.ids() {
            for (line, place) in [(Line::Main, Place::Ready), (Line::Unproven, Place::WaitsFor(Limit::Unproven))] {
                for lane in self.teams.line(id, line, &self.links) {
                    assert_eq!(self.lanes[lane].team, id, "a lane waits at its own team's gate");
                    stands.entry(lane).or_default().push(place);
                }
            }
        }
        for id in self.origins.ids() {
            for line in Line::ALL {
                for lane in self.origins.line(id, line, &self.links) {
                    assert_eq!(self.lanes[lane].origin, Some(id), "a lane waits at its own origin's gate");
                    stands.entry(lane).or_default().push(Place::WaitsFor(Limit::Origin(line)));
                }
            }
        }
        for id in self.lanes.ids() {
            let lane = &self.lanes[id];
            let found = stands.remove(&id).unwrap_or_default();
            let at_own_cap = lane.in_flight() >= self.caps.endpoint;
            match lane.place {
                Place::Idle => assert!(!lane.has_work() && found.is_empty(), "{id}: idle, but in {found:?}"),
                Place::AtOwnCap => {
                    assert!(lane.has_work() && at_own_cap && found.is_empty(), "{id}: at its cap, but in {found:?}");
                }
                place => {
                    assert!(lane.has_work() && !at_own_cap, "{id}: {place:?}, but it has no work or is at its cap");
                    assert_eq!(found, [place], "{id} is in the line that its place names, and in no other");
                }
            }
        }
        assert!(stands.is_empty(), "dropped lanes are still in lines: {stands:?}");
    }

    fn check_gates(&self, loosest: &Caps) {
        let (mut of_teams, mut of_origins) = (HashMap::new(), HashMap::new());
        for lane in self.lanes.iter() {
            assert!(lane.in_flight() <= loosest.endpoint);
            of_teams.entry(lane.team).or_insert_with(Vec::new).push(lane);
            if let Some(origin) = lane.origin {
                of_origins.entry(origin).or_insert_with(Vec::new).push(lane);
            }
        }
        let in_flight = |lanes: &[&Lane<T>]| lanes.iter().map(|lane| lane.in_flight()).sum::<usize>();
        for id in self.teams.ids() {
            let (gate, lanes) = (self.teams.gate(id), &of_teams[&id]);
            assert_eq!(gate.cap(), self.caps.team);
            assert_eq!(gate.used(), in_flight(lanes), "a team's slots");
            assert!(gate.used() <= loosest.team);
            let ready = lanes.iter().filter(|lane| lane.place == Place::Ready);
            assert_eq!(self.teams.counts(id), (lanes.len(), ready.map(|lane| lane.due.len()).sum()));
        }
        for id in self.origins.ids() {
            let (gate, lanes) = (self.origins.gate(id), &of_origins[&id]);
            assert_eq!(gate.cap(), self.caps.origin);
            assert_eq!(gate.used(), in_flight(lanes), "an origin's slots");
            assert!(gate.used() <= loosest.origin);
            assert_eq!(self.origins.counts(id).0, lanes.len());
        }
        assert!(self.pools.fast.used() <= loosest.fast && self.pools.unproven.used() <= loosest.unproven);
        assert!(self.unsettled() <= loosest.fast + loosest.slow + loosest.settling);
        assert!(self.pools.unproven.used() <= self.pools.fast.used());
    }

    fn check_indexes(&self) {
        let sorted = |members: &Members| {
            let mut ids = members.ids().to_vec();
            ids.sort_unstable();
            ids
        };
        let those = |belongs: &dyn Fn(&Lane<T>) -> bool| -> Vec<usize> {
            self.lanes.ids().into_iter().filter(|id| belongs(&self.lanes[*id])).collect()
        };
        assert_eq!(sorted(&self.with_fresh), those(&|lane| !lane.fresh.is_empty()));
        assert_eq!(sorted(&self.engaged), those(&|lane| lane.in_flight() > 0 || !lane.due.is_empty()));
        assert_eq!(self.waiting, self.lanes.iter().map(|lane| lane.fresh.len() + lane.due.len()).sum::<usize>());
        assert_eq!(self.by_key.len(), self.lanes.ids().len());
        for (key, id) in &self.by_key {
            let lane = &self.lanes[*id];
            assert_eq!(lane.key, *key);
            assert_eq!(lane.fresh_bytes, lane.fresh.iter().map(|waiting| waiting.bytes).sum::<usize>());
        }
    }

    /// To be called after [`Scheduler::next`] returned nothing: no lane can start anything, and `rooms` gives the same
    /// numbers as a look at every lane.
    pub(in crate::schedule) fn check_drained(&mut self, now: Instant) {
        if self.fast_taken() {
            assert_eq!(self.free_for_due(), 0);
            return;
        }
        for lane in self.lanes.iter().filter(|lane| lane.has_work()) {
            assert!(self.is_at_cap(lane, now), "{:?} could start, but is at {:?}", lane.key, lane.place);
        }
        assert_eq!(self.free_for_due(), self.pools.fast.room(), "no due row could start");
        if self.caps.endpoint == 0 {
            // No lane can ever start a callback, so the numbers of rows do not matter.
            return;
        }
        let named: HashMap<_, _> = self
            .rooms(now)
            .into_iter()
            .map(|room| (QueueKey { team: room.team, target: room.target }, room.rows))
            .collect();
        for lane in self.lanes.iter() {
            let expects = lane.is_proven(now)
                && lane.due_ended_at.is_some_and(|at| now.duration_since(at) < Duration::from_secs(1));
            let rows = if lane.is_used() || expects { self.room_by_rule(lane, now) } else { 1 };
            for target in &lane.queues {
                let queue = QueueKey { team: Arc::clone(&lane.key.team), target: target.clone() };
                assert_eq!(named.get(&queue).copied().unwrap_or(1), rows, "{queue:?}");
            }
        }
    }

    /// The rule for a lane in use, written a second time.
    fn room_by_rule(&self, lane: &Lane<T>, now: Instant) -> usize {
        let team_is_full = self.teams.gate(lane.team).used() >= self.caps.team;
        let origin_is_full = lane.origin.is_some_and(|id| self.origins.gate(id).used() >= self.caps.origin);
        let no_permit = self.pools.unproven.used() >= self.caps.unproven && !lane.is_proven(now);
        if team_is_full || origin_is_full || no_permit {
            return if lane.due.is_empty() { 1 } else { 0 };
        }
        let slots = if lane.fresh.is_empty() { self.caps.endpoint } else { self.caps.endpoint.div_ceil(2) };
        let allowed = if lane.is_proven(now) { slots * 4 } else { slots };
        allowed.saturating_sub(lane.due.len()).saturating_sub(lane.due_in_flight)
    }

    /// How many lanes were looked at, and how many links were changed, so far.
    pub(in crate::schedule) fn steps(&self) -> usize {
        self.lanes.looks.get() + self.links.steps + self.teams.steps() + self.origins.steps()
    }
}
