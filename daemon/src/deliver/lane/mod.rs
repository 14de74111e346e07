//! Who goes next: the lanes' rules, pure. A lane is the state of one endpoint (team, origin): what waits there, what
//! is under way, and whether it was seen to answer in time.
//!
//! Caps hold per lane, per origin over all teams, per team, and in all; turns go over teams, then over a team's lanes,
//! then between fresh callbacks and due rows. A lane that can't go on leaves the ring until what blocked it is free,
//! so that a turn costs the same beside a thousand blocked lanes.

mod seen;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use seen::LaneSnapshot;

use super::recent_outcomes::RecentOutcomes;
use crate::model::endpoint::{Origin, QueueTarget};

/// An endpoint that answered within this time is trusted with all fast permits.
pub const PROMPT: Duration = Duration::from_secs(2);
/// How long that trust lasts.
const TRUST: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
pub struct Caps {
    pub endpoint: usize,
    pub origin: usize,
    pub team: usize,
    pub fast: usize,
    pub slow: usize,
    pub settling: usize,
    /// Fast permits that endpoints not seen to answer promptly share.
    pub unproven: usize,
    /// Bytes that may wait in one lane, where more than `waiting` callbacks do.
    pub lane_bytes: usize,
    pub waiting: usize,
}

/// An endpoint; without an origin, where a team's callbacks have no URL that could be one.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    Fast { unproven: bool },
    Slow,
    Settling,
}

/// A place in a lane, held while a request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    lane: usize,
    side: Side,
}

/// Room for due rows in a lane, told for each queue that leads there.
pub struct Room {
    pub team: Arc<str>,
    pub target: QueueTarget,
    pub rows: usize,
}

struct Waiting<T> {
    item: T,
    bytes: usize,
    since: Instant,
}

struct Lane<T> {
    key: LaneKey,
    fresh: VecDeque<Waiting<T>>,
    due: VecDeque<Waiting<T>>,
    fresh_bytes: usize,
    fresh_in_flight: usize,
    due_in_flight: usize,
    prompt_at: Option<Instant>,
    used_at: Instant,
    in_ring: bool,
    /// It stands in a list of lanes that wait for an origin or an unproven permit; once.
    blocked: bool,
    queues: Vec<QueueTarget>,
    recent: RecentOutcomes,
}

#[derive(Default)]
struct Team {
    in_flight: usize,
    ring: VecDeque<usize>,
    in_ring: bool,
}

#[derive(Default)]
struct OriginUse {
    in_flight: usize,
    blocked: VecDeque<usize>,
}

pub struct Scheduler<T> {
    caps: Caps,
    lanes: Vec<Option<Lane<T>>>,
    free: Vec<usize>,
    by_key: HashMap<LaneKey, usize>,
    teams: HashMap<Arc<str>, Team>,
    origins: HashMap<Origin, OriginUse>,
    ring: VecDeque<Arc<str>>,
    unproven_blocked: VecDeque<usize>,
    fast: usize,
    unproven: usize,
    slow: usize,
    settling: usize,
    waiting: usize,
}

impl<T> Scheduler<T> {
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            lanes: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            teams: HashMap::new(),
            origins: HashMap::new(),
            ring: VecDeque::new(),
            unproven_blocked: VecDeque::new(),
            fast: 0,
            unproven: 0,
            slow: 0,
            settling: 0,
            waiting: 0,
        }
    }

    /// Whether a lane's slots are taken and its share of waiting bytes is used up.
    pub fn is_full(&self, key: &LaneKey, now: Instant) -> bool {
        self.by_key.get(key).and_then(|id| self.lanes[*id].as_ref()).is_some_and(|lane| {
            self.at_cap(lane, now) && lane.fresh.len() >= self.caps.waiting && lane.fresh_bytes >= self.caps.lane_bytes
        })
    }

    /// Whether the machine is the limit: no lane could go on.
    pub fn fast_taken(&self) -> bool {
        self.fast >= self.caps.fast
    }

    /// Fast permits that no due row waits for which could take one.
    pub fn free_for_due(&self, now: Instant) -> usize {
        let able = self.lanes.iter().flatten().filter(|lane| !self.at_cap(lane, now));
        let waiting: usize = able.map(|lane| lane.due.len()).sum();
        self.caps.fast.saturating_sub(self.fast).saturating_sub(waiting)
    }

    pub fn unsettled(&self) -> usize {
        self.fast + self.slow + self.settling
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts an item into its lane; [`next`](Self::next) gives it back when its turn has come.
    pub fn offer(&mut self, key: LaneKey, target: &QueueTarget, side: Side, bytes: usize, item: T, now: Instant) {
        let id = self.lane_id(key, now);
        let lane = self.lanes[id].as_mut().expect("a lane by its number is there");
        if !lane.queues.contains(target) {
            lane.queues.push(target.clone());
        }
        lane.used_at = now;
        let waiting = Waiting { item, bytes, since: now };
        match side {
            Side::Fresh => {
                lane.fresh_bytes += bytes;
                lane.fresh.push_back(waiting);
            }
            Side::Due => lane.due.push_back(waiting),
        }
        self.waiting += 1;
        self.enter_ring(id);
    }

    /// The next item that may start, with the slot and the kind of permit it takes.
    pub fn next(&mut self, now: Instant) -> Option<(Slot, Pool, T)> {
        self.wake_unproven();
        for _ in 0..self.ring.len() {
            if self.fast_taken() {
                return None;
            }
            let name = self.ring.pop_front()?;
            let team = self.teams.get_mut(&name).expect("a team in the ring is there");
            if team.in_flight >= self.caps.team {
                team.in_ring = false;
                continue;
            }
            let found = self.next_of_team(&name, now);
            let team = self.teams.get_mut(&name).expect("a team in the ring is there");
            if team.ring.is_empty() {
                team.in_ring = false;
            } else {
                self.ring.push_back(name);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn next_of_team(&mut self, name: &Arc<str>, now: Instant) -> Option<(Slot, Pool, T)> {
        loop {
            let id = self.teams.get_mut(name)?.ring.pop_front()?;
            let caps = self.caps;
            let lane = self.lanes[id].as_mut().expect("a lane in a ring is there");
            lane.in_ring = false;
            if (lane.fresh.is_empty() && lane.due.is_empty()) || lane.in_flight() >= caps.endpoint {
                // It came in vain: the place that it was woken for goes to the next.
                if let Some(origin) = lane.key.origin.clone() {
                    self.wake_origin(&origin);
                }
                continue;
            }
            if let Some(origin) = &lane.key.origin {
                let origin = self.origins.entry(origin.clone()).or_default();
                if origin.in_flight >= caps.origin {
                    origin.blocked.push_back(id);
                    lane.blocked = true;
                    continue;
                }
            }
            let unproven = !lane.is_proven(now);
            if unproven && self.unproven >= caps.unproven {
                self.unproven_blocked.push_back(id);
                lane.blocked = true;
                if let Some(origin) = lane.key.origin.clone() {
                    self.wake_origin(&origin);
                }
                continue;
            }
            let (side, waiting) = lane.pick(caps.endpoint).expect("it was not empty");
            self.start(id, side, unproven);
            self.enter_ring(id);
            return Some((Slot { lane: id, side }, Pool::Fast { unproven }, waiting.item));
        }
    }

    fn start(&mut self, id: usize, side: Side, unproven: bool) {
        let lane = self.lanes[id].as_mut().expect("a lane that starts is there");
        match side {
            Side::Fresh => lane.fresh_in_flight += 1,
            Side::Due => lane.due_in_flight += 1,
        }
        if let Some(origin) = &lane.key.origin {
            self.origins.entry(origin.clone()).or_default().in_flight += 1;
        }
        self.teams.entry(Arc::clone(&lane.key.team)).or_default().in_flight += 1;
        self.fast += 1;
        self.unproven += usize::from(unproven);
        self.waiting -= 1;
    }

    /// The request of this slot is over; `prompt` tells whether an answer came within [`PROMPT`].
    pub fn leave(&mut self, slot: Slot, prompt: bool, now: Instant) {
        let Some(lane) = self.lanes[slot.lane].as_mut() else { return };
        match slot.side {
            Side::Fresh => lane.fresh_in_flight -= 1,
            Side::Due => lane.due_in_flight -= 1,
        }
        if prompt {
            lane.prompt_at = Some(now);
            // It needs no unproven permit any more.
            if lane.blocked
                && let Some(place) = self.unproven_blocked.iter().position(|id| *id == slot.lane)
            {
                self.unproven_blocked.remove(place);
                lane.blocked = false;
            }
        }
        lane.used_at = now;
        let (team, origin) = (Arc::clone(&lane.key.team), lane.key.origin.clone());
        if let Some(entry) = self.teams.get_mut(&team) {
            entry.in_flight -= 1;
        }
        self.enter_ring(slot.lane);
        self.enter_team(&team);
        if let Some(origin) = origin {
            if let Some(entry) = self.origins.get_mut(&origin) {
                entry.in_flight -= 1;
            }
            self.wake_origin(&origin);
        }
    }

    /// A place at an origin is free: the first lane that waits for one and still has work goes back into the ring.
    fn wake_origin(&mut self, origin: &Origin) {
        while let Some(id) = self.origins.get_mut(origin).and_then(|entry| entry.blocked.pop_front()) {
            if self.wake(id) {
                return;
            }
        }
        if self.origins.get(origin).is_some_and(|entry| entry.in_flight == 0 && entry.blocked.is_empty()) {
            self.origins.remove(origin);
        }
    }

    /// As many lanes as there are free unproven permits go back into the ring.
    fn wake_unproven(&mut self) {
        let mut free = self.caps.unproven.saturating_sub(self.unproven);
        while free > 0
            && let Some(id) = self.unproven_blocked.pop_front()
        {
            free -= usize::from(self.wake(id));
        }
    }

    /// Puts a blocked lane into the ring; false when it has no more work.
    fn wake(&mut self, id: usize) -> bool {
        if let Some(lane) = self.lanes[id].as_mut() {
            lane.blocked = false;
        }
        self.enter_ring(id);
        self.lanes[id].as_ref().is_some_and(|lane| lane.in_ring)
    }

    /// Moves an attempt that outlives [`PROMPT`] to the slow pool, if that has room.
    pub fn to_slow(&mut self, pool: Pool) -> Pool {
        if !matches!(pool, Pool::Fast { .. }) || self.slow >= self.caps.slow {
            return pool;
        }
        self.release(pool);
        self.slow += 1;
        Pool::Slow
    }

    /// Moves an attempt that awaits its settle to that pool, if it has room.
    pub fn to_settling(&mut self, pool: Pool) -> Pool {
        if pool == Pool::Settling || self.settling >= self.caps.settling {
            return pool;
        }
        self.release(pool);
        self.settling += 1;
        Pool::Settling
    }

    /// The attempt is settled, or never began.
    pub fn release(&mut self, pool: Pool) {
        match pool {
            Pool::Fast { unproven } => {
                self.fast -= 1;
                self.unproven -= usize::from(unproven);
            }
            Pool::Slow => self.slow -= 1,
            Pool::Settling => self.settling -= 1,
        }
    }

    /// Fresh items that have waited for `age` in a lane at its cap and may go: they hold their partition's watermark.
    pub fn stale(&mut self, age: Duration, now: Instant, may_go: impl Fn(&T) -> bool) -> Vec<T> {
        let mut stale = Vec::new();
        for id in 0..self.lanes.len() {
            let Some(lane) = self.lanes[id].as_ref() else { continue };
            if lane.fresh.is_empty() || !self.at_cap(lane, now) {
                continue;
            }
            let lane = self.lanes[id].as_mut().expect("it was just there");
            while let Some(first) = lane.fresh.front() {
                if now.duration_since(first.since) < age || !may_go(&first.item) {
                    break;
                }
                lane.fresh_bytes -= first.bytes;
                stale.extend(lane.fresh.pop_front().map(|waiting| waiting.item));
                self.waiting -= 1;
            }
        }
        stale
    }

    /// Takes out what waits and matches.
    pub fn forget(&mut self, mut matches: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut forgotten = Vec::new();
        for lane in self.lanes.iter_mut().flatten() {
            for side in [Side::Fresh, Side::Due] {
                let queue = if side == Side::Fresh { &mut lane.fresh } else { &mut lane.due };
                for waiting in std::mem::take(queue) {
                    if matches(&waiting.item) {
                        if side == Side::Fresh {
                            lane.fresh_bytes -= waiting.bytes;
                        }
                        self.waiting -= 1;
                        forgotten.push(waiting.item);
                    } else {
                        queue.push_back(waiting);
                    }
                }
            }
        }
        forgotten
    }

    /// Room for due rows, for every queue whose lane is in use: half of the slots while fresh callbacks wait, a row
    /// alone in a lane that others hold back.
    pub fn rooms(&self, now: Instant) -> Vec<Room> {
        let lanes = self.lanes.iter().flatten().filter(|lane| lane.is_used());
        lanes
            .flat_map(|lane| {
                let allowed = if lane.fresh.is_empty() { self.caps.endpoint } else { self.caps.endpoint.div_ceil(2) };
                let free = allowed.saturating_sub(lane.due.len() + lane.due_in_flight);
                // Held back by others it keeps one at hand, so that its turn is never lost to fresh callbacks.
                let rows = if self.is_held_back(lane, now) { 1_usize.saturating_sub(lane.due.len()) } else { free };
                let team = &lane.key.team;
                lane.queues.iter().map(move |target| Room { team: Arc::clone(team), target: target.clone(), rows })
            })
            .collect()
    }

    /// Other caps from now on; the bytes that may wait in a lane are a share of a budget that stays.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = Caps { lane_bytes: self.caps.lane_bytes, ..caps };
        // Whatever an old cap held back looks again.
        for id in 0..self.lanes.len() {
            self.enter_ring(id);
        }
        let teams: Vec<_> = self.teams.keys().cloned().collect();
        for team in &teams {
            self.enter_team(team);
        }
        let origins: Vec<_> = self.origins.keys().cloned().collect();
        for origin in &origins {
            while self.origins.get(origin).is_some_and(|entry| !entry.blocked.is_empty()) {
                self.wake_origin(origin);
            }
        }
    }

    /// Drops lanes that have been out of use for as long as their trust would last.
    pub fn sweep(&mut self, now: Instant) {
        for id in 0..self.lanes.len() {
            let idle = self.lanes[id].as_ref().is_some_and(|lane| {
                let idle = now.duration_since(lane.used_at) >= TRUST;
                idle && !lane.is_used() && !lane.in_ring && !lane.blocked
            });
            if idle {
                let lane = self.lanes[id].take().expect("it was just there");
                self.by_key.remove(&lane.key);
                self.free.push(id);
            }
        }
        self.teams.retain(|_, team| team.in_flight > 0 || team.in_ring || !team.ring.is_empty());
    }

    fn at_cap(&self, lane: &Lane<T>, now: Instant) -> bool {
        lane.in_flight() >= self.caps.endpoint || self.is_held_back(lane, now)
    }

    /// Whether what is under way elsewhere keeps this lane from going on: its team's, its origin's, or the unproven.
    fn is_held_back(&self, lane: &Lane<T>, now: Instant) -> bool {
        let team = self.teams.get(&lane.key.team).map_or(0, |team| team.in_flight);
        let origin = lane.key.origin.as_ref().and_then(|origin| self.origins.get(origin));
        team >= self.caps.team
            || origin.is_some_and(|origin| origin.in_flight >= self.caps.origin)
            || (self.unproven >= self.caps.unproven && !lane.is_proven(now))
    }

    fn lane_id(&mut self, key: LaneKey, now: Instant) -> usize {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let lane = Lane {
            key: key.clone(),
            fresh: VecDeque::new(),
            due: VecDeque::new(),
            fresh_bytes: 0,
            fresh_in_flight: 0,
            due_in_flight: 0,
            prompt_at: None,
            used_at: now,
            in_ring: false,
            blocked: false,
            queues: Vec::new(),
            recent: RecentOutcomes::default(),
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.lanes.push(None);
            self.lanes.len() - 1
        });
        self.lanes[id] = Some(lane);
        self.by_key.insert(key, id);
        id
    }

    fn enter_ring(&mut self, id: usize) {
        let Some(lane) = self.lanes[id].as_mut() else { return };
        if lane.in_ring
            || lane.blocked
            || (lane.fresh.is_empty() && lane.due.is_empty())
            || lane.in_flight() >= self.caps.endpoint
        {
            return;
        }
        lane.in_ring = true;
        let name = Arc::clone(&lane.key.team);
        self.teams.entry(Arc::clone(&name)).or_default().ring.push_back(id);
        self.enter_team(&name);
    }

    fn enter_team(&mut self, name: &Arc<str>) {
        if let Some(team) = self.teams.get_mut(name)
            && !team.in_ring
            && !team.ring.is_empty()
            && team.in_flight < self.caps.team
        {
            team.in_ring = true;
            self.ring.push_back(Arc::clone(name));
        }
    }
}

impl<T> Lane<T> {
    fn in_flight(&self) -> usize {
        self.fresh_in_flight + self.due_in_flight
    }

    fn is_used(&self) -> bool {
        self.in_flight() > 0 || !self.fresh.is_empty() || !self.due.is_empty()
    }

    fn is_proven(&self, now: Instant) -> bool {
        self.prompt_at.is_some_and(|at| now.duration_since(at) < TRUST)
    }

    /// Due rows get up to half of the slots before fresh ones, and all that fresh ones leave.
    fn pick(&mut self, cap: usize) -> Option<(Side, Waiting<T>)> {
        let due_first = self.due_in_flight < cap.div_ceil(2) || self.fresh.is_empty();
        if due_first && let Some(waiting) = self.due.pop_front() {
            return Some((Side::Due, waiting));
        }
        if let Some(waiting) = self.fresh.pop_front() {
            self.fresh_bytes -= waiting.bytes;
            return Some((Side::Fresh, waiting));
        }
        self.due.pop_front().map(|waiting| (Side::Due, waiting))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::team::Mode;

    const CAPS: Caps = Caps {
        endpoint: 4,
        origin: 6,
        team: 8,
        fast: 16,
        slow: 4,
        settling: 4,
        unproven: 16,
        lane_bytes: 100,
        waiting: 3,
    };

    fn key(team: &str, host: &str) -> LaneKey {
        LaneKey { team: team.into(), origin: Origin::parse(&format!("https://{host}")) }
    }

    fn offer(scheduler: &mut Scheduler<u32>, team: &str, host: &str, side: Side, item: u32) {
        let now = Instant::now();
        scheduler.offer(key(team, host), &QueueTarget::Default(Mode::Live), side, 50, item, now);
    }

    fn drain(scheduler: &mut Scheduler<u32>) -> Vec<(Slot, Pool, u32)> {
        std::iter::from_fn(|| scheduler.next(Instant::now())).collect()
    }

    #[test]
    fn an_endpoint_an_origin_and_a_team_keep_their_caps() {
        let mut scheduler = Scheduler::new(CAPS);
        for item in 0..10 {
            offer(&mut scheduler, "a", "x.example", Side::Fresh, item);
            offer(&mut scheduler, "b", "x.example", Side::Fresh, 100 + item);
        }
        let started = drain(&mut scheduler);
        assert_eq!(started.len(), 6, "the origin's cap over both teams");
        assert!(started.iter().filter(|(_, _, item)| *item < 100).count() <= 4);
        for host in ["1.example", "2.example", "3.example"] {
            for item in 0..10 {
                offer(&mut scheduler, "a", host, Side::Fresh, item);
            }
        }
        let of_a = started.iter().filter(|(_, _, item)| *item < 100).count();
        assert_eq!(of_a + drain(&mut scheduler).len(), 8, "the team's cap");
    }

    #[test]
    fn turns_go_over_teams() {
        let mut scheduler = Scheduler::new(CAPS);
        for item in 0..4 {
            offer(&mut scheduler, "a", "a.example", Side::Fresh, item);
        }
        offer(&mut scheduler, "b", "b.example", Side::Fresh, 10);
        let order: Vec<u32> = drain(&mut scheduler).into_iter().map(|(_, _, item)| item).collect();
        assert!(order.iter().position(|item| *item == 10).is_some_and(|place| place <= 1), "{order:?}");
    }

    #[test]
    fn a_blocked_lane_goes_on_when_a_slot_is_free() {
        let mut scheduler = Scheduler::new(CAPS);
        for item in 0..6 {
            offer(&mut scheduler, "a", "a.example", Side::Fresh, item);
        }
        let started = drain(&mut scheduler);
        assert_eq!(started.len(), 4);
        scheduler.leave(started[0].0, true, Instant::now());
        scheduler.release(started[0].1);
        assert_eq!(drain(&mut scheduler).len(), 1);
        assert_eq!(scheduler.waiting(), 1);
    }

    #[test]
    fn due_rows_get_half_of_the_slots() {
        let mut scheduler = Scheduler::new(CAPS);
        for item in 0..10 {
            offer(&mut scheduler, "a", "a.example", Side::Fresh, item);
            offer(&mut scheduler, "a", "a.example", Side::Due, 100 + item);
        }
        let started = drain(&mut scheduler);
        assert_eq!(started.iter().filter(|(slot, _, _)| slot.side == Side::Due).count(), 2);
    }

    #[test]
    fn a_lane_full_of_fresh_callbacks_has_room_for_due_rows() {
        let mut scheduler = Scheduler::new(CAPS);
        for item in 0..10 {
            offer(&mut scheduler, "a", "a.example", Side::Fresh, item);
        }
        drain(&mut scheduler);
        let rows =
            |scheduler: &Scheduler<u32>| scheduler.rooms(Instant::now()).iter().map(|room| room.rows).sum::<usize>();
        assert_eq!(rows(&scheduler), 2, "half of its slots");
        // Others of its team take all that the team may have: one row is still kept at hand.
        for host in ["b.example", "c.example"] {
            for item in 0..10 {
                offer(&mut scheduler, "a", host, Side::Fresh, item);
            }
        }
        drain(&mut scheduler);
        assert_eq!(rows(&scheduler), 3, "one a lane");
        offer(&mut scheduler, "a", "a.example", Side::Due, 99);
        assert_eq!(rows(&scheduler), 2);
    }

    #[test]
    fn endpoints_not_seen_to_answer_share_a_part_of_the_permits() {
        let caps = Caps { unproven: 2, ..CAPS };
        let mut scheduler = Scheduler::new(caps);
        for (item, host) in ["1.example", "2.example", "3.example"].into_iter().enumerate() {
            offer(&mut scheduler, host, host, Side::Fresh, u32::try_from(item).expect("small"));
        }
        let started = drain(&mut scheduler);
        assert_eq!(started.len(), 2);
        scheduler.leave(started[0].0, true, Instant::now());
        scheduler.release(started[0].1);
        assert_eq!(drain(&mut scheduler).len(), 1, "the third has its turn");
    }

    #[test]
    fn every_endpoint_of_a_cold_start_gets_its_turn() {
        let mut scheduler =
            Scheduler::new(Caps { endpoint: 16, origin: 64, team: 192, fast: 512, unproven: 128, ..CAPS });
        let mut left = 0;
        for endpoint in 0..150_u32 {
            let name = format!("e{endpoint}.example");
            for item in 0..if endpoint < 50 { 40 } else { 1 } {
                offer(&mut scheduler, &name, &name, Side::Fresh, item);
                left += 1;
            }
        }
        let mut running: VecDeque<_> = drain(&mut scheduler).into();
        while let Some((slot, pool, _)) = running.pop_front() {
            left -= 1;
            scheduler.leave(slot, true, Instant::now());
            running.extend(drain(&mut scheduler));
            scheduler.release(pool);
            running.extend(drain(&mut scheduler));
        }
        assert_eq!((left, scheduler.waiting()), (0, 0));
    }

    #[test]
    fn no_pool_borrows_from_another() {
        let mut scheduler = Scheduler::new(Caps { slow: 1, settling: 1, ..CAPS });
        for item in 0..3 {
            offer(&mut scheduler, "a", "a.example", Side::Fresh, item);
        }
        let started = drain(&mut scheduler);
        let first = scheduler.to_slow(started[0].1);
        assert_eq!(first, Pool::Slow);
        assert_eq!(scheduler.to_slow(started[1].1), started[1].1, "full: it keeps what it has");
        assert_eq!(scheduler.to_settling(first), Pool::Settling);
        assert_eq!(scheduler.to_settling(started[2].1), started[2].1);
        assert_eq!(scheduler.unsettled(), 3);
    }

    #[test]
    fn a_full_lane_says_so_and_its_old_items_can_be_parked() {
        let mut scheduler = Scheduler::new(CAPS);
        for item in 0..7 {
            offer(&mut scheduler, "a", "a.example", Side::Fresh, item);
        }
        assert!(!scheduler.is_full(&key("a", "a.example"), Instant::now()), "its slots are free");
        let started = drain(&mut scheduler);
        assert_eq!(started.len(), 4);
        assert!(scheduler.is_full(&key("a", "a.example"), Instant::now()));
        assert!(!scheduler.is_full(&key("b", "b.example"), Instant::now()));
        assert_eq!(scheduler.stale(Duration::from_secs(2), Instant::now(), |_| true).len(), 0);
        assert_eq!(scheduler.stale(Duration::ZERO, Instant::now(), |_| true), [4, 5, 6]);
        assert_eq!(scheduler.waiting(), 0);
    }

    proptest! {
        #[test]
        fn caps_hold_and_nothing_is_lost(
            steps in proptest::collection::vec((0..3_usize, 0..4_usize, 0..4_usize), 1..200), unproven in 1..17_usize,
        ) {
            let mut scheduler = Scheduler::new(Caps { unproven, ..CAPS });
            let mut running: Vec<(Slot, Pool, u32)> = Vec::new();
            let (mut offered, mut finished) = (0_u32, 0_u32);
            for (step, team, host) in steps {
                match step {
                    0 | 1 => {
                        let side = if host % 2 == 0 { Side::Fresh } else { Side::Due };
                        offer(&mut scheduler, ["a", "b", "c", "d"][team], ["w.example", "x.example", "y.example", "z.example"][host], side, offered);
                        offered += 1;
                    }
                    _ => if !running.is_empty() {
                        let (slot, pool, _) = running.swap_remove(team % running.len());
                        let pool = if host == 0 { scheduler.to_slow(pool) } else { pool };
                        scheduler.leave(slot, host > 1, Instant::now());
                        scheduler.release(pool);
                        finished += 1;
                    }
                }
                running.extend(drain(&mut scheduler));
                prop_assert!(running.len() <= CAPS.fast + CAPS.slow);
            }
            // With everything finishing, everything is given out.
            while let Some((slot, pool, _)) = running.pop() {
                scheduler.leave(slot, true, Instant::now());
                scheduler.release(pool);
                finished += 1;
                running.extend(drain(&mut scheduler));
            }
            prop_assert_eq!(offered, finished);
            prop_assert_eq!(scheduler.waiting(), 0);
            prop_assert_eq!(scheduler.unsettled(), 0);
        }
    }
}
