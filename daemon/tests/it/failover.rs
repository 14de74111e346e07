//! A primary that is killed, and a standby that takes its place: the daemons go on by themselves, and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use callbackd::base::clock::SystemClock;
use callbackd::model::event::PartitionKey;
use callbackd::store::{self, Config, Options, Take, TakeAsk};
use callbackd_bench::postgres::Postgres;
use callbackd_bench::wire::Wire;

use crate::harness::until;
use crate::process::Process;
use crate::processes::World;

/// How long a server stands still. The sessions of the consumer group are shorter.
const FROZEN: Duration = Duration::from_secs(5);

/// A primary with a standby, and the URL of a database that is on both.
fn servers() -> (Postgres, Postgres, String) {
    let primary = Postgres::start().unwrap();
    primary.create_database("callbacks").unwrap();
    let standby = primary.standby("second").unwrap();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    (primary, standby, format!("postgres://callbackd@{hosts}/callbacks?target_session_attrs=read-write"))
}

async fn follows(primary: &Postgres, how: &str) {
    until("the standby follows", async || {
        let state = primary.sql("postgres", "SELECT sync_state FROM pg_stat_replication").ok()?;
        (state == how).then_some(())
    })
    .await;
}

/// Waits until the standby has what the primary has.
async fn has_everything(primary: &Postgres) {
    until("the standby has everything", async || {
        let same = "SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication";
        (primary.sql("postgres", same).unwrap() == "t").then_some(())
    })
    .await;
}

/// What the daemons have counted as possibly repeated or under way.
async fn unsettled(world: &World) -> f64 {
    let mut sum = 0.0;
    for daemon in &world.daemons {
        sum += daemon.metric("callbackd_unsettled").await.unwrap_or_default();
    }
    sum
}

fn logs(world: &World) -> String {
    world.daemons.iter().map(Process::log_text).collect::<Vec<_>>().join("\n--\n")
}

#[tokio::test]
async fn a_synchronous_standby_takes_over_and_nothing_is_lost() {
    let (mut primary, standby, url) = servers();
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'second'").unwrap();
    primary.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    follows(&primary, "sync").await;
    let mut world = World::on(url, "failover", Duration::from_millis(40)).await;
    world.join("two").await;
    world.shared_by(0, 2).await;
    world.produce(0, 600);
    until("callbacks are under way", async || (world.receiver.count() > 150).then_some(())).await;
    let under_way = unsettled(&world).await;
    primary.kill();
    standby.promote().unwrap();
    world.produce(600, 100);
    world.all_arrive(700).await;
    assert!(logs(&world).contains("the database was failed over"), "{}", logs(&world));
    // Every commit that was acknowledged is there, so no instance is superseded, and at most what was under way is repeated.
    assert!(!logs(&world).contains("begins anew"), "{}", logs(&world));
    assert!(
        world.repeats().len() as f64 <= under_way + 64.0,
        "{} repeats, {under_way} under way",
        world.repeats().len()
    );
}

#[tokio::test]
async fn a_standby_that_lost_commits_is_noticed_and_what_it_lost_is_read_again() {
    let (mut primary, standby, url) = servers();
    follows(&primary, "async").await;
    let mut world = World::on(url, "lost-commits", Duration::ZERO).await;
    world.join("two").await;
    world.shared_by(0, 2).await;
    world.produce(0, 120);
    world.all_arrive(120).await;
    has_everything(&primary).await;
    // From here on the standby receives nothing.
    standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''").unwrap();
    standby.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    until("the standby is alone", async || {
        (primary.sql("postgres", "SELECT count(*) FROM pg_stat_replication").unwrap() == "0").then_some(())
    })
    .await;
    world.produce(120, 120);
    world.all_arrive(240).await;
    world.all_committed(240).await;
    primary.kill();
    standby.promote().unwrap();
    until("the daemons notice it", async || {
        world.daemons.iter().all(|daemon| daemon.log_text().contains("begins anew")).then_some(())
    })
    .await;
    world.produce(240, 60);
    world.all_arrive(300).await;
    // What the standby had is not repeated, and what it lost comes again with the same ids: once.
    until("what was lost came again", async || (world.receiver.count() >= 420).then_some(())).await;
    let repeats = world.repeats();
    assert!(repeats.len() <= 120, "{} repeats", repeats.len());
    assert!(logs(&world).contains("the store went back"), "{}", logs(&world));
}

/// Advisory locks do not go over to a standby. An owner without its lock is not taken for dead right after a promotion.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_has_time_to_come_back_after_a_promotion() {
    let (mut primary, standby, url) = servers();
    follows(&primary, "async").await;
    let config = Config::Postgres(Box::new(url.parse().unwrap()));
    let opened = async || store::open(&config, Options::default(), Arc::new(SystemClock)).await.unwrap();
    let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
    let ask =
        |instance| TakeAsk { patience: Duration::from_secs(60), ..TakeAsk::at_once(instance, Arc::clone(&partition)) };
    let (owner, other) = (opened().await, opened().await);
    let owners = owner.engine.begin().await.unwrap().instance;
    let others = other.engine.begin().await.unwrap().instance;
    assert!(matches!(owner.engine.take(ask(owners)).await.unwrap(), Take::Taken(_)));
    assert!(matches!(other.engine.take(ask(others)).await.unwrap(), Take::Held { .. }), "it lives");
    has_everything(&primary).await;
    drop(owner);
    primary.kill();
    standby.promote().unwrap();
    let taken = until("the standby answers", async || other.engine.take(ask(others)).await.ok()).await;
    assert!(matches!(taken, Take::Held { owner } if owner == owners), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_are_cut_lose_nothing_and_repeat_nothing() {
    let server = crate::postgres::server();
    let database = crate::postgres::database();
    let name = database.rsplit('/').next().unwrap();
    let wire = Wire::start(server.port()).await.unwrap();
    let url = format!("postgres://callbackd@127.0.0.1:{}/{name}", wire.port());
    let mut world = World::on(url, "cut", Duration::from_millis(5)).await;
    world.join("two").await;
    world.shared_by(0, 2).await;
    // One in four commits breaks, on the way to the server or on the way back.
    wire.cut_one_in(4, 2_026);
    let (mut sent, mut terminated) = (0, 0);
    while wire.cuts().0 < 100 || wire.cuts().1 < 100 || terminated < 20 {
        world.produce(sent, 60);
        sent += 60;
        if terminated < 20 {
            // And the server ends a session in the middle of whatever it does.
            let one = "SELECT count(pg_terminate_backend(pid)) FROM (
                           SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                           ORDER BY random() LIMIT 1) AS one";
            terminated += server.sql(name, one).unwrap().parse::<u32>().unwrap();
        }
        let wanted = usize::try_from(sent).unwrap();
        assert!(sent < 20_000, "only {:?} cuts", wire.cuts());
        world.receiver.until(Duration::from_secs(5), |receipts| receipts.len() + 200 >= wanted).await;
    }
    wire.cut_one_in(0, 0);
    world.all_arrive(usize::try_from(sent).unwrap()).await;
    println!("{:?} cuts, {terminated} sessions ended, {sent} events", wire.cuts());
    let repeats = world.repeats();
    assert!(repeats.is_empty(), "{} of {sent} were repeated; {}", repeats.len(), logs(&world));
}

#[tokio::test]
async fn a_server_that_stands_still_for_five_seconds_costs_nothing_but_time() {
    let server = Postgres::start().unwrap();
    let url = server.create_database("frozen").unwrap();
    let mut world = World::on(url, "frozen", Duration::from_millis(20)).await;
    world.join("two").await;
    world.shared_by(0, 2).await;
    let rebalances = async |world: &World| {
        let mut sum = 0.0;
        for daemon in &world.daemons {
            sum += daemon.metric("callbackd_rebalances_total").await.unwrap();
        }
        sum
    };
    let before = rebalances(&world).await;
    world.produce(0, 300);
    until("callbacks are under way", async || (world.receiver.count() > 50).then_some(())).await;
    server.freeze();
    let frozen = std::time::Instant::now();
    world.produce(300, 100);
    until("the time is over", async || (frozen.elapsed() >= FROZEN).then_some(())).await;
    // Ids without a time are claimed in the store before anything is sent, so the last events can't all have arrived.
    assert!(world.receiver.count() < 400, "the server did not stand still");
    server.thaw();
    world.all_arrive(400).await;
    assert_eq!(rebalances(&world).await, before, "no member was evicted: {}", logs(&world));
    assert!(world.repeats().is_empty(), "{} repeats: {}", world.repeats().len(), logs(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_daemon_that_only_its_server_still_sees_is_not_its_own_rival() {
    let server = crate::postgres::server();
    let database = crate::postgres::database();
    let wire = Wire::start(server.port()).await.unwrap();
    let url = format!("postgres://callbackd@127.0.0.1:{}/{}", wire.port(), database.rsplit('/').next().unwrap());
    let mut world = World::on(url, "stranded", Duration::from_millis(5)).await;
    world.join("blue").await;
    world.shared_by(0, 2).await;
    world.produce(0, 100);
    wire.strand();
    world.produce(100, 100);
    until("it waits for its server to notice", async || {
        world.daemons[1].log_text().contains("the server has not noticed yet").then_some(())
    })
    .await;
    world.all_arrive(200).await;
    assert!(!logs(&world).contains("begins anew"), "{}", logs(&world));
    assert!(world.repeats().is_empty(), "{} repeats: {}", world.repeats().len(), logs(&world));
}
