//! The timeline of the database: it changes when a standby is promoted, and then the clock may be another one, and commits may
//! be lost. Each new session tells the one that it found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Default)]
pub(super) struct Timeline(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    name: String,
    changed_at: Option<Instant>,
    is_news: bool,
}

impl Timeline {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session found this timeline.
    pub(super) fn found(&self, name: &str) {
        let mut known = self.known();
        if known.name == name {
            return;
        }
        if !known.name.is_empty() {
            tracing::warn!(
                before = known.name,
                now = name,
                "the database was failed over: another server is the primary now"
            );
            (known.changed_at, known.is_news) = (Some(Instant::now()), true);
        }
        name.clone_into(&mut known.name);
    }

    /// The name that was found last.
    pub(super) fn name(&self) -> String {
        self.known().name.clone()
    }

    /// It changed a while ago, which this process learns only now.
    pub(super) fn changed(&self) {
        self.known().changed_at = Some(Instant::now());
    }

    /// Whether it changed since this was asked last.
    pub(super) fn take_change(&self) -> bool {
        std::mem::take(&mut self.known().is_news)
    }

    /// Whether it has changed since then.
    pub(super) fn changed_since(&self, then: Instant) -> bool {
        self.known().changed_at.is_some_and(|at| at >= then)
    }

    /// Whether it has changed within this time.
    pub(super) fn changed_within(&self, time: Duration) -> bool {
        self.known().changed_at.is_some_and(|at| at.elapsed() < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_timeline_is_no_change_and_another_one_is_told_once() {
        let timeline = Timeline::default();
        timeline.found("00000001");
        timeline.found("00000001");
        assert!(!timeline.take_change() && !timeline.changed_within(Duration::MAX));
        let before = Instant::now();
        assert!(!timeline.changed_since(before), "a session stays");
        timeline.found("00000002");
        assert!(timeline.changed_since(before), "a session of the earlier primary goes");
        assert!(!timeline.changed_since(Instant::now() + Duration::from_millis(1)), "one of the new primary stays");
        assert!(timeline.take_change() && !timeline.take_change());
        assert!(timeline.changed_within(Duration::from_secs(60)) && !timeline.changed_within(Duration::ZERO));
    }
}
