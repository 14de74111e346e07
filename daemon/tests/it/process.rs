//! The real binary as a process: started with a configuration file, asked through its CLI, ended by signals.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use callbackd::keyring::Keyring;
use scale_callback_serve::client::{Remote, call};
use serde_json::Value;

use crate::harness::PAUSE;

pub const BINARY: &str = env!("CARGO_BIN_EXE_callbackd");
const PATIENCE: Duration = Duration::from_secs(60);

/// A URL at a port of loopback where nobody listens.
pub fn closed_url() -> String {
    let port = callbackd_bench::ports::free().unwrap();
    format!("http://127.0.0.1:{port}/")
}

/// A folder with a configuration, and the daemon that may run on it.
pub struct Process {
    pub folder: tempfile::TempDir,
    pub ops: std::net::SocketAddr,
    child: Option<Child>,
    /// Further variables for the daemon.
    pub variables: Vec<(String, String)>,
    /// Start it with --hold-intake.
    pub holds_intake: bool,
    /// Everything it has written to standard error.
    pub log: Arc<Mutex<Vec<u8>>>,
    /// What reads its standard error to the end.
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Writes the configuration and starts nothing. `more` is TOML that is added to the tests' own.
    pub fn new(brokers: &str, topic: &str, more: &str) -> Self {
        Self::with_store(brokers, topic, &crate::postgres::store_url().unwrap_or_default(), more)
    }

    /// The same with the store at this URL; "" is SQLite.
    pub fn with_store(brokers: &str, topic: &str, store: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        Keyring::create(&folder.path().join("keyring")).unwrap();
        let ops = (std::net::Ipv4Addr::LOCALHOST, callbackd_bench::ports::free().unwrap()).into();
        let config = format!(
            "[kafka]\nbrokers = \"{brokers}\"\ngroup = \"{topic}\"\ntopics = [\"{topic}\"]\n\
             [kafka.properties]\n\"session.timeout.ms\" = \"1500\"\n\"heartbeat.interval.ms\" = \"300\"\n\
             [store]\npath = \"{}\"\nurl = \"{store}\"\n[keyring]\nfile = \"{}\"\n[ops]\nlisten = \"{ops}\"\n[api]\nlisten = \"\"\n\
             [[egress.allow]]\nnet = \"127.0.0.0/8\"\n[log]\nformat = \"human\"\n{more}",
            at("store"),
            at("keyring"),
        );
        std::fs::write(folder.path().join("callbackd.toml"), config).unwrap();
        Self { folder, ops, child: None, variables: Vec::new(), holds_intake: false, log: Arc::default(), reader: None }
    }

    /// Makes it use the keys of this one.
    pub fn shares_keys_of(&self, other: &Self) {
        std::fs::copy(other.folder.path().join("keyring"), self.folder.path().join("keyring")).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("callbackd.toml")
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start(&mut self, fault: Option<&str>, level: &str) {
        self.spawn(fault, level);
        let end = Instant::now() + PATIENCE;
        while self.page("/livez").await.is_none() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", self.log_text());
            assert!(Instant::now() < end, "it does not answer: {}", self.log_text());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts the daemon, and does not wait for it.
    pub fn spawn(&mut self, fault: Option<&str>, level: &str) {
        let mut command = Command::new(BINARY);
        // A variable would override the file.
        if !level.is_empty() {
            command.env("CALLBACKD_LOG__LEVEL", level);
        }
        let mut child = command
            .args(["run", "--config"])
            .arg(self.config())
            .args(self.holds_intake.then_some("--hold-intake"))
            .env("CALLBACKD_FAULT", fault.unwrap_or_default())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = child.stderr.take().unwrap();
        let log = Arc::clone(&self.log);
        self.reader = Some(std::thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count) = errors.read(&mut chunk) {
                if count == 0 {
                    return;
                }
                log.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
            }
        }));
        self.child = Some(child);
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// A page of the ops listener, with its status.
    pub async fn page(&self, path: &str) -> Option<(u16, String)> {
        let remote = Remote::Tcp(self.ops);
        let answer =
            call(&remote, http::Method::GET, path, http::HeaderMap::new(), bytes::Bytes::new(), Duration::from_secs(5));
        let answer = answer.await.ok()?;
        Some((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// A metric's value.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.page("/metrics").await?;
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Instant {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        let at = Instant::now();
        child.wait().unwrap();
        at
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Limits the size of the files that it writes: bytes, or "unlimited".
    pub fn limit_files(&self, to: &str) {
        self.limit(&format!("--fsize={to}:unlimited"));
    }

    /// Limits the memory for its data, in MiB.
    pub fn limit_memory(&self, mebibytes: u64) {
        self.limit(&format!("--data={}", mebibytes << 20));
    }

    fn limit(&self, limit: &str) {
        let pid = self.id().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, limit]).status().unwrap().success());
    }

    /// Waits for the end, with all that it says. Returns the exit status.
    pub async fn ended(&mut self) -> i32 {
        let end = Instant::now() + PATIENCE;
        loop {
            let has_said_all = self.reader.as_ref().is_none_or(JoinHandle::is_finished);
            let status = self.child.as_mut().unwrap().try_wait().unwrap();
            if let Some(status) = status.filter(|_| has_said_all) {
                self.child = None;
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "it does not end: {}", self.log_text());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Changes the configuration file, as an editor would.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{from:?} is in the configuration");
        std::fs::write(self.config(), text.replace(from, to)).unwrap();
    }

    /// Runs a command against this daemon.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let socket = format!("unix:{}", self.folder.path().join("store/callbackd.sock").display());
        Command::new(BINARY).args(["--api", &socket]).args(arguments).output().unwrap()
    }

    /// Runs a command that must succeed. Returns its JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.cli(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Makes a team, and gives its live signing secret and callback auth key.
    pub fn team(&self, team: &str) -> (String, String) {
        self.json(&["teams", "create", team]);
        (self.key(team, "signing"), self.key(team, "callback-auth"))
    }

    pub fn key(&self, team: &str, kind: &str) -> String {
        self.key_of(team, kind, "live")
    }

    pub fn key_of(&self, team: &str, kind: &str, mode: &str) -> String {
        let keys = self.json(&["keys", "list", "--team", team]);
        let found = keys["docs"].as_array().unwrap().iter().find(|key| key["kind"] == kind && key["mode"] == mode);
        let id = found.unwrap()["key_id"].as_str().unwrap();
        let value = self.json(&["keys", "reveal", id, "--team", team]);
        value["value"].as_str().unwrap().to_owned()
    }
}

impl Drop for Process {
    #[allow(clippy::print_stdout, reason = "of a test that fails, the log is shown")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            println!("its log:\n{}", self.log_text());
        }
    }
}

/// Runs the binary alone.
pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(BINARY).args(arguments).envs(variables.iter().copied()).output().unwrap()
}

pub fn store_files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder.join("store")).unwrap().map(|entry| entry.unwrap().path()).collect()
}
