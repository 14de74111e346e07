//! What a transaction changes about queues: pending rows come, change and go.

use std::collections::BTreeMap;

/// For each queue with changed rows, by number: the earliest new due time, and the change of its parked bytes.
#[derive(Default)]
pub(super) struct QueueChanges(BTreeMap<i64, (Option<i64>, i64)>);

impl QueueChanges {
    pub(super) fn note(&mut self, queue: i64, due: Option<i64>, bytes: i64) {
        let entry = self.0.entry(queue).or_insert((None, 0));
        entry.0 = match (entry.0, due) {
            (Some(earlier), Some(due)) => Some(earlier.min(due)),
            (earlier, due) => earlier.or(due),
        };
        entry.1 = entry.1.saturating_add(bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By number, so that rows are locked in one order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, Option<i64>, i64)> + '_ {
        self.0.iter().map(|(queue, (due, bytes))| (*queue, *due, *bytes))
    }
}
