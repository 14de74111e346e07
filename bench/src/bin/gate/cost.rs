//! Compares the CPU time per request of the gate with that of plain proxies. They take turns, with the same client and
//! the same receiver.

use std::sync::Arc;

use crate::process::Process;
use crate::requests::{body, connect, exchange, signed, signer};

const CONNECTIONS: u64 = 32;
const ROUNDS: u64 = 20;
/// Requests per round, over all connections together.
const REQUESTS: u64 = 8_000;

pub(crate) async fn measure() -> anyhow::Result<()> {
    let receiver = Process::own(&["receiver"])?;
    let upstream = receiver.address.to_string();
    // Every callback is sent once, and the gate has room to remember all of them.
    let gate = Process::gate(receiver.address, u32::try_from(REQUESTS * (ROUNDS + 1))?)?;
    let pooled = Process::own(&["proxy", &upstream, "pooled"])?;
    let bare = Process::own(&["proxy", &upstream, "bare"])?;
    println!("2 KiB, {CONNECTIONS} kept connections, {REQUESTS} requests per round; CPU us per request:");
    println!("round     gate   pooled proxy   bare proxy   gate over pooled   gate over bare");
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let mut costs = [0.0; 3];
        for (cost, process) in costs.iter_mut().zip([&gate, &pooled, &bare]) {
            let before = process.cpu()?;
            load(process, round).await?;
            *cost = (process.cpu()? - before) / REQUESTS as f64;
        }
        // The first round only warms the processes up.
        if round > 0 {
            let [gate, pooled, bare] = costs;
            let ratio = (gate / pooled, gate / bare);
            println!("{round:>5} {gate:>8.1} {pooled:>14.1} {bare:>12.1} {:>18.2} {:>16.2}", ratio.0, ratio.1);
            ratios.push(ratio);
        }
    }
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "median: gate over pooled {:.2}, over bare {:.2}",
        middle(ratios.iter().map(|ratio| ratio.0).collect()),
        middle(ratios.iter().map(|ratio| ratio.1).collect())
    );
    Ok(())
}

async fn load(process: &Process, round: u64) -> anyhow::Result<()> {
    let signer = Arc::new(signer()?);
    let body = Arc::new(body());
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let (signer, body, address) = (Arc::clone(&signer), Arc::clone(&body), process.address);
        tasks.push(tokio::spawn(async move {
            let mut stream = connect(address).await?;
            for n in 0..REQUESTS / CONNECTIONS {
                let id = format!("cb_{round:04}{connection:06}{n:016}");
                let status = exchange(&mut stream, &signed(&signer, &id, body.as_bytes())).await?;
                anyhow::ensure!(status == Some(204), "answered {status:?}");
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}
