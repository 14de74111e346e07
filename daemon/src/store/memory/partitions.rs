//! The partitions of the model: who owns them, in which epoch, and how far they were read.

use super::{Partition, State};
use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;
use crate::model::offsets::Watermark;
use crate::store::{InstanceId, Taken};

impl Partition {
    pub(super) fn taken(&self) -> Taken {
        let fresh = self.watermark.upto == 0 && self.watermark.seen_upto == 0 && self.accepted.is_none();
        let (epoch, accepted) = (self.epoch, self.accepted.clone());
        Taken { epoch, watermark: self.watermark, fresh, accepted, deaths: self.deaths }
    }
}

impl State {
    /// Whether this instance has the partition, in this epoch.
    pub(super) fn owns(&self, instance: InstanceId, partition: &PartitionKey, epoch: i64) -> bool {
        let owned = self.partitions.get(partition);
        owned.is_some_and(|owned| (owned.owner, owned.epoch) == (Some(instance.0), epoch))
    }

    pub(super) fn take(&mut self, instance: InstanceId, partition: &PartitionKey, now: Timestamp) -> &mut Partition {
        let watermark = Watermark { upto: 0, seen_upto: 0, last: None };
        let new =
            Partition { epoch: 0, owner: None, watermark, accepted: None, moved_at: now, taken_upto: 0, deaths: 0 };
        let taken = self.partitions.entry(partition.clone()).or_insert(new);
        taken.epoch += 1;
        taken.owner = Some(instance.0);
        taken.taken_upto = taken.watermark.upto;
        taken
    }
}
