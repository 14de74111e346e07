//! Opening the store. A store that is away is waited for, and meanwhile the probes say so.

use std::net::SocketAddr;
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
        let stores = match once(&config, &clock).await {
            Err(error) if error.may_pass() => wait(&config, &clock, &metrics, error).await?,
            opened => opened?,
        };
        Ok(Self { config, log_level, keyring, clock, metrics, stores })
    }
}

async fn once(config: &Config, clock: &Arc<dyn Clock>) -> Result<Stores, OpenError> {
    store::open(&config.store, config.store_options, Arc::clone(clock)).await
}

/// Tries again and again. Only another kind of failure ends it.
async fn wait(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
    mut error: OpenError,
) -> anyhow::Result<Stores> {
    metrics.store_up.set(0);
    let (trouble, told) = watch::channel(String::new());
    let probes = Probes::serve(config.ops_listen, told, metrics).await?;
    let mut pace = Pace::new(PACE.0, PACE.1);
    let stores = loop {
        let why = error.to_string();
        // One line for each reason, and not one for each try.
        if *trouble.borrow() != why {
            tracing::warn!(why, "the store can't be opened yet: the daemon waits for it and is not ready");
            trouble.send_replace(why);
        }
        tokio::time::sleep(pace.next_wait()).await;
        match once(config, clock).await {
            Ok(stores) => break stores,
            Err(again) if again.may_pass() => error = again,
            Err(other) => return Err(other.into()),
        }
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
