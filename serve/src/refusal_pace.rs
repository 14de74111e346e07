//! The pace of refusals: only so many a second go out, over all connections together, so that a crowd of refused requests
//! leaves the machine to the callers that are served. The pace never delays anything but refusals, and it never answers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The longest that one refusal waits, however many wait before it.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Reading and verifying this many bytes costs about as much as one refusal.
const BYTES_PER_REFUSAL: usize = 16 * 1024;
/// How long after the last delayed refusal the server counts as crowded.
const CROWDED_FOR: Duration = Duration::from_secs(1);
/// How long large work rests while the server is crowded.
const REST: Duration = Duration::from_millis(1);

/// Marks a response as a refusal, among its extensions. It holds the bytes of the request's body that were read.
#[derive(Debug, Clone, Copy)]
pub struct Refused(pub usize);

/// When refusals may go out. An idle second is not saved up: after it, the first refusal goes at once and the second waits.
#[derive(Debug)]
pub struct RefusalPace {
    interval: Duration,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// When the next refusal may go out.
    next: Option<Instant>,
    /// When a refusal last had to wait.
    last_delayed: Option<Instant>,
}

impl RefusalPace {
    /// A pace of so many refusals a second, at least one.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), queue: Mutex::default() }
    }

    /// When this refusal may go out. Asking takes the place. Where many bytes were read for this refusal, the
    /// refusals behind it wait longer.
    pub(crate) fn reserve(&self, now: Instant, refused: Refused) -> Instant {
        let mut queue = self.queue();
        let due = queue.next.map_or(now, |next| next.max(now));
        if due > now {
            queue.last_delayed = Some(now);
        }
        if due > now + LONGEST_WAIT {
            return now + LONGEST_WAIT;
        }
        let places = u32::try_from(1 + refused.0 / BYTES_PER_REFUSAL).unwrap_or(u32::MAX);
        queue.next = Some(due + self.interval.saturating_mul(places));
        due
    }

    /// Large work calls this between its pieces, so that no other request waits for all of it. Other tasks get their turn,
    /// and while the server is crowded they get the processor for a moment.
    pub async fn rest(&self) {
        if self.is_crowded(Instant::now()) {
            tokio::time::sleep(REST).await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    fn is_crowded(&self, now: Instant) -> bool {
        self.queue().last_delayed.is_some_and(|delayed| now.saturating_duration_since(delayed) < CROWDED_FOR)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_their_pace_and_nothing_is_saved_up() {
        let pace = RefusalPace::new(10);
        let begin = Instant::now();
        let at = |ms: u64| (pace.reserve(begin + Duration::from_millis(ms), Refused(0)) - begin).as_millis();
        assert_eq!([at(0), at(0), at(0), at(50)], [0, 100, 200, 300]);
        // After an idle time one goes at once, and no more.
        assert_eq!([at(10_000), at(10_000), at(10_099)], [10_000, 10_100, 10_200]);
        let crowd: Vec<_> = (0..100).map(|_| at(20_000)).collect();
        assert_eq!((crowd[19], crowd[20], crowd[99]), (21_900, 22_000, 22_000), "nobody waits longer");
        // Those that waited the longest time took no place.
        assert_eq!(at(21_000), 22_100);
        // A refusal for which much was read makes the others wait longer.
        let large = pace.reserve(begin + Duration::from_secs(30), Refused(5 * BYTES_PER_REFUSAL));
        assert_eq!(((large - begin).as_millis(), at(30_000), at(30_000)), (30_000, 30_600, 30_700));
    }

    #[test]
    fn the_server_is_crowded_while_refusals_wait_and_a_moment_longer() {
        let pace = RefusalPace::new(10);
        let now = Instant::now();
        pace.reserve(now, Refused(0));
        assert!(!pace.is_crowded(now), "one refusal is no crowd");
        pace.reserve(now, Refused(0));
        assert!(pace.is_crowded(now) && pace.is_crowded(now + CROWDED_FOR / 2));
        assert!(!pace.is_crowded(now + CROWDED_FOR), "the crowd has gone");
    }
}
