//! What several instances on one store see of each other: who lives, who has a partition, and what becomes of writes that meet.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use callbackd::base::clock::{Clock, ManualClock};
use callbackd::model::attempt::Outcome;
use callbackd::model::retry::Next;
use callbackd::model::settlement::{Change, Ended, Verdict};
use callbackd::store::reads::InstanceEnd;
use callbackd::store::{
    self, Applied, Batch, Config, EventClaim, InstanceId, OpenError, Options, PartitionWatermark, StoreError, Stores,
    Take, TakeAsk,
};

use super::engine::{LEASE, facts, park, partition, retry, settle};
use super::{OPTIONS, START, database, take};
use crate::postgres;

const PATIENCE: Duration = Duration::from_secs(20);

/// Processes that share a database. Each has pools and locks of its own.
struct World {
    config: Config,
    clock: Arc<ManualClock>,
}

struct One {
    stores: Stores,
    instance: InstanceId,
}

impl World {
    fn new() -> Self {
        Self { config: database(), clock: Arc::new(ManualClock::new(START)) }
    }

    async fn open(&self, options: Options) -> Result<Stores, OpenError> {
        store::open(&self.config, options, Arc::clone(&self.clock) as Arc<dyn Clock>).await
    }

    async fn begin(&self) -> One {
        let stores = self.open(OPTIONS).await.unwrap();
        let instance = stores.engine.begin().await.unwrap().instance;
        One { stores, instance }
    }

    fn database(&self) -> String {
        let Config::Postgres(url) = &self.config else { unreachable!("a database") };
        url.to_string().rsplit('/').next().unwrap().to_owned()
    }

    fn sql(&self, sql: &str) -> String {
        postgres::server().sql(&self.database(), sql).unwrap()
    }
}

impl One {
    async fn ask(&self) -> Take {
        let ask = TakeAsk { instance: self.instance, partition: partition(), patience: PATIENCE };
        self.stores.engine.take(ask).await.unwrap()
    }

    async fn epoch(&self) -> i64 {
        take(&*self.stores.engine, self.instance, partition()).await.epoch
    }

    async fn write(&self, number: u64, changes: Vec<Change>, watermarks: Vec<PartitionWatermark>) -> Applied {
        self.stores.engine.write(self.batch(number, changes, watermarks)).await.unwrap()
    }

    fn batch(&self, number: u64, changes: Vec<Change>, watermarks: Vec<PartitionWatermark>) -> Arc<Batch> {
        Arc::new(Batch { instance: self.instance, number, changes, watermarks })
    }

    async fn wanted(&self) -> usize {
        self.stores.engine.pulse(self.instance, 0).await.unwrap().wanted.len()
    }

    /// The epochs that the store says are this instance's.
    async fn epochs(&self) -> Vec<i64> {
        self.stores.engine.pulse(self.instance, 0).await.unwrap().epochs.unwrap().into_values().collect()
    }
}

#[tokio::test]
async fn an_owner_that_lives_is_asked_first_and_has_its_time() {
    let world = World::new();
    let (a, b) = (world.begin().await, world.begin().await);
    let epoch = a.epoch().await;
    assert_eq!(a.wanted().await, 0);
    assert!(matches!(b.ask().await, Take::Held { owner } if owner == a.instance));
    assert_eq!((a.wanted().await, b.wanted().await), (1, 0));
    // It gives the partition up: the other one has it at once.
    a.stores.engine.release(a.instance, vec![(partition(), epoch)]).await.unwrap();
    let Take::Taken(taken) = b.ask().await else { panic!("nobody has it") };
    assert_eq!((taken.epoch, taken.deaths), (epoch + 1, 0));
    assert_eq!((a.wanted().await, b.wanted().await), (0, 0));
    // An owner that does not answer loses it after its time, and a partition that is asked for again has a new time.
    assert!(matches!(a.ask().await, Take::Held { .. }));
    world.clock.advance(PATIENCE - Duration::from_millis(1));
    assert!(matches!(a.ask().await, Take::Held { .. }));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!((a.epochs().await, b.epochs().await), (vec![], vec![epoch + 1]));
    assert!(matches!(a.ask().await, Take::Taken(_)));
    assert_eq!((a.epochs().await, b.epochs().await), (vec![epoch + 2], vec![]), "it hears that it has lost it");
    assert!(matches!(b.ask().await, Take::Held { .. }));
    // A late release under an old epoch gives nothing back.
    b.stores.engine.release(b.instance, vec![(partition(), epoch + 1)]).await.unwrap();
    assert!(matches!(b.ask().await, Take::Held { .. }));
}

#[tokio::test]
async fn a_dead_owner_is_not_waited_for_and_its_death_counts() {
    let world = World::new();
    let (a, b) = (world.begin().await, world.begin().await);
    a.epoch().await;
    drop(a);
    let taken = crate::harness::until("the server notices the end", async || match b.ask().await {
        Take::Taken(taken) => Some(taken),
        Take::Held { .. } => None,
    })
    .await;
    assert_eq!(taken.deaths, 1);
}

#[tokio::test]
async fn instances_are_listed_as_they_are_and_hear_of_each_other() {
    let world = World::new();
    let named = Options { name: Some("blue".into()), ..OPTIONS };
    let a = world.open(named.clone()).await.unwrap();
    let first = a.engine.begin().await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    let b = world.begin().await;
    take(&*a.engine, first.instance, partition()).await;
    let pulse = b.stores.engine.pulse(b.instance, 0).await.unwrap();
    assert_eq!(pulse.others, std::slice::from_ref(&first.run), "it lives");
    assert!(pulse.now.unwrap() > START, "the database has a clock of its own");
    world.clock.advance(Duration::from_secs(1));
    let error = world.open(named.clone()).await.err().unwrap();
    assert!(matches!(&error, OpenError::NameInUse { name, .. } if name == "blue") && error.may_pass(), "{error}");
    let shown = async || b.stores.reads.instances(9).await.unwrap();
    let rows = shown().await;
    let seen: Vec<_> = rows.iter().map(|row| (row.id, row.end, row.name.as_deref(), row.partitions)).collect();
    assert_eq!(seen, [(b.instance.0, None, None, 0), (first.instance.0, None, Some("blue"), 1)]);
    assert!(rows.iter().all(|row| row.host.is_some() && row.version.is_some()));
    assert_eq!(rows[0].seen_at.since(rows[0].started_at), Duration::ZERO);
    b.stores.engine.pulse(b.instance, 0).await.unwrap();
    assert_eq!(shown().await[0].seen_at.since(START), Duration::from_secs(2), "a pulse is a sign of life");
    drop(a);
    crate::harness::until("the first one is seen to have died", async || {
        (shown().await[1].end == Some(InstanceEnd::Died)).then_some(())
    })
    .await;
    let again = world.open(named).await.unwrap();
    assert!(again.engine.begin().await.unwrap().unclean, "its name is free, and it did not end well");
    let runs: HashSet<String> = b.stores.engine.pulse(b.instance, 0).await.unwrap().others.into_iter().collect();
    assert_eq!(runs.len(), 1, "the one that died began before this one: {runs:?}");
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_answered_as_the_first_time() {
    let world = World::new();
    let (a, b) = (world.begin().await, world.begin().await);
    let epoch = a.epoch().await;
    a.write(1, vec![park(1, Some(7), epoch)], vec![]).await;
    let released = |n| super::engine::raised(epoch, n);
    // The partition goes to another one: what this batch brings is refused, but a settle by its token counts.
    world.clock.advance(PATIENCE);
    assert!(matches!(b.ask().await, Take::Held { .. }));
    world.clock.advance(PATIENCE);
    let taken = b.epoch().await;
    let changes = vec![
        park(2, None, epoch),
        settle(3, 8, Some(epoch), Outcome::ServerError, retry()),
        settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered),
    ];
    let batch = a.batch(2, changes, vec![released(9)]);
    let first = a.stores.engine.write(Arc::clone(&batch)).await.unwrap();
    assert_eq!(first.verdicts, [Verdict::Nothing, Verdict::Nothing, Verdict::Ended(Ended::Delivered)]);
    assert_eq!(first.lost, [(partition(), epoch)]);
    // Meanwhile others write the same callbacks.
    b.write(1, vec![park(2, None, taken), settle(3, 9, Some(taken), Outcome::Ok, Next::Delivered)], vec![]).await;
    let again = a.stores.engine.write(batch).await.unwrap();
    assert_eq!((again.verdicts, again.lost), (first.verdicts, first.lost));
    assert_eq!(b.stores.reads.offsets().await.unwrap()[0].watermark.upto, 0);
}

#[tokio::test]
async fn an_instance_that_the_store_does_not_know_as_it_is_must_begin_anew() {
    let world = World::new();
    let a = world.begin().await;
    let epoch = a.epoch().await;
    a.write(1, vec![park(1, None, epoch)], vec![]).await;
    a.write(2, vec![park(2, None, epoch)], vec![]).await;
    // The database goes back: the second batch is not there any more.
    world.sql("UPDATE instance SET batch = 1; DELETE FROM body; DELETE FROM pending");
    let error = a.stores.engine.write(a.batch(4, vec![park(4, None, epoch)], vec![])).await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded(_)), "{error}");
    assert_eq!(world.sql("SELECT count(*) FROM pending"), "0", "nothing was written");
    a.stores.engine.pulse(a.instance, 1).await.unwrap();
    let error = a.stores.engine.pulse(a.instance, 2).await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded(_)), "{error}");
    world.sql("DELETE FROM instance");
    let error = a.stores.engine.pulse(a.instance, 0).await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded(_)), "{error}");
    // It begins anew, on the same connections.
    let instance = a.stores.engine.begin().await.unwrap().instance;
    let anew = One { instance, ..a };
    let epoch = anew.epoch().await;
    anew.write(1, vec![park(4, None, epoch)], vec![]).await;
    assert_eq!(world.sql("SELECT count(*) FROM pending"), "1");
}

#[tokio::test]
async fn two_instances_that_write_the_same_callbacks_at_once_leave_one_row_of_each() {
    let world = World::new();
    let (a, b) = (world.begin().await, world.begin().await);
    let epoch = a.epoch().await;
    // Late settles need no epoch. Each callback gets a failure and a success, from both, in opposite orders.
    a.write(1, (0..40).map(|n| park(n, Some(7), epoch)).collect(), vec![]).await;
    let changes = |reversed: bool| {
        let mut all: Vec<Change> = Vec::new();
        for n in 0..40 {
            all.push(settle(n, 90, None, Outcome::ServerError, retry()));
            all.push(settle(100 + n, 91, None, Outcome::Ok, Next::Delivered));
        }
        if reversed {
            all.reverse();
        }
        all
    };
    for number in 2..12 {
        let (of_a, of_b) = tokio::join!(
            a.stores.engine.write(a.batch(number, changes(false), vec![])),
            b.stores.engine.write(b.batch(number - 1, changes(true), vec![])),
        );
        of_a.unwrap();
        of_b.unwrap();
    }
    for n in 0..40 {
        let rows = a.stores.reads.rows(facts(n).id).await.unwrap();
        assert_eq!(rows.pending.unwrap().progress.attempts, 20, "every late failure counts once");
        let rows = a.stores.reads.rows(facts(100 + n).id).await.unwrap();
        assert_eq!((rows.settled.unwrap().attempts, rows.pending), (20, None), "and every late success");
    }
}

#[tokio::test]
async fn leases_end_once_whoever_looks() {
    let world = World::new();
    let (a, b) = (world.begin().await, world.begin().await);
    let epoch = a.epoch().await;
    a.write(1, (0..30).map(|n| park(n, Some(7), epoch)).collect(), vec![]).await;
    drop(a);
    assert_eq!(b.stores.engine.free_leases(LEASE).await.unwrap(), 0);
    world.clock.advance(LEASE);
    let c = world.begin().await;
    let (of_b, of_c) = tokio::join!(b.stores.engine.free_leases(LEASE), c.stores.engine.free_leases(LEASE));
    assert_eq!(of_b.unwrap() + of_c.unwrap(), 30);
}

#[tokio::test]
async fn after_a_failover_no_lease_ends_early_also_for_those_who_come_later() {
    let world = World::new();
    let a = world.begin().await;
    let epoch = a.epoch().await;
    a.write(1, vec![park(1, Some(7), epoch)], vec![]).await;
    world.clock.advance(LEASE);
    // Another server is the primary now. Nobody of those who ran before is left.
    world.sql("UPDATE store SET timeline = '0000000F'");
    drop(a);
    let (b, c) = (world.begin().await, world.begin().await);
    for one in [&b, &c] {
        assert_eq!(one.stores.engine.free_leases(LEASE).await.unwrap(), 0);
    }
    // A failover of long ago concerns no lease.
    world.clock.advance(Duration::from_secs(3_600));
    let d = world.begin().await;
    assert_eq!(d.stores.engine.free_leases(LEASE).await.unwrap(), 1);
}

#[tokio::test]
async fn a_batch_without_a_watermark_waits_for_a_take_and_is_fenced() {
    let world = World::new();
    let a = world.begin().await;
    let epoch = a.epoch().await;
    // Another one takes the partition, and its transaction is not over yet.
    let url = postgres::server().url(&world.database());
    let (taker, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    taker.batch_execute("BEGIN; UPDATE partition_offsets SET epoch = epoch + 1, owner = NULL").await.unwrap();
    let engine = Arc::clone(&a.stores.engine);
    let batch = a.batch(1, vec![park(1, None, epoch)], vec![]);
    let writing = tokio::spawn(async move { engine.write(batch).await });
    let waits =
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))";
    crate::harness::until("the batch waits for the take", async || {
        taker.query_one(waits, &[]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
    taker.batch_execute("COMMIT").await.unwrap();
    let applied = writing.await.unwrap().unwrap();
    assert_eq!((applied.verdicts, applied.lost), (vec![Verdict::Nothing], vec![(partition(), epoch)]));
    assert_eq!(world.sql("SELECT count(*) FROM pending"), "0");
}

#[tokio::test]
async fn an_event_id_that_is_pruned_while_it_is_claimed_is_claimed_again() {
    let world = World::new();
    let a = world.begin().await;
    let claim = async |n: u32| {
        let claims = vec![EventClaim { hash: [1; 32], id: facts(n).id }];
        a.stores.engine.claim_event_ids(claims).await.unwrap()
    };
    assert_eq!(claim(1).await, [facts(1).id]);
    // Once, the claim that is there goes after the insert has found it and before it is read.
    world.sql(
        "CREATE SEQUENCE looks;
         CREATE FUNCTION prune_once() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('looks') = 1 THEN DELETE FROM dedupe; END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER prune AFTER INSERT ON dedupe FOR EACH STATEMENT EXECUTE FUNCTION prune_once()",
    );
    assert_eq!(claim(2).await, [facts(1).id]);
    assert_eq!(world.sql("SELECT last_value FROM looks"), "2");
}
