//! Builds everything, then starts everything, supervises, and drains in order: readiness off, intake off, attempts in
//! flight end within the grace, leases released, the last batch, offsets, the store.

mod check;
mod egress;
mod reload;

pub use check::check;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use scale_callback::tls::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::api;
use crate::base::clock::{Clock, SystemClock};
use crate::base::metrics::{Labels, Metrics};
use crate::base::stop::{Stop, Switch};
use crate::base::telemetry::LogLevel;
use crate::config::Config;
use crate::deliver::Engine;
use crate::deliver::directory::Directory;
use crate::deliver::feed::Feed;
use crate::deliver::inflight::Inflight;
use crate::deliver::lease_tokens::LeaseTokens;
use crate::deliver::settle::{self, Notice, SettleDeps, Settler};
use crate::intake::admit::Admit;
use crate::intake::consumer::Consumer;
use crate::intake::context::Context;
use crate::intake::{KafkaState, Stalled};
use crate::keyring::{Keyring, Place, Sealed};
use crate::model::attempt::Outcome;
use crate::model::dead_letter::Unreadable;
use crate::model::retry::Reason;
use crate::model::settlement::Change;
use crate::net::exchange::Client;
use crate::ops::{Ops, retention};
use crate::schedule::{ClaimWaker, Lanes};
use crate::store::admin::{Admin, KeyRow};
use crate::store::batch::{BatchWriter, StoreUp};
use crate::store::sqlite::SqliteStore;
use crate::store::{InstanceId, Store};

/// Batches between the consumer's thread and admission.
const BATCH_QUEUE: usize = 4;
/// How long a stop waits for a store that does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the Kafka client may take to leave its group.
const LEAVE: Duration = Duration::from_secs(10);

/// Puts another store around the engine's.
pub type WrapStore = Box<dyn FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send>;

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
    pub ops_address: Option<SocketAddr>,
    /// Where `/admin/v1` listens on TCP, if it did at the start.
    pub api_address: Option<SocketAddr>,
    pub api_socket: PathBuf,
    live: reload::Live,
    lanes: Arc<Lanes>,
    inflight: Arc<Inflight>,
    settler: Settler,
    store: Arc<dyn Store>,
    instance: InstanceId,
    grace: Duration,
    switches: Switches,
    tasks: Vec<JoinHandle<()>>,
    settling: JoinHandle<Result<(), crate::store::StoreError>>,
    servers: Vec<JoinHandle<()>>,
    consumer_ended: oneshot::Receiver<()>,
}

/// One switch a phase of the drain.
struct Switches {
    draining: Switch,
    cut_off: Switch,
    stop_work: Switch,
    stop_settling: Switch,
    stop_consumer: Switch,
    stop_servers: Switch,
}

impl Switches {
    fn new() -> Self {
        Self {
            draining: Switch::new(),
            cut_off: Switch::new(),
            stop_work: Switch::new(),
            stop_settling: Switch::new(),
            stop_consumer: Switch::new(),
            stop_servers: Switch::new(),
        }
    }
}

impl App {
    /// Builds and starts everything.
    ///
    /// # Errors
    /// One sentence: what could not be had, and what to do.
    #[expect(clippy::too_many_lines, reason = "the list of everything, in the order it is built")]
    pub async fn start(config: Config, extras: TestHooks) -> anyhow::Result<Self> {
        anyhow::ensure!(!config.intake.brokers.is_empty(), "kafka.brokers: say where the brokers are, \"host:port\"");
        anyhow::ensure!(
            !config.keyring_file.as_os_str().is_empty(),
            "keyring.file: name the keyring; make one with: callbackd keyring create FILE"
        );
        let keyring = Arc::new(Keyring::from_file(&config.keyring_file)?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(metrics());
        let sqlite = Arc::new(SqliteStore::open(&config.store, Arc::clone(&clock))?);
        let admin = Admin::new(Arc::clone(&sqlite));
        check_keyring(&admin.some_keys().await.context("read the keys")?, &keyring)?;
        let engine_store: Arc<dyn Store> = Arc::clone(&sqlite) as Arc<dyn Store>;
        let store = match extras.wrap_store {
            Some(wrap) => wrap(engine_store),
            None => engine_store,
        };
        // Listeners before any work: a port in use is told at once.
        let (socket, user) = api::bind_unix(&config.api.socket)
            .await
            .with_context(|| format!("api.socket: {}", config.api.socket.display()))?;
        let tls = config.api.tls.as_ref().map(|(cert, key)| ServerTls::load(cert, key)).transpose();
        let tls = tls.map_err(|why| anyhow!("api.tls_cert: {why}"))?.map(Arc::new);
        let api_listener = api_listener(&config, &admin, clock.as_ref()).await?;
        let api_address = api_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let ops_listener = match config.ops_listen {
            None => None,
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| format!("ops.listen: {address}"))?),
        };
        let ops_address = ops_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        // A start that is refused leaves no trace in the store.
        let begun = store.begin().await.context("register with the store")?;
        if begun.unclean {
            tracing::warn!("the last run did not end cleanly: what was in flight then may be repeated");
            metrics.repeats_possible_total.with_label_values(&["unclean_stop"]).inc();
        }

        let switches = Switches::new();
        let store_up = Arc::new(StoreUp::new());
        let store_up_rx = store_up.watch();
        let directory = Arc::new(Directory::new(admin.clone(), Arc::clone(&keyring), Arc::clone(&clock), config.retry));
        let inflight = Arc::new(Inflight::default());
        let waker = ClaimWaker::new(Arc::clone(&clock));
        let writer = BatchWriter::new(Arc::clone(&store), begun.instance, Arc::clone(&metrics), Arc::clone(&store_up));
        let (settler, settle_task) = settle::build(SettleDeps {
            writer,
            inflight: Arc::clone(&inflight),
            metrics: Arc::clone(&metrics),
            waker: waker.clone(),
            notices: extras.notices,
        });
        let ours: Vec<_> = [ops_address, api_address.or(config.api.listen)].into_iter().flatten().collect();
        let policy = egress::policy(&config, &ours).await;
        let client = Client::new(&config.exchange, policy).map_err(|why| anyhow!(why))?;
        let engine = Arc::new(Engine {
            client,
            directory: Arc::clone(&directory),
            inflight: Arc::clone(&inflight),
            settler: settler.clone(),
            metrics: Arc::clone(&metrics),
            user_agent: config
                .user_agent
                .parse()
                .map_err(|_| anyhow!("deliver.contact: it can't be sent in a header"))?,
            park_after: config.park_after,
            cut_off: switches.cut_off.stop(),
        });
        let runtime = tokio::runtime::Handle::current();
        let starting = Arc::clone(&engine);
        let starter = Box::new(move |start| {
            runtime.spawn(Arc::clone(&starting).attempt(start));
        });
        let lanes = Lanes::new(config.caps, Arc::clone(&metrics), starter);

        let tokens = Arc::new(LeaseTokens::new());
        let deadline = config.exchange.deadlines.total;
        let feed = Feed {
            store: Arc::clone(&store),
            instance: begun.instance,
            lanes: Arc::clone(&lanes),
            inflight: Arc::clone(&inflight),
            directory: Arc::clone(&directory),
            settler: settler.clone(),
            tokens: Arc::clone(&tokens),
            waker,
            metrics: Arc::clone(&metrics),
            lease: config.lease,
            store_up,
        };
        let stalled = Arc::new(Stalled::default());
        let (batches, batches_rx) = mpsc::channel(BATCH_QUEUE);
        let admit = Admit {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            inflight: Arc::clone(&inflight),
            lanes: Arc::clone(&lanes),
            directory: Arc::clone(&directory),
            settler: settler.clone(),
            tokens,
            stalled: Arc::clone(&stalled),
            metrics: Arc::clone(&metrics),
            park_after: config.park_after,
            batches: batches_rx,
            stop: switches.stop_work.stop(),
        };
        metrics.expect_topics(&config.intake.topics);
        let (kafka, kafka_rx) = watch::channel(KafkaState::default());
        let (asks, asks_rx) = mpsc::channel(4);
        let make_context = context_maker(ContextParts {
            store: Arc::clone(&store),
            store_id: begun.store_id.clone(),
            instance: begun.instance,
            inflight: Arc::clone(&inflight),
            lanes: Arc::clone(&lanes),
            settler: settler.clone(),
            stalled,
            metrics: Arc::clone(&metrics),
            kafka,
            clock: Arc::clone(&clock),
            grace: config.intake.rebalance_grace,
            deadline,
        });
        let consumer = Consumer {
            budget: Arc::new(Semaphore::new(config.intake.body_budget)),
            config: config.intake.clone(),
            make_context,
            batches,
            asks: asks_rx,
            quiet: switches.draining.stop(),
            stop: switches.stop_consumer.stop(),
        };
        let (settings, settings_rx) = watch::channel(reload::settings(&config));
        let log_level = extras.log_level.unwrap_or_else(LogLevel::none);
        let ops = Ops {
            admin,
            reads: Arc::clone(&sqlite) as Arc<dyn crate::store::reads::Reads>,
            keyring,
            directory: Arc::clone(&directory),
            engine: Arc::clone(&engine),
            lanes: Arc::clone(&lanes),
            tokens: Arc::default(),
            settings: settings_rx.clone(),
            log_level: log_level.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            kafka: kafka_rx,
            store_up: store_up_rx.clone(),
            asks,
            store_id: begun.store_id,
            backlog: Arc::default(),
            draining: switches.draining.stop(),
        };
        let live = reload::Live {
            engine: Arc::clone(&engine),
            directory: Arc::clone(&directory),
            lanes: Arc::clone(&lanes),
            settings,
            log_level,
            level: std::sync::Mutex::new(config.log.level.clone()),
            tls: tls.clone(),
            ours,
        };
        let stop = || switches.stop_work.stop();
        let tasks = vec![
            tokio::spawn({
                let stop = stop();
                async move { directory.run(stop).await }
            }),
            tokio::spawn(feed.run(stop())),
            tokio::spawn(admit.run()),
            tokio::spawn(retention::run(Arc::clone(&store), clock, settings_rx, stop())),
            tokio::spawn(follow_store(store_up_rx, Arc::clone(&lanes), stop())),
            tokio::spawn(sweep_connections(engine, stop())),
        ];
        let settling = tokio::spawn(settle_task.run(switches.stop_settling.stop()));
        let mut servers =
            vec![tokio::spawn(api::serve_socket(socket, user, ops.clone(), switches.stop_servers.stop()))];
        let stop_api = switches.stop_servers.stop();
        match (api_listener, config.api.listen) {
            (Some(listener), _) => servers.push(tokio::spawn(api::serve_tcp(listener, tls, ops.clone(), stop_api))),
            (None, Some(address)) => {
                servers.push(tokio::spawn(api::listen_once_there_is_a_token(address, tls, ops.clone(), stop_api)))
            }
            (None, None) => {}
        }
        if let Some(listener) = ops_listener {
            servers.push(tokio::spawn(api::serve_ops(listener, ops.clone(), switches.stop_servers.stop())));
        }
        let (ended, consumer_ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("kafka-consumer".to_owned())
            .spawn(move || {
                consumer.run();
                let _ = ended.send(());
            })
            .context("start the consumer's thread")?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            store = ops.store_id,
            path = %config.store.directory.display(),
            brokers = config.intake.brokers,
            topics = config.intake.topics.join(","),
            api = api_address.map(tracing::field::display),
            ops = ops_address.map(tracing::field::display),
            socket = %config.api.socket.display(),
            "callbackd runs"
        );
        Ok(Self {
            ops,
            ops_address,
            api_address,
            api_socket: config.api.socket,
            live,
            lanes,
            inflight,
            settler,
            store,
            instance: begun.instance,
            grace: config.grace,
            switches,
            tasks,
            settling,
            servers,
            consumer_ended,
        })
    }

    /// Takes what a running daemon can of another configuration.
    ///
    /// # Errors
    /// A sentence; nothing changed.
    pub async fn reload(&self, config: &Config) -> Result<(), String> {
        self.live.take(config).await
    }

    /// Waits until the store breaks, which ends the process.
    pub async fn broken(&mut self) -> anyhow::Error {
        match (&mut self.settling).await {
            Ok(Err(error)) => anyhow!(error),
            Ok(Ok(())) => anyhow!("settling ended by itself"),
            Err(_) => anyhow!("settling panicked"),
        }
    }

    /// Drains and ends. Answers how many attempts had to be cut off.
    ///
    /// # Errors
    /// The store's, if it broke on the way.
    pub async fn stop(self) -> anyhow::Result<usize> {
        // Readiness off, and no record and no due row begins any more.
        self.switches.draining.flip();
        self.switches.stop_work.flip();
        for task in self.tasks {
            let _ = tokio::time::timeout(self.grace, task).await;
        }
        for lease in self.lanes.close() {
            if lease.epoch().is_none() {
                let change = Change::Release { facts: Arc::clone(&lease.facts), token: lease.token };
                self.settler.submit(change).await;
            } else {
                let _ = self.inflight.withdraw(&lease);
            }
        }
        let cut_off = end_attempts(&self.lanes, &self.inflight, self.grace, &self.switches.cut_off).await;
        self.switches.stop_settling.flip();
        let settled = tokio::time::timeout(STORE_PATIENCE, self.settling).await;
        // The watermark is where it will stay: the last commit of offsets, then the group is left.
        self.switches.stop_consumer.flip();
        if tokio::time::timeout(LEAVE, self.consumer_ended).await.is_err() {
            tracing::warn!("the Kafka client did not close in time");
        }
        self.switches.stop_servers.flip();
        for server in self.servers {
            let _ = server.await;
        }
        let ended = tokio::time::timeout(STORE_PATIENCE, self.store.end(self.instance)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the end of this run was not recorded");
        }
        let _ = std::fs::remove_file(&self.api_socket);
        tracing::info!(cut_off, "callbackd ended");
        let settled =
            settled.map_err(|_| anyhow!("the store did not answer: what was in flight is found at the next start"))?;
        settled.context("settle what was in flight")?.context("settle what was in flight")?;
        Ok(cut_off)
    }
}

/// Bound at the start where a token is there, so that a port in use is told at once.
async fn api_listener(config: &Config, admin: &Admin, clock: &dyn Clock) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.api.listen else { return Ok(None) };
    let tokens = admin.tokens().await.context("read the tokens")?;
    if !tokens.iter().any(|token| token.is_valid(clock.now())) {
        return Ok(None);
    }
    let listener = TcpListener::bind(address).await.with_context(|| format!("api.listen: {address}"))?;
    Ok(Some(listener))
}

/// Waits until every attempt is settled; cuts off what outlives the grace.
async fn end_attempts(lanes: &Lanes, inflight: &Inflight, grace: Duration, cut_off: &Switch) -> usize {
    if tokio::time::timeout(grace, lanes.settled()).await.is_ok() {
        return 0;
    }
    let late = inflight.started();
    for lease in &late {
        tracing::warn!(callback = %lease.id(), "cut off: its attempt did not end within shutdown.grace");
    }
    cut_off.flip();
    let _ = tokio::time::timeout(STORE_PATIENCE, lanes.settled()).await;
    late.len()
}

fn metrics() -> Metrics {
    Metrics::new(&Labels {
        outcomes: Outcome::ALL.iter().map(|outcome| outcome.name()).collect(),
        reasons: Reason::ALL.iter().map(|reason| reason.name()).collect(),
        unreadable: Unreadable::ALL.iter().map(|reason| reason.name()).collect(),
    })
}

/// A keyring that does not open the store's keys is found at the start, not at the first callback.
fn check_keyring(keys: &[KeyRow], keyring: &Keyring) -> anyhow::Result<()> {
    for key in keys {
        let sealed = Sealed { keyring_id: key.keyring.clone(), bytes: key.sealed.clone() };
        let place = Place { team: &key.team, kind: key.kind, mode: key.mode, key_id: &key.id };
        keyring
            .open(&sealed, &place)
            .map_err(|error| anyhow!("keyring.file: key {} of team {} can't be opened: {error}", key.id, key.team))?;
    }
    Ok(())
}

struct ContextParts {
    store: Arc<dyn Store>,
    store_id: String,
    instance: InstanceId,
    inflight: Arc<Inflight>,
    lanes: Arc<Lanes>,
    settler: Settler,
    stalled: Arc<Stalled>,
    metrics: Arc<Metrics>,
    kafka: watch::Sender<KafkaState>,
    clock: Arc<dyn Clock>,
    grace: Duration,
    deadline: Duration,
}

fn context_maker(parts: ContextParts) -> Box<dyn Fn(Arc<str>) -> Context + Send> {
    let runtime = tokio::runtime::Handle::current();
    Box::new(move |cluster| Context {
        runtime: runtime.clone(),
        store: Arc::clone(&parts.store),
        store_id: parts.store_id.clone(),
        instance: parts.instance,
        inflight: Arc::clone(&parts.inflight),
        lanes: Arc::clone(&parts.lanes),
        settler: parts.settler.clone(),
        stalled: Arc::clone(&parts.stalled),
        metrics: Arc::clone(&parts.metrics),
        state: parts.kafka.clone(),
        cluster,
        clock: Arc::clone(&parts.clock),
        grace: parts.grace,
        deadline: parts.deadline,
        partitions: std::sync::Mutex::default(),
        troubles: std::sync::Mutex::default(),
        ends: std::sync::Mutex::default(),
    })
}

/// While the store is known to be down nothing new begins.
async fn follow_store(mut up: watch::Receiver<bool>, lanes: Arc<Lanes>, mut stop: Stop) {
    loop {
        tokio::select! {
            changed = up.changed() => {
                if changed.is_err() {
                    return;
                }
                let up = *up.borrow_and_update();
                lanes.set_open(up);
            }
            () = stop.stopped() => return,
        }
    }
}

async fn sweep_connections(engine: Arc<Engine>, mut stop: Stop) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => engine.client.sweep(),
            () = stop.stopped() => return,
        }
    }
}
