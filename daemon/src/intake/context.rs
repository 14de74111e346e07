//! Callbacks of the Kafka client: rebalances, errors, statistics. Rebalances run inside the consumer's poll, on the
//! consumer's own thread; they wait for the store and for parks, bounded, and never for anything that waits for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::partitions::{Partition, PartitionState, Partitions};
use super::{KafkaState, PartitionRead, Stalled};
use crate::base::clock::{Clock, Timestamp};
use crate::base::metrics::Metrics;
use crate::deliver::inflight::Inflight;
use crate::deliver::parked;
use crate::deliver::settle::Settler;
use crate::model::event::PartitionKey;
use crate::schedule::Lanes;
use crate::store::{InstanceId, Store, Taken};

/// How long a call to the store or to Kafka may hold a rebalance.
const CALL: Duration = Duration::from_secs(5);
/// The same kind of trouble is logged once in this time.
const QUIET: Duration = Duration::from_secs(30);

pub struct Context {
    pub runtime: Handle,
    pub store: Arc<dyn Store>,
    pub store_id: String,
    pub instance: InstanceId,
    pub inflight: Arc<Inflight>,
    pub lanes: Arc<Lanes>,
    pub settler: Settler,
    pub stalled: Arc<Stalled>,
    pub metrics: Arc<Metrics>,
    pub state: watch::Sender<KafkaState>,
    pub cluster: Arc<str>,
    pub grace: Duration,
    /// How long one attempt may take: what is in flight at a revoke keeps its lease that long.
    pub deadline: Duration,
    pub partitions: Mutex<Partitions>,
    pub troubles: Mutex<HashMap<&'static str, Instant>>,
    /// Ends of the partitions, by the client's statistics.
    pub ends: Mutex<Ends>,
    pub clock: Arc<dyn Clock>,
}

/// Ends by topic and number.
pub type Ends = HashMap<(String, i32), End>;

/// Where a partition's log ends (its high watermark), and until when it was seen to end there: known only while it is
/// fetched from a broker that is up.
#[derive(Debug, Clone, Copy)]
pub struct End {
    pub offset: i64,
    pub seen_until: Option<Timestamp>,
}

/// An answer to a fetch may be that old: `fetch.wait.max.ms`, and the way.
const FETCH_AGE: Duration = Duration::from_secs(1);

impl Context {
    pub fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports a trouble of the client: a metric each time, a line now and then.
    pub fn trouble(&self, error: &KafkaError) {
        let kind = kind_of(error);
        self.metrics.kafka_errors_total.with_label_values(&[kind]).inc();
        if kind == "unreachable" {
            self.set_reachable(false);
        }
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(kind).is_none_or(|at| at.elapsed() >= QUIET) {
            troubles.insert(kind, Instant::now());
            let hint = match kind {
                "unreachable" => "no broker answers; the client keeps trying",
                "topic_missing" => "a topic is not there; it is read as soon as it is created",
                "not_authorised" => "the broker refuses us; check kafka.properties and the ACLs of topics and group",
                "out_of_range" => "an offset is no longer, or not yet, in the log",
                "fatal" => "the client gave up; a new one takes its place",
                _ => "the Kafka client reports",
            };
            tracing::error!(kind, %error, "{hint}");
        }
    }

    pub fn set_reachable(&self, reachable: bool) {
        self.metrics.kafka_up.set(i64::from(reachable));
        self.state.send_if_modified(|state| {
            let changed = state.reachable != reachable;
            state.reachable = reachable;
            changed
        });
    }

    /// Tells others how the partitions stand, where that changed.
    pub fn publish(&self, partitions: &Partitions) {
        let blocked = partitions.values().find_map(|partition| match &partition.standing {
            PartitionState::Blocked(why) => Some(why.clone()),
            _ => None,
        });
        let assigned = partitions.len();
        let read = partitions.values().map(|partition| PartitionRead {
            partition: Arc::clone(&partition.key),
            lag: partition.lag,
            recorded_upto: partition.progress.upto(),
        });
        let mut read: Vec<_> = read.collect();
        read.sort_by(|a, b| a.partition.cmp(&b.partition));
        self.state.send_if_modified(|state| {
            state.partitions = read;
            let changed = state.assigned != assigned || state.blocked != blocked;
            state.assigned = assigned;
            state.blocked.clone_from(&blocked);
            changed
        });
    }

    /// Takes one partition over: an epoch from the store, an offset to start from, and how it stands.
    pub fn take(&self, partition: &mut Partition, committed: Option<&(i64, String)>) -> Offset {
        let key = Arc::clone(&partition.key);
        let taken = self.call(self.store.take(self.instance, Arc::clone(&key)));
        let Some(taken) = taken else {
            partition.standing = PartitionState::NotTaken;
            return Offset::Beginning;
        };
        partition.epoch = taken.epoch;
        if let Some(why) = self.foreign(&key, &taken, committed) {
            tracing::error!(partition = %key, reason = %why, "this partition waits for: callbackd offsets accept --from earliest|committed|end");
            partition.standing = PartitionState::Blocked(why);
            return Offset::Beginning;
        }
        if let Some((committed, _)) = committed.filter(|(offset, _)| *offset > taken.watermark.upto) {
            let watermark = taken.watermark.upto;
            tracing::warn!(partition = %key, committed, watermark, "Kafka's offset is ahead of the store: the store went back; reading again from the store's watermark");
        }
        self.start_reading(partition, &taken)
    }

    /// From where a taken partition is read.
    pub fn start_reading(&self, partition: &mut Partition, taken: &Taken) -> Offset {
        partition.epoch = taken.epoch;
        self.inflight.take(Arc::clone(&partition.key), taken.epoch, taken.watermark);
        match taken.watermark.last {
            Some((offset, hash)) => {
                partition.standing = PartitionState::Verifying(offset, hash);
                Offset::Offset(offset)
            }
            None => {
                partition.standing = PartitionState::Reading;
                if taken.watermark.upto == 0 { Offset::Beginning } else { Offset::Offset(taken.watermark.upto) }
            }
        }
    }

    /// Kafka's offsets must be of this store, or accepted by an operator.
    fn foreign(&self, partition: &PartitionKey, taken: &Taken, committed: Option<&(i64, String)>) -> Option<String> {
        let (offset, store) = committed?;
        // Offsets that an operator's tool reset name nobody: where this store has read, it knows better.
        let ours = *store == self.store_id || taken.accepted.as_ref() == Some(store);
        if ours || (store.is_empty() && !taken.fresh) {
            return None;
        }
        self.metrics.repeats_possible_total.with_label_values(&["store_lost"]).inc();
        Some(if store.is_empty() {
            format!("the consumer group has an offset ({offset}) for {partition} that this store knows nothing of")
        } else {
            format!(
                "the consumer group's offset for {partition} was written by another store ({store}): this store was lost or swapped"
            )
        })
    }

    /// Runs a call of the store from this thread, bounded. `None`: it did not answer well.
    pub fn call<T>(&self, call: crate::store::Answer<'_, T>) -> Option<T> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(CALL, call).await });
        match answer {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the store did not answer a partition's question");
                None
            }
            Err(_) => {
                tracing::warn!("the store did not answer a partition's question in time");
                None
            }
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        self.metrics.rebalances_total.inc();
        // What was seen of them before may be long ago.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let end = Instant::now() + self.grace;
        let committed = committed(consumer, list);
        let mut assignment = TopicPartitionList::new();
        let mut partitions = self.partitions();
        let (mut waiting, mut reading) = (TopicPartitionList::new(), TopicPartitionList::new());
        for element in list.elements() {
            let topic: Arc<str> = element.topic().into();
            let number = element.partition();
            let partition = PartitionKey { cluster: Arc::clone(&self.cluster), topic: Arc::clone(&topic), number };
            let mut partition = Partition::new(Arc::new(partition));
            let offset = match &committed {
                Some(committed) if Instant::now() < end => {
                    self.take(&mut partition, committed.get(&(element.topic().to_owned(), number)))
                }
                // A store or a broker that is silent holds a rebalance only so long; these are taken later.
                _ => Offset::Beginning,
            };
            let _ = assignment.add_partition_offset(element.topic(), number, offset);
            // A pause outlives a revocation: what reads is resumed, whatever it was before.
            if partition.reads() {
                reading.add_partition(element.topic(), number);
            } else {
                waiting.add_partition(element.topic(), number);
                partition.paused = true;
            }
            partitions.insert((topic, number), partition);
        }
        if let Err(error) = consumer.incremental_assign(&assignment) {
            tracing::error!(%error, "an assignment was not taken");
        }
        if waiting.count() > 0 {
            let _ = consumer.pause(&waiting);
        }
        if reading.count() > 0 {
            let _ = consumer.resume(&reading);
        }
        self.set_reachable(true);
        self.publish(&partitions);
        tracing::info!(partitions = list.count(), "partitions assigned");
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        self.metrics.rebalances_total.inc();
        let partitions: Vec<_> = {
            let mut partitions = self.partitions();
            let removed = list.elements().into_iter().filter_map(|element| {
                partitions.remove(&(Arc::from(element.topic()), element.partition())).map(|partition| partition.key)
            });
            let removed = removed.collect();
            self.publish(&partitions);
            removed
        };
        self.give_up(&partitions);
        if let Err(error) = consumer.incremental_unassign(list) {
            tracing::error!(%error, "a revocation was not taken");
        }
        tracing::info!(partitions = list.count(), "partitions revoked");
    }

    /// Stops starting records of these partitions, forgets what waits, and parks what is in flight under this
    /// process's lease: those attempts end here and settle by token. Comes back when all that is durable, or the grace
    /// is over.
    pub fn give_up(&self, partitions: &[Arc<PartitionKey>]) {
        let mut parks = Vec::new();
        for partition in partitions {
            self.stalled.remove(partition);
            let in_flight = self.inflight.give_up(partition);
            self.lanes.forget(|lease| lease.epoch().is_some() && lease.facts.record.partition == *partition);
            parks.extend(in_flight.iter().map(|lease| parked(lease, Some(self.deadline))));
        }
        let count = parks.len() as u64;
        self.metrics.parked_total.with_label_values(&["revoked"]).inc_by(count);
        let durable = self.runtime.block_on(async {
            let all = async {
                for park in parks {
                    self.settler.submit(park).await;
                }
                self.settler.flushed().await
            };
            tokio::time::timeout(self.grace, all).await.unwrap_or(false)
        });
        if !durable && count > 0 {
            tracing::error!(
                count,
                "partitions go before their attempts in flight could be recorded: repeats are possible"
            );
            self.metrics.repeats_possible_total.with_label_values(&["revoke_timeout"]).inc_by(count);
        }
        for partition in partitions {
            self.inflight.gone(partition);
        }
    }
}

/// What the group committed, with the store that wrote it; `None` when the broker does not tell.
pub(super) fn committed(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
) -> Option<HashMap<(String, i32), (i64, String)>> {
    let mut asked = TopicPartitionList::new();
    for element in list.elements() {
        asked.add_partition(element.topic(), element.partition());
    }
    match consumer.committed_offsets(asked, CALL) {
        Ok(found) => Some(
            found
                .elements()
                .into_iter()
                .filter_map(|element| match element.offset() {
                    Offset::Offset(offset) => {
                        let key = (element.topic().to_owned(), element.partition());
                        Some((key, (offset, element.metadata().to_owned())))
                    }
                    _ => None,
                })
                .collect(),
        ),
        Err(error) => {
            tracing::warn!(%error, "the group's offsets can't be read now");
            None
        }
    }
}

fn kind_of(error: &KafkaError) -> &'static str {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return "fatal";
    }
    match error.rdkafka_error_code() {
        Some(
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::NetworkException
            | Code::CoordinatorNotAvailable,
        ) => "unreachable",
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => "topic_missing",
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL,
        ) => "not_authorised",
        Some(Code::OffsetOutOfRange | Code::AutoOffsetReset) => "out_of_range",
        Some(Code::Fatal) => "fatal",
        _ => "other",
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, _reason: &str) {
        self.trouble(&error);
    }

    fn stats(&self, statistics: Statistics) {
        let now = self.clock.now();
        let is_up =
            |leader: i32| statistics.brokers.values().any(|broker| broker.nodeid == leader && broker.state == "UP");
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
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
            self.set_reachable(true);
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

    fn commit_callback(&self, result: rdkafka::error::KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed; the next commit carries them");
        }
    }
}
