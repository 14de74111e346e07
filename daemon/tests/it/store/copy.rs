//! A copy of a SQLite store to PostgreSQL: everything reads back equal, a copy that is broken off anywhere goes on, and no moment has two
//! stores that can be opened.

use std::cell::Cell;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callbackd::base::clock::{Clock, ManualClock};
use callbackd::model::attempt::Outcome;
use callbackd::model::endpoint::Origin;
use callbackd::model::endpoint_history::{EndpointHistory, RecentOutcomes};
use callbackd::model::notice::Notices;
use callbackd::model::offsets::Watermark;
use callbackd::model::pause::{Pause, PauseScope};
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::Change;
use callbackd::store::admin::AuditFilter;
use callbackd::store::copy::{Ask, Copied, CopyError, Told, cancel, copy};
use callbackd::store::reads::{CallbackFilter, DeadLetterFilter, Page, QueueAsk, Queues};
use callbackd::store::{
    self, Batch, Config, EventClaim, InstanceId, OpenError, Options, PartitionWatermark, PostgresUrl, SpaceAsk, Stores,
    tools,
};

use super::engine::{claim_ask, facts, letter, park, partition, retry, settle};
use super::rounds::resend;
use super::{OPTIONS, START, admin, resends, take};
use crate::harness::until;
use crate::postgres;

const TOLD: Options = Options { notices: Notices { outcomes: true, dead_letters: true }, ..OPTIONS };
const AHEAD: Ask = Ask { finish: false, compare: true };
const WHOLE: Ask = Ask { finish: true, compare: true };
/// More than one piece.
const MANY: u32 = 4_500;

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(START))
}

fn directory(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("store")
}

fn target() -> PostgresUrl {
    postgres::database().parse().unwrap()
}

async fn open(directory: &Path) -> Stores {
    store::open(&Config::Directory(directory.to_owned()), TOLD, clock()).await.unwrap()
}

/// An instance that works on a store.
struct Work {
    stores: Stores,
    instance: InstanceId,
    epoch: i64,
    number: u64,
}

impl Work {
    async fn begin(directory: &Path) -> Self {
        let stores = open(directory).await;
        let instance = stores.engine.begin().await.unwrap().instance;
        let epoch = take(&*stores.engine, instance, partition()).await.epoch;
        Self { stores, instance, epoch, number: 0 }
    }

    async fn write(&mut self, changes: Vec<Change>, watermarks: Vec<PartitionWatermark>) {
        self.number += 1;
        let batch = Batch { instance: self.instance, number: self.number, changes, watermarks };
        self.stores.engine.write(Arc::new(batch)).await.unwrap();
    }

    async fn end(self) {
        let partitions = vec![(partition(), self.epoch)];
        self.stores.engine.release(self.instance, partitions).await.unwrap();
        self.stores.engine.end(self.instance).await.unwrap();
    }
}

/// Fills a store with rows of every kind.
async fn fill(work: &mut Work) {
    let epoch = work.epoch;
    let own = Some(epoch);
    let failed = Outcome::ServerError;
    let changes = vec![
        settle(1, 7, own, Outcome::Ok, Next::Delivered),
        settle(2, 7, own, failed, Next::Exhausted),
        settle(3, 7, own, Outcome::Gone, Next::Abandoned(Reason::Gone)),
        settle(4, 7, own, failed, retry()),
        park(5, None, epoch),
        park(6, Some(7), epoch),
        Change::Bury(letter(8), epoch),
        Change::Bury(letter(9), epoch),
        settle(10, 7, own, failed, Next::Exhausted),
    ];
    let upto = Watermark { upto: 11, seen_upto: 12, last: Some((10, [3; 32])) };
    work.write(changes, vec![PartitionWatermark { partition: partition(), epoch, watermark: upto }]).await;
    let engine = &work.stores.engine;
    // A round is open, a dead letter is set aside, and one row is leased.
    engine.amend(vec![(facts(10).id, resend())]).await.unwrap();
    assert!(engine.discard_letter(letter(9).id).await.unwrap());
    engine.claim(callbackd::store::ClaimAsk { at_most: 1, ..claim_ask(work.instance) }).await.unwrap();
    engine.claim_event_ids(vec![EventClaim { hash: [5; 32], id: facts(1).id }]).await.unwrap();
    let mut recent = RecentOutcomes::default();
    recent.note(failed, START);
    let origin = Origin::parse("https://a.example").unwrap();
    let history = EndpointHistory { team: "team_a".into(), origin: origin.clone(), recent };
    engine.note_endpoints(vec![history]).await.unwrap();
    let store = &work.stores.admin;
    let entry = |action| admin::entry(action, "team_a");
    let keys = vec![admin::key("key_1", "team_a", START)];
    store.create_team(admin::team("team_a"), keys, admin::once("k", 1), entry("team.create")).await.unwrap();
    store.create_team(admin::team("team_gone"), Vec::new(), None, entry("team.create")).await.unwrap();
    store.delete_team("team_gone", entry("team.delete")).await.unwrap();
    store.create_token(admin::token(1), None, entry("token.create")).await.unwrap();
    store.create_resend(resends::job("rs_1", START), None, entry("resend.create")).await.unwrap();
    for scope in [PauseScope::All, PauseScope::Endpoint("team_a".into(), origin)] {
        let pause = Pause { scope, since: START, paused_by: "ann".to_owned(), reason: "a reason".to_owned() };
        store.pause(pause, entry("pause")).await.unwrap();
    }
}

/// Many more ended callbacks, without the time of so many batches.
fn add_many(directory: &Path) {
    let mut store = rusqlite::Connection::open(directory.join("callbackd.db")).unwrap();
    let transaction = store.transaction().unwrap();
    let columns =
        "partition_id, off, record_at, team, task, event_id, event_type, queue, test, content_hash, builder, state,
                   reason, attempts, status, outcome, round, first_at, settled_at, revision, sent_with";
    let sql = format!("INSERT INTO settled (id, {columns}) SELECT ?1, {columns} FROM settled WHERE id = ?2");
    for n in 1_000..1_000 + MANY {
        let (id, like) = (facts(n).id, facts(1).id);
        assert_eq!(transaction.execute(&sql, (id.as_bytes(), like.as_bytes())).unwrap(), 1);
    }
    transaction.commit().unwrap();
}

fn shown(pictures: &mut Vec<String>, what: impl Debug) {
    pictures.push(format!("{what:?}"));
}

/// Everything that the traits tell of a store.
async fn picture(stores: &Stores) -> Vec<String> {
    let (Stores { engine, reads, admin, outbox }, mut all) = (stores, Vec::new());
    let page = || Page { before: None, limit: 10_000 };
    for n in 1..=10 {
        let id = facts(n).id;
        shown(&mut all, reads.rows(id).await.unwrap());
        shown(&mut all, reads.attempts(id).await.unwrap());
        shown(&mut all, reads.body(id).await.unwrap());
        shown(&mut all, reads.dead_letter(id).await.unwrap());
    }
    let ids = reads.callback_ids(CallbackFilter::default(), page()).await.unwrap();
    shown(&mut all, (ids.docs.len(), &ids.docs));
    shown(&mut all, reads.callbacks(CallbackFilter::default(), Page { limit: 50, ..page() }).await.unwrap().docs);
    shown(&mut all, reads.dead_letters(DeadLetterFilter::default(), page()).await.unwrap().docs);
    shown(&mut all, reads.offsets().await.unwrap());
    let which = Queues::From { team: None, at_most: 100 };
    shown(&mut all, reads.queues(QueueAsk { which, count_upto: 100 }).await.unwrap());
    shown(&mut all, reads.instances(100).await.unwrap());
    shown(&mut all, reads.counts().await.unwrap());
    shown(&mut all, reads.backlog().await.unwrap());
    let mut totals = reads.totals().await.unwrap();
    totals.settled.sort();
    shown(&mut all, totals);
    let space = engine.space(SpaceAsk::BYTES).await.unwrap();
    shown(&mut all, (space.parked_bytes, space.kept_bytes, space.notices));
    shown(&mut all, engine.endpoint_histories(100).await.unwrap());
    shown(&mut all, (admin.version().await.unwrap(), admin.teams(None, 100).await.unwrap()));
    shown(&mut all, admin.team_with_keys("team_a").await.unwrap());
    shown(&mut all, (admin.tokens().await.unwrap(), admin.pauses().await.unwrap()));
    shown(&mut all, admin.resends(None, 100).await.unwrap());
    shown(&mut all, admin.audit(AuditFilter::default(), None, 100).await.unwrap());
    shown(&mut all, outbox.outbox(InstanceId(1), 100).await.unwrap());
    all
}

/// The same after the next start, which frees what an instance has left that did not end.
async fn picture_at_next_start(directory: &Path) -> Vec<String> {
    let stores = open(directory).await;
    stores.engine.begin().await.unwrap();
    picture(&stores).await
}

/// Everything is equal but the instance that began last: it did not end cleanly.
fn assert_equal(copy: &[String], before: &[String]) {
    for (copy, before) in copy.iter().zip(before).filter(|(_, before)| !before.contains("InstanceRow")) {
        assert_eq!(copy, before);
    }
    assert_eq!(copy.len(), before.len());
}

/// Copies, and breaks off as soon as it tells this. `None` if it was broken off.
async fn broken_when(
    is_told: impl Fn(Told) -> bool,
    from: &Path,
    to: &PostgresUrl,
    ask: Ask,
) -> Option<Result<Copied, CopyError>> {
    let broken = tokio::sync::Notify::new();
    let tell = |told| {
        if is_told(told) {
            broken.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = broken.notified() => None,
        done = copy(from, to, ask, clock(), tell) => Some(done),
    }
}

/// Copies, and breaks off after so many steps.
async fn broken_after(steps: usize, from: &Path, to: &PostgresUrl, ask: Ask) -> Option<Result<Copied, CopyError>> {
    let left = Cell::new(steps);
    let is_last = |_| {
        left.set(left.get().saturating_sub(1));
        left.get() == 0
    };
    broken_when(is_last, from, to, ask).await
}

async fn whole(from: &Path, to: &PostgresUrl, ask: Ask) -> Result<Copied, CopyError> {
    copy(from, to, ask, clock(), |_| ()).await
}

fn on_postgres(url: &PostgresUrl) -> Config {
    Config::Postgres(Box::new(url.clone()))
}

#[tokio::test]
async fn a_copied_store_reads_back_equal_and_the_old_one_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (directory(&folder), target());
    let mut work = Work::begin(&from).await;
    fill(&mut work).await;
    work.end().await;
    add_many(&from);
    let expected = picture_at_next_start(&from).await;
    let copied = whole(&from, &to, WHOLE).await.unwrap();
    assert!(copied.rows > u64::from(MANY) && copied.finished_in.is_some(), "{copied:?}");

    let after = until("the copy is free", async || store::open(&on_postgres(&to), TOLD, clock()).await.ok()).await;
    let found = picture(&after).await;
    assert_equal(&found, &expected);
    let begun = after.engine.begin().await.unwrap();
    assert_eq!((&begun.store_id, begun.earlier_runs.len()), (&copied.store_id, 2), "the runs are known");
    // Numbers go on above those that were copied.
    after.admin.note(admin::entry("note", "team_a")).await.unwrap();
    assert_eq!(take(&*after.engine, begun.instance, partition()).await.watermark.upto, 11);
    drop(after);
    assert_eq!(tools::verify(&on_postgres(&to)).await.unwrap(), Vec::<String>::new());

    let old = Config::Directory(from.clone());
    let refused = store::open(&old, TOLD, clock()).await.err().unwrap();
    assert!(matches!(refused, OpenError::Sealed { .. }) && !refused.may_pass(), "{refused}");
    assert!(refused.to_string().contains("was copied to postgres://"), "{refused}");
    assert!(matches!(tools::info(&old).await, Err(OpenError::Sealed { .. })));
    for error in [whole(&from, &to, WHOLE).await.unwrap_err(), cancel(&from).unwrap_err()] {
        assert!(error.is_refusal() && error.to_string().contains("is sealed"), "{error}");
    }
}

#[tokio::test]
async fn a_copy_that_is_broken_off_anywhere_goes_on_and_misses_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (directory(&folder), target());
    let mut work = Work::begin(&from).await;
    fill(&mut work).await;
    add_many(&from);
    let own = Some(work.epoch);
    // Each time it is broken off, rows have come, changed and gone.
    let (mut broken, mut n) = (0, 100);
    loop {
        if let Some(done) = broken_after(2, &from, &to, AHEAD).await {
            done.unwrap();
            break;
        }
        broken += 1;
        work.write(
            vec![
                settle(n, 7, own, Outcome::Ok, Next::Delivered),
                settle(n + 1, 7, own, Outcome::ServerError, retry()),
                settle(n + 2, 7, own, Outcome::ServerError, Next::Exhausted),
                // A late success changes a row that was copied.
                settle(n - 1, 9, None, Outcome::Ok, Next::Delivered),
                settle(1, 9, None, Outcome::ServerError, Next::Exhausted),
            ],
            vec![],
        )
        .await;
        n += 3;
        let opened = store::open(&on_postgres(&to), TOLD, clock()).await.err().unwrap();
        let is_held = matches!(opened, OpenError::DatabaseHeld { .. });
        assert!(is_held || matches!(opened, OpenError::Unfinished { .. }), "{opened}");
    }
    assert!(broken >= 4, "{broken}");
    // It can't finish while the store is in use. A copy to another database makes an end of this one.
    assert!(broken_when(|told| told == Told::StopNow, &from, &target(), WHOLE).await.is_none());
    let refused = whole(&from, &to, AHEAD).await.unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("does not know"), "{refused}");
    work.end().await;

    // The end is broken off at each of its steps, too, and at none of them can both stores be opened.
    let to = target();
    let expected = picture_at_next_start(&from).await;
    whole(&from, &to, AHEAD).await.unwrap();
    let (mut steps, mut was_sealed) = (1, false);
    while broken_after(steps, &from, &to, WHOLE).await.is_none() {
        steps += 1;
        let old = store::open(&Config::Directory(from.clone()), TOLD, clock()).await;
        was_sealed |= old.is_err();
        assert_eq!(old.is_err(), was_sealed, "{:?}", old.err());
        assert!(store::open(&on_postgres(&to), TOLD, clock()).await.is_err());
    }
    assert!(steps > 5 && was_sealed, "{steps}");
    let after = until("the copy is free", async || store::open(&on_postgres(&to), TOLD, clock()).await.ok()).await;
    assert_equal(&picture(&after).await, &expected);
}

#[tokio::test]
async fn a_copy_is_refused_where_it_would_mix_two_stores_and_can_be_given_up() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (directory(&folder), target());
    let missing = whole(&from, &to, AHEAD).await.unwrap_err();
    assert!(missing.is_refusal() && missing.to_string().contains("there is no store"), "{missing}");
    for folder in [&folder, &other] {
        let mut work = Work::begin(&directory(folder)).await;
        fill(&mut work).await;
        work.end().await;
    }
    // A database that was only migrated is empty.
    tools::migrate(&on_postgres(&to), clock()).await.unwrap();
    assert!(whole(&from, &to, AHEAD).await.unwrap().finished_in.is_none());
    let mixed = whole(&directory(&other), &to, AHEAD).await.unwrap_err();
    assert!(mixed.is_refusal() && mixed.to_string().contains("does not know"), "{mixed}");
    cancel(&from).unwrap();
    let db = rusqlite::Connection::open(from.join("callbackd.db")).unwrap();
    let left = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'store_copy%'";
    assert_eq!(db.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    assert!(cancel(&from).unwrap_err().is_refusal(), "nothing is left to give up");
    let to = target();
    drop(Work::begin(&from).await);
    whole(&from, &to, WHOLE).await.unwrap();
    let full = whole(&directory(&other), &to, WHOLE).await.unwrap_err();
    assert!(full.is_refusal() && full.to_string().contains("name an empty database"), "{full}");
    let away: PostgresUrl = "postgres://callbackd@127.0.0.1:1/none".parse().unwrap();
    let away = whole(&directory(&other), &away, AHEAD).await.unwrap_err();
    assert!(!away.is_refusal(), "{away}");
}
