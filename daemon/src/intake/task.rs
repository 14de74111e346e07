//! Intake as one part of the daemon: built from its configuration and the rooms it works with, started, supervised.
//!
//! A part that ends though nothing asked it to is an error of the program. It is logged, readiness goes off with the
//! reason, and [`Intake::failed`] tells the owner, who ends the process. Intake does not restart the part by itself:
//! after a panic its state can't be trusted, and a new process reads it from the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::admit::Admit;
use super::consumer_parts::{Ask, Consumer};
use super::trouble::Troubles;
use super::{Config, KafkaState, Stalled};
use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::deliver::Delivery;
use crate::flight::Flight;
use crate::store::{EngineStore, InstanceId};

/// Batches between the consumer's thread and admission.
const BATCH_QUEUE: usize = 4;
/// Questions to the consumer's thread that may wait.
const ASKS: usize = 4;

/// The rooms that intake works with.
pub struct Deps {
    pub store: Arc<dyn EngineStore>,
    pub store_id: String,
    pub instance: InstanceId,
    pub flight: Flight,
    pub delivery: Delivery,
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
}

/// Intake before it starts.
pub struct IntakeTask {
    admit: Admit,
    admission_stop: Stop,
    consumer: Consumer,
    failures: Failures,
}

/// Intake at work.
pub struct Intake {
    /// `None` while intake is held.
    at_work: Option<AtWork>,
    kafka: watch::Receiver<KafkaState>,
}

/// The parts of intake that run.
struct AtWork {
    admission: JoinHandle<()>,
    consumer: oneshot::Receiver<()>,
}

/// Intake ended by itself. The sentence says which part and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct IntakeError(String);

/// A panic's message may quote a customer's data, so only the panic hook's line with its place tells more.
const PANICKED: &str = "it panicked; the log says where";

/// Builds intake; it reads nothing before [`IntakeTask::start`]. Must be called inside the runtime.
pub fn build(config: Config, deps: Deps, stops: Stops) -> (IntakeHandle, IntakeTask) {
    deps.metrics.expect_topics(&config.topics);
    let deps = Arc::new(deps);
    let (state, kafka) = watch::channel(KafkaState::default());
    let (asks, asks_rx) = mpsc::channel(ASKS);
    let (batches, batches_rx) = mpsc::channel(BATCH_QUEUE);
    let stalled = Arc::new(Stalled::default());
    let admission_stop = stops.admission.clone();
    let admit = Admit::new(Arc::clone(&deps), Arc::clone(&stalled), batches_rx, stops.admission);
    let consumer = Consumer {
        budget: Arc::new(Semaphore::new(config.body_budget)),
        troubles: Arc::new(Troubles::new(Arc::clone(&deps.metrics), state.clone())),
        config,
        deps,
        runtime: Handle::current(),
        stalled,
        state: state.clone(),
        batches,
        asks: asks_rx,
        quiet: stops.quiet,
        stop: stops.consumer,
    };
    let task = IntakeTask { admit, admission_stop, consumer, failures: Failures(state) };
    (IntakeHandle { kafka, asks }, task)
}

impl IntakeTask {
    /// Starts the consumer's thread and admission.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self) -> std::io::Result<Intake> {
        let Self { admit, admission_stop, consumer, failures } = self;
        let kafka = failures.0.subscribe();
        let consumer = start_thread(failures.clone(), consumer.stop.clone(), move |panicked| consumer.run(panicked))?;
        let admission = tokio::spawn(supervise(failures, admission_stop, admit.run()));
        Ok(Intake { at_work: Some(AtWork { admission, consumer }), kafka })
    }

    /// Starts nothing, and says so to whoever asks for readiness. No connection to Kafka is made.
    pub fn hold(self) -> Intake {
        self.failures.0.send_modify(|state| state.held = true);
        Intake { at_work: None, kafka: self.failures.0.subscribe() }
    }
}

impl Intake {
    /// Waits until a part of intake ends by itself. The process must end then.
    pub async fn failed(&mut self) -> IntakeError {
        match self.kafka.wait_for(|state| state.failed.is_some()).await {
            Ok(state) => IntakeError(state.failed.clone().unwrap_or_default()),
            // Every part has ended, and none of them by itself: this is a stop.
            Err(_) => std::future::pending().await,
        }
    }

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

/// Tells that a part ended by itself: in the log, to whoever asks for readiness, and to the owner.
#[derive(Clone)]
struct Failures(watch::Sender<KafkaState>);

impl Failures {
    fn report(&self, part: &str, why: &str) {
        // The place stands in the line that the panic itself was logged with.
        tracing::error!(part, why, "a part of intake ended by itself: nothing more is read, and the process must end");
        self.0.send_modify(|state| {
            state.failed.get_or_insert_with(|| format!("{part} ended by itself: {why}"));
        });
    }
}

/// Runs the consumer on a thread of its own, which drops the sender when it has ended.
fn start_thread(
    failures: Failures,
    stop: Stop,
    run: impl FnOnce(&dyn Fn()) + Send + 'static,
) -> std::io::Result<oneshot::Receiver<()>> {
    const PART: &str = "the Kafka consumer's thread";
    let (ended, has_ended) = oneshot::channel();
    std::thread::Builder::new().name("kafka-consumer".to_owned()).spawn(move || {
        let panicked = || failures.report(PART, PANICKED);
        match catch_unwind(AssertUnwindSafe(|| run(&panicked))) {
            Err(_) => panicked(),
            Ok(()) if stop.is_on() || failures.0.borrow().failed.is_some() => {}
            Ok(()) => failures.report(PART, "it returned"),
        }
        drop(ended);
    })?;
    Ok(has_ended)
}

/// Runs admission.
async fn supervise(failures: Failures, stop: Stop, run: impl Future<Output = ()>) {
    const PART: &str = "admission";
    match AssertUnwindSafe(run).catch_unwind().await {
        Err(_) => failures.report(PART, PANICKED),
        Ok(()) if stop.is_on() => {}
        Ok(()) => failures.report(PART, "it returned"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::stop::Switch;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Parts {
        failures: Failures,
        stop: Switch,
    }

    impl Parts {
        fn new() -> Self {
            Self { failures: Failures(watch::channel(KafkaState::default()).0), stop: Switch::new() }
        }

        fn start(
            &self,
            consumer: impl FnOnce(&dyn Fn()) + Send + 'static,
            admission: impl Future<Output = ()> + Send + 'static,
        ) -> Intake {
            let (failures, stop) = (self.failures.clone(), self.stop.stop());
            let kafka = failures.0.subscribe();
            let consumer = start_thread(failures.clone(), stop.clone(), consumer).unwrap();
            let admission = tokio::spawn(supervise(failures, stop, admission));
            Intake { at_work: Some(AtWork { admission, consumer }), kafka }
        }
    }

    async fn failure_of(mut intake: Intake) -> String {
        let failed = tokio::time::timeout(PATIENCE, intake.failed()).await;
        let sentence = failed.expect("the failure is noticed").to_string();
        assert_eq!(intake.kafka.borrow().failed.as_deref(), Some(&*sentence), "readiness tells it");
        sentence
    }

    #[tokio::test]
    async fn a_part_that_panics_or_returns_is_noticed() {
        let parts = Parts::new();
        let intake = parts.start(|_| panic!("number {}", 7), std::future::pending());
        assert_eq!(
            failure_of(intake).await,
            "the Kafka consumer's thread ended by itself: it panicked; the log says where"
        );
        let parts = Parts::new();
        let intake = parts.start(|_| {}, std::future::pending());
        assert_eq!(failure_of(intake).await, "the Kafka consumer's thread ended by itself: it returned");
        let parts = Parts::new();
        let (wait, waits) = std::sync::mpsc::sync_channel::<()>(0);
        let intake = parts.start(move |_| assert!(waits.recv().is_err()), async { panic!("admission's") });
        assert_eq!(failure_of(intake).await, "admission ended by itself: it panicked; the log says where");
        drop(wait);
    }

    #[tokio::test]
    async fn a_panic_is_told_before_the_client_has_closed() {
        let parts = Parts::new();
        let (wait, waits) = std::sync::mpsc::sync_channel::<()>(0);
        let close = move |panicked: &dyn Fn()| {
            panicked();
            assert!(waits.recv().is_err());
        };
        let intake = parts.start(close, std::future::pending());
        assert!(failure_of(intake).await.ends_with("the log says where"));
        drop(wait);
    }

    #[tokio::test]
    async fn an_end_that_was_asked_for_is_no_failure() {
        let parts = Parts::new();
        parts.stop.flip();
        let mut intake = parts.start(|_| {}, std::future::ready(()));
        assert!(intake.admission_ended(PATIENCE).await);
        assert!(intake.kafka.borrow().failed.is_none());
        let kafka = intake.kafka.clone();
        assert!(intake.consumer_ended(PATIENCE).await);
        assert!(kafka.borrow().failed.is_none());
    }
}
