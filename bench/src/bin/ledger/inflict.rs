//! Carries out one fault of the schedule, and notes when it came and when it was over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::incidents::{Before, Incident};
use super::plan::{Kind, Step};
use super::world::World;

/// One COMMIT in so many is cut while they are cut.
const CUT_ONE_IN: u64 = 6;
/// Sessions that end at once.
const TERMINATED: u32 = 3;

/// Carries the fault out. What should not happen meanwhile is noted as a trouble.
pub(crate) async fn inflict(world: Arc<World>, step: Step) {
    let done = match step.kind {
        Kind::Kill => kill(&world, step).await,
        Kind::Restart => restart(&world, step).await,
        Kind::Pause => pause(&world, step).await,
        Kind::Join => join(&world, step).await,
        Kind::KafkaStop | Kind::KafkaKill => kafka(&world, step).await,
        Kind::Refuse => refuse(&world, step).await,
        Kind::StoreStop | Kind::StoreKill | Kind::StoreFreeze | Kind::Failover | Kind::Cut | Kind::Terminate => {
            postgres(&world, step).await
        }
    };
    if let Err(error) = done {
        world.incidents.trouble(format!("{}: {error:#}", step.kind.name()));
    }
}

fn note(world: &World, kind: Kind, from: Instant, run: Option<u32>) {
    world.incidents.add(Incident { kind, from, until: Instant::now(), run, before: None });
}

async fn kill(world: &World, step: Step) -> anyhow::Result<()> {
    let mut daemon = world.borrow(step.pick).await;
    // A daemon that has just started, or that waits for its store, may not tell.
    let before = tokio::time::timeout(Duration::from_millis(500), ask(&daemon)).await.ok().flatten();
    let run = daemon.run;
    let from = daemon.kill();
    tokio::time::sleep(step.length).await;
    let started = world.run(&mut daemon).await;
    world.incidents.add(Incident { kind: Kind::Kill, from, until: Instant::now(), run: Some(run), before });
    started
}

async fn ask(daemon: &Daemon) -> Option<Before> {
    let asked = Instant::now();
    let [unsettled] = daemon.metrics(["callbackd_unsettled"]).await?;
    Some(Before { asked, unsettled: unsettled as usize })
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
    let mut daemon = world.new_daemon(&format!("joins-{:08x}", step.pick >> 32))?;
    let from = Instant::now();
    world.run(&mut daemon).await?;
    tokio::time::sleep(step.length).await;
    let stopped = daemon.stop().await;
    note(world, Kind::Join, from, Some(daemon.run));
    stopped
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
            databases.cut_one_in(CUT_ONE_IN, step.pick);
            tokio::time::sleep(step.length).await;
            databases.cut_one_in(0, 0);
        }
        Kind::Terminate => drop(databases.terminate(TERMINATED)),
        _ => {
            databases.stop(step.kind == Kind::StoreKill);
            tokio::time::sleep(step.length).await;
            databases.run()?;
        }
    }
    note(world, step.kind, from, None);
    Ok(())
}
