//! How fast callbacks that are exhausted are sent again by a job, compared with fresh ones in the same run, and how much a job slows
//! fresh callbacks down.
//!
//! Run it with `make bench-resend`. All processes share this machine.

#![allow(clippy::print_stdout, reason = "it prints a report")]

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use callbackd_bench::broker::Broker;
use callbackd_bench::load::{self, Daemon, Source, TEAM};
use http::{HeaderMap, HeaderValue, Method, header};
use scale_callback_serve::client::{Remote, call};
use serde_json::{Value, json};

const CALLBACKS: u64 = 100_000;
const PHASE: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("receiver") {
        return runtime.block_on(load::receiver());
    }
    runtime.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let (_receiver, address) = load::start_receiver()?;
    let broker = Broker::start(&load::kafka_libs())?;
    let mut source = Source::start(&broker.servers(), address).await?;
    let (folder, binary) = (tempfile::tempdir()?, load::binary()?);
    anyhow::ensure!(load::keyring(&binary, folder.path())?, "the keyring was not created");
    let idle = Daemon::start(&binary, folder.path(), "127.0.0.1:9")?;
    idle.team(&binary).await?;
    let api = format!("unix:{}", idle.socket.display());
    let update = ["--api", &api, "teams", "update", TEAM, "--retries", "0"];
    anyhow::ensure!(Command::new(&binary).args(update).stdout(Stdio::null()).status()?.success());
    drop(idle);

    source.produce(CALLBACKS)?;
    let daemon = Daemon::start(&binary, folder.path(), &broker.servers())?;
    let api = Remote::Unix(daemon.socket.clone());
    let fresh = load::rate(address, 0, CALLBACKS).await?;
    println!("fresh                          {fresh:>8.0} /s");
    exhaust(&mut source, address, &api).await?;
    let before = load::count(address).await?;
    begin(&api).await?;
    let again = load::rate(address, before, CALLBACKS).await?;
    println!("sent again                     {again:>8.0} /s   ratio {:.2}", again / fresh);

    let half = (fresh / 2.0) as u64;
    let alone = paced(&mut source, address, half).await?;
    println!("fresh at half speed, alone     {alone:>8.0} /s");
    exhaust(&mut source, address, &api).await?;
    let before = load::count(address).await?;
    begin(&api).await?;
    let beside = paced(&mut source, address, half).await?;
    let both = (load::count(address).await? - before) as f64 / PHASE.as_secs_f64();
    println!(
        "fresh at half speed, with job  {beside:>8.0} /s   kept {:.2}, both together {both:.0} /s",
        beside / alone
    );
    drop(daemon);
    Ok(())
}

/// Callbacks that the receiver refuses, and that have no retries.
async fn exhaust(source: &mut Source, address: SocketAddr, api: &Remote) -> anyhow::Result<()> {
    load::set_status(address, 503).await?;
    let before = exhausted(api).await?;
    source.produce(CALLBACKS)?;
    while exhausted(api).await? < before + CALLBACKS {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    load::set_status(address, 204).await
}

async fn exhausted(api: &Remote) -> anyhow::Result<u64> {
    let status = ask(api, Method::GET, "/status", None).await?;
    status["exhausted"].as_u64().ok_or_else(|| anyhow::anyhow!("no count of exhausted callbacks in {status}"))
}

async fn begin(api: &Remote) -> anyhow::Result<()> {
    let job = ask(api, Method::POST, "/resends", Some(json!({ "team": TEAM, "at_most": CALLBACKS }))).await?;
    anyhow::ensure!(job["matched"] == CALLBACKS, "{job}");
    Ok(())
}

/// Produces at a pace for a phase. Answers how many first attempts a second there were, those of the second after it included.
async fn paced(source: &mut Source, address: SocketAddr, pace: u64) -> anyhow::Result<f64> {
    let before = load::first_attempts(address).await?;
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < PHASE {
        let wanted = (begun.elapsed().as_secs_f64() * pace as f64) as u64;
        while sent < wanted {
            source.send()?;
            sent += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok((load::first_attempts(address).await? - before) as f64 / took.as_secs_f64())
}

async fn ask(api: &Remote, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let answer = call(api, method, &format!("/admin/v1{path}"), headers, body, Duration::from_secs(60)).await?;
    Ok(serde_json::from_slice(&answer.body)?)
}
