//! On PostgreSQL, ended callbacks and attempts are divided by days: made ahead, dropped as a whole, and what is still needed stays.

use std::sync::Arc;
use std::time::Duration;

use callbackd::base::clock::{Clock as _, ManualClock, Timestamp};
use callbackd::deliver::resolve::queue_of;
use callbackd::model::attempt::{Attempt, Outcome};
use callbackd::model::callback::{CallbackId, EventKey};
use callbackd::model::lease::{Facts, Token};
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::{Change, Settle};
use callbackd::store::reads::{CallbackFilter, Page};
use callbackd::store::{self, Batch, Config, InstanceId, PruneAsk, Pruned, SpaceAsk, Stores};

use super::engine::{attempt, facts, partition};
use super::rounds::resend;
use super::{OPTIONS, START, database, take};
use crate::postgres;

const DAY: Duration = Duration::from_secs(86_400);

struct World {
    stores: Stores,
    clock: Arc<ManualClock>,
    instance: InstanceId,
    epoch: i64,
    number: u64,
    database: String,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let config = database();
        let Config::Postgres(url) = &config else { unreachable!() };
        let database = url.to_string().rsplit('/').next().unwrap().to_owned();
        let stores = store::open(&config, OPTIONS, Arc::clone(&clock) as _).await.unwrap();
        let instance = stores.engine.begin().await.unwrap().instance;
        let epoch = take(&*stores.engine, instance, partition()).await.epoch;
        Self { stores, clock, instance, epoch, number: 0, database }
    }

    async fn settle(&mut self, event: &str, at: Timestamp, outcome: Outcome, next: Next) -> CallbackId {
        let facts = Arc::new(Facts { id: id(event, at), ..(*facts(1)).clone() });
        let (id, epoch) = (facts.id, Some(self.epoch));
        let settle = Settle {
            facts,
            token: Token(7),
            epoch,
            url: None,
            body: bytes::Bytes::from_static(b"{\"task\":{}}"),
            number: 1,
            attempt: Attempt { begun_at: self.clock.now(), ..attempt(outcome) },
            next,
        };
        self.number += 1;
        let changes = vec![Change::Settle(Box::new(settle))];
        let batch = Batch { instance: self.instance, number: self.number, changes, watermarks: Vec::new() };
        self.stores.engine.write(Arc::new(batch)).await.unwrap();
        id
    }

    /// The tables that hold these days, with their numbers of rows.
    fn tables(&self, of: &str) -> Vec<String> {
        let sql = format!(
            "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname ~ '^{of}_([0-9]{{8}}|other)$'"
        );
        let found = postgres::server().sql(&self.database, &sql).unwrap();
        found.split_whitespace().map(str::to_owned).collect()
    }

    fn rows(&self, table: &str) -> u32 {
        postgres::server().sql(&self.database, &format!("SELECT count(*) FROM {table}")).unwrap().parse().unwrap()
    }

    async fn prune(&self, keep: Duration) -> Pruned {
        let now = self.clock.now();
        let before = now.minus(keep);
        let ask = PruneAsk {
            now,
            settled_before: before,
            after: None,
            dead_letters_before: before,
            event_ids_before: before,
            at_most: 1_000,
        };
        self.stores.engine.prune(ask).await.unwrap()
    }

    async fn has(&self, id: CallbackId) -> bool {
        self.stores.reads.rows(id).await.unwrap().settled.is_some()
    }
}

fn id(event: &str, at: Timestamp) -> CallbackId {
    CallbackId::of("team_a", EventKey::Id(event), at.millis())
}

/// START is 2025-11-24, 16:00 UTC.
#[tokio::test]
async fn days_are_made_ahead_and_old_ones_go_with_all_but_what_is_needed() {
    let mut world = World::new().await;
    world.stores.engine.sweep(queue_of).await.unwrap();
    let days = ["settled_20251124", "settled_20251125", "settled_20251126", "settled_20251127", "settled_other"];
    assert_eq!(world.tables("settled"), days);
    assert_eq!(world.tables("attempt").len(), 5);
    // Each row is in the table of its day, wherever its time lies.
    let delivered = world.settle("delivered", START, Outcome::Ok, Next::Delivered).await;
    let failed = world.settle("failed", START, Outcome::Gone, Next::Abandoned(Reason::Gone)).await;
    let resent = world.settle("resent", START, Outcome::Gone, Next::Abandoned(Reason::Gone)).await;
    let old = world.settle("old", Timestamp::from_millis(0), Outcome::Ok, Next::Delivered).await;
    let ahead = world.settle("ahead", START.plus(DAY * 400), Outcome::Ok, Next::Delivered).await;
    assert_eq!(
        (world.rows("settled_20251124"), world.rows("settled_other"), world.rows("attempt_20251124")),
        (3, 2, 2)
    );
    for id in [delivered, failed, resent, old, ahead] {
        assert!(world.has(id).await);
        assert!(world.stores.engine.known(vec![id, delivered]).await.unwrap().iter().all(Option::is_some));
    }
    let listed =
        world.stores.reads.callbacks(CallbackFilter::default(), Page { before: None, limit: 10 }).await.unwrap();
    let ids: Vec<_> = listed.docs.iter().map(|(id, _)| *id).collect();
    let mut expected = vec![delivered, failed, resent, old, ahead];
    expected.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(ids, expected, "newest first over all days");
    assert!(world.stores.engine.space(SpaceAsk::BYTES).await.unwrap().kept_bytes > 0, "bodies of what failed are kept");

    // A callback of the first day settles a week later, and one is sent again and waits.
    let week = DAY * 7;
    world.clock.advance(week);
    let late = world.settle("late", START, Outcome::Ok, Next::Delivered).await;
    world.stores.engine.amend(vec![(resent, resend())]).await.unwrap();
    assert!(!world.prune(DAY * 8).await.more_days, "no day is old enough");
    let pruned = world.prune(DAY * 5).await;
    assert!(pruned.more_days, "the kept bodies of the day go first");
    assert!(world.prune(DAY * 5).await.more_days, "then the day");
    assert!(!world.tables("settled").contains(&days[0].to_owned()) && world.tables("attempt").len() == 4);
    for (id, is_there) in [(delivered, false), (failed, false), (resent, true), (late, true)] {
        assert_eq!(world.has(id).await, is_there, "{id}");
        assert_eq!(world.stores.reads.attempts(id).await.unwrap().len(), usize::from(id == resent), "{id}");
    }
    assert_eq!(world.stores.reads.body(failed).await.unwrap(), None);
    assert!(world.stores.reads.body(resent).await.unwrap().is_some(), "what is under way again keeps its body");
    while world.prune(DAY * 5).await.more_days {}
    assert_eq!(world.tables("settled"), ["settled_20251126", "settled_20251127", "settled_other"], "not over yet");
    // Of the others, rows go one by one, and those of the future by when they settled.
    world.prune(DAY * 5).await;
    assert!(!world.has(old).await && !world.has(ahead).await && world.has(resent).await && world.has(late).await);
    assert_eq!(world.stores.engine.space(SpaceAsk::BYTES).await.unwrap().kept_bytes, 0);
    // Days that nobody made are made now, and what came before is moved to them.
    let today = world.settle("today", START.plus(week), Outcome::Ok, Next::Delivered).await;
    world.stores.engine.sweep(queue_of).await.unwrap();
    assert_eq!(
        world.tables("settled"),
        [
            "settled_20251126",
            "settled_20251127",
            "settled_20251201",
            "settled_20251202",
            "settled_20251203",
            "settled_20251204",
            "settled_other"
        ]
    );
    assert!(world.has(today).await);
    assert_eq!((world.rows("settled_20251201"), world.rows("settled_other")), (1, 2), "two are still needed");
}

/// One producer whose clock is ahead leaves a row of each day before the day is made.
#[tokio::test]
async fn what_came_before_its_day_was_made_is_moved_to_it() {
    let mut world = World::new().await;
    world.stores.engine.sweep(queue_of).await.unwrap();
    let early = world.settle("early", START.plus(DAY * 5), Outcome::Gone, Next::Abandoned(Reason::Gone)).await;
    assert_eq!((world.rows("settled_other"), world.rows("attempt_other")), (1, 1));
    world.clock.advance(DAY * 2);
    world.stores.engine.sweep(queue_of).await.unwrap();
    assert_eq!((world.rows("settled_20251129"), world.rows("attempt_20251129")), (1, 1));
    assert_eq!((world.rows("settled_other"), world.rows("attempt_other")), (0, 0));
    assert!(world.has(early).await && world.stores.reads.attempts(early).await.unwrap().len() == 1);
    // The day is like all others: it goes with what is old.
    world.settle("beside", START.plus(DAY * 5), Outcome::Ok, Next::Delivered).await;
    assert_eq!(world.rows("settled_20251129"), 2);
    world.clock.advance(DAY * 10);
    while world.prune(DAY * 3).await.more_days {}
    assert_eq!(world.tables("settled"), ["settled_other"]);
    assert!(!world.has(early).await);
}

/// A day of which many rows are still needed stays, and the later ones go.
#[tokio::test]
async fn a_day_that_many_need_keeps_no_later_day() {
    let mut world = World::new().await;
    world.stores.engine.sweep(queue_of).await.unwrap();
    world.settle("first", START, Outcome::Ok, Next::Delivered).await;
    world.settle("second", START.plus(DAY), Outcome::Ok, Next::Delivered).await;
    world.clock.advance(DAY * 8);
    let sql = format!(
        "INSERT INTO settled SELECT (jsonb_populate_record(one, jsonb_build_object(
             'id', left(replace(one.id::text, '-', ''), 12) || lpad(to_hex(n), 20, '0'), 'settled_at', {}))).*
         FROM settled_20251124 AS one, generate_series(1, 10001) AS n",
        world.clock.now().millis()
    );
    postgres::server().sql(&world.database, &sql).unwrap();
    while world.prune(DAY * 5).await.more_days {}
    assert_eq!(world.tables("settled"), ["settled_20251124", "settled_20251127", "settled_other"]);
}

/// Whoever makes or drops a day locks the whole table and then the other rows. Pruning locks in the same order, or each would wait for
/// the other, and everybody else behind them.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_locks_nothing_before_the_tables_that_a_new_day_locks_first() {
    let mut world = World::new().await;
    world.settle("old", Timestamp::from_millis(0), Outcome::Ok, Next::Delivered).await;
    world.clock.advance(DAY * 2);
    let database = world.database.clone();
    let maker = std::thread::spawn(move || {
        let sql = "SET statement_timeout = '20s'; SET lock_timeout = '2s'; BEGIN;
                   LOCK TABLE ONLY settled IN ACCESS EXCLUSIVE MODE;
                   DO $$ BEGIN
                       WHILE NOT EXISTS (SELECT 1 FROM pg_locks WHERE relation = 'settled'::regclass AND NOT granted)
                       LOOP PERFORM pg_sleep(0.005); END LOOP;
                   END $$;
                   LOCK TABLE settled_other IN ACCESS EXCLUSIVE MODE;
                   COMMIT";
        postgres::server().sql(&database, sql)
    });
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'settled'::regclass AND granted";
    let is_held = async || (postgres::server().sql(&world.database, held).unwrap() == "1").then_some(());
    crate::harness::until("the whole table is locked", is_held).await;
    let pruned = world.prune(DAY).await;
    maker.join().unwrap().expect("it got its second lock");
    assert_eq!(pruned.settled, 1);
}

/// A look at all pending rows may take too long. Days are made ahead nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn days_are_made_although_the_pending_rows_can_not_be_looked_at() {
    let world = World::new().await;
    let url = postgres::server().url(&world.database);
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE body IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.clock.advance(DAY * 2);
    assert!(world.stores.engine.sweep(queue_of).await.is_err(), "it can't see the bodies");
    assert!(world.tables("settled").contains(&"settled_20251129".to_owned()), "{:?}", world.tables("settled"));
    drop(client);
    connection.await.unwrap().unwrap();
    world.stores.engine.sweep(queue_of).await.unwrap();
}
