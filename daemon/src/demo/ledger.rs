//! The ledger compares what was produced, what was received, and what was stored. Each of the three counts for
//! itself.

use std::collections::BTreeMap;

use super::producer::{Fate, Producer};
use super::receiver::Receipts;
use crate::app::App;

/// One line: how often something was produced, seen by the receiver (if it could be), and stored.
pub(super) struct Line {
    pub(super) what: String,
    pub(super) produced: u64,
    pub(super) received: Option<u64>,
    pub(super) stored: u64,
}

pub(super) struct Ledger {
    pub(super) lines: Vec<Line>,
    pub(super) forged: u64,
    pub(super) pending: u64,
}

impl Ledger {
    pub(super) async fn draw(producer: &Producer, receipts: &Receipts, app: &App) -> anyhow::Result<Self> {
        let totals = app.reads().totals().await?;
        let mut stored: BTreeMap<String, u64> = BTreeMap::new();
        for (state, reason, count) in totals.settled {
            let what = reason.map_or(state.clone(), |reason| format!("{state}: {reason}"));
            stored.insert(what, count);
        }
        for (reason, count) in totals.dead_letters {
            stored.insert(format!("dead letter: {}", reason.name()), count);
        }
        let mut produced: BTreeMap<String, u64> = BTreeMap::new();
        for (fate, count) in producer.fates() {
            let what = match fate {
                Fate::Delivered => "delivered".to_owned(),
                Fate::Exhausted => "exhausted".to_owned(),
                Fate::Abandoned(reason) => format!("abandoned: {reason}"),
                Fate::Dead(reason) => format!("dead letter: {reason}"),
            };
            produced.insert(what, *count);
        }
        let entries = receipts.entries();
        let accepted = entries.accepted.len() as u64;
        let never_accepted = entries.tries.len() as u64 - accepted;
        let names: std::collections::BTreeSet<_> = produced.keys().chain(stored.keys()).cloned().collect();
        let lines = names
            .into_iter()
            .map(|what| Line {
                received: match what.as_str() {
                    "delivered" => Some(accepted),
                    "exhausted" => Some(never_accepted),
                    _ => None,
                },
                produced: produced.get(&what).copied().unwrap_or(0),
                stored: stored.get(&what).copied().unwrap_or(0),
                what,
            })
            .collect();
        Ok(Self { lines, forged: entries.forged, pending: totals.pending })
    }

    pub(super) fn balances(&self) -> bool {
        self.forged == 0 && self.pending == 0 && self.lines.iter().all(Line::balances)
    }
}

impl Line {
    pub(super) fn balances(&self) -> bool {
        self.produced == self.stored && self.received.is_none_or(|received| received == self.produced)
    }
}
