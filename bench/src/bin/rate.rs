//! Gives a rough figure of speed. It compares callbackd (real Kafka, SQLite, signed POSTs) with a bare loop that signs
//! and POSTs the same bodies with hyper. Both run in one run, one after the other, and send to the same receiver, which
//! is a separate process.
//!
//! Each argument is the path of a `callbackd` to measure, so that two builds can be compared in one run; without arguments
//! it is the one beside this program. `make bench` runs it. All processes share this machine, so only the ratio says something.

#![allow(clippy::print_stdout, reason = "it prints a report")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use callbackd_bench::broker::Broker;
use callbackd_bench::load::{self, Daemon, ENDPOINTS, Source};
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, SigningSecret};
use scale_callback_serve::body::whole;
use tokio::net::TcpStream;

const CONNECTIONS: usize = 64;
const BARE: Duration = Duration::from_secs(6);
const EVENTS: u64 = 120_000;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("receiver") {
        return runtime.block_on(load::receiver());
    }
    runtime.block_on(compare())
}

async fn compare() -> anyhow::Result<()> {
    let (_receiver, address) = load::start_receiver()?;
    let bare = bare(address).await?;
    println!("bare signed POST loop   {bare:>8.0} /s  ({CONNECTIONS} connections, {BARE:?})");
    let mut binaries: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if binaries.is_empty() {
        binaries.push(load::binary()?);
    }
    for binary in binaries {
        let Figures { rate, cpu } = daemon(&binary, address).await?;
        println!("callbackd, SQLite       {rate:>8.0} /s  ({EVENTS} events in Kafka, {ENDPOINTS} endpoints)");
        println!("  its CPU time          {cpu:>8.1} us a delivery");
        println!("  ratio                 {:>8.2}", rate / bare);
    }
    Ok(())
}

/// Signs and POSTs over kept connections, and does nothing else.
async fn bare(address: SocketAddr) -> anyhow::Result<f64> {
    let secret = SigningSecret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")?;
    let key = CallbackAuthKey::parse("live_auth_0123456789abcdef0123456789abcdef")?;
    let signer = Arc::new(Signer::new(vec![secret], AuthHeader::Key(key)));
    let body = Bytes::from(load::event(0, address).1);
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
                anyhow::ensure!(response.status().is_success(), "the receiver refused a POST");
                // The answer's body is empty. It is read so that the connection can be used again.
                whole(response.into_body(), 1024).await.ok();
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

struct Figures {
    /// Deliveries a second.
    rate: f64,
    /// Microseconds of CPU time a delivery, of user and system together.
    cpu: f64,
}

/// Runs a daemon's binary on a backlog in a real Kafka, and measures from its first delivery to its last.
async fn daemon(binary: &Path, address: SocketAddr) -> anyhow::Result<Figures> {
    let broker = Broker::start(&load::kafka_libs())?;
    Source::start(&broker.servers(), address).await?.produce(EVENTS)?;
    let folder = tempfile::tempdir()?;
    // The team is created first, while the daemon has no broker to read from.
    anyhow::ensure!(load::keyring(binary, folder.path())?, "the keyring was not created");
    let idle = Daemon::start(binary, folder.path(), "127.0.0.1:9")?;
    idle.team(binary).await?;
    drop(idle);
    let before = load::count(address).await?;
    let daemon = Daemon::start(binary, folder.path(), &broker.servers())?;
    let rate = load::rate(address, before, EVENTS).await?;
    Ok(Figures { rate, cpu: daemon.process.cpu()? / EVENTS as f64 })
}
