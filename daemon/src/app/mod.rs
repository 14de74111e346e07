//! The daemon as a whole: builds the rooms one after the other, starts them, notices when one ends by itself, and drains
//! them in order.

mod check;
mod drain;
mod egress;
mod listeners;
mod reload;
mod start;

pub use check::check;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::base::clock::{Clock, SystemClock};
use crate::base::telemetry::LogLevel;
use crate::config::Config;
use crate::deliver::{self, Delivery};
use crate::flight::settle::Notice;
use crate::flight::{self, Flight};
use crate::intake::{self, Intake};
use crate::ops::{self, Ops, retention};
use crate::schedule::ClaimWaker;
use crate::store::batch::StoreUp;
use crate::store::{self, EngineStore, InstanceId, StoreError, Stores};
use drain::Switches;
use listeners::Listeners;

/// Puts another store around the engine's.
pub type WrapStore = Box<dyn FnOnce(Arc<dyn EngineStore>) -> Arc<dyn EngineStore> + Send>;

/// What tests put in the place of real parts, and what the demo listens to.
#[derive(Default)]
pub struct TestHooks {
    pub notices: Option<mpsc::Sender<Notice>>,
    /// Around the engine's store: faults.
    pub wrap_store: Option<WrapStore>,
    pub log_level: Option<LogLevel>,
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
    instance: InstanceId,
    grace: Duration,
    switches: Switches,
    intake: Intake,
    delivering: JoinHandle<()>,
    pruning: JoinHandle<()>,
    settling: JoinHandle<Result<(), StoreError>>,
    servers: Vec<JoinHandle<()>>,
}

/// Why a running daemon must end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Nothing can be recorded any more, so there is nothing to drain.
    #[error("{0}")]
    Store(String),
    /// A part ended by itself. What is under way can still be recorded.
    #[error("{0}")]
    Part(String),
}

impl App {
    /// Builds and starts everything.
    ///
    /// # Errors
    /// One sentence: what could not be had, and what to do.
    pub async fn start(config: Config, hooks: TestHooks) -> anyhow::Result<Self> {
        let keyring = start::keyring(&config)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(start::metrics());
        let Stores { engine, reads, admin } = store::open(&config.store, Arc::clone(&clock))?;
        let store = hooks.wrap_store.map_or(Arc::clone(&engine), |wrap| wrap(engine));
        start::check_keyring(&admin.some_keys().await.context("read the keys")?, &keyring)?;
        // Listeners come before any work, so that a port in use is told at once.
        let listeners = Listeners::bind(&config, admin.as_ref(), clock.as_ref()).await?;
        // A start that is refused leaves no trace in the store.
        let begun = start::register(store.as_ref(), &metrics).await?;

        let switches = Switches::new();
        let store_up = Arc::new(StoreUp::new());
        let waker = ClaimWaker::new(Arc::clone(&clock));
        let (flight, settle_task) = flight::build(flight::Deps {
            store: Arc::clone(&store),
            store_up: Arc::clone(&store_up),
            instance: begun.instance,
            waker: waker.clone(),
            metrics: Arc::clone(&metrics),
            notices: hooks.notices,
        });
        let egress = egress::policy(&config, &listeners.ours).await;
        let (delivery, delivery_task) = deliver::build(
            start::delivery_config(&config)?,
            deliver::Deps {
                store: Arc::clone(&store),
                admin: Arc::clone(&admin),
                store_up: Arc::clone(&store_up),
                instance: begun.instance,
                flight: flight.clone(),
                waker,
                keyring: Arc::clone(&keyring),
                egress,
                clock: Arc::clone(&clock),
                metrics: Arc::clone(&metrics),
                cut_off: switches.cut_off.stop(),
            },
        )
        .map_err(|why| anyhow!(why))?;
        let (intake, intake_task) = intake::build(
            config.intake.clone(),
            intake::Deps {
                store: Arc::clone(&store),
                store_id: begun.store_id.clone(),
                instance: begun.instance,
                flight: flight.clone(),
                delivery: delivery.clone(),
                metrics: Arc::clone(&metrics),
                clock: Arc::clone(&clock),
                park_after: config.park_after,
                attempt_deadline: config.exchange.deadlines.total,
            },
            switches.for_intake(),
        );
        let (settings, settings_rx) = watch::channel(reload::settings(&config));
        let log_level = hooks.log_level.unwrap_or_else(LogLevel::none);
        let ops = Ops::new(ops::Parts {
            admin,
            reads,
            keyring,
            directory: Arc::clone(&delivery.directory),
            engine: Arc::clone(&delivery.engine),
            lanes: Arc::clone(&delivery.lanes),
            clock: Arc::clone(&clock),
            metrics,
            kafka: intake.kafka,
            asks: intake.asks,
            store_up: store_up.watch(),
            store_id: begun.store_id,
            settings: settings_rx.clone(),
            log_level: log_level.clone(),
            draining: switches.draining.stop(),
        });
        let live = reload::Live::new(&config, delivery.clone(), settings, log_level, &listeners);

        let stop_work = || switches.stop_work.stop();
        let delivering = tokio::spawn(delivery_task.run(stop_work()));
        let pruning = tokio::spawn(retention::run(Arc::clone(&store), clock, settings_rx, stop_work()));
        let settling = tokio::spawn(settle_task.run(switches.stop_settling.stop()));
        let (ops_address, api_address) = (listeners.ops_address(), listeners.api_address());
        let servers = listeners.serve(&ops, || switches.stop_servers.stop());
        let intake = intake_task.start().context("start the consumer's thread")?;
        start::tell(&config, &ops, ops_address, api_address);
        Ok(Self {
            ops,
            ops_address,
            api_address,
            api_socket: config.api.socket,
            live,
            delivery,
            flight,
            store,
            instance: begun.instance,
            grace: config.grace,
            switches,
            intake,
            delivering,
            pruning,
            settling,
            servers,
        })
    }

    /// Takes what a running daemon can of another configuration.
    ///
    /// # Errors
    /// A sentence; nothing changed.
    pub async fn reload(&self, config: &Config) -> Result<(), String> {
        self.live.take(config).await
    }

    /// Waits until the store breaks or a part ends by itself, either of which ends the process.
    pub async fn broken(&mut self) -> Broken {
        let part = |part: &str| Broken::Part(format!("{part} ended by itself; the log says where"));
        tokio::select! {
            settled = &mut self.settling => match settled {
                Ok(Err(error)) => Broken::Store(error.to_string()),
                Ok(Ok(())) => Broken::Store("settling ended by itself".to_owned()),
                Err(_) => Broken::Store("settling panicked; the log says where".to_owned()),
            },
            error = self.intake.failed() => Broken::Part(error.to_string()),
            _ = &mut self.delivering => part("delivery"),
            _ = &mut self.pruning => part("pruning"),
        }
    }
}
