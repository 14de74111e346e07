//! A clock that counts only the time in which the gate ran. A process that was stopped for seconds (a suspended machine, a
//! used-up share of the processor) read nothing meanwhile, and no sender is slow for that.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Whoever waits asks the clock at least this often.
pub(super) const NEXT_LOOK: Duration = Duration::from_millis(250);
/// A longer time without a question was no waiting: the process was stopped, or there was nobody who waited.
const LONGEST_GAP: Duration = NEXT_LOOK.saturating_mul(2);

/// Its instants are to be compared with one another only: they lie behind those of [`Instant::now`] by the time that did not
/// count.
pub(super) struct AwakeClock {
    state: Mutex<State>,
}

struct State {
    asked_at: Instant,
    now: Instant,
}

impl AwakeClock {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { state: Mutex::new(State { asked_at: now, now }) }
    }

    pub(super) fn now(&self) -> Instant {
        self.at(Instant::now())
    }

    fn at(&self, at: Instant) -> Instant {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = at.saturating_duration_since(state.asked_at);
        state.asked_at = state.asked_at.max(at);
        state.now += passed.min(LONGEST_GAP);
        state.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_of_the_process_counts_as_one_look() {
        let clock = AwakeClock::new();
        let begin = Instant::now();
        let first = clock.at(begin);
        let passed = |ms: u64| clock.at(begin + Duration::from_millis(ms)).duration_since(first).as_millis();
        assert_eq!([250, 500, 600].map(passed), [250, 500, 600]);
        assert_eq!(passed(600 + 4_000), 600 + 500, "it was stopped for four seconds");
        assert_eq!(passed(4_850), 1_350);
        assert_eq!(passed(4_700), 1_350, "another thread's question, a little older");
    }
}
