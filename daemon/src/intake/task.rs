//! Intake as one part of the daemon: built from its configuration and the rooms it works with, started, supervised.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::admit::Admit;
use super::consumer_parts::{Ask, Consumer};
use super::log_watch::LogWatch;
use super::reread::Rereader;
use super::trouble::Troubles;
use super::twin::{Standing, TwinWatch};
use super::{Config, KafkaState, Stalled, settings, topic_retention};
use crate::base::body_budget::BodyBudget;
use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::base::supervise::Supervisor;
use crate::deliver::{Delivery, ReadBodies};
use crate::flight::Flight;
use crate::store::{Begun, EngineStore};

/// Batches between the consumer's thread and admission.
const BATCH_QUEUE: usize = 4;
/// Questions to the consumer's thread that may wait.
const ASKS: usize = 4;

/// The rooms that intake works with.
pub struct Deps {
    pub store: Arc<dyn EngineStore>,
    /// This instance, its store and its run.
    pub begun: Begun,
    pub flight: Flight,
    pub delivery: Delivery,
    /// Memory for the records that are read, and for their bodies until they end or are stored.
    pub bodies: BodyBudget,
    pub supervisor: Supervisor,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// A first try that waits longer than this behind a lane at its cap gets its row.
    pub park_after: Duration,
    /// How long one attempt may take: what is in flight at a revoke keeps its lease that long.
    pub attempt_deadline: Duration,
}

/// The phases of a stop, as intake sees them.
pub struct Stops {
    /// Partitions are paused, and polled on.
    pub quiet: Stop,
    /// Admission ends.
    pub admission: Stop,
    /// A last commit of offsets, and the consumer leaves its group.
    pub consumer: Stop,
}

/// What others may know of intake, and ask of it.
#[derive(Clone)]
pub struct IntakeHandle {
    pub kafka: watch::Receiver<KafkaState>,
    pub asks: mpsc::Sender<Ask>,
    pub rereader: Rereader,
}

impl IntakeHandle {
    /// Reads bodies of callbacks from Kafka again.
    pub fn read_bodies(&self) -> ReadBodies {
        let rereader = self.rereader.clone();
        Arc::new(move |wanted, at_most| {
            let rereader = rereader.clone();
            Box::pin(async move { rereader.read_some(&wanted, at_most).await })
        })
    }
}

/// Intake before it starts.
pub struct IntakeTask {
    admit: Admit,
    admission_stop: Stop,
    consumer: Consumer,
    log_watch: LogWatch,
    supervisor: Supervisor,
}

/// Intake at work.
pub struct Intake {
    /// `None` while intake is held.
    at_work: Option<AtWork>,
}

/// The parts of intake that run.
struct AtWork {
    admission: JoinHandle<()>,
    consumer: oneshot::Receiver<()>,
}

/// Builds intake; it reads nothing before [`IntakeTask::start`]. Must be called inside the runtime.
pub fn build(config: Config, deps: Deps, stops: Stops) -> (IntakeHandle, IntakeTask) {
    deps.metrics.expect_topics(&config.topics);
    let deps = Arc::new(deps);
    let (state, kafka) = watch::channel(KafkaState { topics: config.topics.clone(), ..KafkaState::default() });
    let (asks, asks_rx) = mpsc::channel(ASKS);
    let rereader = Rereader::new(&settings::client(&config), config.max_event_bytes);
    let (batches, batches_rx) = mpsc::channel(BATCH_QUEUE);
    let stalled = Arc::new(Stalled::default());
    let admission_stop = stops.admission.clone();
    let supervisor = deps.supervisor.clone();
    let admit = Admit::new(Arc::clone(&deps), Arc::clone(&stalled), batches_rx, stops.admission);
    let Begun { store_id, run, earlier_runs, .. } = &deps.begun;
    let consumer = Consumer {
        twins: TwinWatch::new(store_id, run, earlier_runs.iter().cloned()),
        standing: Standing::Alone,
        failed_looks: 0,
        troubles: Arc::new(Troubles::new(Arc::clone(&deps.metrics), state.clone())),
        config,
        deps,
        runtime: Handle::current(),
        stalled,
        state,
        batches,
        asks: asks_rx,
        quiet: stops.quiet,
        stop: stops.consumer,
    };
    let (client, stop) = (settings::client(&consumer.config), consumer.stop.clone());
    let log_watch = LogWatch::new(client, Arc::clone(&consumer.deps), kafka.clone(), asks.clone(), stop);
    let task = IntakeTask { admit, admission_stop, consumer, log_watch, supervisor };
    (IntakeHandle { kafka, asks, rereader }, task)
}

impl IntakeTask {
    /// Starts the consumer's thread and admission.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self) -> std::io::Result<Intake> {
        let Self { admit, admission_stop, consumer, log_watch, supervisor } = self;
        let stop = consumer.stop.clone();
        let (client, topics) = (settings::client(&consumer.config), consumer.config.topics.clone());
        supervisor.spawn_thread("the watch of the logs", "log-watch", stop.clone(), |_| log_watch.run())?;
        let run = move |panicked: &dyn Fn()| consumer.run(panicked);
        let consumer = supervisor.spawn_thread("the Kafka consumer's thread", "kafka-consumer", stop, run)?;
        let room = Arc::clone(&admit.deps.flight.body_room);
        let watching = topic_retention::watch(client, topics, room, admission_stop.clone());
        supervisor.spawn("the watch of the topics' retention", admission_stop.clone(), watching);
        let admission = supervisor.spawn("admission", admission_stop, admit.run());
        Ok(Intake { at_work: Some(AtWork { admission, consumer }) })
    }

    /// Starts nothing, and says so to whoever asks for readiness. No connection to Kafka is made.
    pub fn hold(self) -> Intake {
        self.consumer.state.send_modify(|state| state.held = true);
        self.consumer.deps.delivery.claim_gate.set_open(true);
        Intake { at_work: None }
    }
}

impl Intake {
    /// Waits until admission has ended after its stop. False: it did not in time.
    pub async fn admission_ended(&mut self, patience: Duration) -> bool {
        match &mut self.at_work {
            Some(at_work) => tokio::time::timeout(patience, &mut at_work.admission).await.is_ok(),
            None => true,
        }
    }

    /// Waits until the consumer has left its group after its stop. False: it did not in time.
    pub async fn consumer_ended(self, patience: Duration) -> bool {
        match self.at_work {
            Some(at_work) => tokio::time::timeout(patience, at_work.consumer).await.is_ok(),
            None => true,
        }
    }
}
