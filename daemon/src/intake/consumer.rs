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
use super::marks;
use super::partition::Event;
use super::sandbox::Sandboxes;
use super::session::{End, POLL, Session};
use super::settings;
use super::trouble::Troubles;
use super::twin::{LOOK, Standing};
use crate::base::pace::Pace;
use crate::model::settlement::Change;

/// How long a start waits for Kafka to say whether other daemons run on copies of this store.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many failed looks, one after the other, are told.
const FAILED_LOOKS: u32 = 6;
/// Why this daemon waits: for people.
const TWIN: &str = "another callbackd runs on a copy of this store, and was started earlier: this one reads nothing and claims no due callback; if this store is the right one, stop the other callbackd, wait two minutes and restart this one";

impl Consumer {
    /// Runs until `stop`, on the calling thread, which must not be one of the runtime's. After a panic it notifies
    /// `panicked` before it closes the client, because closing can take long.
    pub(super) fn run(mut self, panicked: &dyn Fn()) {
        let mut pace = Pace::new(Duration::from_millis(500), Duration::from_secs(30));
        while !self.stop.is_on() {
            match self.run_client(panicked) {
                Ok(End::Stopped | End::Panicked) => return,
                Ok(End::Fatal | End::Renewed | End::Second) => {}
                Err(error) => tracing::error!(%error, "the Kafka client can't be made; trying again"),
            }
            let until = Instant::now() + pace.next_wait();
            while Instant::now() < until && !self.stop.is_on() {
                std::thread::park_timeout(POLL);
            }
        }
    }

    fn run_client(&mut self, panicked: &dyn Fn()) -> Result<End, KafkaError> {
        let Some(cluster) = self.cluster_id_alone()? else { return Ok(End::Stopped) };
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

    /// The cluster's id, which names its partitions in the store. Waits for a broker, however long it takes, and for other
    /// daemons that run on copies of this store. `None` at a stop.
    fn cluster_id_alone(&mut self) -> Result<Option<Arc<str>>, KafkaError> {
        let context = Probe(Arc::clone(&self.troubles));
        let probe = BaseConsumer::from_config_and_context(&settings::client(&self.config), context)?;
        let begun = Instant::now();
        let mut next_look = begun;
        while !self.stop.is_on() {
            // While its store is away, another process may have taken its name. A new client under that name would fence the
            // other one's.
            let has_store = self.deps.flight.others.borrow().are_known();
            if has_store
                && Instant::now() >= next_look
                && let Some(id) = probe.client().fetch_cluster_id(Duration::from_millis(500))
            {
                let id = id.into();
                match self.look_for_twins(&probe, &id) {
                    Some(false) => return Ok(Some(id)),
                    None if begun.elapsed() > PATIENCE && self.state.borrow().twin.is_none() => return Ok(Some(id)),
                    None => {}
                    Some(true) => next_look = Instant::now() + LOOK,
                }
            }
            // This call reports errors of the connection.
            if let Some(Err(error)) = probe.poll(POLL) {
                probe.context().0.report(&error);
            }
        }
        Ok(None)
    }

    /// Whether this daemon must wait, because an earlier one runs on a copy of its store. `None` if Kafka does not tell.
    pub(super) fn look_for_twins<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        cluster: &Arc<str>,
    ) -> Option<bool> {
        let marks = match marks::all(consumer, cluster, &self.config.topics) {
            Ok(marks) => marks,
            Err(error) => {
                self.failed_looks += 1;
                if self.failed_looks == FAILED_LOOKS {
                    tracing::warn!(%error, "whether another callbackd runs on a copy of this store can't be found out");
                }
                return None;
            }
        };
        self.failed_looks = 0;
        let others = self.deps.flight.others.borrow().clone();
        if !others.are_known() {
            // An instance that began meanwhile would be taken for a twin.
            return None;
        }
        self.twins.are_ours(others.runs);
        let standing = self.twins.look(marks, self.deps.clock.now(), Instant::now());
        // If the first one is restarted, it has a later id than ours. So this one never takes over: a restart decides anew.
        let was_second = matches!(self.standing, Standing::Second { .. });
        let standing = if was_second { self.standing.clone() } else { standing };
        let is_second = matches!(standing, Standing::Second { .. });
        self.deps.delivery.claim_gate.set_open(!is_second);
        if standing != self.standing {
            match &standing {
                Standing::Alone => tracing::info!("the other callbackd on a copy of this store has ended, or waits"),
                Standing::First { other } => {
                    tracing::error!(
                        run = &**other,
                        "another callbackd was started on a copy of this store; it waits until this one ends"
                    );
                }
                Standing::Second { other } => {
                    tracing::error!(run = &**other, "{TWIN}");
                    self.release_due();
                }
            }
            self.standing = standing;
        }
        self.state.send_if_modified(|state| {
            let twin = is_second.then(|| TWIN.to_owned());
            std::mem::replace(&mut state.twin, twin.clone()) != twin
        });
        Some(is_second)
    }
}

impl Consumer {
    /// Gives back the due callbacks that wait for a slot. Their rows stay, and those for which there is no time stay leased
    /// until their leases run out.
    fn release_due(&self) {
        let settler = self.deps.flight.settler.clone();
        let waiting = self.deps.delivery.lanes.forget(|lease| lease.epoch().is_none());
        let release = async {
            for lease in waiting {
                settler.submit(Change::Release { facts: Arc::clone(&lease.facts), token: lease.token }).await;
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, release).await }).ok();
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
