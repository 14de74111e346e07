//! Which partitions bring records for one lane alone. The backlog of such a partition stays in Kafka: parking it would
//! help nobody else.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use crate::model::event::PartitionKey;
use crate::model::lease::Lease;
use crate::schedule::LaneKey;

/// Records in a row for one lane that make a partition that lane's own.
const ENOUGH: u32 = 1_000;

#[derive(Default)]
pub(super) struct LaneStreaks(HashMap<Arc<PartitionKey>, Streak>);

/// What a partition brought in its epoch.
struct Streak {
    epoch: i64,
    /// The lane of the last record, as a hash.
    lane: u64,
    in_a_row: u32,
    in_all: u32,
}

impl LaneStreaks {
    /// Notes the lane that a first try leads to.
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

    /// Whether the last thousand records of the first try's partition led to one lane; or all of them, if they are
    /// fewer.
    pub(super) fn serves_one_lane(&self, lease: &Lease) -> bool {
        let streak = self.0.get(&lease.facts.record.partition).filter(|streak| Some(streak.epoch) == lease.epoch());
        streak.is_some_and(|streak| streak.in_a_row >= streak.in_all.min(ENOUGH))
    }

    /// Forgets partitions that are no longer ours.
    pub(super) fn retain(&mut self, is_ours: impl Fn(&PartitionKey, i64) -> bool) {
        self.0.retain(|partition, streak| is_ours(partition, streak.epoch));
    }
}
