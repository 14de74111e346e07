//! What the consumer's thread and the Kafka client's callbacks share: the partitions, their open questions, and the
//! rooms that intake works with.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::assigned::Partitions;
use super::partition::{Check, PartitionState, Place};
use super::sandbox::{Heard, Sandbox, Sandboxes};
use super::trouble::Troubles;
use super::{Deps, KafkaState, PartitionRead, Stalled};
use crate::base::clock::Timestamp;
use crate::base::labels::{ParkCause, RepeatCause};
use crate::flight::{ToPark, parked};
use crate::model::event::PartitionKey;

pub(super) struct Context {
    pub(super) deps: Arc<Deps>,
    pub(super) cluster: Arc<str>,
    pub(super) runtime: Handle,
    pub(super) stalled: Arc<Stalled>,
    pub(super) troubles: Arc<Troubles>,
    pub(super) state: watch::Sender<KafkaState>,
    /// How long a rebalance waits until the attempts under way are parked.
    pub(super) grace: Duration,
    /// How sandboxes are started.
    pub(super) sandboxes: Sandboxes,
    pub(super) lists: Lists,
}

/// What the consumer's thread keeps about one client's partitions. The locks are needed because the client's callbacks
/// get a shared reference. No other thread takes them.
#[derive(Default)]
pub(super) struct Lists {
    partitions: Mutex<Partitions>,
    /// Partitions that wait for the ends of their logs, in order.
    questions: Mutex<VecDeque<(Arc<PartitionKey>, Check)>>,
    ends: Mutex<Ends>,
    /// Partitions that are read in sandboxes, each with its sandbox as soon as it is known from where.
    sandboxes: Mutex<HashMap<Arc<PartitionKey>, Option<Sandbox>>>,
}

/// The ends of logs by topic and number, from the client's statistics.
pub(super) type Ends = HashMap<(String, i32), End>;

/// The end of a partition's log (its high watermark), and the latest time at which we know that it ended there. The
/// time is known only while the partition is fetched from a broker that is up.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) offset: i64,
    pub(super) ended_there_at: Option<Timestamp>,
    /// The offset of the first record of a transaction that is still open. Nothing from there on is delivered to readers.
    pub(super) open_from: Option<i64>,
}

/// How long the store may take to record that partitions were given up.
const RELEASE: Duration = Duration::from_secs(5);

impl Context {
    pub(super) fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.lists.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn questions(&self) -> MutexGuard<'_, VecDeque<(Arc<PartitionKey>, Check)>> {
        self.lists.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ends(&self) -> MutexGuard<'_, Ends> {
        self.lists.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandboxes_held(&self) -> MutexGuard<'_, HashMap<Arc<PartitionKey>, Option<Sandbox>>> {
        self.lists.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this partition is read in a sandbox.
    pub(super) fn sandbox(&self, key: &Arc<PartitionKey>) {
        self.sandboxes_held().insert(Arc::clone(key), None);
    }

    pub(super) fn is_sandboxed(&self, key: &PartitionKey) -> bool {
        self.sandboxes_held().contains_key(key)
    }

    pub(super) fn sandboxed(&self) -> Vec<Arc<PartitionKey>> {
        self.sandboxes_held().keys().cloned().collect()
    }

    /// Sends the partition's sandbox to this place.
    pub(super) fn send_sandbox(&self, key: &Arc<PartitionKey>, place: Place) {
        let sandbox = self.sandboxes.sandbox(key, place);
        self.sandboxes_held().insert(Arc::clone(key), Some(sandbox));
    }

    /// What the partition's sandbox read next, if the partition is not paused and its window has room.
    pub(super) fn hear(&self, key: &PartitionKey, window: usize) -> Option<Heard> {
        let takes = self.partitions().of(key).is_some_and(|assigned| !assigned.machine.is_paused());
        let has_room = takes && self.deps.flight.inflight.outstanding(key) < window;
        if has_room { self.sandboxes_held().get_mut(key)?.as_mut()?.hear() } else { None }
    }

    /// This partition is not read in a sandbox any more.
    pub(super) fn end_sandbox(&self, key: &PartitionKey) {
        self.sandboxes_held().remove(key);
    }

    /// Publishes the states of the partitions, if they changed.
    pub(super) fn publish(&self) {
        let partitions = self.partitions();
        let blocked = partitions.iter().find_map(|assigned| match assigned.machine.state() {
            PartitionState::Blocked(reason) => Some(reason.sentence(&assigned.key)),
            _ => None,
        });
        let read = partitions.iter().map(|assigned| PartitionRead {
            partition: Arc::clone(&assigned.key),
            lag: assigned.lag,
            recorded_upto: assigned.recorded.upto(),
            held_since: assigned.held.map(|held| held.since),
            is_flowing: assigned.machine.is_flowing() && !self.is_sandboxed(&assigned.key),
        });
        let mut read: Vec<_> = read.collect();
        read.sort_by(|a, b| a.partition.cmp(&b.partition));
        self.state.send_if_modified(|state| {
            let changed = state.assigned != read.len() || state.blocked != blocked;
            state.assigned = read.len();
            state.partitions = read;
            state.blocked = blocked;
            if state.unread_topics().is_none() {
                state.refusal = None;
            }
            changed
        });
    }

    /// Starts no more records of these partitions, forgets the waiting ones, and parks those with an attempt under way,
    /// under this instance's lease. Such an attempt ends here and settles by its token. Returns when all this is
    /// durable, or when the grace is over.
    pub(super) fn give_up(&self, partitions: &[Arc<PartitionKey>]) {
        if partitions.is_empty() {
            return;
        }
        let deps = &self.deps;
        let mut parks = Vec::new();
        for partition in partitions {
            self.end_sandbox(partition);
            self.stalled.remove(partition);
            let to_park = deps.flight.inflight.give_up(partition);
            deps.delivery.lanes.forget(|lease| lease.epoch().is_some() && lease.facts.record.partition == *partition);
            let under_way = |park: &ToPark| park.is_started.then_some(deps.attempt_deadline);
            parks.extend(to_park.iter().map(|park| parked(&park.lease, under_way(park))));
        }
        let count = parks.len() as u64;
        deps.metrics.parked_total.with_label_values(&[ParkCause::Revoked.name()]).inc_by(count);
        let durable = self.runtime.block_on(async {
            let all = async {
                for park in parks {
                    deps.flight.settler.submit(park).await;
                }
                deps.flight.settler.flushed().await
            };
            tokio::time::timeout(self.grace, all).await.unwrap_or(false)
        });
        if !durable && count > 0 {
            tracing::error!(
                count,
                "partitions were revoked before their attempts in flight were recorded: repeats are possible"
            );
            deps.metrics.repeats_possible_total.with_label_values(&[RepeatCause::RevokeTimeout.name()]).inc_by(count);
        }
        let mut left = Vec::new();
        for partition in partitions {
            left.extend(deps.flight.inflight.gone(partition).map(|epoch| (Arc::clone(partition), epoch)));
        }
        // Without a row for each of them, whoever is next waits until they have ended.
        if durable {
            self.release(left);
        }
    }

    /// Of a partition that waits for an operator, nothing is under way.
    pub(super) fn release_blocked(&self, keys: &[Arc<PartitionKey>]) {
        let mut partitions = self.partitions();
        let epoch = |key: &Arc<PartitionKey>| {
            let machine = &partitions.of(key)?.machine;
            matches!(machine.state(), PartitionState::Blocked(_)).then(|| (Arc::clone(key), machine.epoch()))
        };
        let blocked = keys.iter().filter_map(epoch).collect();
        drop(partitions);
        self.release(blocked);
    }

    /// Records that these partitions were given up, each as it was taken in this epoch.
    fn release(&self, partitions: Vec<(Arc<PartitionKey>, i64)>) {
        if partitions.is_empty() {
            return;
        }
        let release = self.deps.store.release(self.deps.begun.instance, partitions);
        let released = self.runtime.block_on(async { tokio::time::timeout(RELEASE, release).await });
        if !matches!(released, Ok(Ok(()))) {
            tracing::warn!("the store did not record that partitions were given up: the next owner waits for them");
        }
    }
}
