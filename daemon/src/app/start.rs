//! What every room needs, and how each room is built from it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Hooks;
use super::drain::Switches;
use super::egress;
use super::listeners::Listeners;
use super::opening::Opened;
use super::patience::patiently;
use crate::base::body_budget::BodyBudget;
use crate::base::clock::Clock;
use crate::base::labels::RepeatCause;
use crate::base::metrics::Metrics;
use crate::base::supervise::Supervisor;
use crate::base::telemetry::LogLevel;
use crate::config::Config;
use crate::deliver::{self, Delivery, DeliveryTask};
use crate::flight::settle::{Notice, SettleTask};
use crate::flight::{self, BodyRoom, Flight, PulseTask};
use crate::intake::{self, IntakeHandle, IntakeTask};
use crate::keyring::{Keyring, Place, Sealed};
use crate::ops::{self, Ops, Settings};
use crate::publish;
use crate::schedule::ClaimWaker;
use crate::store::admin::{AdminStore, KeyRow};
use crate::store::batch::StoreUp;
use crate::store::outbox::Outbox;
use crate::store::reads::Reads;
use crate::store::{Begun, EngineStore, Stores};

/// What every room needs: configuration, clock, metrics, keyring, the open store, and the switches of the drain.
pub(super) struct Ground {
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Arc<dyn EngineStore>,
    pub(super) begun: Begun,
    pub(super) switches: Switches,
    pub(super) supervisor: Supervisor,
    pub(super) log_level: LogLevel,
    pub(super) reads: Arc<dyn Reads>,
    pub(super) admin: Arc<dyn AdminStore>,
    outbox: Arc<dyn Outbox>,
    keyring: Arc<Keyring>,
    metrics: Arc<Metrics>,
    store_up: Arc<StoreUp>,
    bodies: BodyBudget,
    waker: ClaimWaker,
    notices: Option<mpsc::Sender<Notice>>,
}

impl Ground {
    /// Binds the listeners, and registers this instance with the open store.
    ///
    /// # Errors
    /// One sentence that says what failed and what to do.
    pub(super) async fn prepare(opened: Opened, hooks: Hooks) -> anyhow::Result<(Self, Listeners)> {
        let Opened { config, log_level, keyring, clock, metrics, stores } = opened;
        let Stores { engine, reads, admin, outbox } = stores;
        let store = match hooks.wrap_store {
            Some(wrap) => wrap(engine),
            None => engine,
        };
        check_keyring(&patiently(|| admin.some_keys()).await.context("read the keys")?, &keyring)?;
        // Listeners come before any work, so that a port in use is reported at once.
        let listeners = Listeners::bind(&config, admin.as_ref(), clock.as_ref()).await?;
        // A start that is refused leaves no trace in the store.
        clock.begin(patiently(|| store.newest_time()).await.context("read the store's newest time")?);
        let begun = register(store.as_ref(), &metrics).await?;
        // From here on the clock is the store's, if it has one.
        if let Some(now) = patiently(|| store.pulse(begun.instance, 0)).await.context("ask the store's time")?.now {
            clock.anchor(now);
        }
        let ground = Self {
            bodies: BodyBudget::new(config.body_budget),
            config,
            store,
            begun,
            switches: Switches::new(),
            supervisor: Supervisor::new(),
            log_level,
            reads,
            admin,
            outbox,
            keyring,
            metrics,
            store_up: Arc::new(StoreUp::new()),
            waker: ClaimWaker::new(Arc::clone(&clock)),
            notices: hooks.notices,
            clock,
        };
        Ok((ground, listeners))
    }

    pub(super) fn flight(&self) -> (Flight, SettleTask, PulseTask) {
        flight::build(flight::Deps {
            store: Arc::clone(&self.store),
            store_up: Arc::clone(&self.store_up),
            instance: self.begun.instance,
            clock: Arc::clone(&self.clock),
            waker: self.waker.clone(),
            metrics: Arc::clone(&self.metrics),
            body_room: BodyRoom::new(self.config.space.parked_bytes, self.config.retry.horizon),
            trusted_for: intake::settings::trust(&self.config.intake),
            notices: self.notices.clone(),
        })
    }

    pub(super) async fn delivery(
        &self,
        flight: &Flight,
        listeners: &Listeners,
    ) -> anyhow::Result<(Delivery, DeliveryTask)> {
        let deps = deliver::Deps {
            store: Arc::clone(&self.store),
            admin: Arc::clone(&self.admin),
            store_up: Arc::clone(&self.store_up),
            instance: self.begun.instance,
            flight: flight.clone(),
            waker: self.waker.clone(),
            keyring: Arc::clone(&self.keyring),
            egress: egress::policy(&self.config, &listeners.ours).await,
            bodies: self.bodies.clone(),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            cut_off: self.switches.cut_off.stop(),
        };
        deliver::build(delivery_config(&self.config)?, deps).map_err(anyhow::Error::from)
    }

    pub(super) fn intake(&self, flight: &Flight, delivery: &Delivery) -> (IntakeHandle, IntakeTask) {
        let deps = intake::Deps {
            store: Arc::clone(&self.store),
            begun: self.begun.clone(),
            flight: flight.clone(),
            delivery: delivery.clone(),
            bodies: self.bodies.clone(),
            supervisor: self.supervisor.clone(),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            park_after: self.config.park_after,
            attempt_deadline: self.config.exchange.deadlines.total,
        };
        intake::build(self.config.intake.clone(), deps, self.switches.for_intake())
    }

    /// Publishes outcomes and dead letters, until the consumer ends.
    pub(super) fn publishing(&self) -> JoinHandle<()> {
        let deps = publish::Deps {
            outbox: Arc::clone(&self.outbox),
            reads: Arc::clone(&self.reads),
            instance: self.begun.instance,
            kafka: self.config.intake.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let stop = self.switches.stop_consumer.stop();
        self.supervisor.spawn("publishing", stop.clone(), publish::run(self.config.topics.clone(), deps, stop))
    }

    pub(super) fn ops(
        &self,
        flight: &Flight,
        delivery: &Delivery,
        intake: IntakeHandle,
        settings: watch::Receiver<Settings>,
    ) -> Ops {
        Ops::new(ops::Parts {
            admin: Arc::clone(&self.admin),
            reads: Arc::clone(&self.reads),
            store: Arc::clone(&self.store),
            instance: self.begun.instance,
            waker: self.waker.clone(),
            keyring: Arc::clone(&self.keyring),
            directory: Arc::clone(&delivery.directory),
            engine: Arc::clone(&delivery.engine),
            lanes: Arc::clone(&delivery.lanes),
            health: Arc::clone(&delivery.health),
            space_short: delivery.space_short.clone(),
            inflight: Arc::clone(&flight.inflight),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            kafka: intake.kafka,
            asks: intake.asks,
            rereader: intake.rereader,
            store_up: self.store_up.watch(),
            store_id: self.begun.store_id.clone(),
            settings,
            supervisor: self.supervisor.clone(),
            log_level: self.log_level.clone(),
            draining: self.switches.draining.stop(),
        })
    }
}

/// Opens all keys of the store, so that a wrong keyring is found at the start and not at the first callback.
pub(super) fn check_keyring(keys: &[KeyRow], keyring: &Keyring) -> anyhow::Result<()> {
    for key in keys {
        let sealed = Sealed { keyring_id: key.keyring.clone(), bytes: key.sealed.clone() };
        let place = Place { team: &key.team, kind: key.kind, mode: key.mode, key_id: &key.id };
        keyring
            .open(&sealed, &place)
            .map_err(|error| anyhow!("keyring.file: key {} of team {} can't be opened: {error}", key.id, key.team))?;
    }
    Ok(())
}

/// Registers this instance with the store.
async fn register(store: &dyn EngineStore, metrics: &Metrics) -> anyhow::Result<Begun> {
    let begun = patiently(|| store.begin()).await.context("register with the store")?;
    if begun.unclean {
        tracing::warn!("the previous instance did not end cleanly: attempts that were in flight may be repeated");
        metrics.repeats_possible_total.with_label_values(&[RepeatCause::UncleanStop.name()]).inc();
    }
    Ok(begun)
}

fn delivery_config(config: &Config) -> anyhow::Result<deliver::Config> {
    Ok(deliver::Config {
        exchange: config.exchange.clone(),
        caps: config.caps,
        retry: config.retry,
        lease: config.lease,
        park_after: config.park_after,
        space: config.space,
        user_agent: config.user_agent.parse().map_err(|_| anyhow!("deliver.contact: it can't be sent in a header"))?,
    })
}

/// Logs that the daemon runs, with its addresses, and what is weak in its settings.
pub(super) fn tell(config: &Config, ops: &Ops, ops_address: Option<SocketAddr>, api_address: Option<SocketAddr>) {
    for weak in super::weaknesses::all(config) {
        tracing::warn!(what = weak.what, found = weak.detail, fix = weak.fix, "a setting is weak");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        store = ops.store_id(),
        path = %config.store,
        brokers = config.intake.brokers,
        topics = config.intake.topics.join(","),
        api = api_address.map(tracing::field::display),
        ops = ops_address.map(tracing::field::display),
        socket = %config.api.socket.display(),
        "callbackd runs"
    );
}
