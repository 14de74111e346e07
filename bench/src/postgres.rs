//! Starts a PostgreSQL server on loopback, with a cluster of its own in a temporary folder. What keeps data safe is on: fsync,
//! full page writes and synchronous commits. The server ends with the process that started it, even if that is killed, because
//! a shell between the two waits for the end of its standard input.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::ports;

/// How long the server may take to answer.
const START: Duration = Duration::from_secs(30);
/// Debian keeps each version's programs in a folder of its own.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The oldest version that a store may stand on.
const OLDEST: u32 = 15;
pub(crate) const USER: &str = "callbackd";

/// A running server. It is stopped when this value is dropped.
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    /// Settings beside those that every server has, each as `name=value`.
    settings: Vec<String>,
    running: Option<Child>,
}

impl Postgres {
    /// Makes a cluster and starts the server.
    ///
    /// # Errors
    /// Something is missing; the sentence says what.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(Vec::new())
    }

    /// The same with settings, each as `name=value`. They take the place of the usual ones.
    ///
    /// # Errors
    /// Something is missing; the sentence says what.
    pub fn start_with(settings: Vec<String>) -> anyhow::Result<Self> {
        let mut server = Self::new()?;
        server.settings = settings;
        let mut initdb = server.program("initdb");
        initdb.args(["--username", USER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]);
        run(initdb.arg("--pgdata").arg(server.data()))?;
        server.run()?;
        Ok(server)
    }

    fn new() -> anyhow::Result<Self> {
        let programs = programs()?;
        let folder = tempfile::tempdir().context("create a folder for the server")?;
        let port = ports::free()?;
        let server = Self { folder, programs, port, settings: Vec::new(), running: None };
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(server.folder.path()))?;
        }
        Ok(server)
    }

    /// Makes a standby that follows this server under a name, and starts it. Commits wait for it if `synchronous_standby_names`
    /// of this server names it.
    ///
    /// # Errors
    /// The server's.
    pub fn standby(&self, name: &str) -> anyhow::Result<Self> {
        let mut standby = Self::new()?;
        let mut copy = standby.program("pg_basebackup");
        copy.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--pgdata"])
            .arg(standby.data());
        let from = format!("host=127.0.0.1 port={} user={USER} application_name={name}", self.port);
        run(copy.args(["--dbname", &from]))?;
        standby.run()?;
        Ok(standby)
    }

    /// Makes a standby the primary.
    ///
    /// # Errors
    /// The server's.
    pub fn promote(&self) -> anyhow::Result<()> {
        let mut promote = self.program("pg_ctl");
        run(promote.args(["promote", "--wait", "--pgdata"]).arg(self.data())).map(drop)
    }

    /// Ends the server as a power cut would: `kill -9`, for all its processes at once.
    pub fn kill(&mut self) {
        self.signal("KILL");
        // Nobody must send a signal to its number again.
        std::fs::remove_file(self.pid_file()).ok();
        self.stop();
    }

    /// Makes all its processes stand still.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal("CONT");
        // `runuser` stands still with its child.
        let Some(shell) = &self.running else { return };
        Command::new("pkill").args(["-CONT", "--parent", &shell.id().to_string()]).status().ok();
    }

    fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    /// Sends a signal to all its processes.
    fn signal(&self, name: &str) {
        let text = std::fs::read_to_string(self.pid_file()).unwrap_or_default();
        let Some(pid) = text.lines().next() else { return };
        let children = Command::new("pgrep").args(["--parent", pid]).output();
        let children = children.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let all = std::iter::once(pid).chain(children.lines());
        // A process that has ended meanwhile needs no signal.
        Command::new("kill").arg(format!("-{name}")).args(all).stderr(Stdio::null()).status().ok();
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of PostgreSQL. The server refuses to run as root, so root runs it as Debian's user.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.folder.path());
        command
    }

    /// Starts it again, on the same port and data.
    ///
    /// # Errors
    /// The server does not start.
    pub fn run(&mut self) -> anyhow::Result<()> {
        // The server's own process ends at once, without a wait for its clients, when it gets SIGINT.
        let script = r#"exec 3<&0; "$@" </dev/null >"$SERVER_LOG" 2>&1 & pid=$!
            cat <&3 >/dev/null; test -f "$DATA/postmaster.pid" && kill -INT $(head -n 1 "$DATA/postmaster.pid"); wait $pid"#;
        let server = self.program("postgres");
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(server.get_program())
            .args(server.get_args())
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=400", "-c", "shared_buffers=64MB"])
            .args(["-c", &format!("port={}", self.port), "-c"])
            .arg(format!("unix_socket_directories={}", self.folder.path().display()))
            .args(self.settings.iter().flat_map(|setting| ["-c", setting.as_str()]))
            .current_dir(self.folder.path())
            .env("DATA", self.data())
            .env("SERVER_LOG", self.folder.path().join("server.log"))
            .stdin(Stdio::piped())
            .spawn()
            .context("start the server")?;
        self.running = Some(child);
        let end = Instant::now() + START;
        while Instant::now() < end {
            let mut ready = Command::new(self.programs.join("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if ready.status().context("run pg_isready")?.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
        bail!("the server did not answer within {START:?}; its log:\n{log}")
    }

    /// Makes an empty database, and returns its URL.
    ///
    /// # Errors
    /// The server's.
    pub fn create_database(&self, name: &str) -> anyhow::Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(self.url(name))
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements in a database, and returns the values, a row a line.
    ///
    /// # Errors
    /// The server's.
    pub fn sql(&self, database: &str, statements: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER]);
        psql.args(["-p", &self.port.to_string(), "-d", database, "-c", statements]);
        run(&mut psql)
    }

    /// Stops the server; its data stay.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // When its input ends, the shell ends the server.
            drop(child.stdin.take());
            // A server that can't be waited for has ended already.
            child.wait().ok();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The folder with the newest version's programs.
fn programs() -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let versions = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    match versions.filter(|version| *version >= OLDEST).max() {
        Some(version) => Ok(Path::new(VERSIONS).join(version.to_string()).join("bin")),
        None => bail!("no PostgreSQL {OLDEST} or newer is in {VERSIONS}; run: make postgres"),
    }
}
