//! Callbacks of the Kafka client: rebalances, errors, statistics. Rebalances run inside the consumer's poll, on the
//! consumer's own thread. They wait for the store and for parks, within a bound, and never for anything that waits for
//! them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use super::context::{Context, End};
use super::interpret::Interpreter;
use super::partition::{Event, Flow, Partition};
use crate::model::event::PartitionKey;

/// An answer to a fetch may be this old: `fetch.wait.max.ms`, and the time on the network.
const FETCH_AGE: Duration = Duration::from_secs(1);

impl Context {
    fn keys_of(&self, list: &TopicPartitionList) -> Vec<Arc<PartitionKey>> {
        let key =
            |topic: &str, number| PartitionKey { cluster: Arc::clone(&self.cluster), topic: topic.into(), number };
        list.elements().iter().map(|element| Arc::new(key(element.topic(), element.partition()))).collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        self.deps.metrics.rebalances_total.inc();
        // Ends that were recorded in an earlier assignment may be old.
        self.ends().clear();
        let keys = self.keys_of(list);
        for key in &keys {
            let machine = Partition::new(self.deps.begun.store_id.as_str().into());
            self.partitions().insert(Arc::clone(key), machine);
        }
        let tell = |event: Event| keys.iter().map(|key| (Arc::clone(key), event.clone())).collect();
        // A rebalance waits only this long for a silent store or broker. Partitions that are not taken now are taken
        // later.
        let mut interpreter = Interpreter::in_rebalance(consumer, Instant::now() + self.grace);
        interpreter.drive(tell(Event::Assigned));
        interpreter.assign(&keys);
        // A pause lasts beyond a revocation, so every partition that reads is resumed.
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
        self.release_blocked(&keys);
        for key in &keys {
            self.partitions().remove(key);
            self.end_sandbox(key);
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
                    let ended_there_at = fetched.then(|| now.minus(FETCH_AGE));
                    let stable = partition.ls_offset;
                    let open_from = (0..partition.hi_offset).contains(&stable).then_some(stable);
                    ends.insert((topic.clone(), *number), End { offset, ended_there_at, open_from });
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
        tracing::debug!(%error, "offsets were not committed; the next commit includes them");
        for element in offsets.elements() {
            if let Some(assigned) = self.partitions().get_mut(element.topic(), element.partition()) {
                assigned.machine.on(Event::CommitFailed);
            }
        }
    }
}
