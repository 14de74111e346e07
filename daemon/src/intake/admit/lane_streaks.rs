//! Finds partitions that bring records for one lane only. The backlog of such a partition stays in Kafka, because
//! parking it would help no other lane.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use crate::model::event::PartitionKey;
use crate::model::lease::Lease;
use crate::schedule::LaneKey;

/// After this many records in a row for one lane, the partition counts as one with a single lane.
const ENOUGH: u32 = 1_000;

#[derive(Default)]
pub(super) struct LaneStreaks(HashMap<Arc<PartitionKey>, Streak>);

/// The latest records of a partition in its epoch.
struct Streak {
    epoch: i64,
    /// The lane of the last record, as a hash.
    lane: u64,
    in_a_row: u32,
    in_all: u32,
}

impl LaneStreaks {
    /// Notes the lane of a first try.
    pub(super) fn note(&mut self, lease: &Lease, lane: &LaneKey) {
        let Some(epoch) = lease.epoch() else { return };
        let partition = &lease.facts.record.partition;
        let lane = BuildHasherDefault::<DefaultHasher>::default().hash_one(lane);
        match self.0.get_mut(partition).filter(|streak| streak.epoch == epoch) {
            Some(streak) => {
                streak.in_a_row = if streak.lane == lane { streak.in_a_row.saturating_add(1) } else { 1 };
                streak.in_all = streak.in_all.saturating_add(1);
                streak.lane = lane;
            }
            None => {
                self.0.insert(Arc::clone(partition), Streak { epoch, lane, in_a_row: 1, in_all: 1 });
            }
        }
    }

    /// Whether the last thousand records of the first try's partition (or all of them, if there are fewer) had one
    /// lane.
    pub(super) fn serves_one_lane(&self, lease: &Lease) -> bool {
        let streak = self.0.get(&lease.facts.record.partition).filter(|streak| Some(streak.epoch) == lease.epoch());
        streak.is_some_and(|streak| streak.in_a_row >= streak.in_all.min(ENOUGH))
    }

    /// Forgets partitions that are no longer ours.
    pub(super) fn retain(&mut self, is_ours: impl Fn(&PartitionKey, i64) -> bool) {
        self.0.retain(|partition, streak| is_ours(partition, streak.epoch));
    }
}
