//! Random sequences of events. After each event, everything is recounted.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::tests::{CAPS, drain, offer};
use super::*;
use crate::model::team::Mode;

#[derive(Debug, Clone)]
enum Event {
    Offer {
        team: usize,
        host: usize,
        side: Side,
        bytes: usize,
    },
    Next,
    Drain,
    Leave {
        which: usize,
        prompt: bool,
    },
    Release {
        which: usize,
    },
    ToSlow {
        which: usize,
    },
    ToSettling {
        which: usize,
    },
    /// Removes the items whose number is a multiple of this.
    Forget {
        divisor: u32,
    },
    Stale {
        age: Duration,
    },
    Pass {
        time: Duration,
    },
    Sweep,
    SetCaps(Caps),
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Fresh), Just(Side::Due)]
}

/// Small caps, so that each of them is reached. `from` is the lowest one.
fn caps(from: usize) -> impl Strategy<Value = Caps> {
    let narrow = (from..4, from..5, from..6, from..9, from..4);
    (narrow, 0..3_usize, 0..3_usize).prop_map(|((endpoint, origin, team, fast, unproven), slow, settling)| Caps {
        endpoint,
        origin,
        team,
        fast,
        slow,
        settling,
        unproven,
        ..CAPS
    })
}

fn event(from: usize) -> impl Strategy<Value = Event> {
    let offered = (0..6_usize, 0..6_usize, side(), 0..80_usize);
    let which = 0..64_usize;
    prop_oneof![
        8 => offered.prop_map(|(team, host, side, bytes)| Event::Offer { team, host, side, bytes }),
        3 => Just(Event::Next),
        3 => Just(Event::Drain),
        5 => (which.clone(), any::<bool>()).prop_map(|(which, prompt)| Event::Leave { which, prompt }),
        5 => which.clone().prop_map(|which| Event::Release { which }),
        2 => which.clone().prop_map(|which| Event::ToSlow { which }),
        2 => which.prop_map(|which| Event::ToSettling { which }),
        1 => (2..9_u32).prop_map(|divisor| Event::Forget { divisor }),
        1 => (0..3_u64).prop_map(|secs| Event::Stale { age: Duration::from_secs(secs) }),
        2 => prop_oneof![Just(1), Just(3), Just(700)].prop_map(|secs| Event::Pass { time: Duration::from_secs(secs) }),
        1 => Just(Event::Sweep),
        1 => caps(from).prop_map(Event::SetCaps),
    ]
}

/// An attempt. Its slot and its permit are given back at different times.
struct Running {
    slot: Option<Slot>,
    pool: Option<Pool>,
}

/// A scheduler, and a simple model of it.
struct World {
    scheduler: Scheduler<u32>,
    now: Instant,
    loosest: Caps,
    running: Vec<Running>,
    offered: u32,
    /// Items that the scheduler has returned in any way, each of them once.
    given: BTreeSet<u32>,
}

impl World {
    fn new(caps: Caps) -> Self {
        Self {
            scheduler: Scheduler::new(caps),
            now: Instant::now(),
            loosest: caps,
            running: Vec::new(),
            offered: 0,
            given: BTreeSet::new(),
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Offer { team, host, side, bytes } => self.offer(team, host, side, bytes),
            Event::Next => drop(self.next()),
            Event::Drain => self.drain(),
            Event::Leave { which, prompt } => self.leave(which, prompt),
            Event::Release { which } => self.with_pool(which, |scheduler, pool| {
                scheduler.release(pool);
                None
            }),
            Event::ToSlow { which } => self.with_pool(which, |scheduler, pool| Some(scheduler.move_to_slow(pool))),
            Event::ToSettling { which } => {
                self.with_pool(which, |scheduler, pool| Some(scheduler.move_to_settling(pool)))
            }
            Event::Forget { divisor } => {
                let forgotten = self.scheduler.forget(|item| item % divisor == 0, self.now);
                self.give(forgotten);
            }
            Event::Stale { age } => {
                let stale = self.scheduler.stale(age, self.now, |item| item % 2 == 0);
                self.give(stale);
            }
            Event::Pass { time } => self.now += time,
            Event::Sweep => self.scheduler.sweep(self.now),
            Event::SetCaps(caps) => {
                self.loosest = wider(&self.loosest, &caps);
                self.scheduler.set_caps(caps, self.now);
            }
        }
        self.check();
    }

    fn offer(&mut self, team: usize, host: usize, side: Side, bytes: usize) {
        // The first host means a team without a URL: its lane has no origin.
        let origin = (host > 0).then(|| Origin::parse(&format!("https://h{host}.example")).unwrap());
        let target = origin.clone().map_or(QueueTarget::Default(Mode::Live), QueueTarget::Origin);
        let key = LaneKey { team: format!("team_{team}").into(), origin };
        let offer = Offer { key, target: &target, side, bytes, item: self.offered };
        self.scheduler.offer(offer, self.now);
        self.offered += 1;
    }

    fn next(&mut self) -> bool {
        let Some((slot, pool, item)) = self.scheduler.next(self.now) else {
            self.scheduler.check_drained(self.now);
            return false;
        };
        self.running.push(Running { slot: Some(slot), pool: Some(pool) });
        self.give(vec![item]);
        true
    }

    fn drain(&mut self) {
        while self.next() {
            self.check();
        }
    }

    fn leave(&mut self, which: usize, prompt: bool) {
        let count = self.running.len().max(1);
        let Some(slot) = self.running.get_mut(which % count).and_then(|running| running.slot.take()) else { return };
        self.scheduler.leave(slot, prompt, self.now);
        self.running.retain(|running| running.slot.is_some() || running.pool.is_some());
    }

    fn with_pool(&mut self, which: usize, change: impl FnOnce(&mut Scheduler<u32>, Pool) -> Option<Pool>) {
        let count = self.running.len().max(1);
        let Some(running) = self.running.get_mut(which % count) else { return };
        if let Some(pool) = running.pool.take() {
            running.pool = change(&mut self.scheduler, pool);
        }
        self.running.retain(|running| running.slot.is_some() || running.pool.is_some());
    }

    fn give(&mut self, items: Vec<u32>) {
        for item in items {
            assert!(item < self.offered && self.given.insert(item), "{item} is given out once");
        }
    }

    fn check(&self) {
        let scheduler = &self.scheduler;
        scheduler.check(&self.loosest);
        assert_eq!(scheduler.waiting(), self.offered as usize - self.given.len());
        let pools = || self.running.iter().filter_map(|running| running.pool);
        assert_eq!(scheduler.unsettled(), pools().count());
        let fast = pools().filter(|pool| matches!(pool, Pool::Fast { .. })).count();
        let unproven = pools().filter(|pool| *pool == Pool::Fast { unproven: true }).count();
        assert_eq!((scheduler.pools.fast.used(), scheduler.pools.unproven.used()), (fast, unproven));
        let slow = pools().filter(|pool| *pool == Pool::Slow).count();
        let settling = pools().filter(|pool| *pool == Pool::Settling).count();
        assert!(slow <= self.loosest.slow && settling <= self.loosest.settling);
        let slots = self.running.iter().filter(|running| running.slot.is_some()).count();
        assert_eq!(scheduler.lanes.iter().map(Lane::in_flight).sum::<usize>(), slots);
    }

    /// Ends the running attempts one by one, and starts what may start, until nothing runs.
    fn finish(&mut self, prompt: bool) {
        self.drain();
        while !self.running.is_empty() {
            self.on(Event::Leave { which: 0, prompt });
            self.drain();
            self.on(Event::Release { which: 0 });
            self.drain();
        }
    }
}

fn wider(a: &Caps, b: &Caps) -> Caps {
    Caps {
        endpoint: a.endpoint.max(b.endpoint),
        origin: a.origin.max(b.origin),
        team: a.team.max(b.team),
        fast: a.fast.max(b.fast),
        slow: a.slow.max(b.slow),
        settling: a.settling.max(b.settling),
        unproven: a.unproven.max(b.unproven),
        ..*a
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn all_counts_and_places_hold_after_any_event(
        caps in caps(0), events in proptest::collection::vec(event(0), 1..120),
    ) {
        let mut world = World::new(caps);
        for event in events {
            world.on(event);
        }
        world.finish(true);
    }

    #[test]
    fn everything_that_was_offered_starts_once_all_else_ends(
        caps in caps(1), events in proptest::collection::vec(event(1), 1..120), prompt in any::<bool>(),
    ) {
        let mut world = World::new(caps);
        for event in events {
            world.on(event);
        }
        world.finish(prompt);
        prop_assert_eq!(world.scheduler.waiting(), 0);
        prop_assert_eq!(world.given.len(), world.offered as usize);
        prop_assert_eq!(world.scheduler.unsettled(), 0);
    }
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
                    let pool = if host == 0 { scheduler.move_to_slow(pool) } else { pool };
                    scheduler.leave(slot, host > 1, Instant::now());
                    scheduler.release(pool);
                    finished += 1;
                }
            }
            running.extend(drain(&mut scheduler));
            prop_assert!(running.len() <= CAPS.fast + CAPS.slow);
            scheduler.check(&CAPS);
        }
        // If every attempt ends, every item starts.
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
