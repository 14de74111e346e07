//! Carries out one fault of the schedule, and notes when it came and when it was over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alone;
use super::clock::WallClock;
use super::daemon::Daemon;
use super::incidents::Incident;
use super::plan::{Kind, SESSIONS, Step};
use super::world::World;

/// One COMMIT in so many is cut while they are cut.
const CUT_ONE_IN: u64 = 4;
/// How long COMMITs are cut at most, if a number of cuts is to be reached.
const MOST_CUTTING: Duration = Duration::from_secs(30);
/// How long a daemon may take to commit something that can be cut.
const NEXT_COMMIT: Duration = Duration::from_secs(10);
/// How far a clock steps. Beyond a minute the daemon must not believe it; receivers accept signatures within five minutes.
const STEP: i64 = 120;
/// How long a daemon may take to notice a full disk or a clock, and that it is right again.
const NOTICE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);
/// A daemon that is to be killed at a cut must be killed at once.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Carries the fault out. What should not happen meanwhile is noted as a trouble.
pub(crate) async fn inflict(world: Arc<World>, step: Step) {
    let done = if step.is_alone {
        let _alone = world.alone.write().await;
        alone::inflict(&world, step).await
    } else {
        let _others = world.alone.read().await;
        among_others(&world, step).await
    };
    if let Err(error) = done {
        world.incidents.trouble(format!("{}: {error:#}", step.kind.name()));
    }
}

async fn among_others(world: &World, step: Step) -> anyhow::Result<()> {
    match step.kind {
        Kind::Kill => kill(world, step).await,
        Kind::KillAtCut => kill_at_cut(world, step).await,
        Kind::Restart => restart(world, step).await,
        Kind::Pause => pause(world, step).await,
        Kind::Join => join(world, step).await,
        Kind::ClockStepped => step_clock(world, step).await,
        Kind::KafkaStop | Kind::KafkaKill => kafka(world, step).await,
        Kind::DiskFull => fill_disk(world, step).await,
        Kind::Refuse => refuse(world, step).await,
        Kind::StoreStop | Kind::StoreKill | Kind::StoreFreeze | Kind::Failover | Kind::Cut | Kind::Terminate => {
            postgres(world, step).await
        }
        // The schedule lets them come alone.
        Kind::GroupReset | Kind::TopicRecreated | Kind::StoreFreezeLong => Ok(()),
    }
}

fn note(world: &World, kind: Kind, from: Instant, run: Option<u32>) {
    world.incidents.add(Incident::until_now(kind, from, run));
}

async fn kill(world: &World, step: Step) -> anyhow::Result<()> {
    let mut daemon = world.borrow(step.pick).await;
    let before = tokio::time::timeout(Duration::from_millis(500), daemon.before()).await.ok().flatten();
    let run = daemon.run;
    let from = daemon.kill();
    tokio::time::sleep(step.length).await;
    let started = world.run(&mut daemon).await;
    world.incidents.add(Incident { before, ..Incident::until_now(step.kind, from, Some(run)) });
    started
}

/// Cuts the next COMMIT of a daemon, and kills it before it knows.
async fn kill_at_cut(world: &World, step: Step) -> anyhow::Result<()> {
    let Some(databases) = &world.databases else { return Ok(()) };
    let mut daemon = world.borrow(step.pick).await;
    // No other fault of the database comes between the cut and the kill.
    let databases = databases.lock().await;
    let before = tokio::time::timeout(Duration::from_millis(500), daemon.before()).await.ok().flatten();
    let (run, number) = (daemon.run, daemon.number);
    let cut_before = databases.cuts_of(number);
    databases.cut_daemon(number, true, step.pick);
    let end = Instant::now() + NEXT_COMMIT;
    while databases.cuts_of(number) == cut_before && Instant::now() < end {
        tokio::time::sleep(AT_ONCE).await;
    }
    let from = daemon.kill();
    databases.cut_daemon(number, false, 0);
    let count = databases.cuts_of(number) - cut_before;
    drop(databases);
    tokio::time::sleep(step.length).await;
    let started = world.run(&mut daemon).await;
    world.incidents.add(Incident { before, count, ..Incident::until_now(step.kind, from, Some(run)) });
    started
}

async fn restart(world: &World, step: Step) -> anyhow::Result<()> {
    let mut daemon = world.borrow(step.pick).await;
    let (run, from) = (daemon.run, Instant::now());
    let stopped = daemon.stop().await;
    tokio::time::sleep(step.length).await;
    let started = world.run(&mut daemon).await;
    note(world, Kind::Restart, from, Some(run));
    stopped.and(started)
}

async fn pause(world: &World, step: Step) -> anyhow::Result<()> {
    let daemon = world.borrow(step.pick).await;
    let (run, from) = (daemon.run, Instant::now());
    daemon.signal("STOP");
    tokio::time::sleep(step.length).await;
    daemon.signal("CONT");
    note(world, Kind::Pause, from, Some(run));
    Ok(())
}

async fn join(world: &World, step: Step) -> anyhow::Result<()> {
    let mut daemon = world.new_daemon(world.daemons.len(), &format!("joins-{:08x}", step.pick >> 32))?;
    let from = Instant::now();
    world.run(&mut daemon).await?;
    tokio::time::sleep(step.length).await;
    let stopped = daemon.stop().await;
    note(world, Kind::Join, from, Some(daemon.run));
    stopped
}

/// Steps the wall clock of a daemon that is restarted for it, and sets it right again. The run with this clock ends with a restart,
/// too.
async fn step_clock(world: &World, step: Step) -> anyhow::Result<()> {
    let mut daemon = world.borrow(step.pick).await;
    let clock = WallClock::new(daemon.folder())?;
    let from = Instant::now();
    let stopped = daemon.stop().await;
    daemon.clock = Some(clock.clone());
    let started = world.run(&mut daemon).await;
    let (run, ahead) = (daemon.run, step.pick.is_multiple_of(2));
    let stepped = clock.set(if ahead { STEP } else { -STEP });
    let noticed = until_troubled(&daemon, "the store's clock").await;
    tokio::time::sleep(step.length).await;
    let set_right = clock.set(0);
    // Whatever failed, the daemon has the machine's clock again.
    daemon.clock = None;
    let stopped_again = daemon.stop().await;
    let started_again = world.run(&mut daemon).await;
    note(world, Kind::ClockStepped, from, Some(run));
    stepped.and(set_right)?;
    stopped.and(started).and(noticed).and(stopped_again).and(started_again)
}

/// Waits until the daemon says that it is not ready, for a reason with these words.
async fn until_troubled(daemon: &Daemon, words: &str) -> anyhow::Result<()> {
    let end = Instant::now() + NOTICE;
    while !daemon.troubles().await.is_some_and(|troubles| troubles.contains(words)) {
        anyhow::ensure!(Instant::now() < end, "the daemon did not notice it within {NOTICE:?}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn fill_disk(world: &World, step: Step) -> anyhow::Result<()> {
    let daemon = world.borrow(step.pick).await;
    let (run, from) = (daemon.run, Instant::now());
    daemon.set_full_disk(true)?;
    let noticed = until_troubled(&daemon, "the store does not answer").await;
    tokio::time::sleep(step.length).await;
    daemon.set_full_disk(false)?;
    note(world, Kind::DiskFull, from, Some(run));
    noticed
}

async fn kafka(world: &World, step: Step) -> anyhow::Result<()> {
    let mut broker = world.broker.lock().await;
    let from = Instant::now();
    tokio::task::block_in_place(|| if step.kind == Kind::KafkaKill { broker.kill() } else { broker.stop() });
    tokio::time::sleep(step.length).await;
    let started = tokio::task::block_in_place(|| broker.run());
    note(world, step.kind, from, None);
    started
}

async fn refuse(world: &World, step: Step) -> anyhow::Result<()> {
    let from = Instant::now();
    world.receivers.set_closed(true);
    tokio::time::sleep(step.length).await;
    world.receivers.set_closed(false);
    note(world, Kind::Refuse, from, None);
    Ok(())
}

async fn postgres(world: &World, step: Step) -> anyhow::Result<()> {
    let Some(databases) = &world.databases else { return Ok(()) };
    // One fault of the database at a time; the next one waits.
    let mut databases = databases.lock().await;
    let from = Instant::now();
    let mut count = 0;
    match step.kind {
        Kind::StoreFreeze => {
            databases.freeze();
            tokio::time::sleep(step.length).await;
            databases.thaw();
        }
        Kind::Failover => {
            if !databases.fail_over().await? {
                return Ok(());
            }
        }
        Kind::Cut => {
            let before = databases.cuts();
            let most = if step.cuts == 0 { step.length } else { MOST_CUTTING };
            databases.cut_one_in(CUT_ONE_IN, step.pick);
            while from.elapsed() < most && (step.cuts == 0 || databases.cuts() < step.cuts) {
                tokio::time::sleep(PAUSE).await;
            }
            databases.cut_one_in(0, 0);
            count = databases.cuts() - before;
        }
        Kind::Terminate => count = databases.terminate(SESSIONS)?,
        _ => {
            databases.stop(step.kind == Kind::StoreKill);
            tokio::time::sleep(step.length).await;
            databases.run()?;
        }
    }
    world.incidents.add(Incident { count, ..Incident::until_now(step.kind, from, None) });
    Ok(())
}
