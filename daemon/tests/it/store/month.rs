//! Retention by a manual clock: a month of days passes, every kind of row comes each day, and each stays for its time and no longer. What
//! the store takes on the disk is the same at the end of the month as in its middle. Rows are scaled down: what matters is how many days
//! of them stay. The model of the store is left out: it measures all kept bodies again for each one that comes.
//!
//! Whether deleting keeps up at the highest rate is a matter of time, not of days, and no part of this test. `ops::retention` deletes
//! pieces of 2,000 rows, and then pauses for four times as long as the piece took. So at the 21,000 callbacks per second of docs/speed.md
//! it keeps up on SQLite if a piece takes at most 2,000 / 21,000 / 5 = 19 ms; how long one takes in a daemon was not measured. On
//! PostgreSQL, whole days go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::{Clock as _, ManualClock, Timestamp};
use callbackd::deliver::resolve::queue_of;
use callbackd::model::attempt::{Attempt, Outcome};
use callbackd::model::callback::CallbackId;
use callbackd::model::dead_letter::{DeadLetter, ValueBudget};
use callbackd::model::endpoint::{Origin, QueueKey, QueueTarget};
use callbackd::model::lease::{Facts, Token};
use callbackd::model::notice::Notices;
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::{Change, Settle, Verdict};
use callbackd::ops::retention::Retention;
use callbackd::store::{
    self, Batch, ClaimAsk, Config, EventClaim, InstanceId, Options, PruneAsk, Pruned, SpaceAsk, Stores,
};

use super::engine::{attempt, claim_ask, facts, letter, partition, raised};
use super::{OPTIONS, START, database, opened_with, take};
use crate::postgres;

const DAY: Duration = Duration::from_secs(86_400);
const DAYS: usize = 31;
/// The clock moves by so much at once, to 4, 12 and 20 o'clock. What fails at 12 and 20 o'clock ends on the next day.
const STEP: Duration = Duration::from_secs(8 * 3_600);
const STEPS: usize = 3;
const KEEP: Retention = Retention {
    settled: Duration::from_secs(7 * 86_400),
    dead_letters: Duration::from_secs(14 * 86_400),
    event_ids: Duration::from_secs(3 * 86_400),
};
/// Some callbacks pend for longer than those that ended are kept.
const WAIT: Duration = Duration::from_secs(8 * 86_400);

/// What comes in a step.
const CALLBACKS: [(Kind, u32); 4] = [(Kind::Delivered, 80), (Kind::Gone, 6), (Kind::Fails, 14), (Kind::Waits, 4)];
const EVENT_IDS: u32 = 20;
const LETTERS: u32 = 7;
/// The bytes of a body, and of a dead letter's value.
const BODY: usize = 600;
const VALUE: usize = 300;
/// Rows of each kind that one call deletes. It is scaled, too: a step needs several calls.
const PIECE: usize = 100;

/// Values have room for the days that they are kept, and for the step before the oldest ones go: only if the bytes of deleted ones are
/// free again, every value is kept.
const VALUES: u64 = 44 * LETTERS as u64 * VALUE as u64;
const SCALED: Options = Options {
    values: ValueBudget { of_topic: VALUES, in_all: VALUES },
    notices: Notices { outcomes: true, dead_letters: true },
    ..OPTIONS
};

const TABLES: [&str; 9] =
    ["settled", "attempt", "pending", "body", "kept_body", "dead_letter", "dedupe", "queue", "outbox"];

#[derive(Clone, Copy)]
enum Kind {
    Delivered,
    Gone,
    /// It fails three times, a step apart.
    Fails,
    /// It fails once, and waits for days.
    Waits,
}

/// What is expected of a callback.
struct Expected {
    kind: Kind,
    /// How many rows its attempts have. A delivery has none.
    attempts: usize,
    ended: Option<Timestamp>,
    /// The body of one that failed is kept.
    has_failed: bool,
}

/// An attempt that ends now.
struct Tried {
    facts: Arc<Facts>,
    token: Token,
    epoch: Option<i64>,
    number: u32,
}

/// Where the rows of a store are.
enum Disk {
    File(PathBuf),
    Database(String),
}

impl Disk {
    /// How much longer than to its time an ended callback may stay. Its id may lie a day ahead, and the days of PostgreSQL go as a whole.
    fn late(&self) -> Duration {
        if matches!(self, Self::Database(_)) { DAY * 2 } else { DAY }
    }

    /// How many queues there are at most: one comes each day, and is used for as long as its callbacks wait. On PostgreSQL it stays until
    /// no row of any day can name it, which is five days more, and one.
    fn queues(&self) -> usize {
        let days = 8 + 7 + 3;
        if matches!(self, Self::Database(_)) { days + 5 + 1 } else { days }
    }

    /// The numbers of rows of all tables.
    fn rows(&self) -> Vec<usize> {
        let counts = TABLES.map(|table| format!("(SELECT count(*) FROM {table})"));
        let sql = format!("SELECT '' || {}", counts.join(" || ' ' || "));
        let found = match self {
            Self::File(path) => {
                let file = rusqlite::Connection::open(path).unwrap();
                file.query_row(&sql, [], |row| row.get::<_, String>(0)).unwrap()
            }
            Self::Database(name) => postgres::server().sql(name, &sql).unwrap(),
        };
        found.split(' ').map(|count| count.parse().unwrap()).collect()
    }

    /// The bytes of the file after a checkpoint, or of all tables with their indexes.
    fn bytes(&self) -> u64 {
        match self {
            Self::File(path) => {
                let file = rusqlite::Connection::open(path).unwrap();
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
                assert_eq!(file.query_row(checkpoint, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "it was busy");
                std::fs::metadata(path).unwrap().len()
            }
            Self::Database(name) => {
                let sql = |sql: &str| postgres::server().sql(name, sql).unwrap();
                // The server's autovacuum works by the wall clock, and a month of ours takes seconds. So this does what it would have done
                // within each day. It is a plain VACUUM, which makes room for new rows and takes no page away from the middle of a table.
                sql("VACUUM pending, body, kept_body, dead_letter, dead_letter_bytes, dedupe, queue, outbox, instance,
                         partition_offsets, store, settled_other, attempt_other");
                let sum = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class
                           WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
                sql(sum).parse().unwrap()
            }
        }
    }

    /// The partitions that hold the days of both tables.
    fn days(&self) -> Option<usize> {
        let Self::Database(name) = self else { return None };
        let sql = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^(settled|attempt)_[0-9]{8}$'";
        Some(postgres::server().sql(name, sql).unwrap().parse().unwrap())
    }
}

struct Month {
    name: &'static str,
    stores: Stores,
    clock: Arc<ManualClock>,
    disk: Disk,
    instance: InstanceId,
    epoch: i64,
    /// The number of the last batch, and of the last row.
    batch: u64,
    n: u32,
    callbacks: BTreeMap<CallbackId, Expected>,
    letters: Vec<(CallbackId, Timestamp)>,
    event_ids: Vec<(EventClaim, Timestamp)>,
    /// How many ended callbacks there were, and how many of them were deleted one by one.
    ended: usize,
    one_by_one: usize,
    _folder: tempfile::TempDir,
}

impl Month {
    async fn new(name: &'static str) -> Self {
        // It is 20 o'clock.
        let clock = Arc::new(ManualClock::new(START.plus(STEP / 2)));
        let folder = tempfile::tempdir().unwrap();
        let (stores, disk) = if name == "postgres" {
            let config = database();
            let Config::Postgres(url) = &config else { unreachable!() };
            let disk = Disk::Database(url.to_string().rsplit('/').next().unwrap().to_owned());
            (store::open(&config, SCALED, Arc::clone(&clock) as _).await.unwrap(), disk)
        } else {
            let disk = Disk::File(folder.path().join("store/callbackd.db"));
            (opened_with(SCALED, name, &folder, &clock).await, disk)
        };
        let instance = stores.engine.begin().await.unwrap().instance;
        let epoch = take(&*stores.engine, instance, partition()).await.epoch;
        stores.engine.sweep(queue_of).await.unwrap();
        Self {
            name,
            stores,
            clock,
            disk,
            instance,
            epoch,
            batch: 0,
            n: 0,
            callbacks: BTreeMap::new(),
            letters: Vec::new(),
            event_ids: Vec::new(),
            ended: 0,
            one_by_one: 0,
            _folder: folder,
        }
    }

    /// What a daemon does in a step, and what its background does meanwhile.
    async fn step(&mut self) {
        self.clock.advance(STEP);
        self.stores.engine.sweep(queue_of).await.unwrap();
        self.new_records().await;
        self.due().await;
        self.claim_event_ids().await;
        self.publish().await;
        self.prune().await;
    }

    async fn write(&mut self, changes: Vec<Change>) {
        self.batch += 1;
        let (instance, number) = (self.instance, self.batch);
        let watermarks = vec![raised(self.epoch, i64::from(self.n) + 1)];
        let batch = Batch { instance, number, changes, watermarks };
        let verdicts = self.stores.engine.write(Arc::new(batch)).await.unwrap().verdicts;
        let is_wrong = |verdict: &&Verdict| matches!(verdict, Verdict::Nothing | Verdict::BuriedWithoutValue);
        assert_eq!(verdicts.iter().find(is_wrong), None, "{}: batch {number}", self.name);
    }

    async fn new_records(&mut self) {
        let now = self.clock.now();
        let mut changes = Vec::new();
        for (kind, count) in CALLBACKS {
            for k in 0..count {
                changes.push(self.first_try(kind, now.minus(Duration::from_secs(60) * k / count)));
            }
        }
        // Events without a time, and of a clock that is ahead.
        changes.push(self.first_try(Kind::Delivered, Timestamp::from_millis(0)));
        changes.push(self.first_try(Kind::Delivered, now.plus(DAY)));
        for _ in 0..LETTERS {
            let facts = self.facts(now);
            self.letters.push((facts.id, now));
            let value = noise(self.n, VALUE);
            let (id, record, value_len) = (facts.id, facts.record.clone(), value.len() as u64);
            let usual = *letter(self.n);
            let letter = DeadLetter { id, record, value, value_len, ..usual };
            changes.push(Change::Bury(Box::new(letter), self.epoch));
        }
        self.write(changes).await;
    }

    /// The next callback: its event has this time, and there is an endpoint for each day.
    fn facts(&mut self, at: Timestamp) -> Arc<Facts> {
        self.n += 1;
        let mut id = *facts(self.n).id.as_bytes();
        id[..6].copy_from_slice(&at.millis().to_be_bytes()[2..]);
        let today = self.clock.now().since(START).as_secs() / DAY.as_secs();
        let origin = Origin::parse(&format!("https://day-{today}.example")).unwrap();
        let queue = QueueKey { team: "team_a".into(), target: QueueTarget::Origin(origin) };
        // Task ids in no order, as UUIDs are.
        let task_id = scale_callback_serve::text::hex(&noise(self.n, 16)).into();
        Arc::new(Facts { id: CallbackId::from_bytes(id), queue, task_id, ..(*facts(self.n)).clone() })
    }

    fn first_try(&mut self, kind: Kind, at: Timestamp) -> Change {
        let facts = self.facts(at);
        self.callbacks.insert(facts.id, Expected { kind, attempts: 0, ended: None, has_failed: false });
        let (outcome, next) = match kind {
            Kind::Delivered => (Outcome::Ok, Next::Delivered),
            Kind::Gone => (Outcome::Gone, Next::Abandoned(Reason::Gone)),
            Kind::Fails => (Outcome::ServerError, self.retry(STEP)),
            Kind::Waits => (Outcome::ServerError, self.retry(WAIT)),
        };
        self.ends(Tried { facts, token: Token(7), epoch: Some(self.epoch), number: 1 }, outcome, next)
    }

    fn retry(&self, after: Duration) -> Next {
        let now = self.clock.now();
        Next::Retry { due: now.plus(after), since: now, horizon: now.plus(DAY * 30) }
    }

    fn ends(&mut self, tried: Tried, outcome: Outcome, next: Next) -> Change {
        let Tried { facts, token, epoch, number } = tried;
        let attempt = Attempt { begun_at: self.clock.now(), ..attempt(outcome) };
        let expected = self.callbacks.get_mut(&facts.id).unwrap();
        expected.attempts += usize::from(next != Next::Delivered);
        if !matches!(next, Next::Retry { .. }) {
            expected.ended = Some(attempt.ended_at());
            expected.has_failed = next != Next::Delivered;
            self.ended += 1;
        }
        let body = body_of(&facts);
        Change::Settle(Box::new(Settle { facts, token, epoch, url: None, body, number, attempt, next }))
    }

    /// Tries all callbacks that are due.
    async fn due(&mut self) {
        let first_token = Token(1_000 * (self.batch + 1));
        let (at_most, usual_room) = (1_000, 1_000);
        let ask = ClaimAsk { at_most, usual_room, first_token, ..claim_ask(self.instance) };
        let claimed = self.stores.engine.claim(ask).await.unwrap();
        let mut changes = Vec::new();
        for (row, body) in claimed.rows {
            assert_eq!(body, body_of(&row.facts), "{}: {}", self.name, row.facts.id);
            let number = row.progress.attempts + 1;
            let (outcome, next) = match self.callbacks[&row.facts.id].kind {
                Kind::Fails if number < 3 => (Outcome::ServerError, self.retry(STEP)),
                Kind::Waits if row.facts.record.offset % 2 == 0 => (Outcome::Ok, Next::Delivered),
                _ => (Outcome::ServerError, Next::Exhausted),
            };
            let tried = Tried { facts: row.facts, token: row.token.unwrap(), epoch: None, number };
            changes.push(self.ends(tried, outcome, next));
        }
        self.write(changes).await;
    }

    async fn claim_event_ids(&mut self) {
        let now = self.clock.now();
        let mut claims = Vec::new();
        for _ in 0..EVENT_IDS {
            let id = self.facts(now).id;
            claims.push(EventClaim { hash: noise(self.n, 32)[..].try_into().unwrap(), id });
        }
        self.event_ids.extend(claims.iter().map(|claim| (*claim, now)));
        self.stores.engine.claim_event_ids(claims).await.unwrap();
    }

    async fn publish(&self) {
        loop {
            let rows = self.stores.outbox.outbox(self.instance, 100).await.unwrap();
            if rows.is_empty() {
                return;
            }
            self.stores.outbox.published(rows.iter().map(|row| row.id).collect()).await.unwrap();
        }
    }

    /// As `ops::retention` does, without its pauses.
    async fn prune(&mut self) {
        let now = self.clock.now();
        let mut after = None;
        for _ in 0..100 {
            let ask = PruneAsk {
                now,
                settled_before: now.minus(KEEP.settled),
                after,
                dead_letters_before: now.minus(KEEP.dead_letters),
                event_ids_before: now.minus(KEEP.event_ids),
                at_most: PIECE,
            };
            let pruned = self.stores.engine.prune(ask).await.unwrap();
            self.one_by_one += pruned.settled;
            after = pruned.next;
            if (Pruned { settled: 0, ..pruned }) == Pruned::default() {
                return;
            }
        }
        panic!("{}: pruning does not end", self.name);
    }

    /// Whatever is pending or young is there, and nothing is there that is too old.
    async fn check(&mut self, day: usize) {
        let context = format!("{} on day {day}", self.name);
        let since = self.clock.now().minus(KEEP.settled);
        let (engine, reads) = (&self.stores.engine, &self.stores.reads);
        let late = since.minus(self.disk.late());
        let (gone, needed): (Vec<_>, Vec<_>) = self
            .callbacks
            .iter()
            .filter(|(_, row)| row.ended.is_none_or(|at| at >= since || at < late))
            .map(|(id, row)| (*id, row.ended))
            .partition(|(_, ended)| ended.is_some_and(|at| at < late));
        let ids = |rows: &[(CallbackId, Option<Timestamp>)]| rows.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let known = engine.known(ids(&needed)).await.unwrap();
        assert_eq!(known.iter().position(Option::is_none), None, "{context}: it is needed");
        let known = engine.known(ids(&gone)).await.unwrap();
        assert_eq!(known.iter().position(Option::is_some), None, "{context}: it is too old");

        let pending = self.callbacks.iter().find(|(_, row)| row.ended.is_none());
        let (oldest, expected) = pending.expect("some always wait");
        assert_eq!(reads.attempts(*oldest).await.unwrap().len(), expected.attempts, "{context}: {oldest}");
        let oldest = self.letters.iter().find(|(_, at)| *at >= self.clock.now().minus(KEEP.dead_letters));
        let letter = reads.dead_letter(oldest.unwrap().0).await.unwrap().expect("it is young").letter;
        assert_eq!(letter.value.len(), VALUE, "{context}");
        // Young event ids still belong to whoever had them first.
        let young = self.event_ids.iter().filter(|(_, at)| *at >= self.clock.now().minus(KEEP.event_ids));
        let owners: Vec<_> = young.clone().map(|(claim, _)| claim.id).collect();
        let again = young.map(|(claim, _)| EventClaim { id: facts(0).id, ..*claim }).collect();
        assert_eq!(engine.claim_event_ids(again).await.unwrap(), owners, "{context}");
        let space = engine.space(SpaceAsk::BYTES).await.unwrap();
        assert!(space.kept_bytes <= SCALED.keeping.bytes && space.notices == 0, "{context}: {space:?}");

        self.check_rows(&context);
        for (id, _) in gone {
            self.callbacks.remove(&id);
        }
    }

    /// Every table has at least the rows that are needed, and at most those that may still be there.
    fn check_rows(&self, context: &str) {
        let now = self.clock.now();
        let since = now.minus(KEEP.settled);
        let bounds = |since: Timestamp| {
            let rows = || self.callbacks.values().filter(move |row| row.ended.is_none_or(|at| at >= since));
            let pending = rows().filter(|row| row.ended.is_none()).count();
            let letters = self.letters.iter().filter(|(_, at)| *at >= now.minus(KEEP.dead_letters));
            let event_ids = self.event_ids.iter().filter(|(_, at)| *at >= now.minus(KEEP.event_ids));
            [
                rows().count() - pending,
                rows().map(|row| row.attempts).sum::<usize>(),
                pending,
                pending,
                rows().filter(|row| row.has_failed).count(),
                letters.count(),
                event_ids.count(),
            ]
        };
        let (least, most) = (bounds(since), bounds(since.minus(self.disk.late())));
        let least = least.into_iter().chain([1, 0]);
        let most = most.into_iter().chain([self.disk.queues(), 0]);
        for (((table, rows), least), most) in TABLES.into_iter().zip(self.disk.rows()).zip(least).zip(most) {
            assert!((least..=most).contains(&rows), "{context}: {table} has {rows} rows, not {least} to {most}");
        }
        if let Some(days) = self.disk.days() {
            // Those that are kept, today, and three days ahead.
            assert!(days <= 2 * (7 + 1 + 3), "{context}: {days} partitions");
        }
    }
}

/// Bytes that can't be compressed.
fn noise(n: u32, len: usize) -> Bytes {
    let mut state = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(byte).take(len).collect()
}

fn body_of(facts: &Facts) -> Bytes {
    noise(u32::try_from(facts.record.offset).unwrap(), BODY)
}

async fn pass(name: &'static str) {
    let mut month = Month::new(name).await;
    let mut bytes = Vec::new();
    for day in 1..=DAYS {
        for _ in 0..STEPS {
            month.step().await;
        }
        month.check(day).await;
        bytes.push(month.disk.bytes());
    }
    if matches!(month.disk, Disk::Database(_)) {
        // What has no time, what ended on the day after its own, and what ended when its day was gone: 43 of 318 on each day.
        let (one_by_one, ended) = (month.one_by_one, month.ended);
        assert!(one_by_one * 5 < ended, "{one_by_one} of {ended} were deleted one by one");
    }
    // By then dead letters, too, have been deleted for days. Without retention, the store would grow by more than a third.
    let largest = |days: std::ops::RangeInclusive<usize>| *bytes[days].iter().max().unwrap();
    let (middle, end) = (largest(16..=21), largest(25..=30));
    assert!(end <= middle + middle / 10, "{name}: {end} bytes at the end, {middle} in the middle: {bytes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_of_rows_stays_bounded_on_sqlite() {
    pass("sqlite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_of_rows_stays_bounded_on_postgres() {
    pass("postgres").await;
}
