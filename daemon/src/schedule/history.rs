//! The outcomes of an endpoint's last attempts, to be shown to people. No decision uses them.

use std::collections::VecDeque;

use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;

/// How many attempts of one endpoint are remembered.
const KEPT: usize = 20;

/// The last outcomes of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct RecentOutcomes {
    /// The newest one is the last.
    outcomes: VecDeque<Outcome>,
    /// Failures since the last success.
    pub failures: u32,
    pub last_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
}

impl RecentOutcomes {
    pub fn note(&mut self, outcome: Outcome, at: Timestamp) {
        if self.outcomes.len() == KEPT {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
        self.last_at = Some(at);
        if outcome == Outcome::Ok {
            self.failures = 0;
            self.last_success_at = Some(at);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }

    pub fn last(&self) -> Option<Outcome> {
        self.outcomes.back().copied()
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

    #[test]
    fn the_last_twenty_are_kept_and_a_success_ends_a_row_of_failures() {
        let mut recent = RecentOutcomes::default();
        for n in 0..30 {
            recent.note(if n < 15 { Outcome::Ok } else { Outcome::ServerError }, Timestamp::from_millis(n));
        }
        assert_eq!(recent.counts(), [(Outcome::ServerError, 15), (Outcome::Ok, 5)]);
        assert_eq!((recent.failures, recent.last()), (15, Some(Outcome::ServerError)));
        assert_eq!(recent.last_success_at, Some(Timestamp::from_millis(14)));
        recent.note(Outcome::Ok, Timestamp::from_millis(31));
        assert_eq!(recent.failures, 0);
    }
}
