//! Row 36 on the model: what is older than it is to be kept is deleted, in pieces.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::store::{PruneAsk, Pruned};

impl State {
    /// Row 36. Those in `kept` stay in any case.
    pub(super) fn prune(&mut self, ask: &PruneAsk, kept: &BTreeSet<CallbackId>) -> Pruned {
        // Ids begin with the time of their event. Nothing settles before its event, unless that time is wrong.
        let from = |id: &CallbackId, at: Timestamp| id.as_bytes()[..6] >= at.millis().max(0).to_be_bytes()[2..];
        let young = |id: &CallbackId| from(id, ask.settled_before) && !from(id, ask.now);
        let ids = self.rows.iter().filter(|(_, rows)| rows.settled.is_some()).map(|(id, _)| *id);
        let ids = ids.filter(|id| ask.after.is_none_or(|after| *id > after) && !young(id));
        let piece: Vec<_> = ids.take(ask.at_most).collect();
        let next = piece.last().copied().filter(|_| piece.len() == ask.at_most);
        let before = self.rows.len();
        for id in piece {
            let rows = &self.rows[&id];
            let may_go = rows.pending.is_none() && !kept.contains(&id);
            if may_go && rows.settled.as_ref().is_some_and(|row| row.settled_at < ask.settled_before) {
                self.rows.remove(&id);
                self.kept.remove(&id);
                self.attempts.retain(|(of, _), _| *of != id);
            }
        }
        Pruned {
            settled: before - self.rows.len(),
            dead_letters: remove_oldest(&mut self.dead_letters, ask.at_most, |letter| {
                Some(letter.buried_at).filter(|at| *at < ask.dead_letters_before)
            }),
            event_ids: remove_oldest(&mut self.event_ids, ask.at_most, |(_, at)| {
                Some(*at).filter(|at| *at < ask.event_ids_before)
            }),
            // The model has no rows of queues.
            queues: 0,
            more_days: false,
            next,
        }
    }
}

/// Removes the oldest entries that are too old, at most so many. `too_old` gives the time of such an entry.
fn remove_oldest<K: Ord + Copy, V>(
    map: &mut BTreeMap<K, V>,
    at_most: usize,
    too_old: impl Fn(&V) -> Option<Timestamp>,
) -> usize {
    let mut old: Vec<_> = map.iter().filter_map(|(key, value)| too_old(value).map(|at| (at, *key))).collect();
    old.sort();
    old.truncate(at_most);
    for (_, key) in &old {
        map.remove(key);
    }
    old.len()
}
