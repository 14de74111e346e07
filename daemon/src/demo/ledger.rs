//! The ledger compares what was produced, what was received, and what was stored. Each of the three counts for
//! itself. Events that have not ended are counted apart, so that the ledger balances at any time.

use std::collections::BTreeMap;

use super::producer::{Fate, Producer};
use super::receiver::Receipts;
use crate::model::state::State;
use crate::store::StoreError;
use crate::store::reads::{CallbackFilter, Page, Reads};

/// Pending callbacks among which those that are sent again are looked for.
const LOOKED_AT: usize = 1_000;

/// One line: how often something that has ended was produced, seen by the receiver (if it could be), and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) what: String,
    pub(super) produced: u64,
    pub(super) received: Option<u64>,
    pub(super) stored: u64,
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) lines: Vec<Line>,
    pub(super) forged: u64,
    /// Events that have not ended, and how many of them wait in the store. The others were not read from Kafka yet.
    pub(super) open: u64,
    pub(super) pending: u64,
}

/// The name of a fate in the ledger.
fn name_of(fate: Fate) -> String {
    match fate {
        Fate::Delivered => "delivered".to_owned(),
        Fate::Exhausted => "exhausted".to_owned(),
        Fate::Abandoned(reason) => format!("abandoned: {reason}"),
        Fate::Dead(reason) => format!("dead letter: {reason}"),
    }
}

impl Ledger {
    pub(super) async fn draw(producer: &Producer, receipts: &Receipts, reads: &dyn Reads) -> Result<Self, StoreError> {
        let totals = reads.totals().await?;
        // What is sent again had ended before: somebody asked for it while the demo ran.
        let waiting = CallbackFilter { state: Some(State::Pending), ..CallbackFilter::default() };
        let waiting = reads.callbacks(waiting, Page { before: None, limit: LOOKED_AT }).await?.docs;
        let rounds = waiting.iter().filter(|(_, rows)| rows.settled.is_some()).count() as u64;
        let mut stored: BTreeMap<String, u64> = BTreeMap::new();
        for (state, reason, count) in totals.settled {
            let what = reason.map_or(state.clone(), |reason| format!("{state}: {reason}"));
            stored.insert(what, count);
        }
        for (reason, count) in totals.dead_letters {
            stored.insert(format!("dead letter: {}", reason.name()), count);
        }
        let ended = producer.ended_by_fate().into_iter().filter(|(_, count)| *count > 0);
        let produced = ended.map(|(fate, count)| (name_of(fate), count)).collect();
        let entries = receipts.entries();
        let accepted = entries.accepted.len() as u64;
        // A callback that was tried and never accepted is exhausted, unless it is still open.
        let still_tried = |id: &&str| entries.tries.contains_key(*id) && !entries.accepted.contains(*id);
        let open_tries = producer.open_callbacks().filter(still_tried).count() as u64;
        let never_accepted = (entries.tries.len() as u64).saturating_sub(accepted).saturating_sub(open_tries);
        Ok(Self {
            lines: joined(&produced, &stored, accepted, never_accepted),
            forged: entries.forged,
            open: producer.open(),
            pending: totals.pending.saturating_sub(rounds),
        })
    }

    pub(super) fn balances(&self) -> bool {
        self.forged == 0 && self.pending <= self.open && self.lines.iter().all(Line::balances)
    }
}

/// The lines of the ledger: everything that was produced or is stored, with what the receiver counted.
fn joined(
    produced: &BTreeMap<String, u64>,
    stored: &BTreeMap<String, u64>,
    accepted: u64,
    never_accepted: u64,
) -> Vec<Line> {
    let names: std::collections::BTreeSet<_> = produced.keys().chain(stored.keys()).cloned().collect();
    let line = |what: String| Line {
        received: match what.as_str() {
            "delivered" => Some(accepted),
            "exhausted" => Some(never_accepted),
            _ => None,
        },
        produced: produced.get(&what).copied().unwrap_or(0),
        stored: stored.get(&what).copied().unwrap_or(0),
        what,
    };
    names.into_iter().map(line).collect()
}

impl Line {
    pub(super) fn balances(&self) -> bool {
        self.produced == self.stored && self.received.is_none_or(|received| received == self.produced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(open: u64, pending: u64, delivered: (u64, u64, u64)) -> Ledger {
        let (produced, received, stored) = delivered;
        let count = |count| BTreeMap::from([("delivered".to_owned(), count)]);
        Ledger { lines: joined(&count(produced), &count(stored), received, 0), forged: 0, open, pending }
    }

    #[test]
    fn it_balances_with_open_events_and_not_with_lost_ones() {
        assert!(ledger(0, 0, (9, 9, 9)).balances());
        assert!(ledger(5, 3, (9, 9, 9)).balances(), "three wait in the store, and two in Kafka");
        assert!(!ledger(2, 3, (9, 9, 9)).balances(), "the store has a callback that nobody produced");
        for wrong in [(9, 8, 9), (9, 9, 8), (8, 9, 9)] {
            assert!(!ledger(5, 3, wrong).balances(), "{wrong:?}");
        }
        assert!(!Ledger { forged: 1, ..ledger(0, 0, (9, 9, 9)) }.balances());
    }
}
