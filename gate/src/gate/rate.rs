//! How fast a body comes, and how fast it must come. A rate is measured over about the last second (over all of its time, if the
//! body is younger), so that a body that stalls is slow soon, however much of it came before. The more of the room for bodies is taken, the faster a large body
//! must come.

use std::time::Duration;

use tokio::time::Instant;

/// What came this long ago counts little more than a third.
const WINDOW: Duration = Duration::from_secs(1);
/// The least rate of a large body, in bytes a second, from each share of the room that is taken, in eighths. Large bodies may
/// take six of them.
const LEAST_RATES: [(usize, f64); 3] = [(5, 131_072.0), (3, 32_768.0), (0, 4_096.0)];

/// A shorter time says nothing of a rate.
const LEAST_SPAN: f64 = 0.001;

/// Bytes a second, over about the last second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    began: Instant,
    /// The bytes that came, each counted less the longer ago it came.
    bytes: f64,
    at: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0.0, at: now }
    }

    /// Bytes came.
    pub(super) fn note(&mut self, bytes: usize, now: Instant) {
        *self = Self { bytes: self.faded(now) + bytes as f64, at: now, ..*self };
    }

    pub(super) fn per_second(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.began).as_secs_f64() / WINDOW.as_secs_f64();
        // The part of the window that this body has lived through: one that came at once is not slow for being young.
        let span = (1.0 - (-age).exp()).max(LEAST_SPAN);
        self.faded(now) / (span * WINDOW.as_secs_f64())
    }

    pub(super) fn is_known(&self) -> bool {
        self.bytes > 0.0
    }

    fn faded(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64() / WINDOW.as_secs_f64();
        self.bytes * (-age).exp()
    }
}

/// The least rate of a large body, in bytes a second, where `taken` of `all` room is taken.
pub(super) fn least(taken: usize, all: usize) -> f64 {
    let eighths = taken.saturating_mul(8).checked_div(all).unwrap_or(8);
    LEAST_RATES.iter().find(|(from, _)| eighths >= *from).map_or(0.0, |(_, rate)| *rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_the_last_second() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut rate = Rate::new(begin);
        for n in 0..50 {
            rate.note(1_000, at(n * 100));
        }
        let steady = rate.per_second(at(4_900));
        assert!((9_000.0..11_500.0).contains(&steady), "10,000 bytes came each second: {steady}");
        let stalled = rate.per_second(at(8_900));
        assert!(stalled < 250.0, "none came for four seconds: {stalled}");
        // Much that came at once does not last.
        rate.note(12 << 20, at(9_000));
        assert!(rate.per_second(at(9_000)) > 1e7 && rate.per_second(at(17_000)) < 5_000.0);
    }

    #[test]
    fn a_young_body_is_measured_over_its_own_time() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut rate = Rate::new(begin);
        assert!(!rate.is_known());
        rate.note(200 << 10, at(10));
        assert!(rate.is_known() && rate.per_second(at(10)) > f64::from(10 << 20), "200 KiB in 10 ms");
        let after_a_second = rate.per_second(at(1_000));
        assert!((100_000.0..150_000.0).contains(&after_a_second), "most of them came long ago: {after_a_second}");
    }

    #[test]
    fn the_least_rate_rises_with_the_room_that_is_taken() {
        let rates = [0, 23, 24, 39, 40, 48, 64].map(|taken| least(taken, 64) as u32);
        assert_eq!(rates, [4_096, 4_096, 32_768, 32_768, 131_072, 131_072, 131_072]);
        assert_eq!(least(0, 0) as u32, 131_072, "no room at all is all taken");
    }
}
