//! What a sweep puts right of the rows of queues, and what it leaves alone.

use std::time::Duration;

use callbackd::base::clock::Timestamp;
use callbackd::deliver::resolve::queue_of;
use callbackd::model::attempt::Outcome;
use callbackd::model::retry::Next;
use callbackd::store::{Config, SetBack, SpaceAsk};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::START;
use super::engine::{park, settle};
use super::versions::{One, STORES, World, numbers};
use crate::harness::until;

/// A second session on the database of a world.
pub(super) async fn session(world: &World) -> Client {
    let Config::Postgres(url) = &world.config else { unreachable!("a world on PostgreSQL") };
    let (client, connection) = tokio_postgres::connect(&url.to_string(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn parked(one: &One) -> u64 {
    one.stores.engine.space(SpaceAsk::BYTES).await.unwrap().parked_bytes
}

/// A sweep that runs beside its test.
fn sweep(one: &One) -> JoinHandle<Result<(), callbackd::store::StoreError>> {
    let engine = std::sync::Arc::clone(&one.stores.engine);
    tokio::spawn(async move { engine.sweep(queue_of).await })
}

pub(super) async fn until_somebody_waits(client: &Client) {
    until("it waits for the lock", async || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sweep_puts_right_what_a_queue_says_of_its_rows() {
    for name in STORES {
        let world = World::new(name);
        let one = world.begin().await;
        one.write(1, vec![park(1, None, one.epoch), park(2, None, one.epoch)]).await;
        let bytes = parked(&one).await;
        for drift in ["parked_bytes + 7", "parked_bytes - 1", "0"] {
            world.sql(&format!("UPDATE queue SET parked_bytes = {drift}, next_at = NULL"));
            one.stores.engine.sweep(queue_of).await.unwrap();
            assert_eq!(parked(&one).await, bytes, "{name}: {drift}");
        }
        assert_eq!(numbers(&one.claim().await), [1, 2], "{name}");
    }
}

#[tokio::test]
async fn the_bytes_of_a_row_that_a_claim_drops_are_given_back() {
    for name in STORES {
        let world = World::new(name);
        let one = world.begin().await;
        let delivered = settle(2, 7, Some(one.epoch), Outcome::Ok, Next::Delivered);
        one.write(1, vec![park(1, None, one.epoch), delivered]).await;
        assert!(parked(&one).await > 0, "{name}");
        world.sql("UPDATE settled SET id = (SELECT id FROM pending)");
        assert_eq!(numbers(&one.claim().await), [0_i64; 0], "{name}: it has ended");
        assert_eq!(parked(&one).await, 0, "{name}");
    }
}

/// Queues with rows that are overdue, because there is no room or because they are paused, are as they should be. A sweep that locked
/// them would make every batch wait that changes them.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_locks_no_queue_that_is_as_a_claim_leaves_it() {
    let world = World::new("postgres");
    let one = world.begin().await;
    one.write(1, vec![park(1, None, one.epoch), park(2, None, one.epoch)]).await;
    // As a claim leaves it that passes the queue over.
    world.sql(&format!("UPDATE queue SET next_at = {}", START.plus(Duration::from_secs(3)).millis()));
    let client = session(&world).await;
    client.batch_execute("BEGIN; SELECT FROM queue FOR UPDATE").await.unwrap();
    one.stores.engine.sweep(queue_of).await.expect("it waits for nobody");
    client.batch_execute("ROLLBACK").await.unwrap();
}

/// What changes between the look and the repair stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_keeps_what_a_batch_has_added_meanwhile() {
    let world = World::new("postgres");
    let one = world.begin().await;
    one.write(1, vec![park(1, None, one.epoch)]).await;
    let bytes = parked(&one).await;
    world.sql("UPDATE queue SET parked_bytes = parked_bytes + 7");
    let (batch, looker) = (session(&world).await, session(&world).await);
    batch.batch_execute("BEGIN; UPDATE queue SET parked_bytes = parked_bytes + 100").await.unwrap();
    let sweep = sweep(&one);
    until_somebody_waits(&looker).await;
    batch.batch_execute("COMMIT").await.unwrap();
    sweep.await.unwrap().unwrap();
    assert_eq!(parked(&one).await, bytes + 100);
}

/// Whatever the database is set to, a statement sees what was committed before it, and not only what its transaction saw first.
#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_isolation_of_the_database_changes_nothing() {
    let world = World::new("postgres");
    let setting = session(&world).await;
    let name: String = setting.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    let sql = format!("ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'");
    setting.batch_execute(&sql).await.unwrap();
    let one = world.begin().await;
    let (turn, other) = (session(&world).await, session(&world).await);
    turn.batch_execute("SELECT pg_advisory_lock(x'63616c74'::integer, 6)").await.unwrap();
    let engine = std::sync::Arc::clone(&one.stores.engine);
    let back = SetBack { by: Duration::from_secs(60), now: Timestamp::from_millis(0), from: START };
    let waits = tokio::spawn(async move { engine.set_back(back).await });
    until_somebody_waits(&other).await;
    other.batch_execute("UPDATE instance SET heartbeat = heartbeat + 1").await.unwrap();
    turn.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    waits.await.unwrap().expect("it sees the change");
}
