//! A rough figure of speed: callbackd (real Kafka, SQLite, signed POSTs) over a bare loop that signs and POSTs the same
//! bodies with hyper, one after the other in one run, to the same receiver in a process of its own.
//!
//! `make bench`. All processes share this machine; the ratio is what counts.

#![allow(clippy::print_stdout, reason = "it is a report")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use callbackd_bench::broker::Broker;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use scale_callback::body::whole;
use scale_callback::client::{Remote, call};
use scale_callback::samples::{self, Kind, Seed, Wanted};
use scale_callback::server::{Limits, Listener, serve};
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, SigningSecret};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 64;
const BARE: Duration = Duration::from_secs(6);
const EVENTS: u64 = 120_000;
const TOPIC: &str = "rate";
const TEAM: &str = "team_rate";
const ENDPOINTS: u64 = 8;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("receiver") {
        return runtime.block_on(receiver());
    }
    runtime.block_on(compare())
}

/// Answers 204 to every POST, and the count of them to a GET.
async fn receiver() -> anyhow::Result<()> {
    let first = TcpListener::bind("127.0.0.1:0").await?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for n in 2..=ENDPOINTS {
        listeners.push(TcpListener::bind(format!("127.0.0.{n}:{}", address.port())).await?);
    }
    println!("{address}");
    let count = Arc::new(AtomicU64::new(0));
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let make = move |_| {
        let count = Arc::clone(&count);
        service_fn(move |request: Request<hyper::body::Incoming>| {
            let count = Arc::clone(&count);
            async move {
                let mut response = Response::new(Full::new(Bytes::new()));
                if request.method() == hyper::Method::GET {
                    *response.body_mut() = Full::from(count.load(Ordering::Relaxed).to_string());
                } else {
                    let _ = whole(request.into_body(), 16 << 20).await;
                    count.fetch_add(1, Ordering::Relaxed);
                    *response.status_mut() = hyper::StatusCode::NO_CONTENT;
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let limits = Limits { connections: 4096, ..Limits::default() };
    let serving =
        listeners.into_iter().map(|listener| serve(Listener::Tcp(listener), limits, make.clone(), stopped.clone()));
    futures_util::future::join_all(serving).await;
    Ok(())
}

async fn compare() -> anyhow::Result<()> {
    let (mut child, address) = start_receiver()?;
    let bare = bare(address).await?;
    println!("bare signed POST loop   {bare:>8.0} /s  ({CONNECTIONS} connections, {BARE:?})");
    let before = count(address).await?;
    let ours = daemon(address, before).await?;
    println!("callbackd, SQLite       {ours:>8.0} /s  ({EVENTS} events in Kafka, {ENDPOINTS} endpoints)");
    println!("ratio                   {:>8.2}", ours / bare);
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn start_receiver() -> anyhow::Result<(Child, SocketAddr)> {
    use std::io::BufRead as _;
    let mut child = Command::new(std::env::current_exe()?).arg("receiver").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

async fn count(address: SocketAddr) -> anyhow::Result<u64> {
    let answer = call(
        &Remote::Tcp(address),
        http::Method::GET,
        "/",
        http::HeaderMap::new(),
        Bytes::new(),
        Duration::from_secs(5),
    )
    .await?;
    Ok(String::from_utf8_lossy(&answer.body).parse()?)
}

fn event(n: u64, address: SocketAddr) -> (String, String) {
    let mut seed = Seed::new(n);
    let task_id = format!("{n:024x}");
    // One of several ports would be another receiver; several loopback addresses are several endpoints of one.
    let url = format!("http://127.0.0.{}:{}/callbacks", 1 + n % ENDPOINTS, address.port());
    let wanted = Wanted { kind: Kind::Image, task_id: &task_id, callback_url: Some(&url), is_test: false, items: 5 };
    let task = samples::task(&wanted, &mut seed);
    let id = samples::uuid_v7(1_764_000_000_000 + n, &mut seed);
    (task_id, samples::envelope(TEAM, Some(&id), &task))
}

/// Signs and POSTs over kept connections, nothing else.
async fn bare(address: SocketAddr) -> anyhow::Result<f64> {
    let secret = SigningSecret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")?;
    let key = CallbackAuthKey::parse("live_auth_0123456789abcdef0123456789abcdef")?;
    let signer = Arc::new(Signer::new(vec![secret], AuthHeader::Key(key)));
    let body = Bytes::from(event(0, address).1);
    println!("body                    {:>8} bytes", body.len());
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for n in 0..CONNECTIONS {
        let (signer, body) = (Arc::clone(&signer), body.clone());
        tasks.push(tokio::spawn(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let mut sent = 0_u64;
            while begun.elapsed() < BARE {
                let id = format!("cb_{n:08}{sent:018}");
                let signed = signer.sign(&id, 1_764_000_000, &body);
                let mut request =
                    Request::post("/callbacks").header("host", "127.0.0.1").header("content-type", "application/json");
                for (name, value) in signed.to_pairs(&id) {
                    request = request.header(name, value);
                }
                let response = sender.send_request(request.body(Full::new(body.clone()))?).await?;
                anyhow::ensure!(response.status().is_success(), "the receiver refused");
                let _ = whole(response.into_body(), 1024).await;
                sent += 1;
            }
            anyhow::Ok(sent)
        }));
    }
    let mut sent = 0;
    for task in tasks {
        sent += task.await??;
    }
    Ok(sent as f64 / begun.elapsed().as_secs_f64())
}

/// The daemon's own binary on a backlog in a real Kafka: from its first delivery to its last.
async fn daemon(address: SocketAddr, before: u64) -> anyhow::Result<f64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let broker = Broker::start(&root.join("target/kafka/libs"))?;
    produce(&broker.servers(), address)?;
    let folder = tempfile::tempdir()?;
    let binary = std::env::current_exe()?.with_file_name("callbackd");
    // Its team first, while no broker is there to read from.
    anyhow::ensure!(keyring(&binary, folder.path())?, "no keyring");
    let idle = Daemon::start(&binary, folder.path(), "127.0.0.1:9")?;
    idle.team(&binary).await?;
    drop(idle);
    let _process = Daemon::start(&binary, folder.path(), &broker.servers())?;
    let mut first = None;
    loop {
        let done = count(address).await? - before;
        let now = Instant::now();
        match first {
            None if done > 0 => first = Some((now, done)),
            Some((begun, at)) if done >= EVENTS => {
                return Ok((done - at) as f64 / now.duration_since(begun).as_secs_f64());
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn produce(servers: &str, address: SocketAddr) -> anyhow::Result<()> {
    let client: ClientConfig =
        [("bootstrap.servers", servers), ("linger.ms", "20"), ("queue.buffering.max.messages", "1000000")]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
    let admin: rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext> = client.create()?;
    let topic = rdkafka::admin::NewTopic::new(TOPIC, 8, rdkafka::admin::TopicReplication::Fixed(1));
    tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(admin.create_topics(&[topic], &rdkafka::admin::AdminOptions::new()))
    })?;
    let producer: ThreadedProducer<DefaultProducerContext> = client.create()?;
    for n in 0..EVENTS {
        let (key, value) = event(n, address);
        let partition = i32::try_from(n % 8)?;
        let record = BaseRecord::to(TOPIC).partition(partition).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

fn keyring(binary: &Path, folder: &Path) -> anyhow::Result<bool> {
    let file = folder.join("keyring");
    Ok(Command::new(binary).args(["keyring", "create"]).arg(file).stdout(Stdio::null()).status()?.success())
}

struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(binary: &Path, folder: &Path, servers: &str) -> anyhow::Result<Self> {
        let config = folder.join("callbackd.toml");
        std::fs::write(
            &config,
            format!(
                "[kafka]\nbrokers = \"{servers}\"\ntopics = [\"{TOPIC}\"]\n[store]\npath = \"{0}/store\"\n[keyring]\nfile = \"{0}/keyring\"\n[ops]\nlisten = \"\"\n[deliver]\nper_team_percent = 100\n[log]\nlevel = \"warn\"\n[[egress.allow]]\nnet = \"127.0.0.0/8\"\n",
                folder.display()
            ),
        )?;
        let child = Command::new(binary).args(["run", "--config"]).arg(&config).spawn()?;
        Ok(Self { child, socket: folder.join("store/callbackd.sock") })
    }

    async fn team(&self, binary: &Path) -> anyhow::Result<()> {
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

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
