//! Everything that a run needs, started: Kafka, the store's servers, receivers, daemons. It ends with this value, each process by its
//! number.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use callbackd_bench::broker::Broker;
use scale_callback_auth::{Credential, Verifier};
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock, watch};

use super::daemon::{Common, Daemon};
use super::event::{TEAM, TEAM_OF_FEW_RETRIES};
use super::incidents::Incidents;
use super::options::{Options, StoreKind};
use super::receipts::Receipts;
use super::receiver::Receivers;
use super::recreated::Recreated;
use super::servers::{self, Databases};

const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks for daemons that have ended by themselves.
const WATCH: Duration = Duration::from_millis(250);

pub(crate) struct World {
    // The daemons end before what they need.
    pub(crate) daemons: Vec<Arc<Mutex<Daemon>>>,
    pub(crate) receivers: Receivers,
    pub(crate) databases: Option<Mutex<Databases>>,
    pub(crate) broker: Mutex<Broker>,
    pub(crate) servers: String,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) incidents: Incidents,
    pub(crate) recreated: Recreated,
    /// A fault that comes alone holds it for writing, the others for reading.
    pub(crate) alone: RwLock<()>,
    common: Common,
    runs: AtomicU32,
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    /// Starts everything, and creates the teams.
    ///
    /// # Errors
    /// Something is missing or does not start; the sentence says what.
    pub(crate) async fn start(options: &Options) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("create a folder for the run")?;
        let broker = servers::kafka(&options.kafka_libs()).await?;
        let databases = match options.store {
            StoreKind::Sqlite => None,
            // A further daemon joins at times.
            StoreKind::Postgres => Some(Databases::start(options.daemons() + 1).await?),
        };
        let common = Common {
            program: options.daemon(),
            fault: options.fault.clone(),
            servers: broker.servers(),
            store_urls: databases.as_ref().map(Databases::urls).unwrap_or_default(),
        };
        anyhow::ensure!(
            callbackd_bench::load::keyring(&common.program, folder.path())?,
            "the keyring was not created: does {} start?",
            common.program.display()
        );
        let receipts = Arc::new(Receipts::default());
        let (verifier, verifier_rx) = watch::channel(None);
        let mut world = Self {
            daemons: Vec::new(),
            receivers: Receivers::start(Arc::clone(&receipts), verifier_rx).await?,
            databases: databases.map(Mutex::new),
            servers: broker.servers(),
            broker: Mutex::new(broker),
            receipts,
            incidents: Incidents::default(),
            recreated: Recreated::default(),
            alone: RwLock::default(),
            common,
            runs: AtomicU32::new(0),
            folder,
        };
        for number in 0..options.daemons() {
            let mut daemon = world.new_daemon(number, &format!("daemon-{number}"))?;
            world.run(&mut daemon).await?;
            if number == 0 {
                verifier.send_replace(Some(Arc::new(teams(&daemon).await?)));
            }
            world.daemons.push(Arc::new(Mutex::new(daemon)));
        }
        Ok(world)
    }

    /// A daemon with this place among the daemons, and with a folder of this name.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub(crate) fn new_daemon(&self, number: usize, name: &str) -> anyhow::Result<Daemon> {
        let folder = self.folder.path();
        Daemon::new(number, &folder.join(name), self.common.clone(), &folder.join("keyring"))
    }

    /// Begins a new run of a daemon.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn run(&self, daemon: &mut Daemon) -> anyhow::Result<()> {
        daemon.spawn(self.runs.fetch_add(1, Ordering::SeqCst) + 1)?;
        daemon.answers().await
    }

    /// One of the daemons that no other fault holds, chosen by a number. Waits for one.
    pub(crate) async fn borrow(&self, pick: u64) -> OwnedMutexGuard<Daemon> {
        let count = self.daemons.len();
        let first = usize::try_from(pick % (count as u64)).unwrap_or(0);
        loop {
            for at in 0..count {
                if let Ok(daemon) = Arc::clone(&self.daemons[(first + at) % count]).try_lock_owned() {
                    return daemon;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All daemons. Waits until no other fault holds one of them.
    pub(crate) async fn borrow_all(&self) -> Vec<OwnedMutexGuard<Daemon>> {
        let mut all = Vec::new();
        for daemon in &self.daemons {
            all.push(Arc::clone(daemon).lock_owned().await);
        }
        all
    }

    /// Stops all these daemons at the same time.
    ///
    /// # Errors
    /// One of them does not end in order.
    pub(crate) async fn stop_all(&self, daemons: &mut [OwnedMutexGuard<Daemon>]) -> anyhow::Result<()> {
        let stopped = futures_util::future::join_all(daemons.iter_mut().map(|daemon| daemon.stop())).await;
        stopped.into_iter().collect()
    }

    /// Begins a new run of all these daemons.
    ///
    /// # Errors
    /// One of them does not start.
    pub(crate) async fn run_all(&self, daemons: &mut [OwnedMutexGuard<Daemon>]) -> anyhow::Result<()> {
        let started = futures_util::future::join_all(daemons.iter_mut().map(|daemon| self.run(daemon))).await;
        started.into_iter().collect()
    }

    /// Starts daemons again that have ended by themselves, as a supervisor would, and notes it. Never returns.
    pub(crate) async fn watch(&self) {
        loop {
            for daemon in &self.daemons {
                let Ok(mut daemon) = daemon.try_lock() else { continue };
                if daemon.has_ended() {
                    let log = daemon.log();
                    self.incidents.trouble(format!(
                        "run {} of a daemon ended by itself; its log is {}",
                        daemon.run,
                        log.display()
                    ));
                    if let Err(error) = self.run(&mut daemon).await {
                        self.incidents.trouble(format!("{error:#}"));
                    }
                }
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    /// Keeps the folder with the daemons' logs, and tells where it is.
    pub(crate) fn keep_logs(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

/// Creates the teams, and makes a verifier of their keys.
async fn teams(daemon: &Daemon) -> anyhow::Result<Verifier> {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while let Err(error) = daemon.api("/teams").await {
        anyhow::ensure!(tokio::time::Instant::now() < end, "the daemon's API does not answer: {error:#}");
        tokio::time::sleep(PAUSE).await;
    }
    daemon.command(&["teams", "create", TEAM])?;
    daemon.command(&["teams", "create", TEAM_OF_FEW_RETRIES, "--retries", "2"])?;
    let verifier = Verifier::new(credential(daemon, TEAM)?);
    Ok(verifier.or_credential(credential(daemon, TEAM_OF_FEW_RETRIES)?))
}

fn credential(daemon: &Daemon, team: &str) -> anyhow::Result<Credential> {
    let keys = daemon.command(&["keys", "list", "--team", team])?;
    let value = |kind: &str| {
        let docs = keys["docs"].as_array().context("a list of keys")?;
        let key = docs.iter().find(|key| key["kind"] == kind && key["mode"] == "live").context("a live key")?;
        let id = key["key_id"].as_str().context("a key's id")?;
        let shown = daemon.command(&["keys", "reveal", id, "--team", team])?;
        Ok::<_, anyhow::Error>(shown["value"].as_str().context("a key's value")?.to_owned())
    };
    Ok(Credential::signed_and_keyed(team, &value("signing")?, &value("callback-auth")?)?)
}
