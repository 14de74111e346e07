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

    /// Adds what another process knows of the endpoint. The outcomes are those of the one whose attempt ended last. A row of failures
    /// counts until the other one knows of a success: it began when its first failure of both ended. It is at least as long as the longer
    /// one of the two, because nobody knows which failures both have counted.
    pub fn merge(&mut self, noted: Self) {
        let holds = |one: &Self, other: &Self| {
            one.failing_since.is_some_and(|since| other.last_success_at.is_none_or(|success| since >= success))
        };
        let (known_holds, noted_holds) = (holds(self, &noted), holds(&noted, self));
        (self.failures, self.failing_since) = match (known_holds, noted_holds) {
            (true, true) => (self.failures.max(noted.failures), self.failing_since.min(noted.failing_since)),
            (true, false) => (self.failures, self.failing_since),
            (false, true) => (noted.failures, noted.failing_since),
            (false, false) => (0, None),
        };
        self.last_success_at = self.last_success_at.max(noted.last_success_at);
        if noted.last_at >= self.last_at {
            (self.outcomes, self.last_at) = (noted.outcomes, noted.last_at);
        }
    }

    /// The clock that gave these times was ahead, and shows this time now.
    pub fn set_back(&mut self, now: Timestamp) {
        for at in [&mut self.failing_since, &mut self.last_at, &mut self.last_success_at] {
            *at = at.map(|at| at.min(now));
        }
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
    fn what_processes_know_is_put_together() {
        let of = |outcomes: &[(i64, Outcome)]| {
            let mut recent = RecentOutcomes::default();
            for (second, outcome) in outcomes {
                recent.note(*outcome, at(*second));
            }
            recent
        };
        let merged = |known: &RecentOutcomes, noted: &RecentOutcomes| {
            let mut merged = known.clone();
            merged.merge(noted.clone());
            let RecentOutcomes { outcomes, failures, failing_since, last_at, last_success_at } = merged;
            assert_eq!(last_at, known.last_at.max(noted.last_at));
            assert_eq!(last_success_at, known.last_success_at.max(noted.last_success_at));
            (failures, failing_since, outcomes.len())
        };
        let (ok, error) = (Outcome::Ok, Outcome::ServerError);
        let early = of(&[(1, ok), (10, error), (20, error), (30, error)]);
        let late = of(&[(25, error), (40, error)]);
        assert_eq!(merged(&early, &late), (3, Some(at(10)), 2), "both fail: from the first failure on");
        assert_eq!(merged(&late, &early), (3, Some(at(10)), 2));
        let recovered = of(&[(15, error), (50, ok)]);
        assert_eq!(merged(&early, &recovered), (0, None, 2), "a success ends the failures of all");
        assert_eq!(merged(&recovered, &early), (0, None, 2));
        let again = of(&[(15, error), (50, ok), (60, error)]);
        assert_eq!(merged(&early, &again), (1, Some(at(60)), 3), "what fails after it is a new row");
        let worked_before = of(&[(5, ok)]);
        assert_eq!(merged(&worked_before, &early), (3, Some(at(10)), 4));
        assert_eq!(merged(&RecentOutcomes::default(), &early), (3, Some(at(10)), 4));
        // A process that writes again what it has written.
        let mut more = early.clone();
        more.note(error, at(70));
        assert_eq!(merged(&early, &more), (4, Some(at(10)), 5));
        more.note(ok, at(80));
        assert_eq!(merged(&early, &more), (0, None, 6));
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
