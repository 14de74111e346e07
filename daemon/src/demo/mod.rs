//! `callbackd demo` shows every path that a callback can take, in one program. The broker is a mock, the store is in a
//! temporary folder, and the receiver verifies with the SDK. Producer and receiver count for themselves, and a ledger
//! at the end compares the store with them.

pub mod broker;
mod ledger;
mod producer;
mod receiver;
mod screen;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpListener;
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
use crate::ops::teams::TeamChange;
use broker::Broker;
use ledger::Ledger;
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

/// Runs the demo. The answer is whether the ledger balances.
///
/// # Errors
/// What could not be set up.
pub async fn run(options: Options) -> anyhow::Result<bool> {
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
) -> anyhow::Result<bool> {
    let folder = Folder::new()?;
    let broker = Broker::start(TOPIC, PARTITIONS).context("start the mock broker")?;
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for callbacks")?;
    let receiver_at = listener.local_addr()?;
    let (notices, mut noticed) = mpsc::channel(NOTICES);
    let config = config(&folder.0, &broker.servers)?;
    let hooks = Hooks { notices: Some(notices), ..Hooks::default() };
    let mut app = App::start_with(config, LogLevel::none(), hooks).await?;
    let verifier = teams(&app, receiver_at).await?;
    let stop_receiver = Switch::new();
    let receipts = Arc::new(receiver::Receipts::default());
    let receiver = tokio::spawn(receiver::run(listener, verifier, Arc::clone(&receipts), stop_receiver.stop()));
    let mut screen = Screen::new(options.stay, options.quiet);
    screen.banner(&app, receiver_at, &folder.0);
    started(&app);

    let mut producer = Producer::new(&broker.servers, receiver_at)?;
    let ending = drive(&mut app, &mut producer, &receipts, &mut noticed, &mut screen, options).await?;
    let ledger = Ledger::draw(&producer, &receipts, &app).await?;
    screen.ledger(&ledger, ending == Ending::Stopped);
    ended(&app, ledger.lines.iter().map(|line| (line.what.clone(), line.stored)).collect()).await?;
    if options.stay && ending == Ending::Balanced {
        screen.commands(&app, &producer, &folder.0);
        stay(&mut app, &mut producer, &receipts, &mut noticed, &mut screen).await?;
    }
    app.stop().await?;
    stop_receiver.flip();
    // Its panic, if any, was reported by its task; the ledger is what counts.
    receiver.await.ok();
    Ok(ledger.balances() && ending == Ending::Balanced)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Everything that was produced has ended.
    Balanced,
    /// Ctrl-C came first.
    Stopped,
    /// Callbacks did not end in time.
    Stuck,
}

/// Produces events, prints what happens, and waits until everything has come to its end.
async fn drive(
    app: &mut App,
    producer: &mut Producer,
    receipts: &receiver::Receipts,
    noticed: &mut mpsc::Receiver<Notice>,
    screen: &mut Screen,
    options: Options,
) -> anyhow::Result<Ending> {
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(1000 / u64::from(PACE)));
    let mut quiet_since = Instant::now();
    loop {
        let produced_all = match options.events {
            Some(count) => producer.produced() >= count,
            None => begun.elapsed() >= SHOW,
        };
        if produced_all && producer.open() == 0 {
            return Ok(Ending::Balanced);
        }
        if producer.open() == 0 || !produced_all {
            quiet_since = Instant::now();
        }
        if quiet_since.elapsed() > SETTLE {
            screen.say("some callbacks did not come to their end in time");
            return Ok(Ending::Stuck);
        }
        tokio::select! {
            notice = noticed.recv() => {
                if let Some(notice) = notice {
                    screen.line(&notice, producer);
                    producer.ended(&notice);
                }
            }
            _ = tick.tick() => {
                if !produced_all {
                    let wanted = if options.events.is_some() { producer.room() } else { 1 };
                    let left = options.events.map_or(u64::MAX, |count| count - producer.produced());
                    for _ in 0..wanted.min(left) {
                        producer.produce()?;
                    }
                }
                screen.footer(app, producer, receipts);
            }
            _ = tokio::signal::ctrl_c() => return Ok(Ending::Stopped),
            broken = app.broken() => return Err(broken.into()),
        }
    }
}

/// Goes on slowly until Ctrl-C.
async fn stay(
    app: &mut App,
    producer: &mut Producer,
    receipts: &receiver::Receipts,
    noticed: &mut mpsc::Receiver<Notice>,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            Some(notice) = noticed.recv() => {
                screen.line(&notice, producer);
                producer.ended(&notice);
            }
            _ = tick.tick() => {
                producer.produce()?;
                screen.footer(app, producer, receipts);
            }
            _ = tokio::signal::ctrl_c() => return Ok(()),
            broken = app.broken() => return Err(broken.into()),
        }
    }
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

impl Drop for Folder {
    fn drop(&mut self) {
        // A temporary folder that can't be deleted is left to the system.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn now_millis() -> u64 {
    u64::try_from(SystemClock.now().millis()).unwrap_or(0)
}
