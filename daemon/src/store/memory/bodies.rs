//! The bodies of the model's pending callbacks.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::State;
use crate::model::callback::CallbackId;
use crate::model::endpoint::QueueKey;

impl State {
    /// The body of a callback, pending or ended. A pending one that was stored without its body has an empty one, which is none.
    pub(super) fn body(&self, id: CallbackId) -> Option<Bytes> {
        self.bodies.get(&id).filter(|body| !body.is_empty()).or(self.kept.get(&id)).cloned()
    }

    /// Queues with more bytes of bodies than these, those with the most first.
    pub(super) fn full_queues(&self, bytes: u64) -> Vec<QueueKey> {
        let mut sums: BTreeMap<&QueueKey, u64> = BTreeMap::new();
        for (id, rows) in &self.rows {
            if let Some(pending) = &rows.pending {
                let body = self.bodies.get(id).map_or(0, Bytes::len) as u64;
                *sums.entry(&pending.facts.queue).or_default() += body;
            }
        }
        let mut full: Vec<_> = sums.into_iter().filter(|(_, sum)| *sum > bytes).collect();
        full.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
        full.into_iter().map(|(queue, _)| queue.clone()).collect()
    }

    pub(super) fn pending_rows(&self) -> usize {
        self.rows.values().filter(|rows| rows.pending.is_some()).count()
    }
}
