//! Commits that PostgreSQL acknowledges though not all the disks have them that it was told to wait for.

use std::sync::Arc;

use callbackd::base::clock::ManualClock;
use callbackd::model::attempt::Outcome;
use callbackd::model::retry::Next;
use callbackd::store::{self, Batch, Config, StoreError, Stores};
use callbackd_bench::postgres::Postgres;

use super::engine::{facts, partition, settle};
use super::{OPTIONS, START, take};

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
