//! What a batch leaves on PostgreSQL if its commit is in doubt, or if one of its statements fails although COMMIT was sent with it.

use std::sync::Arc;

use callbackd::base::clock::ManualClock;
use callbackd::model::attempt::Outcome;
use callbackd::model::lease::Facts;
use callbackd::model::retry::Next;
use callbackd::model::settlement::Change;
use callbackd::store::{self, Batch, Config, StoreError, Stores};
use callbackd_bench::postgres::Postgres;

use super::engine::{facts, park, partition, raised, retry, settle};
use super::sweeps::{session, until_somebody_waits};
use super::versions::World;
use super::{OPTIONS, START, database, take};
use crate::postgres;

#[tokio::test]
async fn a_commit_whose_wait_for_a_standby_was_cancelled_is_in_doubt_until_one_of_ours_waited() {
    let server = Postgres::start().unwrap();
    let config = Config::Postgres(Box::new(server.create_database("d").unwrap().parse().unwrap()));
    let Stores { engine, reads, .. } = store::open(&config, OPTIONS, Arc::new(ManualClock::new(START))).await.unwrap();
    let instance = engine.begin().await.unwrap().instance;
    let epoch = take(&*engine, instance, partition()).await.epoch;
    let standby = |set: &str| {
        server.sql("d", &format!("ALTER SYSTEM {set}")).unwrap();
        server.sql("d", "SELECT pg_reload_conf()").unwrap();
    };
    standby("SET synchronous_standby_names = '*'");
    let changes = vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)];
    let batch = Arc::new(Batch { instance, number: 1, changes, watermarks: Vec::new() });
    let write = || {
        let (engine, batch) = (Arc::clone(&engine), Arc::clone(&batch));
        tokio::spawn(async move { engine.write(batch).await })
    };
    let first = write();
    // Each commit that it makes waits; the batch's own is the last one.
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    crate::harness::until("the batch's commit is cancelled", async || {
        server.sql("d", cancel).unwrap();
        first.is_finished().then_some(())
    })
    .await;
    let error = first.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Uncertain(_)), "{error}");
    // The same batch is found applied, and that counts only after a commit that waits as well.
    let second = write();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let waits = async || (server.sql("d", waiting).unwrap() == "1").then_some(());
    crate::harness::until("its commit waits for a standby", waits).await;
    assert!(!second.is_finished());
    standby("RESET synchronous_standby_names");
    second.await.unwrap().unwrap();
    assert!(reads.rows(facts(1).id).await.unwrap().settled.is_some());
}

#[tokio::test]
async fn a_batch_of_which_one_change_is_refused_leaves_nothing() {
    let config = database();
    let Config::Postgres(url) = &config else { unreachable!("a database") };
    let name = url.to_string().rsplit('/').next().unwrap().to_owned();
    let sql = |statement: &str| postgres::server().sql(&name, statement).unwrap();
    let Stores { engine, .. } = store::open(&config, OPTIONS, Arc::new(ManualClock::new(START))).await.unwrap();
    let instance = engine.begin().await.unwrap().instance;
    let epoch = take(&*engine, instance, partition()).await.epoch;
    let write = async |number: u64, changes: Vec<Change>| {
        let watermarks = if number == 1 { vec![] } else { vec![raised(epoch, 9)] };
        engine.write(Arc::new(Batch { instance, number, changes, watermarks })).await
    };
    write(1, vec![park(1, Some(7), epoch)]).await.unwrap();
    sql("UPDATE pending SET attempts = 2147483647");
    let good = settle(2, 7, Some(epoch), Outcome::Ok, Next::Delivered);
    // The server refuses this text.
    let Change::Settle(mut text) = settle(4, 7, Some(epoch), Outcome::Ok, Next::Delivered) else { unreachable!() };
    text.facts = Arc::new(Facts { event_type: "a\0b".into(), ..Facts::clone(&text.facts) });
    // This number does not fit its column, so its statement can't even be sent.
    let number = settle(1, 7, None, Outcome::ServerError, retry());
    for bad in [Change::Settle(text), number] {
        let error = write(2, vec![good.clone(), bad]).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
        let left = "SELECT (SELECT batch FROM instance), (SELECT count(*) FROM settled),
                           (SELECT watermark FROM partition_offsets), (SELECT attempts FROM pending)";
        assert_eq!(sql(left), "1|0|0|2147483647");
    }
    write(2, vec![good]).await.unwrap();
    assert_eq!(sql("SELECT batch FROM instance"), "2");
}

/// Pending rows are locked before settled ones. What a round has become meanwhile is seen all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_is_opened_while_a_late_attempt_waits_for_its_row_has_that_attempt() {
    let world = World::new("postgres");
    let one = Arc::new(world.begin().await);
    let exhausted = settle(1, 7, Some(one.epoch), Outcome::ServerError, Next::Exhausted);
    one.write(1, vec![exhausted, park(2, None, one.epoch)]).await;
    let (client, looker) = (session(&world).await, session(&world).await);
    client.batch_execute("BEGIN; SELECT FROM settled FOR UPDATE").await.unwrap();
    let late = {
        let one = Arc::clone(&one);
        tokio::spawn(async move { one.write(2, vec![settle(1, 9, None, Outcome::ServerError, retry())]).await })
    };
    until_somebody_waits(&looker).await;
    let opened = "INSERT INTO pending SELECT (jsonb_populate_record(
                      other, jsonb_build_object('id', settled.id, 'round', 1, 'attempts', 1))).*
                  FROM pending AS other, settled;
                  UPDATE settled SET round = 1; COMMIT";
    client.batch_execute(opened).await.unwrap();
    late.await.unwrap();
    let rows = one.stores.reads.rows(facts(1).id).await.unwrap();
    assert_eq!((rows.pending.unwrap().progress.attempts, rows.settled.unwrap().attempts), (2, 1));
}
