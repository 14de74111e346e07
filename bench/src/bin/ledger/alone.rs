//! The faults that come alone: nothing else is done to the daemons, to Kafka or to the store meanwhile, so that everything that
//! follows has this one cause.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::daemon::{Daemon, GROUP};
use super::event::Receiver;
use super::incidents::{Before, Incident};
use super::plan::{Kind, Step};
use super::world::World;
use super::{records, recreated, servers, takeover};

/// Before it, so that an earlier fault has no effect any more: the group shares its partitions out, and every lock has ended.
const QUIET: Duration = Duration::from_secs(6);
/// How long the records of the small topic may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records before the topic is deleted, and after it was created again: fewer or more than before.
const OLD: u64 = 60;
const NEW: [u64; 2] = [40, 80];

/// Carries a fault out, while no other one does anything.
pub(super) async fn inflict(world: &World, step: Step) -> anyhow::Result<()> {
    match step.kind {
        Kind::Kill => kill(world, step).await,
        Kind::GroupReset => reset_group(world).await,
        Kind::TopicRecreated => recreate_topic(world, step).await,
        Kind::StoreFreezeLong => freeze(world, step).await,
        _ => anyhow::bail!("this fault does not come alone"),
    }
}

/// Kills a daemon, which stays away until others must have taken its work over.
async fn kill(world: &World, step: Step) -> anyhow::Result<()> {
    let mut daemon = world.borrow(step.pick).await;
    tokio::time::sleep(takeover::NEAR + Duration::from_secs(1)).await;
    let (before, run) = (daemon.before().await, daemon.run);
    let from = daemon.kill();
    tokio::time::sleep(step.length).await;
    let started = world.run(&mut daemon).await;
    world.incidents.add(Incident { before, ..Incident::until_now(Kind::Kill, from, Some(run)) });
    tokio::time::sleep(takeover::NEAR).await;
    started
}

/// Sets the group's offsets to the earliest ones while nobody is in the group. The store's watermarks decide, so nothing is sent again.
async fn reset_group(world: &World) -> anyhow::Result<()> {
    let mut daemons = world.borrow_all().await;
    let from = Instant::now();
    let stopped = world.stop_all(&mut daemons).await;
    let reset = servers::reset_group(&world.servers, GROUP).await;
    let started = world.run_all(&mut daemons).await;
    let partitions = stopped.and(started).and(reset)?;
    anyhow::ensure!(partitions > 0, "the group had no offsets");
    world.incidents.add(Incident::until_now(Kind::GroupReset, from, None));
    Ok(())
}

/// Deletes a topic whose records were delivered, and creates it again with other records, while the daemons run or while they are down.
async fn recreate_topic(world: &World, step: Step) -> anyhow::Result<()> {
    let mut daemons = world.borrow_all().await;
    let urls = world.receivers.urls();
    let url = urls.get(&Receiver::Prompt).context("the receiver's URL")?;
    let produce = |records| tokio::task::block_in_place(|| world.recreated.produce(&world.servers, records, url));
    produce(OLD)?;
    records::await_recreated(world, &daemons[0], PATIENCE).await.context("before the topic is deleted")?;
    let from = Instant::now();
    let is_down = step.pick.is_multiple_of(2);
    let stopped = if is_down { world.stop_all(&mut daemons).await } else { Ok(()) };
    let recreated = recreate(&world.servers).await;
    // Each size comes with daemons that run and with daemons that are down.
    let new = NEW[usize::from((step.pick + step.pick / 2) % 2 == 1)];
    let produced = recreated.and_then(|()| produce(new));
    // Whatever failed, the daemons run again.
    let started = if is_down { world.run_all(&mut daemons).await } else { Ok(()) };
    stopped.and(started).and(produced)?;
    records::await_recreated(world, &daemons[0], PATIENCE).await.context("after the topic was created again")?;
    world.incidents.add(Incident::until_now(Kind::TopicRecreated, from, None));
    Ok(())
}

async fn recreate(servers: &str) -> anyhow::Result<()> {
    servers::delete_topic(servers, recreated::TOPIC).await?;
    servers::create_topic(servers, recreated::TOPIC, recreated::PARTITIONS).await
}

/// Makes the store stand still for long. No daemon may lose its place in the group, and what can be repeated is what was unsettled when
/// the store went on.
async fn freeze(world: &World, step: Step) -> anyhow::Result<()> {
    let Some(databases) = &world.databases else { return Ok(()) };
    let daemons = world.borrow_all().await;
    let databases = databases.lock().await;
    tokio::time::sleep(QUIET).await;
    let rebalances = sum(&daemons, "callbackd_rebalances_total").await?;
    let from = Instant::now();
    databases.freeze();
    tokio::time::sleep(step.length).await;
    let asked = Instant::now();
    let unsettled = sum(&daemons, "callbackd_unsettled").await;
    databases.thaw();
    let followed = databases.await_standby().await;
    let before = unsettled.as_ref().ok().map(|unsettled| Before { asked, unsettled: *unsettled as usize });
    world.incidents.add(Incident { before, ..Incident::until_now(Kind::StoreFreezeLong, from, None) });
    tokio::time::sleep(QUIET).await;
    let more = sum(&daemons, "callbackd_rebalances_total").await? - rebalances;
    anyhow::ensure!(more == 0.0, "a member was evicted: there were {more} assignments and revocations");
    unsettled?;
    followed
}

/// The sum of a metric over all daemons, which all must answer.
async fn sum(daemons: &[impl std::ops::Deref<Target = Daemon>], metric: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for daemon in daemons {
        let [value] = daemon.metrics([metric]).await.with_context(|| format!("{metric} of run {}", daemon.run))?;
        sum += value;
    }
    Ok(sum)
}
