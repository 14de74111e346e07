//! The pace of reconnecting: exponential waits with jitter. Callbacks are retried by another rule, `model::retry`.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Waits that double from `first` to `longest` and never end.
pub struct Pace(ExponentialBackoff);

impl Pace {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self(ExponentialBackoff {
            initial_interval: first,
            current_interval: first,
            multiplier: 2.0,
            randomization_factor: 0.2,
            max_interval: longest,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    pub fn next_wait(&mut self) -> Duration {
        let longest = self.0.max_interval;
        self.0.next_backoff().map_or(longest, |wait| wait.min(longest))
    }

    /// Begins with the first wait again.
    pub fn succeeded(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_bound_and_starts_again() {
        let mut pace = Pace::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..8).map(|_| pace.next_wait()).collect();
        assert!(waits[0] < Duration::from_millis(130), "{waits:?}");
        assert!(waits[7] > Duration::from_millis(750) && waits[7] <= Duration::from_secs(1), "{waits:?}");
        pace.succeeded();
        assert!(pace.next_wait() < Duration::from_millis(130));
    }
}
