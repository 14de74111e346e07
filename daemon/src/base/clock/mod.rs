//! Time in milliseconds. Only this module reads the system's clocks, so that tests can use a clock of their own.
//!
//! Every stored time comes from [`Clock::now`], the store's clock, which makes no step (see [`SteadyClock`]). Durations
//! are measured with `Instant`; a [`Timestamp`] is for what must be stored or shown.

mod moment;
mod steady;

pub use moment::Moment;
pub use steady::{NEAR, SteadyClock};

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const YEAR_2020: i64 = 1_577_836_800_000;
const YEAR_2100: i64 = 4_102_444_800_000;

/// Milliseconds since 1970, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Reads a time as RFC 3339 writes it. A date alone, as in `2026-11-24`, is its midnight in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let is_date = text.len() == "2026-11-24".len() && !text.contains(['T', 't', ':']);
        let parsed = if is_date { format!("{text}T00:00:00Z").parse() } else { text.parse::<jiff::Timestamp>() };
        parsed.ok().map(|time| Self(time.as_millisecond()))
    }

    /// Whether it lies between 2020 and 2100. A time outside is in another unit, or comes from a clock that was never set.
    pub fn is_plausible(self) -> bool {
        (YEAR_2020..YEAR_2100).contains(&self.0)
    }

    /// Whole seconds since 1970, 0 before it.
    pub fn unix_seconds(self) -> u64 {
        u64::try_from(self.0.div_euclid(1000)).unwrap_or(0)
    }

    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }

    #[must_use]
    pub fn minus(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this. Zero if `earlier` is later than this.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339 with milliseconds, in UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether the store's clock and the wall clock can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    Agrees,
    /// This long after the store's newest time, nothing has confirmed yet that so much time has passed.
    Unconfirmed(Duration),
    /// The wall clock shows a time that is later than the store's by so much.
    WallAhead(Duration),
    /// The wall clock shows a time that is earlier than the store's by so much.
    WallBehind(Duration),
}

impl ClockState {
    /// While this is false, nothing ends for its time and nothing is pruned.
    pub fn is_trusted(self) -> bool {
        self == Self::Agrees
    }
}

/// The store's clock.
pub trait Clock: Send + Sync {
    /// The time that is stored and compared.
    fn now(&self) -> Timestamp;

    /// The time of the wall clock, for signatures and for logs.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    fn state(&self) -> ClockState {
        ClockState::Agrees
    }

    /// Whether the clocks agreed when that was looked at last. Cheap enough for every attempt and every record.
    fn is_trusted(&self) -> bool {
        self.state().is_trusted()
    }

    /// A start on a store whose newest time is this one.
    fn begin(&self, _newest: Option<Timestamp>) {}

    /// The store has a clock of its own, and it shows this time now. From here on this clock follows that one.
    fn anchor(&self, _now: Timestamp) {}

    /// Whether the store has a clock of its own, which this one follows.
    fn is_anchored(&self) -> bool {
        false
    }

    /// A record with this time was read: somebody else's clock showed it.
    fn witness(&self, _record: Timestamp) {}

    /// An operator says that the wall clock is right. Returns by how much the store's clock was set back.
    fn accept(&self) -> Duration {
        Duration::ZERO
    }

    /// By how much the store's clock was set back since this was asked last, and from when on it may have been wrong.
    fn take_set_back(&self) -> Option<(Duration, Timestamp)> {
        None
    }
}

/// The wall clock by itself, for tools that store nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn now(&self) -> Timestamp {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| ms.saturating_neg()),
        };
        Timestamp(millis)
    }
}

/// A clock that tests set.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.0))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(1_764_000_000_000).to_string(), "2025-11-24T16:00:00.000Z");
        assert_eq!(Timestamp::from_millis(1_764_000_000_007).to_string(), "2025-11-24T16:00:00.007Z");
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "9223372036854775807ms");
    }

    #[test]
    fn arithmetic_never_overflows() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end.plus(Duration::MAX), end);
        assert_eq!(Timestamp::from_millis(5).since(end), Duration::ZERO);
    }
}
