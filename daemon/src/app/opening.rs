//! Opening the store. A store that is away is waited for, and meanwhile the probes say so.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use scale_callback_serve::bind::bind;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api;
use crate::base::clock::{Clock, SteadyClock};
use crate::base::metrics::{Labels, Metrics, names};
use crate::base::pace::Pace;
use crate::base::stop::Switch;
use crate::base::telemetry::LogLevel;
use crate::config::Config;
use crate::keyring::Keyring;
use crate::model::attempt::Outcome;
use crate::model::dead_letter::Unreadable;
use crate::model::retry::Reason;
use crate::model::state::State;
use crate::ops::endpoints::EndpointState;
use crate::store::{self, OpenError, Stores};

/// How long the first try may take before the probes answer.
const PROMPT: Duration = Duration::from_secs(2);
/// The waits before the store is tried again.
const PACE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Everything that a daemon needs before it registers with its store. Nothing of it leaves a trace when it is dropped.
pub struct Opened {
    pub(super) config: Config,
    pub(super) log_level: LogLevel,
    pub(super) keyring: Arc<Keyring>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stores: Stores,
}

impl Opened {
    /// Opens the store, and waits for it while it is away.
    ///
    /// # Errors
    /// One sentence that says what failed and what to do.
    pub async fn open(config: Config, log_level: LogLevel) -> anyhow::Result<Self> {
        let keyring = keyring(&config)?;
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::new());
        let metrics = Arc::new(metrics());
        let stores = open(&config, &clock, &metrics).await?;
        Ok(Self { config, log_level, keyring, clock, metrics, stores })
    }
}

/// Opens the store. If that takes long, the probes answer meanwhile.
async fn open(config: &Config, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> anyhow::Result<Stores> {
    let mut opening: Opening<'_> = Box::pin(once(config, clock));
    match tokio::time::timeout(PROMPT, &mut opening).await {
        Ok(Err(error)) if error.may_pass() => {
            wait(config, clock, metrics, Box::pin(std::future::ready(Err(error)))).await
        }
        Ok(opened) => Ok(opened?),
        Err(_) => wait(config, clock, metrics, opening).await,
    }
}

async fn once(config: &Config, clock: &Arc<dyn Clock>) -> Result<Stores, OpenError> {
    store::open(&config.store, config.store_options.clone(), Arc::clone(clock)).await
}

/// A try to open the store.
type Opening<'o> = Pin<Box<dyn Future<Output = Result<Stores, OpenError>> + Send + 'o>>;

/// Waits for this try, and tries again and again. Only another kind of failure ends it.
async fn wait<'o>(
    config: &'o Config,
    clock: &'o Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
    mut opening: Opening<'o>,
) -> anyhow::Result<Stores> {
    metrics.store_up.set(0);
    let (trouble, told) = watch::channel("the store is being opened".to_owned());
    let probes = Probes::serve(config.ops_listen, told, metrics).await?;
    let mut pace = Pace::new(PACE.0, PACE.1);
    let stores = loop {
        let error = match opening.await {
            Ok(stores) => break stores,
            Err(error) if error.may_pass() => error,
            Err(other) => return Err(other.into()),
        };
        // One that waits for another daemon, or for an operator, has a store that answers.
        metrics.store_up.set(i64::from(!matches!(error, OpenError::DatabaseAway { .. })));
        let why = error.to_string();
        // One line for each reason, and not one for each try.
        if *trouble.borrow() != why {
            tracing::warn!(why, "the store can't be opened yet: the daemon waits for it and is not ready");
            trouble.send_replace(why);
        }
        tokio::time::sleep(pace.next_wait()).await;
        opening = Box::pin(once(config, clock));
    };
    tracing::info!("the store is open");
    metrics.store_up.set(1);
    probes.end().await;
    Ok(stores)
}

/// The probes while the store is away. Their port is free again when they have ended.
struct Probes {
    serving: Option<JoinHandle<()>>,
    stop: Switch,
}

impl Probes {
    async fn serve(
        listen: Option<SocketAddr>,
        trouble: watch::Receiver<String>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let stop = Switch::new();
        let serving = match listen {
            None => None,
            Some(address) => {
                let listener = bind(address).await.context("ops.listen")?;
                let serving = api::serve_waiting(listener, trouble, Arc::clone(metrics), stop.stop());
                Some(tokio::spawn(serving))
            }
        };
        Ok(Self { serving, stop })
    }

    async fn end(self) {
        self.stop.flip();
        if let Some(serving) = self.serving {
            // A panic there was told, and the port is free all the same.
            serving.await.ok();
        }
    }
}

/// The keyring, after a check that the settings without a default are there.
fn keyring(config: &Config) -> anyhow::Result<Arc<Keyring>> {
    anyhow::ensure!(!config.intake.brokers.is_empty(), "kafka.brokers: say where the brokers are, \"host:port\"");
    Ok(Arc::new(Keyring::load(&config.keyring)?))
}

/// All metrics, with all their labels.
fn metrics() -> Metrics {
    Metrics::new(&Labels {
        outcomes: names::<Outcome>(),
        reasons: names::<Reason>(),
        unreadable: names::<Unreadable>(),
        ends: names::<State>().into_iter().filter(|name| *name != State::Pending.name()).collect(),
        endpoint_states: names::<EndpointState>(),
    })
}
