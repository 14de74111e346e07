//! One daemon: its folder, its configuration, its process, and its runs. A run is the time between a start and an end; each has a
//! number of its own, which the daemon sends in its requests, so that a receipt tells which run made it.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method};
use scale_callback_serve::client::{Remote, call};
use serde_json::Value;

use super::clock::WallClock;
use super::incidents::Before;
use super::outcomes;
use super::producer::TOPIC;
use super::recreated;

/// The consumer group of all daemons.
pub(crate) const GROUP: &str = "ledger";
/// What is decided for every daemon. The sessions and leases are short, so that a short run sees them end.
pub(crate) const SESSION: Duration = Duration::from_secs(3);
pub(crate) const LEASE: Duration = Duration::from_secs(9);
/// The deadline of an attempt.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);
/// How long the daemon may take to answer, and to end.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
/// A file that can't grow beyond this is a full disk: the store's files are larger after a moment, and its index of the log of writes
/// fits.
const FULL: &str = "262144";

/// What all daemons have in common.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) program: PathBuf,
    pub(crate) fault: Option<String>,
    pub(crate) servers: String,
    /// The store's URL for each daemon, and a last one for a daemon that joins: each has proxies of its own. SQLite has none.
    pub(crate) store_urls: Vec<String>,
}

pub(crate) struct Daemon {
    /// Its place among the daemons.
    pub(crate) number: usize,
    folder: PathBuf,
    common: Common,
    /// The wall clock of its next run, if it is not the machine's.
    pub(crate) clock: Option<WallClock>,
    ops: SocketAddr,
    child: Option<Child>,
    /// The number of the run that goes on, or of the last one.
    pub(crate) run: u32,
}

impl Daemon {
    /// Writes the configuration, and starts nothing.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub(crate) fn new(number: usize, folder: &Path, common: Common, keyring: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let ops = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = format!(
            "[kafka]\nbrokers = \"{servers}\"\ngroup = \"{GROUP}\"\ntopics = [\"{TOPIC}\", \"{small}\"]\n\
             [kafka.properties]\n\"session.timeout.ms\" = \"{session}\"\n\"heartbeat.interval.ms\" = \"500\"\n\
             \"reconnect.backoff.max.ms\" = \"1000\"\n\"topic.metadata.refresh.interval.ms\" = \"2000\"\n\
             [outcomes]\ntopic = \"{outcomes}\"\ndead_letters_topic = \"{letters}\"\n\
             [store]\npath = \"{folder}/store\"\nurl = \"{url}\"\n[keyring]\nfile = \"{keyring}\"\n\
             [ops]\nlisten = \"{ops}\"\n[api]\nlisten = \"\"\n\
             [deliver]\nlease = \"{lease}s\"\ntotal_timeout = \"{deadline}s\"\nhead_timeout = \"{deadline}s\"\n\
             [retry]\nfirst = \"300ms\"\ndoublings = 5\nretries = 20\nhorizon = \"10m\"\n\
             [log]\nformat = \"human\"\n[[egress.allow]]\nnet = \"127.0.0.0/8\"\n",
            servers = common.servers,
            small = recreated::TOPIC,
            outcomes = outcomes::TOPIC,
            letters = outcomes::DEAD_LETTERS_TOPIC,
            session = SESSION.as_millis(),
            folder = folder.display(),
            url = common.store_urls.get(number).map_or("", String::as_str),
            keyring = keyring.display(),
            lease = LEASE.as_secs(),
            deadline = DEADLINE.as_secs(),
        );
        std::fs::write(folder.join("callbackd.toml"), config)?;
        Ok(Self { number, folder: folder.to_owned(), common, clock: None, ops, child: None, run: 0 })
    }

    /// Starts the process under this number. Its log goes to the end of a file in its folder.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub(crate) fn spawn(&mut self, run: u32) -> anyhow::Result<()> {
        let mut log = File::options().create(true).append(true).open(self.log())?;
        let mut child = Command::new(&self.common.program)
            .args(["run", "--config"])
            .arg(self.folder.join("callbackd.toml"))
            .env("CALLBACKD_FAULT", self.common.fault.as_deref().unwrap_or_default())
            .env("CALLBACKD_DELIVER__CONTACT", format!("run={run}"))
            .envs(self.clock.iter().flat_map(WallClock::variables))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.common.program.display()))?;
        let mut lines = child.stderr.take().context("the daemon's log")?;
        // The daemon does not write the file itself, because its files may not grow at times.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut log));
        self.child = Some(child);
        self.run = run;
        Ok(())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Waits until its ops listener answers.
    ///
    /// # Errors
    /// It ends, or does not answer.
    pub(crate) async fn answers(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        while self.page("/livez").await.is_err() {
            ensure!(!self.has_ended(), "the daemon ended at its start; its log is {}", self.log().display());
            ensure!(Instant::now() < end, "the daemon does not answer; its log is {}", self.log().display());
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// `kill -9`. Returns when it was sent.
    pub(crate) fn kill(&mut self) -> Instant {
        let mut child = self.child.take();
        if let Some(child) = &mut child {
            child.kill().ok();
        }
        let at = Instant::now();
        if let Some(child) = &mut child {
            child.wait().ok();
        }
        at
    }

    /// Sends a signal to the process, by its number.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            Command::new("kill")
                .args([&format!("-{name}"), &child.id().to_string()])
                .stderr(Stdio::null())
                .status()
                .ok();
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end, or ends with another status than 0.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal("TERM");
        let end = Instant::now() + END;
        while let Some(child) = &mut self.child {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                ensure!(status.success(), "after SIGTERM the daemon ended with {status}");
                return Ok(());
            }
            if Instant::now() >= end {
                self.kill();
                bail!("the daemon did not end within {END:?} after SIGTERM");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Lets no file of the daemon grow beyond a small size, or ends this.
    ///
    /// # Errors
    /// The system refuses it.
    pub(crate) fn set_full_disk(&self, is_full: bool) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("a running daemon")?;
        // The hard limit stays, so that the soft one can be raised again.
        let limit = format!("--fsize={}:", if is_full { FULL } else { "unlimited" });
        let done = Command::new("prlimit").args(["--pid", &child.id().to_string(), &limit]).status();
        ensure!(done.context("run prlimit")?.success(), "prlimit failed");
        Ok(())
    }

    async fn page(&self, path: &str) -> anyhow::Result<String> {
        let remote = Remote::Tcp(self.ops);
        let answer = call(&remote, Method::GET, path, HeaderMap::new(), Bytes::new(), Duration::from_secs(2)).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Why it is not ready, if it answers now. An empty text if it is ready.
    pub(crate) async fn troubles(&self) -> Option<String> {
        let page: Value = serde_json::from_str(&self.page("/readyz").await.ok()?).ok()?;
        Some(if page["ready"] == true { String::new() } else { page["troubles"].to_string() })
    }

    /// What is unsettled now, if the daemon answers. One that has just started, or that waits for its store, may not tell.
    pub(crate) async fn before(&self) -> Option<Before> {
        let asked = Instant::now();
        let [unsettled] = self.metrics(["callbackd_unsettled"]).await?;
        Some(Before { asked, unsettled: unsettled as usize })
    }

    /// The values of these metrics, if the daemon answers now.
    pub(crate) async fn metrics<const N: usize>(&self, names: [&str; N]) -> Option<[f64; N]> {
        let page = self.page("/metrics").await.ok()?;
        let mut values = [0.0; N];
        for (value, name) in values.iter_mut().zip(names) {
            let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
            *value = line.rsplit(' ').next()?.parse().ok()?;
        }
        Some(values)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("store/callbackd.sock")
    }

    /// Asks the API.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(crate) async fn api(&self, path: &str) -> anyhow::Result<Value> {
        let (remote, path) = (Remote::Unix(self.socket()), format!("/admin/v1{path}"));
        let answer = call(&remote, Method::GET, &path, HeaderMap::new(), Bytes::new(), ANSWER).await?;
        ensure!(answer.status.is_success(), "{path}: {}", String::from_utf8_lossy(&answer.body));
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Runs a command that must succeed, and returns its JSON.
    ///
    /// # Errors
    /// What the command says.
    pub(crate) fn command(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let socket = format!("unix:{}", self.socket().display());
        let output = Command::new(&self.common.program).args(["--json", "--api", &socket]).args(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
