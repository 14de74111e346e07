//! Steps of the wall clock, one after the other.

use std::sync::Arc;

use super::*;

const START: i64 = 1_764_000_000_000;
const HOUR: i64 = 3_600_000;

/// Two clocks that are set by hand.
#[derive(Default)]
struct Hands {
    wall: AtomicI64,
    boot: AtomicI64,
}

impl Sources for Arc<Hands> {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::SeqCst))
    }

    fn boot(&self) -> i64 {
        self.boot.load(Ordering::SeqCst)
    }
}

impl Hands {
    /// Time passes on both clocks.
    fn pass(&self, millis: i64) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
        self.boot.fetch_add(millis, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock.
    fn step(&self, millis: i64) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

/// A clock on a machine that was started a day ago.
fn clock() -> (Arc<Hands>, SteadyClock) {
    let hands = Arc::new(Hands { wall: AtomicI64::new(START), boot: AtomicI64::new(24 * HOUR) });
    (Arc::clone(&hands), SteadyClock::of(Box::new(hands)))
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3_600)
}

#[test]
fn a_suspended_machine_makes_no_step() {
    let (hands, clock) = clock();
    hands.pass(25 * HOUR);
    assert_eq!((clock.now(), clock.state()), (at(25 * HOUR), ClockState::Agrees));
}

#[test]
fn small_corrections_are_followed() {
    let (hands, clock) = clock();
    for step in [59_000, -59_000, 1_000] {
        hands.step(step);
        assert_eq!((clock.now(), clock.state()), (clock.wall(), ClockState::Agrees), "{step}");
    }
}

#[test]
fn a_step_is_not_followed_and_ends_when_the_clocks_agree_again() {
    for (step, state) in
        [(25 * HOUR, ClockState::WallAhead(hours(25))), (-25 * HOUR, ClockState::WallBehind(hours(25)))]
    {
        let (hands, clock) = clock();
        hands.step(step);
        hands.pass(15_000);
        assert_eq!((clock.now(), clock.state()), (at(15_000), state));
        assert_eq!(clock.wall(), at(15_000 + step), "signatures and logs show it");
        hands.step(-step);
        hands.pass(1_000);
        assert_eq!((clock.now(), clock.state()), (at(16_000), ClockState::Agrees));
        assert_eq!(clock.take_set_back(), None);
    }
}

#[test]
fn an_operator_accepts_the_wall_clock() {
    let (hands, clock) = clock();
    hands.step(5 * HOUR);
    assert_eq!(clock.accept(), Duration::ZERO);
    assert_eq!((clock.now(), clock.state(), clock.take_set_back()), (at(5 * HOUR), ClockState::Agrees, None));
    hands.step(-2 * HOUR);
    assert_eq!(clock.accept(), hours(2));
    assert_eq!((clock.now(), clock.state()), (at(3 * HOUR), ClockState::Agrees));
    assert_eq!(clock.take_set_back().map(|(by, _)| by), Some(hours(2)));
    assert_eq!(clock.take_set_back(), None, "it is told once");
}

#[test]
fn a_fresh_record_confirms_a_step_forward_only() {
    let (hands, clock) = clock();
    hands.step(3 * HOUR);
    for old in [at(0), at(HOUR), at(3 * HOUR - 301_000), at(3 * HOUR + 61_000)] {
        clock.witness(old);
        assert_eq!(clock.state(), ClockState::WallAhead(hours(3)), "{old}");
    }
    clock.witness(at(3 * HOUR - 1_000));
    assert_eq!((clock.now(), clock.state()), (at(3 * HOUR), ClockState::Agrees));
    hands.step(-2 * HOUR);
    clock.witness(at(HOUR));
    assert_eq!(clock.state(), ClockState::WallBehind(hours(2)), "the record may have waited in Kafka");
}

#[test]
fn a_start_behind_the_store_goes_on_from_the_stores_time() {
    let (hands, clock) = clock();
    clock.begin(Some(at(2 * HOUR)));
    hands.pass(1_000);
    assert_eq!((clock.now(), clock.state()), (at(2 * HOUR + 1_000), ClockState::WallBehind(hours(2))));
    clock.witness(at(1_000));
    assert_eq!(clock.state(), ClockState::WallBehind(hours(2)));
    assert_eq!(clock.accept(), hours(2));
    assert_eq!((clock.now(), clock.state()), (at(1_000), ClockState::Agrees));
}

#[test]
fn a_start_far_ahead_of_the_store_is_confirmed_by_a_record() {
    let (hands, clock) = clock();
    clock.begin(Some(at(-25 * HOUR)));
    assert_eq!((clock.now(), clock.state()), (at(0), ClockState::Unconfirmed(hours(25))));
    clock.witness(at(-24 * HOUR));
    assert_eq!(clock.state(), ClockState::Unconfirmed(hours(25)), "an old record says nothing");
    hands.pass(1_000);
    clock.witness(at(500));
    assert_eq!(clock.state(), ClockState::Agrees);
    // A short pause needs no confirmation, and neither does a new store.
    for newest in [Some(at(0)), Some(at(-HOUR)), None] {
        let (_, clock) = self::clock();
        clock.begin(newest);
        assert_eq!(clock.state(), ClockState::Agrees, "{newest:?}");
    }
}

#[test]
fn an_unconfirmed_clock_follows_the_wall_clock_back() {
    let (hands, clock) = clock();
    clock.begin(Some(at(-25 * HOUR)));
    hands.pass(15_000);
    hands.step(-25 * HOUR);
    assert_eq!((clock.now(), clock.state()), (at(15_000 - 25 * HOUR), ClockState::Agrees));
    assert_eq!(clock.take_set_back(), Some((hours(25), at(0))), "it may have been wrong since its start");
    // Not to a time before the store's.
    let (hands, clock) = self::clock();
    clock.begin(Some(at(-25 * HOUR)));
    hands.step(-26 * HOUR);
    assert_eq!(clock.state(), ClockState::WallBehind(hours(26)));
}
