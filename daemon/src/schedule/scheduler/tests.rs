//! An example of each rule.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::model::team::Mode;

pub(super) const CAPS: Caps =
    Caps { endpoint: 4, origin: 6, team: 8, fast: 16, slow: 4, settling: 4, unproven: 16, lane_bytes: 100, waiting: 3 };

pub(super) fn key(team: &str, host: &str) -> LaneKey {
    LaneKey { team: team.into(), origin: Origin::parse(&format!("https://{host}")) }
}

pub(super) fn offer(scheduler: &mut Scheduler<u32>, team: &str, host: &str, side: Side, item: u32) {
    let now = Instant::now();
    let target = &QueueTarget::Default(Mode::Live);
    scheduler.offer(Offer { key: key(team, host), target, side, bytes: 50, item }, now);
}

pub(super) fn drain(scheduler: &mut Scheduler<u32>) -> Vec<(Slot, Pool, u32)> {
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
        |scheduler: &mut Scheduler<u32>| scheduler.rooms(Instant::now()).iter().map(|room| room.rows).sum::<usize>();
    assert_eq!(rows(&mut scheduler), 2, "half of its slots");
    // Other lanes of its team take all slots of the team. This lane still keeps one row ready.
    for host in ["b.example", "c.example"] {
        for item in 0..10 {
            offer(&mut scheduler, "a", host, Side::Fresh, item);
        }
    }
    drain(&mut scheduler);
    assert_eq!(rows(&mut scheduler), 3, "one a lane");
    offer(&mut scheduler, "a", "a.example", Side::Due, 99);
    assert_eq!(rows(&mut scheduler), 2);
}

#[test]
fn unproven_endpoints_share_a_part_of_the_fast_permits() {
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
    let mut scheduler = Scheduler::new(Caps { endpoint: 16, origin: 64, team: 192, fast: 512, unproven: 128, ..CAPS });
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
    let first = scheduler.move_to_slow(started[0].1);
    assert_eq!(first, Pool::Slow);
    assert_eq!(scheduler.move_to_slow(started[1].1), started[1].1, "full: it keeps what it has");
    assert_eq!(scheduler.move_to_settling(first), Pool::Settling);
    assert_eq!(scheduler.move_to_settling(started[2].1), started[2].1);
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

#[test]
fn a_callback_of_a_lane_below_its_cap_is_never_stale() {
    let mut scheduler = Scheduler::new(CAPS);
    offer(&mut scheduler, "a", "a.example", Side::Fresh, 1);
    assert!(scheduler.stale(Duration::ZERO, Instant::now(), |_| true).is_empty(), "it may start");
    assert_eq!(drain(&mut scheduler).len(), 1);
}

#[test]
fn a_lane_that_waits_at_an_origin_is_called_though_others_always_have_work() {
    let mut scheduler = Scheduler::new(Caps { endpoint: 1, origin: 1, fast: 2, ..CAPS });
    for item in 0..100 {
        offer(&mut scheduler, "busy", "busy.example", Side::Fresh, item);
        offer(&mut scheduler, "busy", "other.example", Side::Fresh, item);
        offer(&mut scheduler, "busy", "third.example", Side::Fresh, item);
    }
    offer(&mut scheduler, "a", "shared.example", Side::Fresh, 1_000);
    offer(&mut scheduler, "b", "shared.example", Side::Fresh, 2_000);
    // The machine is the limit, and some lane is ready at every turn.
    let mut running: VecDeque<_> = drain(&mut scheduler).into();
    let mut order = Vec::new();
    for _ in 0..20 {
        let (slot, pool, item) = running.pop_front().unwrap();
        order.push(item);
        scheduler.leave(slot, true, Instant::now());
        scheduler.release(pool);
        running.extend(drain(&mut scheduler));
    }
    assert!(order.contains(&1_000) && order.contains(&2_000), "{order:?}");
}

#[test]
fn a_lane_of_a_full_team_does_not_keep_others_from_a_slot_at_their_origin() {
    let mut scheduler = Scheduler::new(Caps { team: 2, origin: 2, ..CAPS });
    // Two other teams hold the origin's slots, while "a" and "b" wait there.
    offer(&mut scheduler, "x", "shared.example", Side::Fresh, 1);
    offer(&mut scheduler, "y", "shared.example", Side::Fresh, 2);
    let holders = drain(&mut scheduler);
    offer(&mut scheduler, "a", "shared.example", Side::Fresh, 3);
    offer(&mut scheduler, "b", "shared.example", Side::Fresh, 4);
    assert!(drain(&mut scheduler).is_empty());
    // Now "a" is at its cap because of another lane.
    offer(&mut scheduler, "a", "1.example", Side::Fresh, 5);
    offer(&mut scheduler, "a", "2.example", Side::Fresh, 6);
    let elsewhere = drain(&mut scheduler);
    assert_eq!(elsewhere.len(), 2);
    scheduler.leave(holders[0].0, true, Instant::now());
    let next: Vec<u32> = drain(&mut scheduler).into_iter().map(|(_, _, item)| item).collect();
    assert_eq!(next, [4], "\"a\" was first, but may not start");
    scheduler.leave(elsewhere[0].0, true, Instant::now());
    assert!(drain(&mut scheduler).is_empty(), "its origin is full again");
    scheduler.leave(holders[1].0, true, Instant::now());
    assert_eq!(drain(&mut scheduler).len(), 1);
}
