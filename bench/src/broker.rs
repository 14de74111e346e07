//! Starts Apache Kafka as one KRaft process on loopback, in a temporary folder. It ends with the process that started
//! it, even if that is killed, because a shell between the two waits for the end of its standard input.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::ports;

/// How long the broker may take to answer.
const START: Duration = Duration::from_secs(120);

/// A running broker. It is stopped when this value is dropped.
pub struct Broker {
    folder: tempfile::TempDir,
    libs: PathBuf,
    port: u16,
    running: Option<Child>,
}

impl Broker {
    /// Formats a new log folder and starts the broker from the jars in `libs`.
    ///
    /// # Errors
    /// Something is missing; the sentence says what.
    pub fn start(libs: &Path) -> anyhow::Result<Self> {
        if !libs.is_dir() {
            bail!("Kafka's jars are not in {}; run: make kafka", libs.display());
        }
        let folder = tempfile::tempdir().context("create a folder for the broker")?;
        let (port, controller) = (ports::free()?, ports::free()?);
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}/log\nnum.partitions=1\n\
             auto.create.topics.enable=false\ndelete.topic.enable=true\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=500\n\
             log.initial.task.delay.ms=1000\nfile.delete.delay.ms=1000\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("server.properties"), properties)?;
        let formatted = java(libs)
            .args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(folder.path().join("server.properties"))
            .output()
            .context("run java, which must be installed")?;
        if !formatted.status.success() {
            bail!("the broker's folder was not formatted: {}", String::from_utf8_lossy(&formatted.stderr));
        }
        let mut broker = Self { folder, libs: libs.to_owned(), port, running: None };
        broker.run()?;
        Ok(broker)
    }

    /// The address for clients.
    #[must_use]
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops the broker; its log stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // When its input ends, the shell ends the broker.
            drop(child.stdin.take());
            // A broker that can't be waited for has ended already.
            child.wait().ok();
        }
    }

    /// Ends the broker by `kill -9`; its log stays.
    pub fn kill(&mut self) {
        if let Some(shell) = &self.running {
            let parent = shell.id().to_string();
            // It has ended already if there is none.
            Command::new("pkill").args(["-KILL", "--parent", &parent, "java"]).status().ok();
        }
        self.stop();
    }

    /// Starts it again, on the same port and log.
    ///
    /// # Errors
    /// The broker does not start.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let script = r#"exec 3<&0; "$@" </dev/null >"$BROKER_LOG" 2>&1 & pid=$!; cat <&3 >/dev/null; kill -TERM $pid; wait $pid"#;
        let mut child = Command::new("sh")
            .args(["-c", script, "sh", "java", "-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-cp"])
            .arg(format!("{}/*", self.libs.display()))
            .arg("kafka.Kafka")
            .arg(self.folder.path().join("server.properties"))
            .env("BROKER_LOG", self.folder.path().join("broker.log"))
            .stdin(Stdio::piped())
            // The shell would tell that the broker was killed.
            .stderr(Stdio::null())
            .spawn()
            .context("start the broker")?;
        if let Some(input) = child.stdin.as_mut() {
            input.flush()?;
        }
        self.running = Some(child);
        self.await_answer()
    }

    fn await_answer(&self) -> anyhow::Result<()> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.servers())
            .set("reconnect.backoff.max.ms", "250")
            .set("log_level", "0")
            .create()?;
        let end = Instant::now() + START;
        while Instant::now() < end {
            if client.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|found| !found.brokers().is_empty()) {
                return Ok(());
            }
        }
        let log = std::fs::read_to_string(self.folder.path().join("broker.log")).unwrap_or_default();
        let tail: String = log.chars().rev().take(2_000).collect::<Vec<_>>().into_iter().rev().collect();
        bail!("the broker did not answer within {START:?}; its log ends:\n{tail}")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn java(libs: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-cp"]).arg(format!("{}/*", libs.display()));
    command
}
