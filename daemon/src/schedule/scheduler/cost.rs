//! What a turn costs and who gets it, in counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::tests::{drain, offer};
use super::*;

/// Caps of a usual size.
const LARGE: Caps = Caps {
    endpoint: 16,
    origin: 64,
    team: 192,
    fast: 512,
    slow: 256,
    settling: 256,
    unproven: 128,
    lane_bytes: 6 << 20,
    waiting: 64,
};

/// Ends the oldest attempt and starts what may start, `turns` times. Returns the items that started.
fn turn(scheduler: &mut Scheduler<u32>, turns: usize) -> Vec<u32> {
    let mut running: VecDeque<_> = drain(scheduler).into();
    let mut started = Vec::new();
    for _ in 0..turns {
        let (slot, pool, _) = running.pop_front().unwrap();
        scheduler.leave(slot, true, Instant::now());
        scheduler.release(pool);
        let next = drain(scheduler);
        started.extend(next.iter().map(|(_, _, item)| *item));
        running.extend(next);
    }
    started
}

#[test]
fn turns_are_even_over_teams_though_one_has_a_thousand_lanes() {
    let caps = Caps { fast: 10, unproven: 10, ..LARGE };
    let mut scheduler = Scheduler::new(caps);
    for host in 0..1_000 {
        for _ in 0..3 {
            offer(&mut scheduler, "large", &format!("h{host}.example"), Side::Fresh, 0);
        }
    }
    for team in 1..10_u32 {
        for _ in 0..200 {
            offer(&mut scheduler, &format!("small{team}"), &format!("s{team}.example"), Side::Fresh, team);
        }
    }
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for team in turn(&mut scheduler, 1_000) {
        *counts.entry(team).or_default() += 1;
    }
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|count| (99..=101).contains(count)), "{counts:?}");
}

#[test]
fn turns_are_even_over_the_lanes_of_a_team() {
    let mut scheduler = Scheduler::new(Caps { fast: 5, unproven: 5, ..LARGE });
    for host in 0..50_u32 {
        for _ in 0..if host == 0 { 1_000 } else { 20 } {
            offer(&mut scheduler, "team", &format!("h{host}.example"), Side::Fresh, host);
        }
    }
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for host in turn(&mut scheduler, 500) {
        *counts.entry(host).or_default() += 1;
    }
    assert_eq!(counts.len(), 50);
    assert!(counts.values().all(|count| (9..=11).contains(count)), "{counts:?}");
}

/// A hundred thousand lanes: half of them idle, half held back by the unproven permits, by a full team or by a full
/// origin. One more lane is proven.
fn crowd() -> Scheduler<u32> {
    let mut scheduler = Scheduler::new(Caps { unproven: 4, ..LARGE });
    let proven = |scheduler: &mut Scheduler<u32>, team: &str, host: &str| {
        offer(scheduler, team, host, Side::Fresh, 0);
        let (slot, pool, _) = scheduler.next(Instant::now()).unwrap();
        scheduler.leave(slot, true, Instant::now());
        scheduler.release(pool);
    };
    proven(&mut scheduler, "busy", "busy.example");
    for lane in 0..50_000 {
        proven(&mut scheduler, &format!("t{}", lane % 5_000), &format!("idle{lane}.example"));
    }
    // One origin of many teams, which hangs.
    for lane in 0..10_000 {
        offer(&mut scheduler, &format!("t{lane}"), "hung.example", Side::Fresh, 0);
    }
    // One team with many origins, which hang.
    for lane in 0..20_000 {
        offer(&mut scheduler, "hung", &format!("hung{lane}.example"), Side::Fresh, 0);
    }
    for lane in 0..20_000 {
        offer(&mut scheduler, &format!("t{lane}"), &format!("new{lane}.example"), Side::Fresh, 0);
    }
    assert_eq!(drain(&mut scheduler).len(), 4, "the unproven permits");
    scheduler
}

#[test]
fn a_callback_costs_the_same_beside_a_hundred_thousand_lanes() {
    let steps_of = |scheduler: &mut Scheduler<u32>| {
        let before = scheduler.steps();
        offer(scheduler, "busy", "busy.example", Side::Fresh, 1);
        let (slot, pool, item) = scheduler.next(Instant::now()).unwrap();
        assert_eq!(item, 1);
        assert!(scheduler.next(Instant::now()).is_none());
        assert_eq!(scheduler.free_for_due(), LARGE.fast - 5);
        let rooms = scheduler.rooms(Instant::now()).len();
        assert!(rooms <= 5, "{rooms} lanes have a request under way");
        scheduler.leave(slot, true, Instant::now());
        scheduler.release(pool);
        scheduler.steps() - before
    };
    let mut scheduler = crowd();
    for _ in 0..1_000 {
        let steps = steps_of(&mut scheduler);
        assert!(steps <= 100, "{steps} steps");
    }
}

/// Attempts that hang end one by one and others take their slots and permits, while an origin, a team and the unproven
/// permits are all used up. A lane may once move on to another gate that is full; the lanes that wait must not be moved
/// to and fro each time that one of those gates has room.
#[test]
fn a_place_that_comes_free_moves_few_of_the_lanes_that_wait() {
    let caps = Caps { unproven: 64, origin: 32, team: 32, ..LARGE };
    let mut scheduler = Scheduler::new(caps);
    for lane in 0..10_000 {
        offer(&mut scheduler, &format!("t{lane}"), "hung.example", Side::Fresh, 1);
        offer(&mut scheduler, "hung", &format!("hung{lane}.example"), Side::Fresh, 2);
    }
    let (mut slots, mut permits): (VecDeque<_>, VecDeque<_>) =
        drain(&mut scheduler).into_iter().map(|(slot, pool, _)| (slot, pool)).unzip();
    assert_eq!(slots.len(), 64);
    let mut most = 0;
    for round in 0..2_000 {
        let before = scheduler.steps();
        // Slots and permits are given back apart, so that now the one and now the other is short.
        if round / 16 % 2 == 0 {
            scheduler.leave(slots.pop_front().unwrap(), false, Instant::now());
        } else {
            scheduler.release(permits.pop_front().unwrap());
        }
        for (slot, pool, _) in drain(&mut scheduler) {
            slots.push_back(slot);
            permits.push_back(pool);
        }
        if round >= 64 {
            most = most.max(scheduler.steps() - before);
        }
    }
    assert!(most <= 200, "{most} steps");
    scheduler.check(&caps);
}

#[test]
fn looking_for_stale_callbacks_looks_only_where_fresh_ones_wait() {
    let mut scheduler = crowd();
    scheduler.forget(|_| true, Instant::now());
    for item in 0..20 {
        offer(&mut scheduler, "busy", "busy.example", Side::Fresh, item);
    }
    drain(&mut scheduler);
    let before = scheduler.steps();
    assert_eq!(scheduler.stale(Duration::ZERO, Instant::now(), |_| true), [16, 17, 18, 19]);
    let steps = scheduler.steps() - before;
    assert!(steps <= 50, "{steps} steps");
}
