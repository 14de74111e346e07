//! The contract of jobs that send many callbacks again: a step opens its rounds and moves the cursor in one transaction, or does
//! nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::{Clock as _, ManualClock, Timestamp};
use callbackd::model::amendment::Resend;
use callbackd::model::attempt::Outcome;
use callbackd::model::callback::CallbackId;
use callbackd::model::dead_letter::{DeadLetter, Fate, LetterState, Unreadable};
use callbackd::model::endpoint::{QueueKey, QueueTarget};
use callbackd::model::lease::Facts;
use callbackd::model::retry::Next;
use callbackd::model::settlement::{Change, Ended, Rows, Verdict};
use callbackd::model::team::Mode;
use callbackd::store::admin::{AdminStore, AuditEntry, IdempotencyKey, Made};
use callbackd::store::reads::{CallbackFilter, DeadLetterFilter, Page, Reads};
use callbackd::store::resends::{ResendCounts, ResendForm, ResendRow, ResendState};
use callbackd::store::{Batch, EngineStore, InstanceId, LetterResend, LetterResent, ResendStep, SpaceAsk, Stores};

use super::engine::{facts, partition, retry, settle};
use super::{START, opened, take};

const STORES: [&str; 3] = ["memory", "sqlite", "postgres"];
const HOLD: Duration = Duration::from_secs(5);
const BODY: &[u8] = b"{\"task\":{}}";

struct Subject {
    name: &'static str,
    store: Arc<dyn EngineStore>,
    admin: Arc<dyn AdminStore>,
    reads: Arc<dyn Reads>,
    clock: Arc<ManualClock>,
    instance: InstanceId,
    _folder: tempfile::TempDir,
}

/// Callbacks 1 to 6: exhausted, delivered, exhausted, pending, exhausted long after the others, exhausted.
async fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for name in STORES {
        let clock = Arc::new(ManualClock::new(START));
        let folder = tempfile::tempdir().unwrap();
        let Stores { engine, reads, admin, .. } = opened(name, &folder, &clock).await;
        let instance = engine.begin().await.unwrap().instance;
        let epoch = take(&*engine, instance, partition()).await.epoch;
        let failed = |n| settle(n, 7, Some(epoch), Outcome::ServerError, Next::Exhausted);
        let mut late = failed(5);
        if let Change::Settle(settle) = &mut late {
            settle.attempt.begun_at = START.plus(Duration::from_secs(1_000));
        }
        let delivered = settle(2, 7, Some(epoch), Outcome::Ok, Next::Delivered);
        let pending = settle(4, 7, Some(epoch), Outcome::ServerError, retry());
        let changes = vec![failed(1), delivered, failed(3), pending, late, failed(6)];
        let batch = Batch { instance, number: 1, changes, watermarks: Vec::new() };
        let verdicts = engine.write(Arc::new(batch)).await.unwrap().verdicts;
        assert_eq!(verdicts[0], Verdict::Ended(Ended::Exhausted));
        clock.advance(Duration::from_secs(100));
        subjects.push(Subject { name, store: engine, admin, reads, clock, instance, _folder: folder });
    }
    subjects
}

pub(super) fn job(id: &str, created_at: Timestamp) -> ResendRow {
    ResendRow {
        id: id.to_owned(),
        created_at,
        created_by: "ann".to_owned(),
        filter: CallbackFilter { team: Some("team_a".to_owned()), undelivered: true, ..CallbackFilter::default() },
        endpoint: Some("https://a.example".to_owned()),
        form: ResendForm { new_id: true, ..ResendForm::default() },
        rate: Some(50),
        state: ResendState::Running,
        matched: 4,
        cursor: None,
        counts: ResendCounts::default(),
        changed_at: created_at,
    }
}

fn entry(action: &'static str) -> AuditEntry {
    let [caller, address, object, change] = ["ann", "unix", "team_a", "what"].map(str::to_owned);
    AuditEntry { caller, address, action, object, change }
}

fn id(n: u32) -> CallbackId {
    facts(n).id
}

impl Subject {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn create(&self, id: &str) -> ResendRow {
        let row = job(id, self.now());
        assert_eq!(self.admin.create_resend(row.clone(), None, entry("resend.create")).await.unwrap(), Made::Done);
        row
    }

    async fn held(&self, instance: InstanceId) -> Vec<String> {
        let rows = self.admin.hold_resends(instance, self.now().plus(HOLD)).await.unwrap();
        rows.into_iter().map(|row| row.id).collect()
    }

    fn step(&self, job: &str, (from, to): (Option<u32>, Option<u32>), rounds: &[u32]) -> ResendStep {
        let queue = QueueKey { team: "team_a".into(), target: QueueTarget::Default(Mode::Live) };
        let before = Some(self.now());
        let round = Resend { ended_before: before, new_id: true, url: None, queue, body: Bytes::from_static(BODY) };
        ResendStep {
            job: job.to_owned(),
            instance: self.instance,
            from: from.map(id),
            to: to.map(id),
            is_last: false,
            rounds: rounds.iter().map(|n| (id(*n), round.clone())).collect(),
            left: ResendCounts { no_body: 2, ..ResendCounts::default() },
        }
    }

    /// The callbacks that are being sent again, each with its round.
    async fn open(&self) -> Vec<(u32, u32)> {
        let mut open = Vec::new();
        for n in 1..=6 {
            let rows = self.reads.rows(id(n)).await.unwrap();
            open.extend(rows.pending.filter(|row| row.round > 0).map(|row| (n, row.round)));
        }
        open
    }
}

#[tokio::test]
async fn a_step_opens_its_rounds_and_moves_the_cursor_together() {
    for subject in subjects().await {
        let name = subject.name;
        let created = subject.create("rs_1").await;
        assert_eq!(subject.held(subject.instance).await, ["rs_1"], "{name}");
        let first = subject.step("rs_1", (None, Some(3)), &[6, 5, 4, 3]);
        let did = subject.store.resend(first.clone()).await.unwrap().unwrap();
        // 5 ended after the job began, and 4 has not ended.
        let expected = ResendCounts { opened: 2, busy: 2, no_body: 2, refused: 0 };
        assert_eq!(did, expected, "{name}");
        assert_eq!(subject.open().await, [(3, 1), (6, 1)], "{name}");
        let row = subject.admin.resend("rs_1").await.unwrap().unwrap();
        let changed_at = subject.now();
        assert_eq!(row, ResendRow { cursor: Some(id(3)), counts: expected, changed_at, ..created }, "{name}");
        // The same step once more finds the cursor elsewhere.
        assert_eq!(subject.store.resend(first).await.unwrap(), None, "{name}");
        for (team, at_most, count) in [(None, 10, 2), (None, 1, 1), (Some("team_a"), 10, 2), (Some("team_b"), 10, 0)] {
            assert_eq!(subject.reads.untried_rounds(team, at_most).await.unwrap(), count, "{name}: {team:?}");
        }
        let last = ResendStep { is_last: true, ..subject.step("rs_1", (Some(3), Some(1)), &[2, 1]) };
        let did = subject.store.resend(last.clone()).await.unwrap().unwrap();
        assert_eq!((did.opened, did.busy), (2, 0), "{name}: a delivered one can be sent again, too");
        let row = subject.admin.resend("rs_1").await.unwrap().unwrap();
        assert_eq!((row.state, row.counts.looked_at(), row.cursor), (ResendState::Done, 10, Some(id(1))), "{name}");
        let again = ResendStep { from: Some(id(1)), ..last };
        assert_eq!(subject.store.resend(again).await.unwrap(), None, "{name}: it is done");
        // What is claimed is what was opened, with its body and its own id.
        let claimed = subject.store.claim(super::engine::claim_ask(subject.instance)).await.unwrap().rows;
        let claimed: Vec<_> = claimed.into_iter().filter(|(row, _)| row.round > 0).collect();
        let ids: BTreeSet<_> = claimed.iter().map(|(row, _)| row.facts.id).collect();
        assert_eq!(ids, [1, 2, 3, 6].map(id).into(), "{name}");
        assert!(claimed.iter().all(|(row, body)| body == BODY && row.new_id && row.round == 1), "{name}");
        assert_eq!(subject.store.space(SpaceAsk::BYTES).await.unwrap().kept_bytes, kept(&subject).await, "{name}");
    }
}

/// The kept bytes of those that were not sent again.
async fn kept(subject: &Subject) -> u64 {
    let mut bytes = 0;
    for n in [5] {
        // A body has one byte more as it is kept.
        bytes += subject.reads.body(id(n)).await.unwrap().unwrap().len() as u64 + 1;
    }
    bytes
}

#[tokio::test]
async fn only_the_holder_of_a_running_job_goes_on_with_it() {
    for subject in subjects().await {
        let name = subject.name;
        let other = InstanceId(subject.instance.0 + 1);
        subject.create("rs_1").await;
        let step = || subject.step("rs_1", (None, Some(6)), &[6]);
        assert_eq!(subject.store.resend(step()).await.unwrap(), None, "{name}: nobody holds it");
        assert_eq!(subject.held(other).await, ["rs_1"], "{name}");
        assert!(subject.held(subject.instance).await.is_empty(), "{name}");
        assert_eq!(subject.store.resend(step()).await.unwrap(), None, "{name}: another one holds it");
        subject.clock.advance(HOLD);
        assert_eq!(subject.held(subject.instance).await, ["rs_1"], "{name}: the other one is silent");
        for (state, runs) in [(ResendState::Paused, false), (ResendState::Running, true)] {
            let changed = subject.admin.change_resend::<()>("rs_1", entry("resend.pause"), move |row| {
                Ok(ResendRow { state, rate: Some(7), ..row })
            });
            let row = changed.await.unwrap().unwrap().unwrap();
            assert_eq!((row.state, row.rate), (state, Some(7)), "{name}");
            assert_eq!(subject.held(subject.instance).await.len(), usize::from(runs), "{name}: {state:?}");
            assert_eq!(subject.store.resend(step()).await.unwrap().is_some(), runs, "{name}: {state:?}");
        }
        assert_eq!(subject.open().await, [(6, 1)], "{name}");
        let refused = subject.admin.change_resend("rs_1", entry("resend.cancel"), |_| Err("no")).await.unwrap();
        assert_eq!(refused, Some(Err("no")), "{name}");
        let unknown = subject.admin.change_resend::<()>("rs_9", entry("resend.cancel"), Ok).await.unwrap();
        assert_eq!(unknown, None, "{name}");
        let unknown = subject.step("rs_9", (None, None), &[]);
        assert_eq!(subject.store.resend(unknown).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn jobs_are_bounded_and_listed_newest_first() {
    for subject in subjects().await {
        let name = subject.name;
        for n in 0..100 {
            subject.create(&format!("rs_{n:03}")).await;
        }
        let full = subject.admin.create_resend(job("rs_full", subject.now()), None, entry("resend.create"));
        assert_eq!(full.await.unwrap(), Made::Exists, "{name}");
        assert_eq!(subject.held(subject.instance).await.len(), 10, "{name}: the oldest few at once");
        let ends = |id: String| {
            subject.admin.change_resend::<()>(&id, entry("resend.cancel"), |row| {
                Ok(ResendRow { state: ResendState::Cancelled, ..row })
            })
        };
        for n in 0..100 {
            ends(format!("rs_{n:03}")).await.unwrap().unwrap().unwrap();
        }
        let once = Some(IdempotencyKey { key: "k".to_owned(), fingerprint: [1; 32] });
        let row = job("rs_100", subject.now());
        let made = subject.admin.create_resend(row.clone(), once.clone(), entry("resend.create")).await.unwrap();
        assert_eq!(made, Made::Done, "{name}");
        let twice = ResendRow { id: "rs_101".to_owned(), ..row };
        let made = subject.admin.create_resend(twice, once, entry("resend.create")).await.unwrap();
        assert_eq!(made, Made::Repeated("rs_100".to_owned()), "{name}");
        let page = async |before: Option<&str>, limit| {
            let rows = subject.admin.resends(before.map(str::to_owned), limit).await.unwrap();
            rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 2).await, ["rs_100", "rs_099"], "{name}");
        assert_eq!(page(Some("rs_099"), 2).await, ["rs_098", "rs_097"], "{name}");
        assert_eq!(page(None, 1_000).await.last().unwrap(), "rs_010", "{name}: the oldest ended ones make room");
    }
}

#[tokio::test]
async fn bodies_are_read_up_to_a_number_of_bytes() {
    for subject in subjects().await {
        let name = subject.name;
        let ids = || vec![id(1), id(2), id(3), id(4), id(6)];
        let all = subject.reads.bodies(ids(), usize::MAX).await.unwrap();
        let has: Vec<_> = all.iter().map(Option::is_some).collect();
        assert_eq!(has, [true, false, true, true, true], "{name}: the body of a delivered one is not kept");
        for (at, n) in [(0, 1), (3, 4)] {
            assert_eq!(all[at], subject.reads.body(id(n)).await.unwrap(), "{name}");
        }
        let one = all[0].as_ref().unwrap().len();
        for (bytes, count) in [(0, 1), (one, 2), (2 * one - 1, 2), (2 * one, 3), (4 * one, 5)] {
            assert_eq!(subject.reads.bodies(ids(), bytes).await.unwrap().len(), count, "{name}: {bytes} bytes");
        }
        assert!(subject.reads.bodies(Vec::new(), 1).await.unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_dead_letter_becomes_a_callback_once_or_is_set_aside() {
    for subject in subjects().await {
        let name = subject.name;
        let letters: Vec<_> = [20, 21, 22].map(letter).to_vec();
        let epoch = subject.reads.offsets().await.unwrap()[0].epoch;
        let changes = letters.iter().map(|letter| Change::Bury(Box::new(letter.clone()), epoch)).collect();
        let batch = Batch { instance: subject.instance, number: 2, changes, watermarks: Vec::new() };
        subject.store.write(Arc::new(batch)).await.unwrap();
        let found = subject.reads.dead_letter(letters[0].id).await.unwrap().unwrap();
        assert_eq!((found.fate, found.letter.headers), (Fate::Open, letters[0].headers.clone()), "{name}");
        let resend = |n: u32, of: u32, content: u8| LetterResend {
            letter: letters[(n - 20) as usize].id,
            facts: Arc::new(Facts { content_hash: [content; 32], ..(*facts(of)).clone() }),
            url: Some("https://a.example/x".into()),
            body: Bytes::from_static(BODY),
        };
        // A new callback, one that is there already, and one of another content.
        let hash = facts(1).content_hash[0];
        assert_eq!(subject.store.resend_letter(resend(20, 30, 7)).await.unwrap(), LetterResent::Parked, "{name}");
        assert_eq!(subject.store.resend_letter(resend(20, 30, 7)).await.unwrap(), LetterResent::Known, "{name}");
        assert_eq!(subject.store.resend_letter(resend(21, 1, hash)).await.unwrap(), LetterResent::Known, "{name}");
        assert_eq!(subject.store.resend_letter(resend(22, 1, 99)).await.unwrap(), LetterResent::Reused, "{name}");
        let unknown = LetterResend { letter: id(77), ..resend(20, 31, 7) };
        assert_eq!(subject.store.resend_letter(unknown).await.unwrap(), LetterResent::Unknown, "{name}");
        assert_eq!(subject.reads.rows(id(31)).await.unwrap(), Rows::default(), "{name}: nothing was written");
        let row = subject.reads.rows(id(30)).await.unwrap().pending.unwrap();
        assert_eq!((row.due, row.token, row.starts, row.round), (subject.now(), None, 0, 0), "{name}");
        let claimed = subject.store.claim(super::engine::claim_ask(subject.instance)).await.unwrap().rows;
        assert!(claimed.iter().any(|(row, body)| row.facts.id == id(30) && body == BODY), "{name}");
        assert!(!subject.store.discard_letter(id(77)).await.unwrap(), "{name}");
        assert!(subject.store.discard_letter(letters[2].id).await.unwrap(), "{name}");
        let mut fates = Vec::new();
        for letter in &letters {
            fates.push(subject.reads.dead_letter(letter.id).await.unwrap().unwrap().fate);
        }
        assert_eq!(fates, [Fate::Resent(id(30)), Fate::Resent(id(1)), Fate::Discarded], "{name}");
        for (state, count) in
            [(None, 3), (Some(LetterState::Open), 0), (Some(LetterState::Resent), 2), (Some(LetterState::Discarded), 1)]
        {
            let filter = DeadLetterFilter { state, ..DeadLetterFilter::default() };
            let found = subject.reads.dead_letters(filter, Page { before: None, limit: 9 }).await.unwrap();
            assert_eq!(found.docs.len(), count, "{name}: {state:?}");
        }
    }
}

fn letter(n: u32) -> DeadLetter {
    DeadLetter {
        id: id(n),
        record: facts(n).record.clone(),
        reason: Unreadable::UnknownTeam,
        detail: String::new(),
        team: Some("team_late".into()),
        task_id: None,
        event_id: None,
        value: Bytes::from_static(b"{}"),
        value_len: 2,
        value_hash: Some([3; 32]),
        headers: Some(vec![("team-id".to_owned(), b"team_\xff\0late".to_vec())]),
    }
}
