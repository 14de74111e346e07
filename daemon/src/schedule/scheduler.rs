//! Who goes next. Pure: no lock, no clock, no task.
//!
//! Callbacks wait in lanes, one lane for each endpoint. Every limit is a gate: the machine's fast permits, a team's
//! share, an origin's slots over all teams, the unproven permits. To start a callback, a lane checks its gates in this
//! order and enters all of them. If one is full, the lane waits in a line of the first full gate, and in no other list.
//! Turns go around the teams, then around a team's lanes, then between fresh callbacks and due rows.
//!
//! A gate that has room and waiters is open. Each call of [`Scheduler::next`] calls one waiter of an open gate back to
//! its turn, and calls all of them back before it answers that nothing can start. So no wake-up is lost, even if the
//! lane that was called then waits at another gate.
//!
//! Offering, starting, leaving and releasing cost the same with one lane and with a hundred thousand lanes.

mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::caps::Caps;
use super::gate::Line;
use super::lane::{Lane, LaneKey, Limit, Place, Side, Waiting};
use super::list::Links;
use super::pools::{Pool, Pools};
use super::ring::Ring;
use super::table::{Members, Table};
use crate::model::endpoint::{Origin, QueueTarget};

/// An item for a lane, and the queue that it comes from.
pub(super) struct Offer<'a, T> {
    pub(super) key: LaneKey,
    pub(super) target: &'a QueueTarget,
    pub(super) side: Side,
    pub(super) bytes: usize,
    pub(super) item: T,
}

/// A place in a lane, held while a request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) lane: usize,
    pub(super) side: Side,
}

/// How many due rows of a queue its lane can take.
#[derive(Debug)]
pub struct Room {
    pub team: Arc<str>,
    pub target: QueueTarget,
    pub rows: usize,
}

/// All lanes and gates. `T` is what waits.
pub(super) struct Scheduler<T> {
    caps: Caps,
    pub(super) lanes: Table<Lane<T>>,
    by_key: HashMap<LaneKey, usize>,
    /// The links of the lines in which lanes wait.
    links: Links,
    teams: Ring<Arc<str>>,
    origins: Ring<Origin>,
    pools: Pools,
    /// Lanes in which fresh callbacks wait.
    pub(super) with_fresh: Members,
    /// Lanes with a request under way, or with a due row that waits.
    pub(super) engaged: Members,
    /// Lanes that had a due row lately, or some time ago. They may have room for more although they are not engaged.
    pub(super) had_due: Members,
    waiting: usize,
}

impl<T> Scheduler<T> {
    pub(super) fn new(caps: Caps) -> Self {
        Self {
            caps,
            lanes: Table::new(),
            by_key: HashMap::new(),
            links: Links::default(),
            teams: Ring::new(caps.team),
            origins: Ring::new(caps.origin),
            pools: Pools::new(&caps),
            with_fresh: Members::default(),
            engaged: Members::default(),
            had_due: Members::default(),
            waiting: 0,
        }
    }

    /// Whether a lane's slots are taken and its share of waiting bytes is used up.
    pub(super) fn is_full(&self, key: &LaneKey, now: Instant) -> bool {
        self.by_key.get(key).is_some_and(|id| {
            let lane = &self.lanes[*id];
            lane.fresh.len() >= self.caps.waiting
                && lane.fresh_bytes >= self.caps.lane_bytes
                && self.is_at_cap(lane, now)
        })
    }

    /// Whether the machine is the limit: no lane can start a callback.
    pub(super) fn fast_taken(&self) -> bool {
        !self.pools.fast.has_room()
    }

    /// Fast permits left after every due row that can start has one.
    pub(super) fn free_for_due(&self) -> usize {
        self.pools.fast.room().saturating_sub(self.teams.due())
    }

    /// Attempts that began and are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.pools.unsettled()
    }

    /// Items that wait in lanes.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many lanes there are.
    pub(super) fn count(&self) -> usize {
        self.by_key.len()
    }

    /// Puts an item into its lane. [`next`](Self::next) returns it when its turn comes.
    pub(super) fn offer(&mut self, offer: Offer<'_, T>, now: Instant) {
        let Offer { key, target, side, bytes, item } = offer;
        let id = self.lane_id(key, now);
        let lane = &mut self.lanes[id];
        if !lane.queues.contains(target) {
            lane.queues.push(target.clone());
        }
        lane.used_at = now;
        lane.push(side, Waiting { item, bytes, since: now });
        if side == Side::Due && lane.place == Place::Ready {
            self.teams.add_due(lane.team, 1);
        }
        self.waiting += 1;
        self.file(id, now);
    }

    /// The next item that may start, with the slot and the permit it takes. None when nothing can start now.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Slot, Pool, T)> {
        if self.fast_taken() {
            return None;
        }
        self.call_waiters();
        loop {
            while let Some((team, first)) = self.teams.take_turn(Line::Main, &mut self.links) {
                let mut candidate = Some(first);
                while let Some(id) = candidate {
                    self.took_from_line(id);
                    match self.first_full_gate(id, now) {
                        None => return Some(self.start(id, now)),
                        Some(limit) => self.stand(id, Place::WaitsFor(limit)),
                    }
                    candidate = self.teams.pop(team, Line::Main, &mut self.links);
                }
            }
            if !self.call_waiters() {
                return None;
            }
        }
    }

    /// The request of this slot is over. `prompt` tells whether an answer came within [`PROMPT`](super::PROMPT).
    pub(super) fn leave(&mut self, slot: Slot, prompt: bool, now: Instant) {
        let lane = &mut self.lanes[slot.lane];
        lane.end(slot.side);
        lane.used_at = now;
        if slot.side == Side::Due {
            lane.due_ended_at = Some(now);
            self.had_due.set(slot.lane, true);
        }
        if prompt {
            lane.prompt_at = Some(now);
        }
        let (team, origin) = (lane.team, lane.origin);
        self.teams.leave(team);
        if let Some(origin) = origin {
            self.origins.leave(origin);
        }
        self.file(slot.lane, now);
    }

    /// Moves an attempt that outlives [`PROMPT`](super::PROMPT) to the slow pool, if that has room.
    pub(super) fn move_to_slow(&mut self, pool: Pool) -> Pool {
        self.pools.move_to_slow(pool)
    }

    /// Moves an attempt that awaits its settle to that pool, if it has room.
    pub(super) fn move_to_settling(&mut self, pool: Pool) -> Pool {
        self.pools.move_to_settling(pool)
    }

    /// The attempt is settled, or never began.
    pub(super) fn release(&mut self, pool: Pool) {
        self.pools.release(pool);
    }

    /// The room for due rows of every queue whose lane has a request under way or a waiting due row, or is proven and had a due row
    /// lately. Only these lanes are looked at.
    ///
    /// Every other lane has room for one row, which is what a claim takes from a queue that is not named. An idle lane
    /// gets one row because it gets more only when it is in use. A lane that is held back keeps one row ready. A lane
    /// that only waits for a fast permit does not matter: while it waits, no row can be claimed.
    pub(super) fn rooms(&mut self, now: Instant) -> Vec<Room> {
        // From the end, since a lane that leaves the set lets the last one take its place.
        for place in (0..self.had_due.ids().len()).rev() {
            let id = self.had_due.ids()[place];
            if !self.lanes[id].had_due_lately(now) {
                self.had_due.set(id, false);
            }
        }
        let engaged = self.engaged.ids().iter().map(|id| &self.lanes[*id]);
        let had_due = self.had_due.ids().iter().map(|id| &self.lanes[*id]);
        let expecting = had_due.filter(|lane| !lane.is_engaged() && lane.expects_due(now));
        engaged
            .chain(expecting)
            .flat_map(|lane| {
                let rows = lane.room_for_due(self.caps.endpoint, self.is_held_back(lane, now), lane.is_proven(now));
                let team = &lane.key.team;
                lane.queues.iter().map(move |target| Room { team: Arc::clone(team), target: target.clone(), rows })
            })
            .collect()
    }

    /// Whether the lane can start nothing now, even if the machine has room.
    pub(super) fn is_at_cap(&self, lane: &Lane<T>, now: Instant) -> bool {
        lane.in_flight() >= self.caps.endpoint || self.is_held_back(lane, now)
    }

    /// Whether other lanes hold this lane back: its team, its origin, or the unproven permits have no room.
    fn is_held_back(&self, lane: &Lane<T>, now: Instant) -> bool {
        !self.teams.has_room(lane.team)
            || lane.origin.is_some_and(|origin| !self.origins.has_room(origin))
            || (!self.pools.unproven.has_room() && !lane.is_proven(now))
    }

    /// The first gate after the machine's and the team's at which the lane must wait.
    fn first_full_gate(&self, id: usize, now: Instant) -> Option<Limit> {
        let lane = &self.lanes[id];
        let is_proven = lane.is_proven(now);
        if lane.origin.is_some_and(|origin| !self.origins.has_room(origin)) {
            return Some(Limit::Origin(if is_proven { Line::Main } else { Line::Unproven }));
        }
        (!is_proven && !self.pools.unproven.has_room()).then_some(Limit::Unproven)
    }

    /// Starts an item of a lane that is in no line and whose gates have room.
    fn start(&mut self, id: usize, now: Instant) -> (Slot, Pool, T) {
        let lane = &mut self.lanes[id];
        let is_proven = lane.is_proven(now);
        let (side, item) = lane.begin(self.caps.endpoint).expect("a lane in a line has work");
        let (team, origin) = (lane.team, lane.origin);
        self.waiting -= 1;
        self.teams.enter(team);
        if let Some(origin) = origin {
            self.origins.enter(origin);
        }
        let pool = self.pools.take(!is_proven);
        self.file(id, now);
        (Slot { lane: id, side }, pool, item)
    }

    /// Calls one waiter of each kind of open gate back to its turn. False when no gate is open.
    fn call_waiters(&mut self) -> bool {
        let mut called = self.call(Line::Main);
        if self.pools.unproven.has_room() {
            called |= self.call(Line::Unproven);
            if let Some((_, id)) = self.teams.take_turn(Line::Unproven, &mut self.links) {
                self.took_from_line(id);
                self.stand(id, Place::Ready);
                called = true;
            }
        }
        called
    }

    /// Calls the first lane in this line of the origin whose turn it is.
    fn call(&mut self, line: Line) -> bool {
        let Some((_, id)) = self.origins.take_turn(line, &mut self.links) else { return false };
        self.took_from_line(id);
        self.stand(id, Place::Ready);
        true
    }

    /// Updates a lane's place and the indexes after its items or slots changed, or after it became proven.
    fn file(&mut self, id: usize, now: Instant) {
        let lane = &self.lanes[id];
        self.with_fresh.set(id, !lane.fresh.is_empty());
        self.engaged.set(id, lane.is_engaged());
        let place = if !lane.has_work() {
            Place::Idle
        } else if lane.in_flight() >= self.caps.endpoint {
            Place::AtOwnCap
        } else {
            match lane.place {
                Place::Idle | Place::AtOwnCap => Place::Ready,
                // It needs no unproven permit any more.
                Place::WaitsFor(Limit::Unproven | Limit::Origin(Line::Unproven)) if lane.is_proven(now) => Place::Ready,
                stays => stays,
            }
        };
        if place != lane.place {
            self.leave_line(id);
            self.stand(id, place);
        }
    }

    /// Takes a lane out of its line, if it is in one.
    fn leave_line(&mut self, id: usize) {
        let lane = &self.lanes[id];
        let team = lane.team;
        match lane.place {
            Place::Idle | Place::AtOwnCap => {}
            Place::Ready => self.teams.remove(team, Line::Main, id, &mut self.links),
            Place::WaitsFor(Limit::Unproven) => self.teams.remove(team, Line::Unproven, id, &mut self.links),
            Place::WaitsFor(Limit::Origin(line)) => {
                let origin = lane.origin.expect("only a lane with an origin waits for one");
                self.origins.remove(origin, line, id, &mut self.links);
            }
        }
        self.took_from_line(id);
    }

    /// A lane was taken out of its line.
    fn took_from_line(&mut self, id: usize) {
        let lane = &mut self.lanes[id];
        let before = std::mem::replace(&mut lane.place, Place::Idle);
        if before == Place::Ready {
            self.teams.take_due(lane.team, lane.due.len());
        }
    }

    /// Puts a lane that is in no line at the end of the line of this place.
    fn stand(&mut self, id: usize, place: Place) {
        let lane = &mut self.lanes[id];
        lane.place = place;
        let (team, origin, due) = (lane.team, lane.origin, lane.due.len());
        match place {
            Place::Idle | Place::AtOwnCap => {}
            Place::Ready => {
                self.teams.push(team, Line::Main, id, &mut self.links);
                self.teams.add_due(team, due);
            }
            Place::WaitsFor(Limit::Unproven) => self.teams.push(team, Line::Unproven, id, &mut self.links),
            Place::WaitsFor(Limit::Origin(line)) => {
                let origin = origin.expect("only a lane with an origin waits for one");
                self.origins.push(origin, line, id, &mut self.links);
            }
        }
    }

    /// The lane of this key. Its gates are looked up once, when it is made.
    fn lane_id(&mut self, key: LaneKey, now: Instant) -> usize {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let team = self.teams.join(&key.team);
        let origin = key.origin.as_ref().map(|origin| self.origins.join(origin));
        let id = self.lanes.insert(Lane::new(key.clone(), team, origin, now));
        self.links.reach(id);
        self.by_key.insert(key, id);
        id
    }
}

#[cfg(test)]
mod check;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
