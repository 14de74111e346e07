//! Measures a good client while a hostile crowd attacks the gate.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use callbackd_bench::load;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::process::Process;
use crate::requests::{body, connect, exchange, signed, signer};

/// The gate's own limit on connections.
const CONNECTIONS: usize = 1_024;
const REQUESTS: u64 = 100_000;
const UNDISTURBED: Duration = Duration::from_secs(30);
/// The time between two requests of the good client.
const PACE: Duration = Duration::from_millis(5);

/// The crowds. The number says that one in so many requests has a body of 12 MiB; 0 means that none has. Each crowd
/// sends as fast as the gate allows.
const CROWDS: [(&str, u64); 2] = [("small ones", 0), ("one in 1,000 with 12 MiB", 1_000)];

pub(crate) async fn measure() -> anyhow::Result<()> {
    let receiver = Process::own(&["receiver"])?;
    let mut gate = Process::gate(receiver.address, 1 << 20)?;
    let mut sent = 0;
    for (name, large) in CROWDS {
        println!("\n{REQUESTS} hostile requests: {name}");
        let mut good = Good { stream: connect(gate.address).await?, sent };
        // The first requests only warm the connection up.
        good.run(Instant::now() + Duration::from_secs(1)).await?;
        let undisturbed = good.run(Instant::now() + UNDISTURBED).await?;
        println!("good client, undisturbed: {undisturbed}");
        let crowded = crowd(gate.address, large, &mut good).await?;
        println!("good client, in the crowd: {crowded}");
        println!("p99 over undisturbed: {:.2}", crowded.at(0.99) / undisturbed.at(0.99));
        ensure!(gate.is_alive()?, "the gate has ended");
        sent = good.sent;
        let came = load::count(receiver.address).await?;
        ensure!(came == sent, "{came} callbacks reached the receiver, of {sent} good ones");
    }
    println!();
    refuses_one_more(gate.address).await?;
    println!("the largest memory of the gate: {:.0} MiB", gate.most_memory()?);
    Ok(())
}

/// How long the good client waits for each answer while the crowd attacks.
async fn crowd(gate: SocketAddr, large: u64, good: &mut Good) -> anyhow::Result<Waits> {
    let numbers = [REQUESTS, large].map(|number| number.to_string());
    let mut crowd = Command::new(std::env::current_exe()?).args(["crowd", &gate.to_string()]).args(numbers).spawn()?;
    let mut waits = Waits::default();
    let began = Instant::now();
    loop {
        waits.0.extend(good.run(Instant::now() + Duration::from_millis(500)).await?.0);
        if let Some(status) = crowd.try_wait()? {
            ensure!(status.success(), "the crowd failed; its output says why");
            return Ok(waits);
        }
        if began.elapsed() > Duration::from_secs(300) {
            crowd.kill()?;
            crowd.wait()?;
            anyhow::bail!("the crowd did not end in time");
        }
    }
}

/// Checks that one more connection is closed at once while all allowed connections are held.
async fn refuses_one_more(gate: SocketAddr) -> anyhow::Result<()> {
    // The connections of the crowd are closed soon, if they are not closed yet.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut held = Vec::new();
    while held.len() < CONNECTIONS {
        ensure!(Instant::now() < deadline, "only {} connections could be held", held.len());
        let mut stream = connect(gate).await?;
        if !is_closed(&mut stream, Duration::from_millis(2)).await {
            held.push(stream);
        }
    }
    let began = Instant::now();
    let mut more = connect(gate).await?;
    ensure!(is_closed(&mut more, Duration::from_secs(2)).await, "connection {} was accepted", CONNECTIONS + 1);
    println!("with {CONNECTIONS} connections held, one more is closed after {:.1?}", began.elapsed());
    Ok(())
}

async fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    matches!(tokio::time::timeout(within, stream.read(&mut [0; 64])).await, Ok(Ok(0) | Err(_)))
}

struct Good {
    stream: TcpStream,
    sent: u64,
}

impl Good {
    /// Sends good callbacks at a fixed pace until `until`. Returns how long each one took.
    async fn run(&mut self, until: Instant) -> anyhow::Result<Waits> {
        let (signer, body) = (signer()?, body());
        let mut ticks = tokio::time::interval(PACE);
        let mut waits = Waits::default();
        while Instant::now() < until {
            ticks.tick().await;
            let request = signed(&signer, &format!("cb_{:026}", self.sent), body.as_bytes());
            let began = Instant::now();
            let status = exchange(&mut self.stream, &request).await.context("the good client's connection")?;
            waits.0.push(began.elapsed());
            ensure!(status == Some(204), "a good callback was answered {status:?}");
            self.sent += 1;
        }
        Ok(waits)
    }
}

#[derive(Default)]
struct Waits(Vec<Duration>);

impl Waits {
    /// The wait below which this share of the waits lies, in milliseconds.
    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let place = (sorted.len() as f64 * share) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} callbacks, p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
            self.0.len(),
            self.at(0.5),
            self.at(0.99),
            self.at(1.0)
        )
    }
}
