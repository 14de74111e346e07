//! How long a page of 50 callbacks takes on a store with a million settled ones while callbackd delivers at half its
//! speed, by what is asked for, and how much the reading slows delivery down.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use callbackd_bench::broker::Broker;
use callbackd_bench::load::{self, Daemon, Source, TEAM};
use scale_callback_serve::client::Remote;

use super::filled::{self, Filled, TEAMS};
use super::times::Times;
use super::{fill_sqlite, questions};

const FULL: u64 = 60_000;
const PHASE: Duration = Duration::from_secs(20);

pub(crate) async fn measure(rows: u64) -> anyhow::Result<()> {
    let (_receiver, address) = load::start_receiver()?;
    let broker = Broker::start(&load::kafka_libs())?;
    let mut source = Source::start(&broker.servers(), address).await?;
    let (folder, binary) = (tempfile::tempdir()?, load::binary()?);
    anyhow::ensure!(load::keyring(&binary, folder.path())?, "the keyring was not created");
    let idle = Daemon::start(&binary, folder.path(), "127.0.0.1:9")?;
    // Whoever asks by a team that does not exist is told so.
    let teams: Vec<String> = (0..TEAMS).map(filled::team).chain([TEAM.to_owned()]).collect();
    idle.teams(&binary, &teams).await?;
    idle.end().await?;
    let begun = Instant::now();
    let filled = Filled::until_now(rows);
    fill_sqlite::fill(&folder.path().join("store/callbackd.db"), filled).await?;
    println!("{rows} settled rows were written in {:.0?}", begun.elapsed());

    source.produce(FULL)?;
    let daemon = Daemon::start(&binary, folder.path(), &broker.servers())?;
    let full = load::rate(address, 0, FULL).await?;
    println!("full speed              {full:>8.0} /s");
    let half = (full / 2.0) as u64;
    let alone = paced(&mut source, address, half).await?;
    println!("half speed, alone       {alone:>8.0} /s  (wanted {half})");
    let asking = tokio::spawn(ask(Remote::Unix(daemon.socket.clone()), filled));
    let asked = paced(&mut source, address, half).await?;
    let pages = asking.await??;
    println!("half speed, with pages  {asked:>8.0} /s  ({} pages in {PHASE:?})", pages.count());
    println!("kept                    {:>8.2}", asked / alone);
    pages.print();
    drop(daemon);
    Ok(())
}

/// Produces at a pace for a phase. Answers how many deliveries a second there were, those of the second after it
/// included.
async fn paced(source: &mut Source, address: SocketAddr, pace: u64) -> anyhow::Result<f64> {
    let before = load::count(address).await?;
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
    let done = load::count(address).await? - before;
    Ok(done as f64 / took.as_secs_f64())
}

/// Asks for one page after another, of each kind in turn, for a phase. The first page of each kind is not measured.
async fn ask(api: Remote, filled: Filled) -> anyhow::Result<Times> {
    let mut times = Times::default();
    let begun = Instant::now();
    let mut n = 0_u64;
    while begun.elapsed() < PHASE {
        n += 1;
        for question in questions::all(filled, n) {
            let asked = Instant::now();
            let found = question.ask(&api).await?;
            let took = asked.elapsed();
            if n > 1 {
                times.add(question.kind, took, found);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(times)
}
