//! Callbacks of the Kafka client: rebalances, errors, statistics. Rebalances run inside the consumer's poll, on the
//! consumer's own thread. They wait for the store and for parks, within a bound, and never for anything that waits for
//! them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::assigned::Partitions;
use super::interpret::Interpreter;
use super::partition::{Check, Event, Flow, Partition, PartitionState};
use super::trouble::Troubles;
use super::{Deps, KafkaState, PartitionRead, Stalled};
use crate::base::clock::Timestamp;
use crate::flight::{ToPark, parked};
use crate::model::event::PartitionKey;

/// An answer to a fetch may be that old: `fetch.wait.max.ms`, and the way.
const FETCH_AGE: Duration = Duration::from_secs(1);

pub(super) struct Context {
    pub(super) deps: Arc<Deps>,
    pub(super) cluster: Arc<str>,
    pub(super) runtime: Handle,
    pub(super) stalled: Arc<Stalled>,
    pub(super) troubles: Arc<Troubles>,
    pub(super) state: watch::Sender<KafkaState>,
    /// How long a rebalance waits for what is in flight to be parked.
    pub(super) grace: Duration,
    pub(super) lists: Lists,
}

/// What the consumer's thread keeps of one client's partitions. The locks are for the client's callbacks, which get
/// no exclusive reference; no other thread takes them.
#[derive(Default)]
pub(super) struct Lists {
    partitions: Mutex<Partitions>,
    /// Partitions that wait for the ends of their logs, in order.
    questions: Mutex<VecDeque<(Arc<PartitionKey>, Check)>>,
    ends: Mutex<Ends>,
}

/// Ends by topic and number, by the client's statistics.
pub(super) type Ends = HashMap<(String, i32), End>;

/// Where a partition's log ends (its high watermark), and until when it was seen to end there: known only while it is
/// fetched from a broker that is up.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) offset: i64,
    pub(super) seen_until: Option<Timestamp>,
}

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

    /// Tells others how the partitions stand, where that changed.
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
        });
        let mut read: Vec<_> = read.collect();
        read.sort_by(|a, b| a.partition.cmp(&b.partition));
        self.state.send_if_modified(|state| {
            let changed = state.assigned != read.len() || state.blocked != blocked;
            state.assigned = read.len();
            state.partitions = read;
            state.blocked = blocked;
            changed
        });
    }

    /// Stops starting records of these partitions, forgets what waits, and parks what is in flight under this
    /// instance's lease: those attempts end here and settle by token. Returns when all that is durable, or when the
    /// grace is over.
    pub(super) fn give_up(&self, partitions: &[Arc<PartitionKey>]) {
        if partitions.is_empty() {
            return;
        }
        let deps = &self.deps;
        let mut parks = Vec::new();
        for partition in partitions {
            self.stalled.remove(partition);
            let to_park = deps.flight.inflight.give_up(partition);
            deps.delivery.lanes.forget(|lease| lease.epoch().is_some() && lease.facts.record.partition == *partition);
            let under_way = |park: &ToPark| park.is_started.then_some(deps.attempt_deadline);
            parks.extend(to_park.iter().map(|park| parked(&park.lease, under_way(park))));
        }
        let count = parks.len() as u64;
        deps.metrics.parked_total.with_label_values(&["revoked"]).inc_by(count);
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
                "partitions go before their attempts in flight could be recorded: repeats are possible"
            );
            deps.metrics.repeats_possible_total.with_label_values(&["revoke_timeout"]).inc_by(count);
        }
        for partition in partitions {
            deps.flight.inflight.gone(partition);
        }
    }

    fn keys_of(&self, list: &TopicPartitionList) -> Vec<Arc<PartitionKey>> {
        let key =
            |topic: &str, number| PartitionKey { cluster: Arc::clone(&self.cluster), topic: topic.into(), number };
        list.elements().iter().map(|element| Arc::new(key(element.topic(), element.partition()))).collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        self.deps.metrics.rebalances_total.inc();
        // What was seen of them before may be long ago.
        self.ends().clear();
        let keys = self.keys_of(list);
        for key in &keys {
            let machine = Partition::new(self.deps.store_id.as_str().into());
            self.partitions().insert(Arc::clone(key), machine);
        }
        let tell = |event: Event| keys.iter().map(|key| (Arc::clone(key), event.clone())).collect();
        // A store or a broker that is silent holds a rebalance only so long. What is not taken by then is taken later.
        let mut interpreter = Interpreter::in_rebalance(consumer, Instant::now() + self.grace);
        interpreter.drive(tell(Event::Assigned));
        interpreter.assign(&keys);
        // A pause outlives a revocation: what reads is resumed, whatever it was before.
        let flow = Flow { now: Instant::now(), hold: false, outstanding: 0, window: usize::MAX };
        interpreter.drive(tell(Event::Flow(flow)));
        self.troubles.set_reachable(true);
        self.publish();
        tracing::info!(partitions = keys.len(), "partitions assigned");
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        self.deps.metrics.rebalances_total.inc();
        let keys = self.keys_of(list);
        Interpreter::in_rebalance(consumer, Instant::now() + self.grace)
            .drive(keys.iter().map(|key| (Arc::clone(key), Event::Revoked)).collect());
        for key in &keys {
            self.partitions().remove(key);
        }
        self.questions().retain(|(key, _)| !keys.contains(key));
        self.publish();
        if let Err(error) = consumer.incremental_unassign(list) {
            tracing::error!(%error, "the Kafka client did not accept a revocation");
        }
        tracing::info!(partitions = keys.len(), "partitions revoked");
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, _reason: &str) {
        self.troubles.report(&error);
    }

    fn stats(&self, statistics: Statistics) {
        let now = self.deps.clock.now();
        let is_up =
            |leader: i32| statistics.brokers.values().any(|broker| broker.nodeid == leader && broker.state == "UP");
        let mut ends = self.ends();
        for (topic, of_topic) in &statistics.topics {
            for (number, partition) in &of_topic.partitions {
                let offset = partition.ls_offset.max(partition.hi_offset);
                let fetched = partition.fetch_state == "active" && is_up(partition.leader);
                if *number >= 0 && offset >= 0 {
                    let seen_until = fetched.then(|| now.minus(FETCH_AGE));
                    ends.insert((topic.clone(), *number), End { offset, seen_until });
                }
            }
        }
        drop(ends);
        if statistics.brokers.values().any(|broker| broker.state == "UP" && broker.nodeid >= 0) {
            self.troubles.set_reachable(true);
        }
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RespErr, list: &mut TopicPartitionList) {
        match event {
            RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }

    fn commit_callback(&self, result: rdkafka::error::KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        tracing::debug!(%error, "offsets were not committed; the next commit carries them");
        for element in offsets.elements() {
            if let Some(assigned) = self.partitions().get_mut(element.topic(), element.partition()) {
                assigned.machine.on(Event::CommitFailed);
            }
        }
    }
}
