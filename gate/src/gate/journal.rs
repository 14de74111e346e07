//! What is told of refusals and failures: a few lines a second, and how many more there were. Forgers write no log full.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second.
const LINES: u32 = 10;

#[derive(Default)]
pub(super) struct Journal(Mutex<Window>);

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    untold: u64,
}

impl Journal {
    /// Whether a line may be written now, and how many were not since the last one.
    pub(super) fn may(&self) -> Option<u64> {
        self.may_at(Instant::now())
    }

    fn may_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            (window.began, window.lines) = (Some(now), 0);
        }
        if window.lines >= LINES {
            window.untold += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_a_second_are_told_and_the_others_counted() {
        let (journal, now) = (Journal::default(), Instant::now());
        let told: Vec<_> = (0..25).map(|_| journal.may_at(now)).collect();
        assert!(told[..10].iter().all(|line| *line == Some(0)) && told[10..].iter().all(Option::is_none));
        assert_eq!(journal.may_at(now + Duration::from_secs(1)), Some(15));
        assert_eq!(journal.may_at(now + Duration::from_secs(1)), Some(0));
    }
}
