//! The parts that the benchmarks share: a receiver that is a separate process, events in a real Kafka, and the daemon's
//! own binary.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use scale_callback::samples::{self, Kind, Seed, Wanted};
use scale_callback_serve::body::whole;
use scale_callback_serve::client::{Remote, call};
use scale_callback_serve::server::{Limits, Listener, serve};
use tokio::net::TcpListener;

use crate::process::Process;

/// The topic of the benchmarks.
pub const TOPIC: &str = "rate";
/// The team of the benchmarks.
pub const TEAM: &str = "team_rate";
/// The number of loopback addresses that are called. Each address is an endpoint of the same receiver.
pub const ENDPOINTS: u64 = 8;
const PARTITIONS: i32 = 8;

/// Answers every POST with 204, or with the status that a GET of `/status/N` named last. Any other GET is answered with the number of
/// POSTs so far, and `/first` with those that were first attempts.
///
/// # Errors
/// The operating system refuses it.
#[expect(clippy::print_stdout, reason = "the parent reads the address")]
pub async fn receiver() -> anyhow::Result<()> {
    let first = TcpListener::bind("127.0.0.1:0").await?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for n in 2..=ENDPOINTS {
        listeners.push(TcpListener::bind(format!("127.0.0.{n}:{}", address.port())).await?);
    }
    println!("{address}");
    let count = Arc::new(AtomicU64::new(0));
    let first_attempts = Arc::new(AtomicU64::new(0));
    let status = Arc::new(AtomicU16::new(204));
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let make = move |_| {
        let (count, first_attempts, status) = (Arc::clone(&count), Arc::clone(&first_attempts), Arc::clone(&status));
        service_fn(move |request: Request<hyper::body::Incoming>| {
            let (count, first_attempts, status) =
                (Arc::clone(&count), Arc::clone(&first_attempts), Arc::clone(&status));
            async move {
                let mut response = Response::new(Full::new(Bytes::new()));
                let path = request.uri().path();
                if let Some(asked) = path.strip_prefix("/status/").and_then(|text| text.parse().ok()) {
                    status.store(asked, Ordering::Relaxed);
                } else if request.method() == hyper::Method::GET {
                    let asked = if path == "/first" { &first_attempts } else { &count };
                    *response.body_mut() = Full::from(asked.load(Ordering::Relaxed).to_string());
                } else {
                    let is_first = request.headers().get("scale-callback-attempt").is_some_and(|n| n == "1");
                    // A broken body counts as well: only the number of POSTs matters.
                    whole(request.into_body(), 16 << 20).await.ok();
                    count.fetch_add(1, Ordering::Relaxed);
                    first_attempts.fetch_add(u64::from(is_first), Ordering::Relaxed);
                    let status = hyper::StatusCode::from_u16(status.load(Ordering::Relaxed));
                    *response.status_mut() = status.unwrap_or(hyper::StatusCode::NO_CONTENT);
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let limits = Limits { connections: 4096, ..Limits::default() };
    let serving = listeners
        .into_iter()
        .map(|listener| serve(Listener::Tcp(listener), limits.clone(), make.clone(), stopped.clone()));
    futures_util::future::join_all(serving).await;
    Ok(())
}

/// Starts this same program as the receiver, and returns its address.
///
/// # Errors
/// The operating system refuses it.
pub fn start_receiver() -> anyhow::Result<(Process, SocketAddr)> {
    let (process, line) = Process::start_and_read_line(Command::new(std::env::current_exe()?).arg("receiver"))?;
    Ok((process, line.trim().parse()?))
}

/// How many POSTs the receiver has answered.
///
/// # Errors
/// The receiver does not answer.
pub async fn count(address: SocketAddr) -> anyhow::Result<u64> {
    Ok(String::from_utf8_lossy(&get(address, "/").await?).parse()?)
}

/// How many of these POSTs were first attempts.
///
/// # Errors
/// The receiver does not answer.
pub async fn first_attempts(address: SocketAddr) -> anyhow::Result<u64> {
    Ok(String::from_utf8_lossy(&get(address, "/first").await?).parse()?)
}

/// The receiver answers with this status from now on.
///
/// # Errors
/// The receiver does not answer.
pub async fn set_status(address: SocketAddr, status: u16) -> anyhow::Result<()> {
    get(address, &format!("/status/{status}")).await.map(drop)
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let (remote, headers) = (Remote::Tcp(address), http::HeaderMap::new());
    let answer = call(&remote, http::Method::GET, path, headers, Bytes::new(), Duration::from_secs(5)).await?;
    Ok(answer.body)
}

/// The task id and the envelope of the n-th event.
#[must_use]
pub fn event(n: u64, address: SocketAddr) -> (String, String) {
    let mut seed = Seed::new(n);
    let task_id = format!("{n:024x}");
    // Several loopback addresses are several endpoints of one receiver. Another port would be another receiver.
    let url = format!("http://127.0.0.{}:{}/callbacks", 1 + n % ENDPOINTS, address.port());
    let wanted = Wanted { kind: Kind::Image, task_id: &task_id, callback_url: Some(&url), is_test: false, items: 5 };
    let task = samples::task(&wanted, &mut seed);
    let id = samples::uuid_v7(1_764_000_000_000 + n, &mut seed);
    (task_id, samples::envelope(TEAM, Some(&id), &task))
}

/// Produces events to Kafka.
pub struct Source {
    producer: ThreadedProducer<DefaultProducerContext>,
    address: SocketAddr,
    next: u64,
}

impl Source {
    /// Creates the topic.
    ///
    /// # Errors
    /// Kafka refuses it.
    pub async fn start(servers: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let client: ClientConfig =
            [("bootstrap.servers", servers), ("linger.ms", "20"), ("queue.buffering.max.messages", "1000000")]
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
        let admin: rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext> = client.create()?;
        let topic = rdkafka::admin::NewTopic::new(TOPIC, PARTITIONS, rdkafka::admin::TopicReplication::Fixed(1));
        admin.create_topics(&[topic], &rdkafka::admin::AdminOptions::new()).await?;
        Ok(Self { producer: client.create()?, address, next: 0 })
    }

    /// Produces this many more events, and waits until Kafka has them.
    ///
    /// # Errors
    /// Kafka refuses it.
    pub fn produce(&mut self, events: u64) -> anyhow::Result<()> {
        for _ in 0..events {
            self.send()?;
        }
        self.producer.flush(Duration::from_secs(120))?;
        Ok(())
    }

    /// Produces one more event, and does not wait until Kafka has it.
    ///
    /// # Errors
    /// The producer refuses it.
    pub fn send(&mut self) -> anyhow::Result<()> {
        let (key, value) = event(self.next, self.address);
        let partition = i32::try_from(self.next % 8)?;
        let record = BaseRecord::to(TOPIC).partition(partition).key(&key).payload(&value);
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.next += 1;
        Ok(())
    }
}

/// Creates the daemon's keyring. Returns whether the command succeeded.
///
/// # Errors
/// The operating system refuses it.
pub fn keyring(binary: &Path, folder: &Path) -> anyhow::Result<bool> {
    let file = folder.join("keyring");
    Ok(Command::new(binary).args(["keyring", "create"]).arg(file).stdout(Stdio::null()).status()?.success())
}

/// The running daemon, from its own binary.
pub struct Daemon {
    /// Its process.
    pub process: Process,
    /// The socket on which its API listens.
    pub socket: PathBuf,
}

impl Daemon {
    /// Starts the daemon.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn start(binary: &Path, folder: &Path, servers: &str) -> anyhow::Result<Self> {
        let config = folder.join("callbackd.toml");
        std::fs::write(
            &config,
            format!(
                "[kafka]\nbrokers = \"{servers}\"\ntopics = [\"{TOPIC}\"]\n[store]\npath = \"{0}/store\"\n[keyring]\nfile = \"{0}/keyring\"\n[ops]\nlisten = \"\"\n[api]\nlisten = \"\"\n[deliver]\nper_team_percent = 100\n[log]\nlevel = \"warn\"\n[[egress.allow]]\nnet = \"127.0.0.0/8\"\n",
                folder.display()
            ),
        )?;
        let process = Process::start(Command::new(binary).args(["run", "--config"]).arg(&config))?;
        Ok(Self { process, socket: folder.join("store/callbackd.sock") })
    }

    /// Creates the team of the benchmarks.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn team(&self, binary: &Path) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.socket.exists() {
            anyhow::ensure!(Instant::now() < end, "the daemon does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let api = format!("unix:{}", self.socket.display());
        anyhow::ensure!(
            Command::new(binary)
                .args(["--api", &api, "teams", "create", TEAM])
                .stdout(Stdio::null())
                .status()?
                .success()
        );
        Ok(())
    }
}

/// The path of the `callbackd` binary beside this program.
///
/// # Errors
/// The operating system refuses it.
pub fn binary() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("callbackd"))
}

/// The folder with Kafka's jars.
#[must_use]
pub fn kafka_libs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/libs")
}

/// The deliveries per second, from the first one that is seen to the last of `events`.
///
/// # Errors
/// The receiver does not answer.
pub async fn rate(address: SocketAddr, before: u64, events: u64) -> anyhow::Result<f64> {
    let mut first = None;
    loop {
        let done = count(address).await?.saturating_sub(before);
        let now = Instant::now();
        match first {
            None if done > 0 => first = Some((now, done)),
            Some((begun, at)) if done >= events => {
                return Ok((done - at) as f64 / now.duration_since(begun).as_secs_f64());
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
