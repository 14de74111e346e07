//! The partitions of the model: who owns them, in which epoch, and how far they were read.

use super::{Partition, State};
use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;
use crate::model::offsets::Watermark;
use crate::store::{InstanceId, Take, TakeAsk, Taken};

impl Partition {
    fn taken(&self, knows_cluster: bool) -> Taken {
        let fresh = self.watermark.upto == 0 && self.watermark.seen_upto == 0 && self.accepted.is_none();
        let (epoch, accepted) = (self.epoch, self.accepted.clone());
        Taken { epoch, watermark: self.watermark, fresh, knows_cluster, accepted, deaths: self.deaths }
    }

    /// Its owner died. A watermark that moved since it was taken says that it was not the record above it.
    pub(super) fn count_death(&mut self) {
        self.deaths = if self.taken_upto == self.watermark.upto { self.deaths + 1 } else { 1 };
    }

    /// Its owner does not need it any more.
    pub(super) fn give_up(&mut self) {
        (self.owner, self.deaths, self.wanted_at) = (None, 0, None);
    }
}

impl State {
    /// Whether this instance has the partition, in this epoch.
    pub(super) fn owns(&self, instance: InstanceId, partition: &PartitionKey, epoch: i64) -> bool {
        let owned = self.partitions.get(partition);
        owned.is_some_and(|owned| (owned.owner, owned.epoch) == (Some(instance.0), epoch))
    }

    /// Where instances share the store, an owner that lives is told first, and has its time.
    pub(super) fn ask(&mut self, ask: &TakeAsk, now: Timestamp) -> Take {
        let owner = self.partitions.get(&*ask.partition).and_then(|taken| taken.owner);
        if let Some(owner) = owner.filter(|owner| self.is_shared && *owner != ask.instance.0) {
            let lives = self.lives(owner);
            let taken = self.partitions.get_mut(&*ask.partition).expect("a partition with an owner is there");
            if !lives {
                taken.count_death();
            } else if taken.wanted_at.is_none_or(|since| now.since(since) < ask.patience) {
                taken.wanted_at.get_or_insert(now);
                return Take::Held { owner: InstanceId(owner) };
            }
        }
        self.take(ask.instance, &ask.partition, now);
        Take::Taken(self.taken(&ask.partition).expect("it was just taken"))
    }

    pub(super) fn taken(&self, partition: &PartitionKey) -> Option<Taken> {
        let mut of_cluster = self.partitions.iter().filter(|(key, _)| key.cluster == partition.cluster);
        let knows_cluster = of_cluster.any(|(_, known)| known.watermark.upto > 0 || known.accepted.is_some());
        Some(self.partitions.get(partition)?.taken(knows_cluster))
    }

    pub(super) fn take(&mut self, instance: InstanceId, partition: &PartitionKey, now: Timestamp) -> &mut Partition {
        let taken = self.partitions.entry(partition.clone()).or_insert(Partition {
            epoch: 0,
            owner: None,
            wanted_at: None,
            watermark: Watermark { upto: 0, seen_upto: 0, last: None },
            accepted: None,
            moved_at: now,
            taken_upto: 0,
            deaths: 0,
        });
        taken.epoch += 1;
        taken.wanted_at = None;
        taken.owner = Some(instance.0);
        taken.taken_upto = taken.watermark.upto;
        taken
    }
}
