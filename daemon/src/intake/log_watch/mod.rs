//! Watches the logs of our partitions while they are read, with a client that is in no group. The client that reads does not notice
//! everything: it goes on in a topic that was deleted and created again as if it were the same one, or waits for ever because the new
//! topic's leader has a lower epoch. When the watch is certain, it tells the consumer's thread.
//!
//! It never decides where a partition is read, and it reads only one batch of a log at a time.

mod suspicion;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch};

use self::suspicion::{Log, Place, Suspicions};
use super::consumer_parts::Ask;
use super::polled::Polled;
use super::{Deps, KafkaState};
use crate::base::stop::Stop;
use crate::model::callback::Hash;
use crate::model::event::PartitionKey;

/// The time between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// The time between two notes of where partitions stand.
const NOTE: Duration = Duration::from_secs(1);
/// How often a thread that waits looks whether it must stop.
const NEXT_LOOK: Duration = Duration::from_millis(100);
/// How long Kafka may take for the ends of one log, and for one record.
const CALL: Duration = Duration::from_secs(3);

pub(super) struct LogWatch {
    client: ClientConfig,
    deps: Arc<Deps>,
    kafka: watch::Receiver<KafkaState>,
    asks: mpsc::Sender<Ask>,
    stop: Stop,
    suspicions: Suspicions,
}

impl LogWatch {
    pub(super) fn new(
        mut client: ClientConfig,
        deps: Arc<Deps>,
        kafka: watch::Receiver<KafkaState>,
        asks: mpsc::Sender<Ask>,
        stop: Stop,
    ) -> Self {
        // One batch is enough.
        client.set("fetch.message.max.bytes", "1").set("queued.min.messages", "1");
        client.set("enable.partition.eof", "true").set("statistics.interval.ms", "0");
        Self { client, deps, kafka, asks, stop, suspicions: Suspicions::default() }
    }

    /// Looks until `stop`, on the calling thread, which must not be one of the runtime's.
    pub(super) fn run(mut self) {
        let mut probe = None;
        while self.wait() {
            if probe.is_none() {
                probe = BaseConsumer::from_config_and_context(&self.client, Quiet).ok();
            }
            if let Some(probe) = &probe {
                self.look(probe);
            }
        }
    }

    /// Waits for the next look, and notes meanwhile where partitions stand that were just taken. False: it must stop.
    fn wait(&mut self) -> bool {
        let end = Instant::now() + LOOK;
        let mut next_note = Instant::now();
        while Instant::now() < end && !self.stop.is_on() {
            if Instant::now() >= next_note {
                next_note = Instant::now() + NOTE;
                for key in self.flowing().keys() {
                    if let Some(place) = self.place(key, false) {
                        self.suspicions.note(key, &place);
                    }
                }
            }
            std::thread::sleep(NEXT_LOOK);
        }
        !self.stop.is_on()
    }

    /// The partitions of ours, and whether their records are taken as they come.
    fn flowing(&self) -> HashMap<Arc<PartitionKey>, bool> {
        let kafka = self.kafka.borrow();
        kafka.partitions.iter().map(|read| (Arc::clone(&read.partition), read.is_flowing)).collect()
    }

    fn look(&mut self, probe: &BaseConsumer<Quiet>) {
        let flowing = self.flowing();
        let ours: Vec<_> = flowing.keys().cloned().collect();
        self.suspicions.retain(&ours);
        for (key, is_flowing) in flowing {
            if self.stop.is_on() {
                return;
            }
            self.look_at(probe, &key, is_flowing);
        }
    }

    fn look_at(&mut self, probe: &BaseConsumer<Quiet>, key: &Arc<PartitionKey>, is_flowing: bool) {
        let Some(place) = self.place(key, is_flowing) else { return };
        let Ok((low, high)) = probe.fetch_watermarks(&key.topic, key.number, CALL) else { return };
        // A partition with a record that ends its reader is read in a sandbox, and then it is not flowing.
        let offset = self.suspicions.offset_to_compare(key, &place, (low, high)).filter(|_| is_flowing);
        let record = offset.and_then(|offset| self.record_at(probe, key, offset));
        // What was found is of another time if the partition was taken anew meanwhile.
        if self.deps.flight.inflight.epoch(key) != Some(place.epoch) {
            return;
        }
        let Some(suspicion) = self.suspicions.look(key, &place, &Log { low, high, record }) else { return };
        let ask = Ask::Suspect { partition: Arc::clone(key), epoch: place.epoch, suspicion };
        if self.asks.try_send(ask).is_err() {
            tracing::warn!(partition = %key, "the consumer's thread takes no question at the moment");
        }
    }

    /// Where a partition of ours stands. `None` if it is not ours any more.
    fn place(&self, key: &PartitionKey, is_flowing: bool) -> Option<Place> {
        let inflight = &self.deps.flight.inflight;
        let is_waiting = is_flowing && inflight.outstanding(key) == 0;
        Some(Place { epoch: inflight.epoch(key)?, watermark: inflight.watermark(key)?, is_waiting })
    }

    /// The first record at this offset or above, if Kafka gives it in time.
    fn record_at(&self, probe: &BaseConsumer<Quiet>, key: &PartitionKey, offset: i64) -> Option<(i64, Hash)> {
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&key.topic, key.number, Offset::Offset(offset)).ok()?;
        probe.assign(&from).ok()?;
        let end = Instant::now() + CALL;
        let mut found = None;
        while found.is_none() && Instant::now() < end && !self.stop.is_on() {
            match probe.poll(NEXT_LOOK) {
                Some(Ok(message)) if message.topic() == &*key.topic && message.partition() == key.number => {
                    found = Some((message.offset(), Polled::by_client(&message).log_hash()));
                }
                // The end of the log, or an error that the client which reads reports, too.
                Some(Err(_)) => break,
                Some(Ok(_)) | None => {}
            }
        }
        // The next assignment replaces this one in any case.
        probe.unassign().ok();
        found
    }
}

/// The client that reads reports what is wrong with Kafka, so this one is silent.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Quiet {}
