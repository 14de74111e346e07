//! The daemon as a whole: builds the rooms one after the other, starts them, notices when one ends by itself, and
//! drains them in order.

mod check;
mod drain;
mod egress;
mod listeners;
mod opening;
mod patience;
mod reload;
mod start;
mod weaknesses;

pub use check::check;
pub use opening::Opened;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::base::supervise::Supervisor;
use crate::base::telemetry::LogLevel;
use crate::config::Config;
use crate::deliver::Delivery;
use crate::flight::Flight;
use crate::flight::settle::Notice;
use crate::intake::Intake;
use crate::ops::{Ops, retention};
use crate::store::reads::Reads;
use crate::store::{EngineStore, InstanceId, StoreError};
use drain::Switches;
use start::Ground;

/// Puts another store around the engine's.
pub type WrapStore = Box<dyn FnOnce(Arc<dyn EngineStore>) -> Arc<dyn EngineStore> + Send>;

/// What tests replace, what the demo listens to, and what only the command line asks for.
#[derive(Default)]
pub struct Hooks {
    pub notices: Option<mpsc::Sender<Notice>>,
    /// A wrapper around the engine's store, which injects faults.
    pub wrap_store: Option<WrapStore>,
    /// Read nothing from Kafka.
    pub hold_intake: bool,
}

/// The running daemon.
pub struct App {
    pub ops: Ops,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub ops_address: Option<SocketAddr>,
    /// Where `/admin/v1` listens on TCP, if it did at the start.
    pub api_address: Option<SocketAddr>,
    pub api_socket: PathBuf,
    live: reload::Live,
    delivery: Delivery,
    flight: Flight,
    store: Arc<dyn EngineStore>,
    reads: Arc<dyn Reads>,
    instance: InstanceId,
    grace: Duration,
    switches: Switches,
    intake: Intake,
    supervisor: Supervisor,
    /// The tasks that bring new work, and pruning.
    work: Vec<JoinHandle<()>>,
    settling: JoinHandle<Result<(), StoreError>>,
    pulse: JoinHandle<()>,
    publishing: JoinHandle<()>,
    servers: Vec<JoinHandle<()>>,
}

/// Why a running daemon must end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Nothing can be recorded any more, so there is no drain.
    #[error("{0}")]
    Store(String),
    /// The store does not know this instance as it is. Nothing can be recorded under its name, and a new one begins.
    #[error("{0}")]
    Superseded(String),
    /// A part ended by itself. Attempts that are under way can still be recorded.
    #[error("{0}")]
    Part(String),
}

impl App {
    /// Builds and starts everything.
    ///
    /// # Errors
    /// One sentence that says what failed and what to do.
    pub async fn start(config: Config, log_level: LogLevel) -> anyhow::Result<Self> {
        Self::start_with(config, log_level, Hooks::default()).await
    }

    /// As [`start`](Self::start), with a test's or the demo's hooks.
    ///
    /// # Errors
    /// One sentence that says what failed and what to do.
    pub async fn start_with(config: Config, log_level: LogLevel, hooks: Hooks) -> anyhow::Result<Self> {
        Self::begin(Opened::open(config, log_level).await?, hooks).await
    }

    /// Builds and starts everything on an open store.
    ///
    /// # Errors
    /// One sentence that says what failed and what to do.
    pub async fn begin(opened: Opened, hooks: Hooks) -> anyhow::Result<Self> {
        let hold_intake = hooks.hold_intake;
        let (ground, listeners) = Ground::prepare(opened, hooks).await?;
        let (flight, settle_task, pulse) = ground.flight();
        let (delivery, delivery_task) = ground.delivery(&flight, &listeners).await?;
        read_at_start(&delivery, &*ground.store).await?;
        let (intake, intake_task) = ground.intake(&flight, &delivery);
        let (settings, settings_rx) = watch::channel(reload::settings(&ground.config));
        let read_bodies = intake.read_bodies();
        let ops = ground.ops(&flight, &delivery, intake, settings_rx.clone());
        let publishing = ground.publishing();
        let live = reload::Live::new(&ground.config, delivery.clone(), settings, ground.log_level.clone(), &listeners);

        let Ground { config, clock, store, reads, admin, begun, switches, supervisor, .. } = ground;
        let stop_work = switches.stop_work.stop();
        let mut work = delivery_task.start(read_bodies, &supervisor, &stop_work);
        let pruning = retention::run(Arc::clone(&store), admin, clock, settings_rx, stop_work.clone());
        work.push(supervisor.spawn("pruning", stop_work.clone(), pruning));
        work.push(supervisor.spawn(
            "the jobs that send callbacks again",
            stop_work.clone(),
            ops.clone().run_resends(stop_work.clone()),
        ));
        work.push(supervisor.spawn("the end of deleted teams", stop_work.clone(), ops.clone().run_deletion(stop_work)));
        // Until the end the instance lives.
        let stop_pulse = switches.stop_settling.stop();
        let pulse = supervisor.spawn("the pulse of this instance", stop_pulse.clone(), pulse.run(stop_pulse));
        let settling = tokio::spawn(settle_task.run(switches.stop_settling.stop()));
        let (ops_address, api_address) = (listeners.ops_address(), listeners.api_address());
        let servers = listeners.serve(&ops, &supervisor, &switches.stop_servers.stop());
        let intake = if hold_intake {
            intake_task.hold()
        } else {
            intake_task.start().context("start the consumer's thread")?
        };
        start::tell(&config, &ops, ops_address, api_address);
        if hold_intake {
            tracing::warn!("intake is held: no record is read from Kafka; restart without --hold-intake to begin");
        }
        Ok(Self {
            ops,
            ops_address,
            api_address,
            api_socket: config.api.socket,
            live,
            delivery,
            flight,
            store,
            reads,
            instance: begun.instance,
            grace: config.grace,
            switches,
            intake,
            supervisor,
            work,
            settling,
            pulse,
            publishing,
            servers,
        })
    }

    /// Applies those settings of another configuration that can change while the daemon runs.
    ///
    /// # Errors
    /// A sentence. Then nothing has changed.
    pub async fn reload(&self, config: &Config) -> Result<(), String> {
        self.live.take(config).await
    }

    /// What the store holds, as its tools see it: for tests and the demo's ledger.
    pub fn reads(&self) -> &Arc<dyn Reads> {
        &self.reads
    }

    /// Waits until the store breaks, does not know this instance any more, or a part ends by itself. Nothing goes on after that.
    pub async fn broken(&mut self) -> Broken {
        tokio::select! {
            settled = &mut self.settling => match settled {
                Ok(Err(StoreError::Superseded(why))) => Broken::Superseded(why),
                Ok(Err(error)) => Broken::Store(error.to_string()),
                Ok(Ok(())) => Broken::Store("settling ended by itself".to_owned()),
                Err(_) => Broken::Store("settling panicked; the log says where".to_owned()),
            },
            failure = self.supervisor.first_failure() => Broken::Part(failure.to_string()),
        }
    }
}

/// What delivery must know before its first attempt.
async fn read_at_start(delivery: &Delivery, store: &dyn EngineStore) -> anyhow::Result<()> {
    patience::patiently(|| Box::pin(delivery.health.load(store))).await.context("read the history of endpoints")?;
    patience::patiently(|| Box::pin(delivery.directory.read_pauses())).await.context("read what is paused")?;
    delivery.lanes.set_paused(delivery.directory.pauses().all());
    Ok(())
}
