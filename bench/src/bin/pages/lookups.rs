//! Delivery at full speed with ten look-ups a second, in turns on a new store with few settled rows and on one store with many: how much
//! slower delivery is with many, and how long the look-ups take.
//!
//! A look-up takes from the moment at which it was due, so that one which has to wait for others counts with its wait. A store with few
//! rows is new each time, because the deliveries themselves add rows.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use callbackd_bench::load;
use scale_callback_serve::client::Remote;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::filled::Filled;
use super::questions::{self, get};
use super::stand::{Stand, Store};
use super::times::Times;
use super::{Options, StoreKind};

/// How many settled rows are few.
pub(crate) const FEW: u64 = 10_000;
/// The time between two look-ups.
const PACE: Duration = Duration::from_millis(100);
/// Deliveries of one turn take no longer.
const TURN: Duration = Duration::from_secs(10 * 60);
/// The targets.
const P95_MILLIS: f64 = 50.0;
const KEPT: f64 = 0.9;

/// What was measured on the stores with few rows, or on that with many.
#[derive(Default)]
struct Side {
    rates: Vec<f64>,
    times: Times,
}

pub(crate) async fn measure(options: &Options) -> anyhow::Result<()> {
    let stand = Stand::start(options.store)?;
    // The broker and the receiver are slow at first. This turn counts for nothing.
    let mut warm = stand.store("warm_up", FEW).await?;
    turn(&stand, &mut warm, options.events / 2, &mut Side::default()).await?;
    drop(warm);
    let begun = Instant::now();
    let mut large = stand.store("many", options.rows()).await?;
    println!("{} settled rows were written in {:.0?}", options.rows(), begun.elapsed());
    let (mut few, mut many) = (Side::default(), Side::default());
    for round in 0..options.rounds {
        let mut small = stand.store(&format!("few_{round}"), FEW).await?;
        // Whichever is first has an advantage or a disadvantage, so they change places.
        if round % 2 == 0 {
            turn(&stand, &mut small, options.events, &mut few).await?;
            turn(&stand, &mut large, options.events, &mut many).await?;
        } else {
            turn(&stand, &mut large, options.events, &mut many).await?;
            turn(&stand, &mut small, options.events, &mut few).await?;
        }
    }
    report(options, &few, &many);
    Ok(())
}

/// Delivers a backlog while look-ups run.
async fn turn(stand: &Stand, store: &mut Store, events: u64, side: &mut Side) -> anyhow::Result<()> {
    store.source.produce(events)?;
    let before = load::count(stand.address).await?;
    let daemon = stand.daemon(store)?;
    let (over, is_over) = watch::channel(false);
    let asking = tokio::spawn(ask(Remote::Unix(daemon.socket.clone()), store.filled, is_over));
    let rate = tokio::time::timeout(TURN, load::rate(stand.address, before, events)).await;
    over.send_replace(true);
    let times = asking.await??;
    side.rates.push(rate.with_context(|| format!("{events} events were not delivered within {TURN:?}"))??);
    side.times.extend(times);
    daemon.end().await
}

/// Asks the questions in turns, from the daemon's first answer until the deliveries are over.
async fn ask(api: Remote, filled: Filled, mut over: watch::Receiver<bool>) -> anyhow::Result<Times> {
    while get(&api, "/status").await.is_err() {
        ensure!(!over.has_changed().unwrap_or(true), "the API did not answer while callbackd delivered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut asked = JoinSet::new();
    let mut clock = tokio::time::interval(PACE);
    for n in 0_u64.. {
        let due = tokio::select! {
            _ = over.changed() => break,
            due = clock.tick() => due,
        };
        let mut questions = questions::all(filled, n);
        let question = questions.swap_remove(n as usize % questions.len());
        let api = api.clone();
        asked.spawn(async move {
            let found = question.ask(&api).await?;
            anyhow::Ok((question.kind, due.elapsed(), found))
        });
    }
    let mut times = Times::default();
    while let Some(answered) = asked.join_next().await {
        let (kind, took, found) = answered??;
        times.add(kind, took, found);
    }
    Ok(times)
}

fn report(options: &Options, few: &Side, many: &Side) {
    let store = match options.store {
        StoreKind::Sqlite => "SQLite",
        StoreKind::Postgres => "PostgreSQL",
    };
    println!("{store}, {} events a turn, ten look-ups a second", options.events);
    for (rows, side) in [(FEW, few), (options.rows(), many)] {
        let rates: Vec<String> = side.rates.iter().map(|rate| format!("{rate:.0}")).collect();
        println!("\n{rows} settled rows: {} deliveries a second; look-ups:", rates.join(" and "));
        side.times.print();
        println!(
            "{:<28} {:>7} {:>9.1} {:>9.1} {:>10.1}",
            "all",
            side.times.count(),
            side.times.within(0.5),
            side.times.within(0.95),
            side.times.within(1.0)
        );
    }
    let best = |side: &Side| side.rates.iter().copied().fold(0.0, f64::max);
    let (kept, p95) = (best(many) / best(few), many.times.within(0.95));
    let verdict = |is_reached| if is_reached { "reached" } else { "NOT reached" };
    println!("\nspeed kept (best of each)  {kept:>7.2}     wanted >= {KEPT:.2}: {}", verdict(kept >= KEPT));
    println!("p95 of all look-ups        {p95:>7.1} ms  wanted <= {P95_MILLIS:.1} ms: {}", verdict(p95 <= P95_MILLIS));
}
