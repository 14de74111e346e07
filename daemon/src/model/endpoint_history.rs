//! The outcomes of an endpoint's last attempts, and whether it fails. People and alerts use them; delivery decides nothing
//! by them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::Outcome;
use super::endpoint::Origin;
use crate::base::clock::Timestamp;

/// How many attempts of one endpoint are remembered.
const KEPT: usize = 20;
/// An endpoint fails after so many failures in a row, over so long a time. A few errors in one second are no state.
const FAILING_ATTEMPTS: u32 = 5;
const FAILING_FOR: Duration = Duration::from_secs(60);

/// An endpoint with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHistory {
    pub team: Arc<str>,
    pub origin: Origin,
    pub recent: RecentOutcomes,
}

/// The last outcomes of one endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentOutcomes {
    /// The newest one is the last.
    outcomes: VecDeque<Outcome>,
    /// Failures since the last success.
    pub failures: u32,
    /// When the first of them ended.
    pub failing_since: Option<Timestamp>,
    pub last_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
}

/// A change that somebody should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The endpoint fails from now on.
    Failing,
    /// It answered again, after it had failed for so long.
    Recovered { after: Duration },
}

impl RecentOutcomes {
    /// These outcomes, the newest one last, without anything else.
    pub fn of(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let mut outcomes: VecDeque<_> = outcomes.into_iter().collect();
        while outcomes.len() > KEPT {
            outcomes.pop_front();
        }
        Self { outcomes, ..Self::default() }
    }

    /// Adds the outcome of an attempt that ended at this time.
    pub fn note(&mut self, outcome: Outcome, at: Timestamp) -> Option<Turn> {
        let failed_before = self.is_failing();
        if self.outcomes.len() == KEPT {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
        self.last_at = Some(at);
        if outcome == Outcome::Ok {
            let since = self.failing_since.take();
            self.failures = 0;
            self.last_success_at = Some(at);
            return since.filter(|_| failed_before).map(|since| Turn::Recovered { after: at.since(since) });
        }
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(at);
        (!failed_before && self.is_failing()).then_some(Turn::Failing)
    }

    /// Whether the endpoint fails: several attempts in a row have failed, over some time.
    pub fn is_failing(&self) -> bool {
        let lasts = self.last_at.zip(self.failing_since).map(|(last, since)| last.since(since));
        self.failures >= FAILING_ATTEMPTS && lasts.is_some_and(|lasts| lasts >= FAILING_FOR)
    }

    pub fn last(&self) -> Option<Outcome> {
        self.outcomes.back().copied()
    }

    /// The newest one is the last.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.outcomes.iter().copied()
    }

    /// Each outcome and how often it occurred. The most frequent one is the first.
    pub fn counts(&self) -> Vec<(Outcome, usize)> {
        let mut counts: Vec<(Outcome, usize)> = Vec::new();
        for outcome in &self.outcomes {
            match counts.iter_mut().find(|(known, _)| known == outcome) {
                Some((_, count)) => *count += 1,
                None => counts.push((*outcome, 1)),
            }
        }
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.name().cmp(b.0.name())));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[test]
    fn the_last_twenty_are_kept_and_a_success_ends_a_row_of_failures() {
        let mut recent = RecentOutcomes::default();
        for n in 0..30 {
            recent.note(if n < 15 { Outcome::Ok } else { Outcome::ServerError }, Timestamp::from_millis(n));
        }
        assert_eq!(recent.counts(), [(Outcome::ServerError, 15), (Outcome::Ok, 5)]);
        assert_eq!((recent.failures, recent.last()), (15, Some(Outcome::ServerError)));
        assert_eq!(recent.last_success_at, Some(Timestamp::from_millis(14)));
        assert_eq!(recent.failing_since, Some(Timestamp::from_millis(15)));
        recent.note(Outcome::Ok, Timestamp::from_millis(31));
        assert_eq!((recent.failures, recent.failing_since), (0, None));
    }

    #[test]
    fn an_endpoint_fails_after_some_failures_over_some_time_and_recovers_at_a_success() {
        let mut recent = RecentOutcomes::default();
        let turns: Vec<_> = (0..10).map(|_| recent.note(Outcome::HeadTimeout, at(1))).collect();
        assert!(turns.iter().all(Option::is_none) && !recent.is_failing(), "all of them within a second");
        assert_eq!(recent.note(Outcome::ServerError, at(61)), Some(Turn::Failing));
        assert_eq!(recent.note(Outcome::ServerError, at(90)), None, "it is told once");
        assert_eq!(recent.note(Outcome::Ok, at(101)), Some(Turn::Recovered { after: Duration::from_secs(100) }));
        assert_eq!(recent.note(Outcome::Ok, at(102)), None);
        for second in [200, 300, 400, 500] {
            assert_eq!(recent.note(Outcome::ServerError, at(second)), None, "too few");
        }
        assert_eq!(recent.note(Outcome::ServerError, at(600)), Some(Turn::Failing));
    }

    #[test]
    fn what_was_stored_is_what_it_was() {
        let mut recent = RecentOutcomes::default();
        for second in 0..40 {
            recent.note(if second % 3 == 0 { Outcome::Ok } else { Outcome::Gone }, at(second));
        }
        let outcomes = RecentOutcomes::of(recent.outcomes());
        assert_eq!(RecentOutcomes { outcomes: outcomes.outcomes, ..recent.clone() }, recent);
        let too_many = recent.outcomes().chain(recent.outcomes());
        assert_eq!(RecentOutcomes::of(too_many).outcomes, recent.outcomes, "the newest are kept");
    }
}
