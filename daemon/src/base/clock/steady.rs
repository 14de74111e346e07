//! The store's clock. Every stored time comes from it, and it makes no step: the wall clock gives its start, and the
//! boot-time clock carries it on, which counts while the machine is suspended.
//!
//! While both agree, they are one clock. If the wall clock steps away, nobody can know which one is right. This clock
//! then goes on without the wall clock until both agree again, until a record's time confirms the wall clock, or until
//! an operator accepts it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::{Clock, ClockState, SystemClock, Timestamp};

/// How far the wall clock may be away and is still followed. Receivers accept signatures that are 300 s old.
pub const NEAR: Duration = Duration::from_secs(60);
/// After a pause this long, the clock of a start may be wrong: nothing ends and nothing is pruned until it is confirmed.
const LONG_PAUSE: Duration = Duration::from_secs(3_600);
/// By how much the time on the way to the store's clock and back may vary.
const JITTER: Duration = Duration::from_millis(50);
/// How old a record may be that confirms a clock. Producers send events when they happen.
const FRESH: Duration = Duration::from_secs(300);

/// The two clocks of the system.
trait Sources: Send + Sync {
    /// Milliseconds since 1970. It may step.
    fn wall(&self) -> Timestamp;
    /// Milliseconds since the start of the machine. It never steps.
    fn boot(&self) -> i64;
}

struct System;

impl Sources for System {
    fn wall(&self) -> Timestamp {
        SystemClock.now()
    }

    fn boot(&self) -> i64 {
        let time = clock_gettime(ClockId::Boottime);
        time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000)
    }
}

pub struct SteadyClock {
    sources: Box<dyn Sources>,
    /// This clock's time at the start of the machine.
    origin: AtomicI64,
    /// The newest time in the store at the start, if nothing confirms yet that so much time has passed since.
    unconfirmed_since: AtomicI64,
    is_unconfirmed: AtomicBool,
    /// The store has a clock of its own, which this one follows. The wall clock is only compared with it.
    is_anchored: AtomicBool,
    /// What the last look at the state said.
    was_trusted: AtomicBool,
    /// By how much this clock was set back since it was last asked, in milliseconds.
    set_back: AtomicI64,
    /// This clock's time at the start of the daemon, in milliseconds.
    begun: AtomicI64,
}

impl SteadyClock {
    /// Starts with the wall clock.
    pub fn new() -> Self {
        Self::of(Box::new(System))
    }

    fn of(sources: Box<dyn Sources>) -> Self {
        let origin = AtomicI64::new(sources.wall().millis().saturating_sub(sources.boot()));
        Self {
            sources,
            origin,
            unconfirmed_since: AtomicI64::new(0),
            is_unconfirmed: AtomicBool::new(false),
            is_anchored: AtomicBool::new(false),
            was_trusted: AtomicBool::new(true),
            set_back: AtomicI64::new(0),
            begun: AtomicI64::new(i64::MIN),
        }
    }

    fn steady(&self) -> Timestamp {
        Timestamp::from_millis(self.origin.load(Ordering::SeqCst).saturating_add(self.sources.boot()))
    }

    fn follow(&self, time: Timestamp) {
        self.origin.store(time.millis().saturating_sub(self.sources.boot()), Ordering::SeqCst);
    }

    fn look(&self) -> ClockState {
        let now = self.now();
        let wall = self.sources.wall();
        let (ahead, behind) = (wall.since(now), now.since(wall));
        if ahead > NEAR {
            ClockState::WallAhead(ahead)
        } else if behind > NEAR {
            ClockState::WallBehind(behind)
        } else if self.is_unconfirmed.load(Ordering::SeqCst) {
            let newest = Timestamp::from_millis(self.unconfirmed_since.load(Ordering::SeqCst));
            ClockState::Unconfirmed(now.since(newest))
        } else {
            ClockState::Agrees
        }
    }

    fn begin_after(&self, newest: Option<Timestamp>) {
        let wall = self.sources.wall();
        self.begun.store(wall.max(newest.unwrap_or(wall)).millis(), Ordering::SeqCst);
        let Some(newest) = newest else { return };
        if newest.since(wall) > NEAR {
            // Time does not go back, so the store's times or the wall clock are wrong.
            self.follow(newest);
        } else if wall.since(newest) > LONG_PAUSE {
            self.unconfirmed_since.store(newest.millis(), Ordering::SeqCst);
            self.is_unconfirmed.store(true, Ordering::SeqCst);
        }
    }

    /// Sets this clock to the wall clock. Returns by how much it was set back.
    fn set_to_wall(&self) -> Duration {
        let (wall, steady) = (self.sources.wall(), self.steady());
        self.follow(wall);
        let back = steady.since(wall);
        self.set_back.fetch_max(i64::try_from(back.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        back
    }
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        if self.is_anchored.load(Ordering::SeqCst) {
            return self.steady();
        }
        let (wall, steady) = (self.sources.wall(), self.steady());
        if wall.since(steady) <= NEAR && steady.since(wall) <= NEAR {
            self.follow(wall);
            return wall;
        }
        let newest = Timestamp::from_millis(self.unconfirmed_since.load(Ordering::SeqCst));
        if self.is_unconfirmed.load(Ordering::SeqCst) && wall < steady && newest.since(wall) <= NEAR {
            // This clock was never confirmed, and the wall clock has come back to a time that the store does not exclude.
            self.set_to_wall();
            self.is_unconfirmed.store(wall.since(newest) > LONG_PAUSE, Ordering::SeqCst);
            return wall;
        }
        steady
    }

    fn wall(&self) -> Timestamp {
        self.sources.wall()
    }

    fn is_trusted(&self) -> bool {
        self.was_trusted.load(Ordering::SeqCst)
    }

    fn state(&self) -> ClockState {
        let state = self.look();
        self.was_trusted.store(state.is_trusted(), Ordering::SeqCst);
        state
    }

    fn begin(&self, newest: Option<Timestamp>) {
        self.begin_after(newest);
        self.state();
    }

    fn anchor(&self, now: Timestamp) {
        let (steady, wall) = (self.steady(), self.sources.wall());
        let was_anchored = self.is_anchored.load(Ordering::SeqCst);
        if !was_anchored || now.since(steady).max(steady.since(now)) > JITTER {
            self.follow(now);
            self.is_anchored.store(true, Ordering::SeqCst);
        }
        // Two clocks that agree confirm each other.
        if now.since(wall).max(wall.since(now)) <= NEAR {
            self.is_unconfirmed.store(false, Ordering::SeqCst);
        }
    }

    fn is_anchored(&self) -> bool {
        self.is_anchored.load(Ordering::SeqCst)
    }

    fn witness(&self, record: Timestamp) {
        if self.is_trusted() {
            return;
        }
        let wall = self.sources.wall();
        if wall.since(record) > FRESH || record.since(wall) > NEAR {
            return;
        }
        match self.state() {
            ClockState::Unconfirmed(_) => self.is_unconfirmed.store(false, Ordering::SeqCst),
            // The record was made after the time that this clock shows, so this clock is behind. A record says nothing
            // about a wall clock that went back: it may have waited in Kafka.
            ClockState::WallAhead(_) if !self.is_anchored.load(Ordering::SeqCst) && record.since(self.now()) > NEAR => {
                self.set_to_wall();
            }
            _ => {}
        }
    }

    fn accept(&self) -> Duration {
        self.is_unconfirmed.store(false, Ordering::SeqCst);
        // The clock of the store's server is set there.
        if self.is_anchored.load(Ordering::SeqCst) { Duration::ZERO } else { self.set_to_wall() }
    }

    fn take_set_back(&self) -> Option<(Duration, Timestamp)> {
        let millis = self.set_back.swap(0, Ordering::SeqCst);
        let by = u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis)?;
        Some((by, Timestamp::from_millis(self.begun.load(Ordering::SeqCst))))
    }
}

#[cfg(test)]
#[path = "steady_tests.rs"]
mod tests;
