//! A limit on the log lines about refusals and failures, so that forged requests cannot fill a log. Lines beyond the limit are
//! counted, and the next line tells their number.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second.
const LINES_PER_SECOND: u32 = 10;

#[derive(Default)]
pub(super) struct LogLimiter(Mutex<Window>);

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    skipped: u64,
}

impl LogLimiter {
    /// If a line may be written now: how many lines were skipped since the last one.
    pub(super) fn allow(&self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            (window.began, window.lines) = (Some(now), 0);
        }
        if window.lines >= LINES_PER_SECOND {
            window.skipped += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_a_second_are_allowed_and_the_others_counted() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        let allowed: Vec<_> = (0..25).map(|_| limiter.allow_at(now)).collect();
        assert!(allowed[..10].iter().all(|line| *line == Some(0)) && allowed[10..].iter().all(Option::is_none));
        assert_eq!(limiter.allow_at(now + Duration::from_secs(1)), Some(15));
        assert_eq!(limiter.allow_at(now + Duration::from_secs(1)), Some(0));
    }
}
