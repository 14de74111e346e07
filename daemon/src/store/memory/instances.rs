//! The instances of the model: one after the other, or several at once where the model stands for a database that they share.

use std::sync::Arc;

use super::{Instance, State};
use crate::base::clock::Timestamp;
use crate::store::engine::{new_run, went_back};
use crate::store::reads::InstanceEnd;
use crate::store::{Begun, InstanceId, Pulse, StoreError};

/// Earlier instances that are kept for the record.
const INSTANCES_KEPT: i64 = 100;

impl State {
    pub(super) fn begin(&mut self, now: Timestamp) -> Begun {
        let unclean = if self.is_shared { self.instances.values().any(|one| one.is_news()) } else { self.end_all() };
        self.instances.values_mut().for_each(|instance| instance.is_noted = instance.end.is_some());
        let last = self.instances.keys().max().copied().unwrap_or(0);
        self.instances.retain(|id, instance| *id > last - INSTANCES_KEPT || instance.end.is_none());
        let earlier_runs = self.instances.values().map(|instance| instance.run.clone()).collect();
        let run = new_run(now);
        let begun = Instance { batch: 0, started_at: now, seen_at: now, end: None, is_noted: false, run: run.clone() };
        self.instances.insert(last + 1, begun);
        Begun { instance: InstanceId(last + 1), store_id: "memory".to_owned(), run, earlier_runs, unclean, now }
    }

    /// Whoever was there before has died, and what it held is free. True if there was one.
    fn end_all(&mut self) -> bool {
        let mut unclean = false;
        for instance in self.instances.values_mut().filter(|instance| instance.end.is_none()) {
            instance.end = Some(InstanceEnd::Died);
            unclean = true;
        }
        for partition in self.partitions.values_mut().filter(|partition| partition.owner.is_some()) {
            partition.count_death();
            partition.owner = None;
        }
        self.void_leases(|_| true);
        unclean
    }

    pub(super) fn end(&mut self, instance: InstanceId) {
        if let Some(ended) = self.instances.get_mut(&instance.0) {
            ended.end = Some(InstanceEnd::Clean);
        }
        for partition in self.partitions.values_mut().filter(|partition| partition.owner == Some(instance.0)) {
            partition.give_up();
        }
    }

    pub(super) fn pulse(&mut self, instance: InstanceId, applied: u64) -> Result<Pulse, StoreError> {
        if self.is_shared && self.instances.get(&instance.0).is_none_or(|known| known.batch < applied) {
            return Err(went_back());
        }
        let ours = || self.partitions.iter().filter(|(_, taken)| taken.owner == Some(instance.0));
        let epochs = self.is_shared.then(|| ours().map(|(key, taken)| (Arc::new(key.clone()), taken.epoch)).collect());
        let wanted = ours().filter(|(_, taken)| taken.wanted_at.is_some()).map(|(key, _)| Arc::new(key.clone()));
        Ok(Pulse { epochs, wanted: wanted.collect(), ..Pulse::default() })
    }

    pub(super) fn lives(&self, instance: i64) -> bool {
        self.instances.get(&instance).is_some_and(|instance| instance.end.is_none())
    }
}

impl Instance {
    /// It died, and no instance has begun since.
    fn is_news(&self) -> bool {
        self.end == Some(InstanceEnd::Died) && !self.is_noted
    }
}
