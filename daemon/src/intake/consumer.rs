//! The consumer's thread: makes a Kafka client, runs a session on it, and makes another client when one fails. It never
//! decides about partitions; `partition` does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;

use super::consumer_parts::Consumer;
use super::context::{Context, Lists};
use super::gather::Gather;
use super::partition::Event;
use super::sandbox::Sandboxes;
use super::session::{End, POLL, Session};
use super::settings;
use super::trouble::Troubles;
use crate::base::pace::Pace;

impl Consumer {
    /// Runs until `stop`, on the calling thread, which must not be one of the runtime's. After a panic it notifies
    /// `panicked` before it closes the client, because closing can take long.
    pub(super) fn run(mut self, panicked: &dyn Fn()) {
        let mut pace = Pace::new(Duration::from_millis(500), Duration::from_secs(30));
        while !self.stop.is_on() {
            match self.run_client(panicked) {
                Ok(End::Stopped | End::Panicked) => return,
                Ok(End::Fatal) => {}
                Err(error) => tracing::error!(%error, "the Kafka client can't be made; trying again"),
            }
            let until = Instant::now() + pace.next_wait();
            while Instant::now() < until && !self.stop.is_on() {
                std::thread::park_timeout(POLL);
            }
        }
    }

    fn run_client(&mut self, panicked: &dyn Fn()) -> Result<End, KafkaError> {
        let Some(cluster) = self.cluster_id()? else { return Ok(End::Stopped) };
        let client = settings::client(&self.config);
        let consumer = BaseConsumer::from_config_and_context(&client, self.context(cluster))?;
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        let gather = Gather::new(self.deps.bodies.clone(), self.batches.clone(), self.runtime.clone());
        let mut session = Session::new(self, &consumer, gather);
        let end = match catch_unwind(AssertUnwindSafe(|| session.run())) {
            Ok(end) => end,
            Err(_) => {
                panicked();
                return Ok(End::Panicked);
            }
        };
        if end == End::Stopped {
            session.commit(true);
        } else {
            // The next client takes the partitions again, and reads the records that are not durable again.
            let keys = consumer.context().partitions().keys(|_| true);
            session.drive(keys.into_iter().map(|key| (key, Event::Revoked)).collect());
        }
        // At a stop, all attempts were settled or cut off before this thread came here.
        consumer.context().partitions().clear();
        Ok(end)
    }

    fn context(&self, cluster: Arc<str>) -> Context {
        Context {
            deps: Arc::clone(&self.deps),
            cluster,
            runtime: self.runtime.clone(),
            stalled: Arc::clone(&self.stalled),
            troubles: Arc::clone(&self.troubles),
            state: self.state.clone(),
            grace: self.config.rebalance_grace,
            sandboxes: Sandboxes::new(&settings::client(&self.config), self.config.max_event_bytes),
            lists: Lists::default(),
        }
    }

    /// The cluster's id, which names its partitions in the store. Waits for a broker, however long it takes.
    fn cluster_id(&self) -> Result<Option<Arc<str>>, KafkaError> {
        let context = Probe(Arc::clone(&self.troubles));
        let probe = BaseConsumer::from_config_and_context(&settings::client(&self.config), context)?;
        while !self.stop.is_on() {
            if let Some(id) = probe.client().fetch_cluster_id(Duration::from_millis(500)) {
                return Ok(Some(id.into()));
            }
            // This call reports errors of the connection.
            if let Some(Err(error)) = probe.poll(Duration::ZERO) {
                probe.context().0.report(&error);
            }
        }
        Ok(None)
    }
}

/// The context of a client that only asks for the cluster's id: it has no partitions.
struct Probe(Arc<Troubles>);

impl ClientContext for Probe {
    fn error(&self, error: KafkaError, _reason: &str) {
        self.0.report(&error);
    }
}

impl ConsumerContext for Probe {}
