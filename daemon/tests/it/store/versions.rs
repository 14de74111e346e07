//! Programs of several versions on one store: rows that this program can't read or send wait alone, and a store whose schema it does
//! not know well enough takes nothing of it.

use std::sync::Arc;
use std::time::Duration;

use callbackd::base::clock::{Clock, ManualClock};
use callbackd::model::attempt::Outcome;
use callbackd::model::callback::BUILDER;
use callbackd::model::lease::Facts;
use callbackd::model::retry::Next;
use callbackd::model::settlement::{Change, Ended, Verdict};
use callbackd::store::{
    self, Batch, Claimed, Config, InstanceId, OpenError, Programs, SetAside, StoreError, Stores, tools,
};

use super::engine::{claim_ask, facts, park, partition, retry, settle, subjects};
use super::{OPTIONS, START, database, take};
use crate::harness::until;
use crate::postgres;

pub(super) const STORES: [&str; 2] = ["sqlite", "postgres"];
/// A row that can't be read is looked at again after a minute.
const LATER: Duration = Duration::from_secs(61);

/// A store, and its tables.
pub(super) struct World {
    pub(super) config: Config,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

/// An instance that has the partition.
pub(super) struct One {
    pub(super) stores: Stores,
    instance: InstanceId,
    pub(super) epoch: i64,
}

impl World {
    pub(super) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = if name == "postgres" { database() } else { Config::Directory(folder.path().join("store")) };
        Self { config, clock: Arc::new(ManualClock::new(START)), _folder: folder }
    }

    async fn open(&self) -> Result<Stores, OpenError> {
        store::open(&self.config, OPTIONS, Arc::clone(&self.clock) as Arc<dyn Clock>).await
    }

    pub(super) async fn begin(&self) -> One {
        let stores = self.open().await.unwrap();
        let instance = stores.engine.begin().await.unwrap().instance;
        let epoch = take(&*stores.engine, instance, partition()).await.epoch;
        One { stores, instance, epoch }
    }

    pub(super) fn sql(&self, sql: &str) {
        match &self.config {
            Config::Directory(path) => {
                rusqlite::Connection::open(path.join("callbackd.db")).unwrap().execute_batch(sql).unwrap();
            }
            Config::Postgres(url) => {
                let url = url.to_string();
                postgres::server().sql(url.rsplit('/').next().unwrap(), sql).unwrap();
            }
        }
    }

    /// The store has migrations that this program does not know.
    fn becomes_newer(&self, oldest_writer: usize) {
        let version = match &self.config {
            Config::Directory(_) => "PRAGMA user_version = 99",
            Config::Postgres(_) => "UPDATE schema_version SET version = 99",
        };
        self.sql(&format!("{version}; UPDATE schema_version SET oldest_writer = {oldest_writer}"));
    }
}

impl One {
    pub(super) async fn write(&self, number: u64, changes: Vec<Change>) -> Vec<Verdict> {
        let batch = Batch { instance: self.instance, number, changes, watermarks: Vec::new() };
        self.stores.engine.write(Arc::new(batch)).await.unwrap().verdicts
    }

    pub(super) async fn claim(&self) -> Claimed {
        self.stores.engine.claim(claim_ask(self.instance)).await.unwrap()
    }
}

/// The offsets of claimed rows, which are their numbers.
pub(super) fn numbers(claimed: &Claimed) -> Vec<i64> {
    let mut numbers: Vec<_> = claimed.rows.iter().map(|(row, _)| row.facts.record.offset).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn a_row_that_can_not_be_read_waits_alone_and_is_told_of() {
    for name in STORES {
        let world = World::new(name);
        let one = world.begin().await;
        one.write(1, (1..=6).map(|n| park(n, None, one.epoch)).collect()).await;
        for (n, broken) in [
            (2, "last_outcome = 'of_a_later_version'"),
            (3, "builder = -1"),
            (4, "tries = -1"),
            (5, "partition_id = 999"),
        ] {
            world.sql(&format!("UPDATE pending SET {broken} WHERE off = {n}"));
        }
        let claimed = one.claim().await;
        assert_eq!(numbers(&claimed), [1, 6], "{name}");
        assert_eq!(claimed.set_aside, SetAside { unreadable: 4, unknown_builder: 0 }, "{name}");
        let again = one.claim().await;
        assert_eq!((again.rows.len(), again.set_aside), (0, SetAside::default()), "{name}: they wait");

        // What belongs to such a row is left out of a batch, and the rest of the batch is written.
        let first = claimed.rows.iter().find(|(row, _)| row.facts.record.offset == 1).unwrap();
        let token = first.0.token.unwrap().0;
        let changes = vec![
            settle(2, 90, None, Outcome::ServerError, retry()),
            settle(1, token, None, Outcome::Ok, Next::Delivered),
        ];
        assert_eq!(one.write(2, changes).await, [Verdict::Nothing, Verdict::Ended(Ended::Delivered)], "{name}");

        // One that can be read again is sent.
        world.sql("UPDATE pending SET last_outcome = NULL WHERE off = 2");
        world.clock.advance(LATER);
        let claimed = one.claim().await;
        assert_eq!((numbers(&claimed), claimed.set_aside.unreadable), (vec![2], 3), "{name}");

        drop(one);
        let wrong = until("the store is free", async || tools::verify(&world.config).await.ok()).await;
        let told = "3 pending callbacks that this program can't read; they wait";
        assert!(wrong.iter().any(|sentence| sentence == told), "{name}: {wrong:?}");
    }
}

/// A park whose body a builder of the next version has joined.
fn newer(n: u32, epoch: i64) -> Change {
    let Change::Park(mut park) = park(n, None, epoch) else { unreachable!("a park") };
    park.facts = Arc::new(Facts { builder: BUILDER + 1, ..Facts::clone(&park.facts) });
    Change::Park(park)
}

#[tokio::test]
async fn a_claim_passes_over_what_only_a_newer_program_can_send() {
    for mut subject in subjects().await {
        let (name, epoch) = (subject.name, subject.epoch);
        // They are due first, and more than a queue may give.
        let mut changes: Vec<_> = (1..=18).map(|n| newer(n, epoch)).collect();
        for n in [30, 31] {
            let Change::Park(mut later) = park(n, None, epoch) else { unreachable!("a park") };
            later.due = START.plus(Duration::from_millis(1));
            changes.push(Change::Park(later));
        }
        subject.write(changes, vec![]).await;
        subject.clock.advance(Duration::from_millis(2));
        let claimed = subject.store.claim(subject.ask()).await.unwrap();
        assert_eq!(numbers(&claimed), [30, 31], "{name}");
        assert!(claimed.set_aside.unknown_builder >= 16 && claimed.set_aside.unreadable == 0, "{name}");
        assert!(claimed.next_at.unwrap() > claimed.now, "{name}: they are not looked at all the time");
        subject.clock.advance(Duration::from_secs(1));
        let again = subject.store.claim(subject.ask()).await.unwrap();
        assert!(again.rows.is_empty() && again.set_aside.unknown_builder > 0, "{name}: but soon");
        let rows = subject.rows(facts(1).id).await.pending.unwrap();
        assert_eq!((rows.due, rows.token, rows.starts), (START, None, 0), "{name}: the row is as it was");
    }
}

#[tokio::test]
async fn a_newer_store_is_opened_unless_it_needs_a_newer_program() {
    for name in STORES {
        let world = World::new(name);
        drop(world.begin().await);
        world.becomes_newer(1);
        let one = until("the store is free", async || world.open().await.ok()).await;
        let instance = one.engine.begin().await.unwrap().instance;
        one.engine.pulse(instance, 0).await.unwrap();
        drop(one);
        let info = until("the store is free", async || tools::info(&world.config).await.ok()).await;
        assert_eq!((info.schema.as_str(), info.oldest_writer), ("0099, newer than this program", 1), "{name}");
        let listed = until("the store is free", async || tools::migrations(&world.config).await.ok()).await;
        assert!(listed.iter().all(|(_, applied)| *applied), "{name}: {listed:?}");

        world.becomes_newer(98);
        let error = until("the store is free", async || {
            world.open().await.err().filter(|error| matches!(error, OpenError::Newer { .. }))
        })
        .await;
        assert!(matches!(error, OpenError::Newer { found: 99, needed: 98, .. }), "{name}: {error}");
        assert!(error.to_string().contains("it needs one that knows schema 98"), "{name}: {error}");
        assert!(!error.may_pass(), "{name}: no wait mends it");
    }
}

#[tokio::test]
async fn a_tool_waits_a_moment_until_the_store_is_free() {
    let world = World::new("postgres");
    let one = world.begin().await;
    let Config::Postgres(url) = &world.config else { unreachable!("a database") };
    let url = url.to_string();
    let name = url.rsplit('/').next().unwrap();
    // Each try of the tool is a session of its own.
    let sessions = || {
        let sql = format!("SELECT sessions FROM pg_stat_database WHERE datname = '{name}'");
        postgres::server().sql("postgres", &sql).unwrap().trim().parse::<u64>().unwrap()
    };
    let before = sessions();
    let freed = async {
        until("the tool has tried twice", async || (sessions() >= before + 2).then_some(())).await;
        drop(one);
    };
    let (wrong, ()) = tokio::join!(tools::verify(&world.config), freed);
    assert_eq!(wrong.unwrap(), Vec::<String>::new());
    let one = until("the tool has ended", async || world.open().await.ok()).await;
    let refused = tools::verify(&world.config).await;
    assert!(matches!(refused, Err(OpenError::DatabaseInUse { .. })), "{refused:?}");
    drop(one);
}

#[tokio::test]
async fn an_instance_that_may_not_write_any_more_learns_it_at_its_begin_and_at_its_pulse() {
    let world = World::new("postgres");
    let one = world.begin().await;
    let alone = one.stores.engine.pulse(one.instance, 0).await.unwrap().programs;
    assert_eq!(alone, Some(Programs { older: 0, builder: BUILDER }));
    // Another one says nothing of what it knows, as those of the schemas before.
    let older = world.open().await.unwrap();
    let begun = older.engine.begin().await.unwrap();
    world.sql(&format!("UPDATE instance SET schema = NULL, builder = NULL WHERE id = {}", begun.instance.0));
    let both = one.stores.engine.pulse(one.instance, 0).await.unwrap().programs;
    assert_eq!(both, Some(Programs { older: 1, builder: 1 }));
    world.becomes_newer(98);
    let error = one.stores.engine.pulse(one.instance, 0).await.unwrap_err();
    assert!(matches!(&error, StoreError::Superseded(why) if why.contains("it needs one that knows")), "{error}");
    let error = one.stores.engine.begin().await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded(_)), "{error}");
}
