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
    event_of(TEAM, 1_764_000_000_000 + n, n, address)
}

/// The same for any team, and with an event id of any time.
fn event_of(team: &str, at: u64, n: u64, address: SocketAddr) -> (String, String) {
    let mut seed = Seed::new(n);
    let task_id = format!("{n:024x}");
    // Several loopback addresses are several endpoints of one receiver. Another port would be another receiver.
    let url = format!("http://127.0.0.{}:{}/callbacks", 1 + n % ENDPOINTS, address.port());
    let wanted = Wanted { kind: Kind::Image, task_id: &task_id, callback_url: Some(&url), is_test: false, items: 5 };
    let task = samples::task(&wanted, &mut seed);
    let id = samples::uuid_v7(at, &mut seed);
    (task_id, samples::envelope(team, Some(&id), &task))
}

/// What events are like.
#[derive(Debug, Clone)]
pub struct Events {
    /// Where they are produced to.
    pub topic: String,
    /// They are of these teams, in turns.
    pub teams: Vec<String>,
    /// The time in the first one's id, in milliseconds since 1970. Ten of them share a millisecond.
    pub first_at: u64,
}

/// Produces events to Kafka.
pub struct Source {
    producer: ThreadedProducer<DefaultProducerContext>,
    address: SocketAddr,
    events: Option<Events>,
    next: u64,
}

impl Source {
    /// Creates the topic of the benchmarks. Its events are those of [`event`].
    ///
    /// # Errors
    /// Kafka refuses it.
    pub async fn start(servers: &str, address: SocketAddr) -> anyhow::Result<Self> {
        Self::create(servers, address, None).await
    }

    /// Creates a topic for events of a kind.
    ///
    /// # Errors
    /// Kafka refuses it.
    pub async fn start_with(servers: &str, address: SocketAddr, events: Events) -> anyhow::Result<Self> {
        Self::create(servers, address, Some(events)).await
    }

    async fn create(servers: &str, address: SocketAddr, events: Option<Events>) -> anyhow::Result<Self> {
        let client: ClientConfig =
            [("bootstrap.servers", servers), ("linger.ms", "20"), ("queue.buffering.max.messages", "1000000")]
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
        let admin: rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext> = client.create()?;
        let name = events.as_ref().map_or(TOPIC, |events| events.topic.as_str());
        let topic = rdkafka::admin::NewTopic::new(name, PARTITIONS, rdkafka::admin::TopicReplication::Fixed(1));
        admin.create_topics(&[topic], &rdkafka::admin::AdminOptions::new()).await?;
        Ok(Self { producer: client.create()?, address, events, next: 0 })
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
        let (topic, (key, value)) = match &self.events {
            Some(events) => {
                // An endpoint is one of the addresses, and each team has callbacks to all of them.
                let team = (self.next / ENDPOINTS) as usize % events.teams.len();
                let at = events.first_at + self.next / 10;
                (events.topic.as_str(), event_of(&events.teams[team], at, self.next, self.address))
            }
            None => (TOPIC, event(self.next, self.address)),
        };
        let partition = i32::try_from(self.next % 8)?;
        let record = BaseRecord::to(topic).partition(partition).key(&key).payload(&value);
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

/// What a daemon reads, and where it keeps its store.
#[derive(Debug, Clone, Copy)]
pub struct Wiring<'w> {
    /// Kafka's addresses.
    pub servers: &'w str,
    /// The topic.
    pub topic: &'w str,
    /// The database on PostgreSQL. An empty one means SQLite, in the daemon's folder.
    pub store_url: &'w str,
}

impl Daemon {
    /// Starts the daemon on the topic of the benchmarks, with a store on SQLite.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn start(binary: &Path, folder: &Path, servers: &str) -> anyhow::Result<Self> {
        Self::start_with(binary, folder, Wiring { servers, topic: TOPIC, store_url: "" })
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn start_with(binary: &Path, folder: &Path, wiring: Wiring<'_>) -> anyhow::Result<Self> {
        let Wiring { servers, topic, store_url } = wiring;
        let config = folder.join("callbackd.toml");
        std::fs::write(
            &config,
            format!(
                "[kafka]\nbrokers = \"{servers}\"\ntopics = [\"{topic}\"]\n[store]\npath = \"{0}/store\"\nurl = \"{store_url}\"\n[keyring]\nfile = \"{0}/keyring\"\n[ops]\nlisten = \"\"\n[api]\nlisten = \"\"\n[deliver]\nper_team_percent = 100\n[log]\nlevel = \"warn\"\n[[egress.allow]]\nnet = \"127.0.0.0/8\"\n",
                folder.display()
            ),
        )?;
        let socket = folder.join("store/callbackd.sock");
        // That of an earlier daemon may still be there. Whoever waits for the socket waits for this daemon's.
        std::fs::remove_file(&socket).ok();
        let process = Process::start(Command::new(binary).args(["run", "--config"]).arg(&config))?;
        Ok(Self { process, socket })
    }

    /// Creates the team of the benchmarks.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn team(&self, binary: &Path) -> anyhow::Result<()> {
        self.teams(binary, &[TEAM.to_owned()]).await
    }

    /// Creates teams.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn teams(&self, binary: &Path, ids: &[String]) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.socket.exists() {
            anyhow::ensure!(Instant::now() < end, "the daemon does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let api = format!("unix:{}", self.socket.display());
        for id in ids {
            anyhow::ensure!(
                Command::new(binary)
                    .args(["--api", &api, "teams", "create", id])
                    .stdout(Stdio::null())
                    .status()?
                    .success(),
                "the team {id} was not created"
            );
        }
        Ok(())
    }

    /// Ends the daemon as a service manager does, so that it leaves its consumer group and its store in order.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.process.terminate()?;
        let end = Instant::now() + Duration::from_secs(60);
        while self.process.is_alive()? {
            anyhow::ensure!(Instant::now() < end, "the daemon does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
