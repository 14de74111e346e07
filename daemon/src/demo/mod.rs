//! `callbackd demo` shows every path that a callback can take, in one program. The broker is a mock, the store is in a
//! temporary folder, and the receiver verifies with the SDK. Producer and receiver count for themselves, and a ledger
//! at the end compares the store with them.

pub mod broker;
mod ledger;
mod lines;
mod producer;
mod receiver;
mod screen;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::app::{App, Hooks};
use crate::base::clock::{Clock, SystemClock};
use crate::base::stop::Switch;
use crate::base::telemetry::LogLevel;
use crate::config::{Config, Layers};
use crate::flight::settle::Notice;
use crate::keyring::Keyring;
use crate::model::permission::Rights;
use crate::model::team::{KeyKind, Mode};
use crate::ops::Caller;
use crate::ops::callbacks::AttemptReport;
use crate::ops::teams::TeamChange;
use broker::Broker;
use ledger::Ledger;
use lines::{Failed, Try};
use producer::Producer;
use screen::Screen;

pub(crate) const TOPIC: &str = "demo.events";
const PARTITIONS: i32 = 4;
/// For how long the demo produces events without `--events`.
const SHOW: Duration = Duration::from_secs(30);
/// How long callbacks may take to end after the last event was produced.
const SETTLE: Duration = Duration::from_secs(60);
/// Events a second, slow enough for a person to follow.
const PACE: u32 = 8;
const NOTICES: usize = 65_536;
/// Bytes of an answer that the way of a failed callback shows.
const SNIPPET: usize = 60;

/// How the demo runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Produce this many events as fast as they are taken, then end.
    pub events: Option<u64>,
    /// A person watches, so go on after the ledger until Ctrl-C.
    pub stay: bool,
    /// Print nothing.
    pub quiet: bool,
}

/// The teams of the demo.
pub(crate) const ACME: &str = "team_acme";
pub(crate) const GLOBEX: &str = "team_globex";

/// How a demo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Everything that was produced has ended, and the ledger balances.
    Balanced,
    /// Ctrl-C came before everything had ended. The ledger balances with what is still open.
    Stopped,
    /// Something was lost, came twice, or did not end in time.
    Unbalanced,
}

/// Runs the demo.
///
/// # Errors
/// What could not be set up.
pub async fn run(options: Options) -> anyhow::Result<Finish> {
    run_watched(options, |_| {}, async |_, _| Ok(())).await
}

/// How many callbacks and dead letters ended in each way, from the store.
pub type Ends = std::collections::BTreeMap<String, u64>;

/// Runs the demo for an observer, who is called when it runs, and again when everything has ended while it still runs.
///
/// # Errors
/// What could not be set up, or the observer's error.
pub async fn run_watched(
    options: Options,
    started: impl FnOnce(&App),
    ended: impl AsyncFnOnce(&App, Ends) -> anyhow::Result<()>,
) -> anyhow::Result<Finish> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for callbacks")?;
    let receiver_at = listener.local_addr()?;
    let (mut demo, verifier) = Demo::start(options, receiver_at).await?;
    let stop_receiver = Switch::new();
    let receiver = receiver::run(listener, verifier, Arc::clone(&demo.receipts), stop_receiver.stop());
    let receiver = tokio::spawn(receiver);
    started(&demo.app);
    let finish = match demo.drive(options.events).await? {
        Ending::Stopped => demo.end_half_way().await?,
        ending => {
            let ledger = Ledger::draw(&demo.producer, &demo.receipts, &**demo.app.reads()).await?;
            demo.screen.ledger(&ledger, false);
            ended(&demo.app, ledger.lines.iter().map(|line| (line.what.clone(), line.stored)).collect()).await?;
            let failed = demo.walk().await?;
            if options.stay && ending == Ending::Ended {
                demo.stay(failed.as_ref()).await?;
            } else if failed.is_some() {
                demo.screen.commands_for_later();
            }
            demo.stop().await?;
            let is_good = ledger.balances() && ending == Ending::Ended;
            if is_good { Finish::Balanced } else { Finish::Unbalanced }
        }
    };
    stop_receiver.flip();
    // Its panic, if any, was reported by its task; the ledger is what counts.
    receiver.await.ok();
    Ok(finish)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Everything that was produced has ended.
    Ended,
    /// Ctrl-C came first.
    Stopped,
    /// Callbacks did not end in time.
    Stuck,
}

/// A demo that runs.
struct Demo {
    app: App,
    producer: Producer,
    receipts: Arc<receiver::Receipts>,
    noticed: mpsc::Receiver<Notice>,
    screen: Screen,
    interrupt: Signal,
    folder: Folder,
    _broker: Broker,
}

impl Demo {
    /// Starts the broker and the daemon, and creates the teams. Returns a verifier with the keys of their developers, too.
    async fn start(options: Options, receiver: SocketAddr) -> anyhow::Result<(Self, scale_callback_auth::Verifier)> {
        // It listens from the beginning, so that no Ctrl-C is missed.
        let interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let folder = Folder::new()?;
        let broker = Broker::start(TOPIC, PARTITIONS).context("start the mock broker")?;
        let (notices, noticed) = mpsc::channel(NOTICES);
        let config = config(&folder.0, &broker.servers)?;
        let hooks = Hooks { notices: Some(notices), ..Hooks::default() };
        let app = App::start_with(config, LogLevel::none(), hooks).await?;
        let verifier = teams(&app, receiver).await?;
        let mut screen = Screen::new(options.stay, options.quiet);
        screen.banner(&app, receiver, &folder.0);
        let producer = Producer::new(&broker.servers, receiver)?;
        let receipts = Arc::new(receiver::Receipts::default());
        Ok((Self { app, producer, receipts, noticed, screen, interrupt, folder, _broker: broker }, verifier))
    }

    /// Produces events, prints what happens, and waits until everything has come to its end.
    async fn drive(&mut self, events: Option<u64>) -> anyhow::Result<Ending> {
        let begun = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(1000 / u64::from(PACE)));
        let mut quiet_since = Instant::now();
        loop {
            let produced_all = match events {
                Some(count) => self.producer.produced() >= count,
                None => begun.elapsed() >= SHOW,
            };
            if produced_all && self.producer.open() == 0 {
                return Ok(Ending::Ended);
            }
            if self.producer.open() == 0 || !produced_all {
                quiet_since = Instant::now();
            }
            if quiet_since.elapsed() > SETTLE {
                self.screen.say("Some callbacks did not come to their end in time.");
                return Ok(Ending::Stuck);
            }
            tokio::select! {
                Some(notice) = self.noticed.recv() => self.note(&notice),
                _ = tick.tick() => {
                    if !produced_all {
                        let wanted = if events.is_some() { self.producer.room() } else { 1 };
                        let left = events.map_or(u64::MAX, |count| count - self.producer.produced());
                        for _ in 0..wanted.min(left) {
                            self.producer.produce()?;
                        }
                    }
                    self.screen.footer(&self.app, &self.producer, &self.receipts);
                }
                _ = self.interrupt.recv() => return Ok(Ending::Stopped),
                broken = self.app.broken() => return Err(broken.into()),
            }
        }
    }

    /// Goes on slowly until Ctrl-C.
    async fn stay(&mut self, failed: Option<&Failed>) -> anyhow::Result<()> {
        self.screen.commands(&self.app, &self.folder.0, failed);
        let mut tick = tokio::time::interval(Duration::from_secs(2));
        loop {
            tokio::select! {
                Some(notice) = self.noticed.recv() => self.note(&notice),
                _ = tick.tick() => {
                    self.producer.produce()?;
                    self.screen.footer(&self.app, &self.producer, &self.receipts);
                }
                _ = self.interrupt.recv() => {
                    self.screen.without_footer();
                    self.screen.say("The demo ends: attempts in flight end first. A second Ctrl-C ends it at once.");
                    return Ok(());
                }
                broken = self.app.broken() => return Err(broken.into()),
            }
        }
    }

    fn note(&mut self, notice: &Notice) {
        self.screen.line(notice, &self.producer);
        self.producer.ended(notice);
    }

    /// Shows the way of one callback that failed, if any did.
    async fn walk(&mut self) -> anyhow::Result<Option<Failed>> {
        let failed = failed_callback(&self.app, &self.producer).await?;
        if let Some(failed) = &failed {
            self.screen.walk(failed);
        }
        Ok(failed)
    }

    /// Stops the daemon, and then draws the ledger: nothing moves any more, so that its three counts are of one instant.
    async fn end_half_way(mut self) -> anyhow::Result<Finish> {
        self.screen.without_footer();
        self.screen.say("Stopping: attempts in flight end first. A second Ctrl-C ends the demo at once.");
        let reads = Arc::clone(self.app.reads());
        stop(self.app, &mut self.interrupt, &self.folder).await?;
        while let Ok(notice) = self.noticed.try_recv() {
            self.screen.line(&notice, &self.producer);
            self.producer.ended(&notice);
        }
        let ledger = Ledger::draw(&self.producer, &self.receipts, &*reads).await?;
        self.screen.ledger(&ledger, true);
        Ok(if ledger.balances() { Finish::Stopped } else { Finish::Unbalanced })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        stop(self.app, &mut self.interrupt, &self.folder).await
    }
}

/// Stops the daemon. Another Ctrl-C ends the process at once.
async fn stop(app: App, interrupt: &mut Signal, folder: &Folder) -> anyhow::Result<()> {
    tokio::select! {
        stopped = app.stop() => stopped.map(drop),
        _ = interrupt.recv() => {
            folder.delete();
            std::process::exit(130)
        }
    }
}

/// The last callback that failed, with its attempts.
async fn failed_callback(app: &App, producer: &Producer) -> anyhow::Result<Option<Failed>> {
    let Some(id) = &producer.last_exhausted else { return Ok(None) };
    let session = app.ops.as_caller(&Caller::operator("demo", "demo", Rights::ALL));
    let report = session.attempts(id).await?;
    let Some(settled) = report.callback.rows.settled else { return Ok(None) };
    let tries = report.attempts.iter().map(|AttemptReport { row, .. }| {
        let status = row.attempt.status.map_or_else(String::new, |status| format!(" {status}"));
        Try {
            number: row.n,
            outcome: format!("{}{status}", row.attempt.outcome.name()),
            millis: row.attempt.took.as_millis(),
            answer: scale_callback_serve::text::printable(&row.attempt.snippet, SNIPPET),
        }
    });
    Ok(Some(Failed {
        id: id.clone(),
        team: settled.facts.team.to_string(),
        task: settled.facts.task_id.to_string(),
        origin: settled.facts.queue.target.name(),
        tries: tries.collect(),
    }))
}

/// The demo's configuration: short times, loopback allowed, everything in the temporary folder.
fn config(folder: &Path, brokers: &str) -> anyhow::Result<Config> {
    let keyring = folder.join("keyring");
    Keyring::create(&keyring)?;
    let settings = [
        ("KAFKA__BROKERS", brokers.to_owned()),
        ("KAFKA__GROUP", "callbackd-demo".to_owned()),
        ("KAFKA__TOPICS", TOPIC.to_owned()),
        // The demo's broker answers a rejoin only after this time.
        ("KAFKA__PROPERTIES", r#"{"session.timeout.ms":"6000","heartbeat.interval.ms":"1000"}"#.to_owned()),
        ("STORE__PATH", folder.join("store").display().to_string()),
        ("KEYRING__FILE", keyring.display().to_string()),
        ("OPS__LISTEN", "127.0.0.1:0".to_owned()),
        ("RETRY__FIRST", "400ms".to_owned()),
        ("RETRY__DOUBLINGS", "3".to_owned()),
        ("RETRY__RETRIES", "4".to_owned()),
        ("RETRY__HORIZON", "8s".to_owned()),
        ("DELIVER__HEAD_TIMEOUT", "3s".to_owned()),
        ("DELIVER__TOTAL_TIMEOUT", "4s".to_owned()),
        ("DELIVER__LEASE", "20s".to_owned()),
        ("SHUTDOWN__GRACE", "7s".to_owned()),
    ];
    let variables = settings.into_iter().map(|(key, value)| (format!("CALLBACKD_{key}").into(), value.into()));
    let mut config = Config::from_layers(&Layers::read(None, variables)?)?;
    let loopback = crate::net::egress::Net::parse("127.0.0.0/8").context("a net")?;
    config.egress.allow = vec![crate::net::egress::AllowRule {
        what: crate::net::egress::Allowed::Net(loopback),
        ports: Vec::new(),
        teams: Vec::new(),
    }];
    Ok(config)
}

/// Creates the two teams, and a verifier with the keys that their developers would have.
async fn teams(app: &App, receiver: SocketAddr) -> anyhow::Result<scale_callback_auth::Verifier> {
    use scale_callback_auth::{Credential, Verifier};
    let session = app.ops.as_caller(&Caller::operator("demo", "demo", Rights::ALL));
    let acme = TeamChange {
        name: Some("Acme Robotics".to_owned()),
        default_url: Some(Some(format!("http://{receiver}/default"))),
        ..TeamChange::default()
    };
    let globex =
        TeamChange { name: Some("Globex".to_owned()), auth_form: Some("hmac".to_owned()), ..TeamChange::default() };
    session.create_team(ACME, acme, None).await?;
    session.create_team(GLOBEX, globex, None).await?;
    let key = async |team: &str, kind: KeyKind, mode: Mode| -> anyhow::Result<String> {
        let rows = session.keys(team).await?;
        let row = rows.iter().find(|row| row.kind == kind && row.mode == mode).context("a new team has its keys")?;
        Ok(session.reveal_key(team, &row.id).await?.to_string())
    };
    let mut credentials = Vec::new();
    for mode in [Mode::Live, Mode::Test] {
        let secret = key(ACME, KeyKind::Signing, mode).await?;
        let auth = key(ACME, KeyKind::CallbackAuth, mode).await?;
        credentials.push(Credential::signed_and_keyed("acme", &secret, &auth)?);
        credentials.push(Credential::hmac_header("globex", &key(GLOBEX, KeyKind::Hmac, mode).await?)?);
    }
    let mut verifier = Verifier::new(credentials.remove(0));
    for credential in credentials {
        verifier = verifier.or_credential(credential);
    }
    Ok(verifier)
}

/// A temporary folder that is deleted when the demo ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let mut bytes = [0; 6];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        let path = std::env::temp_dir().join(format!("callbackd-demo-{}", scale_callback_serve::text::hex(&bytes)));
        std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Folder {
    fn delete(&self) {
        // A temporary folder that can't be deleted is left to the system.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.delete();
    }
}

fn now_millis() -> u64 {
    u64::try_from(SystemClock.now().millis()).unwrap_or(0)
}
