//! The ledger: produces numbered events for real daemons, injects faults by a schedule, and compares independent records of what was
//! produced, received, stored and published. Run it with `make ledger`.
//!
//! It never decides by the daemon's word alone: the receivers keep their own record, and the producer keeps its own. And it never
//! believes in a fault that did not come: a run that misses what was planned is not valid.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a report")]
#![allow(clippy::disallowed_methods, reason = "no test sets the clock of a program that prints times")]

mod alone;
mod causes;
mod clock;
mod daemon;
mod event;
mod findings;
mod incidents;
mod inflict;
mod judge;
mod options;
mod outcomes;
mod plan;
mod produced;
mod producer;
mod receipts;
mod receiver;
mod records;
mod recreated;
mod report;
mod servers;
mod takeover;
mod told;
mod valid;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use event::Mix;
use findings::{Findings, Wrong};
use judge::Books;
use options::Options;
use plan::Step;
use produced::Produced;
use takeover::Takeover;
use tokio::signal::unix::{SignalKind, signal};
use world::World;

/// How long faults and the producer may last beyond the duration: a last fault heals, and Kafka answers.
const HEALING: Duration = Duration::from_secs(180);
/// The status of a run that could not be judged.
const NOT_JUDGED: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(sentence) = options.check() {
        eprintln!("ledger: {sentence}");
        return ExitCode::from(NOT_JUDGED);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let judged = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(until_interrupted(options)));
    match judged {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ledger: {error:#}");
            ExitCode::from(NOT_JUDGED)
        }
    }
}

/// Runs, and stops in order at a signal: whatever was started ends with the value that holds it.
async fn until_interrupted(options: Options) -> anyhow::Result<bool> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        judged = run(options) => judged,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("ended by a signal"),
    }
}

async fn run(options: Options) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let seed =
        options.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs()));
    println!(
        "ledger: {} events in {} s, {} daemons on {:?}, seed {seed}{}",
        options.events,
        options.duration,
        options.daemons(),
        options.store,
        options.fault.as_ref().map(|fault| format!(", broken on purpose: {fault}")).unwrap_or_default(),
    );
    let wanted = options.wanted(seed);
    let steps = plan::schedule(&wanted);
    let goals = plan::goals(&wanted, &steps);
    let world = Arc::new(World::start(&options).await?);
    println!("everything runs after {:.0} s", begun.elapsed().as_secs_f64());
    let mix = Mix { seed, slow: options.slow };
    let produced = Arc::new(Produced::new(options.events));
    let watching = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.watch().await }
    });
    produce_with_faults(options.duration(), mix, steps, &world, &produced).await?;
    println!("produced and healed after {:.0} s", begun.elapsed().as_secs_f64());
    let quiet = records::await_quiet(&world, options.patience()).await;
    watching.abort();
    // A task that was aborted is dropped by then.
    watching.await.ok();
    let books = books(&world, mix, produced).await?;
    let takeovers = takeover::takeovers(mix, &books.receipts, &books.incidents);
    let mut findings = judge::judge(&books);
    judge_run(&takeovers, &world.incidents.troubles(), &mut findings);
    if let Err(under_way) = quiet {
        findings.is_wrong(Wrong::NeverSettles, "-", under_way);
    }
    for missed in valid::missed(&goals, &books.incidents, &takeovers) {
        findings.is_wrong(Wrong::NotValid, "-", missed);
    }
    report::print(&books, &findings, &takeovers, &goals, begun.elapsed());
    let is_right = findings.violations.is_empty();
    if (!is_right || options.keep_logs)
        && let Some(world) = Arc::into_inner(world)
    {
        keep(world, &books, &findings)?;
    }
    println!("{}: seed {seed}", if is_right { "the records agree" } else { "THE RECORDS DO NOT AGREE" });
    Ok(is_right)
}

/// Reads all records, now that nothing is under way.
async fn books(world: &World, mix: Mix, produced: Arc<Produced>) -> anyhow::Result<Books> {
    let stored = records::read(world).await?;
    let wanted = told::wanted(&stored);
    Ok(Books {
        mix,
        produced,
        published: tokio::task::block_in_place(|| outcomes::read(&world.servers, wanted))?,
        stored,
        recreated: world.recreated.tasks(),
        receipts: world.receipts.taken(),
        refused: world.receipts.refused(),
        incidents: world.incidents.taken(),
    })
}

/// Judges what is no single callback's.
fn judge_run(takeovers: &[Takeover], troubles: &[String], findings: &mut Findings) {
    for late in takeovers.iter().filter(|takeover| !takeover.is_disturbed && takeover.took > takeover::bound()) {
        findings.is_wrong(Wrong::Takeover, format!("run {}", late.run), format!("it took {:?}", late.took));
    }
    for trouble in troubles {
        findings.is_wrong(Wrong::Trouble, "-", trouble);
    }
}

/// Keeps the daemons' logs, and writes what was done and what was repeated beside them.
fn keep(world: World, books: &Books, findings: &Findings) -> anyhow::Result<()> {
    let folder = world.keep_logs();
    // The logs have the times of the wall clock, so the list of what was done has them, too.
    std::fs::write(folder.join("faults.txt"), report::timeline(&books.incidents, SystemTime::now()))?;
    std::fs::write(folder.join("repeats.txt"), findings.explained.concat())?;
    println!("the daemons' logs, and a list of the faults, are in {}", folder.display());
    Ok(())
}

/// Produces the events while the schedule's faults come. Returns when all events are produced and all faults are over.
async fn produce_with_faults(
    duration: Duration,
    mix: Mix,
    steps: Vec<Step>,
    world: &Arc<World>,
    produced: &Arc<Produced>,
) -> anyhow::Result<()> {
    let urls = world.receivers.urls();
    let plan = Arc::new(producer::Plan {
        mix,
        duration,
        servers: world.servers.clone(),
        produced: Arc::clone(produced),
        url_of: Box::new(move |receiver| urls.get(&receiver).cloned().unwrap_or_default()),
        stop: AtomicBool::new(false),
    });
    // Whatever ends this function ends the producers.
    let _stop = StopAtDrop(Arc::clone(&plan));
    let mut producers = tokio::task::JoinSet::new();
    for produce in [producer::plain, producer::transactions] {
        let plan = Arc::clone(&plan);
        producers.spawn_blocking(move || produce(&plan));
    }
    let begun = tokio::time::Instant::now();
    let mut faults = tokio::task::JoinSet::new();
    for step in steps {
        let world = Arc::clone(world);
        faults.spawn(async move {
            tokio::time::sleep_until(begun + step.at).await;
            inflict::inflict(world, step).await;
        });
    }
    let all = async {
        while let Some(done) = faults.join_next().await {
            done?;
        }
        while let Some(done) = producers.join_next().await {
            done??;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(duration + HEALING, all).await {
        Ok(done) => done,
        Err(_) => anyhow::bail!("the faults and the producers did not end within {HEALING:?} after the run"),
    }
}

struct StopAtDrop(Arc<producer::Plan>);

impl Drop for StopAtDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}
