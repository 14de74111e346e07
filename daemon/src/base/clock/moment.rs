//! Moments of the boot-time clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment of the clock that counts from the start of the machine, also while it is suspended, and never steps. Leases are
/// measured with it, because for other processes a lease also ends while this machine is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// The time from `earlier` to this. Zero if `earlier` is later than this.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order_and_never_overflow() {
        let (earlier, later) = (Moment::now(), Moment::now().plus(Duration::from_secs(60)));
        assert!(earlier < later && earlier.since(later) == Duration::ZERO);
        assert!(later.since(earlier) >= Duration::from_secs(60) && later.plus(Duration::MAX) > later);
        assert_eq!(later.elapsed(), Duration::ZERO, "it has not come yet");
    }
}
