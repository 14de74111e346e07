//! The contract of the engine's trait: each change has the effect on rows that `settlement::apply` gives, batches are
//! idempotent, watermarks rise together with their rows, and leases and claims are kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::{Clock, ManualClock, Timestamp};
use callbackd::model::amendment::{Amended, Amendment};
use callbackd::model::attempt::{Attempt, Outcome, SentWithId};
use callbackd::model::callback::CallbackId;
use callbackd::model::dead_letter::{DeadLetter, Unreadable};
use callbackd::model::endpoint::{Origin, QueueKey, QueueTarget};
use callbackd::model::event::{PartitionKey, RecordRef};
use callbackd::model::lease::{Facts, Token};
use callbackd::model::offsets::Watermark;
use callbackd::model::pause::PausedQueues;
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::{Change, Ended, NumberedAttempt, Park, Pending, Rows, Settle, Verdict, apply};
use callbackd::model::team::Mode;
use callbackd::store::faulty::{Faults, FaultyStore};
use callbackd::store::{
    self, Batch, ClaimAsk, Config, EngineStore, EventClaim, InstanceId, NewLog, PartitionWatermark, PruneAsk, SetBack,
    Stores,
};
use callbackd::store::{StoreError, reads::Reads};

use super::{START, opened, take};

/// The longest lease of these tests.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// A store under test, with access to its content.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) store: Arc<dyn EngineStore>,
    pub(super) reads: Arc<dyn Reads>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) instance: InstanceId,
    pub(super) number: u64,
    pub(super) epoch: i64,
    _folder: tempfile::TempDir,
}

pub(super) async fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for name in ["memory", "sqlite", "sqlite behind faults", "postgres", "postgres behind faults"] {
        let clock = Arc::new(ManualClock::new(START));
        let folder = tempfile::tempdir().unwrap();
        let Stores { engine, reads, .. } = opened(name, &folder, &clock).await;
        let store = if name.contains("faults") {
            let faults = Faults { happened_but_uncertain: 200, did_not_happen: 200, ..Faults::default() };
            Arc::new(FaultyStore::new(engine, 7, faults)) as Arc<dyn EngineStore>
        } else {
            engine
        };
        let instance = store.begin().await.unwrap().instance;
        let epoch = take(&*store, instance, partition()).await.epoch;
        subjects.push(Subject { name, store, reads, clock, instance, number: 0, epoch, _folder: folder });
    }
    subjects
}

impl Subject {
    /// Writes one batch, and repeats it while the result is uncertain.
    pub(super) async fn write(&mut self, changes: Vec<Change>, watermarks: Vec<PartitionWatermark>) -> Vec<Verdict> {
        self.number += 1;
        let batch = Arc::new(Batch { instance: self.instance, number: self.number, changes, watermarks });
        loop {
            match self.store.write(Arc::clone(&batch)).await {
                Ok(applied) => return applied.verdicts,
                Err(StoreError::Uncertain(_)) => {}
                Err(other) => panic!("{}: {other}", self.name),
            }
        }
    }

    pub(super) async fn rows(&self, id: CallbackId) -> Rows {
        self.reads.rows(id).await.unwrap()
    }

    /// Changes one callback.
    pub(super) async fn amend(&self, id: CallbackId, amendment: Amendment) -> Amended {
        let amended = self.store.amend(vec![(id, amendment)]).await.unwrap();
        assert_eq!(amended.len(), 1, "{}", self.name);
        amended[0]
    }

    pub(super) async fn attempts(&self, id: CallbackId) -> Vec<NumberedAttempt> {
        self.reads.attempts(id).await.unwrap()
    }

    async fn watermark(&self) -> Watermark {
        self.reads.offsets().await.unwrap()[0].watermark
    }

    pub(super) fn ask(&self) -> ClaimAsk {
        claim_ask(self.instance)
    }
}

/// Room for many rows.
pub(super) fn claim_ask(instance: InstanceId) -> ClaimAsk {
    ClaimAsk {
        instance,
        at_most: 100,
        bytes: 1 << 20,
        takes_larger_body_alone: true,
        lease: LEASE,
        usual_room: 16,
        room: HashMap::new(),
        paused: PausedQueues::default(),
        first_token: Token(1_000),
    }
}

pub(super) fn partition() -> Arc<PartitionKey> {
    Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 })
}

pub(crate) fn facts(n: u32) -> Arc<Facts> {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&START.millis().to_be_bytes()[2..]);
    id[12..].copy_from_slice(&n.to_be_bytes());
    Arc::new(Facts {
        id: CallbackId::from_bytes(id),
        record: RecordRef { partition: partition(), offset: i64::from(n), timestamp: START.millis() },
        team: "team_a".into(),
        task_id: format!("task-{n}").into(),
        event_id: n.is_multiple_of(2).then(|| "event".into()),
        event_type: "task.completed".into(),
        queue: QueueKey {
            team: "team_a".into(),
            target: QueueTarget::Origin(Origin::parse("https://a.example").unwrap()),
        },
        mode: if n.is_multiple_of(3) { Mode::Test } else { Mode::Live },
        content_hash: [u8::try_from(n % 251).unwrap(); 32],
        builder: 1,
    })
}

pub(super) fn attempt(outcome: Outcome) -> Attempt {
    Attempt {
        outcome,
        sent: true,
        status: (outcome == Outcome::ServerError).then_some(500),
        begun_at: START.plus(Duration::from_secs(1)),
        took: Duration::from_millis(250),
        peer: "127.0.0.1:80".parse().ok(),
        redialed: outcome == Outcome::HeadReset,
        sent_with: (outcome != Outcome::NoUrl).then_some(SentWithId(-7)),
        snippet: Bytes::from_static(b"\0\xffnot text"),
    }
}

pub(super) fn settle(n: u32, token: u64, epoch: Option<i64>, outcome: Outcome, next: Next) -> Change {
    Change::Settle(Box::new(Settle {
        facts: facts(n),
        token: Token(token),
        epoch,
        url: Some("https://a.example/x".into()),
        body: Bytes::from_static(b"{\"task\":{}}"),
        number: 1,
        attempt: attempt(outcome),
        next,
    }))
}

pub(super) fn park(n: u32, token: Option<u64>, epoch: i64) -> Change {
    Change::Park(Box::new(Park {
        facts: facts(n),
        epoch,
        url: None,
        body: Bytes::from_static(b"{\"task\":{}}"),
        due: START,
        token: Token(token.unwrap_or(6)),
        lease_until: token.map(|_| START.plus(Duration::from_secs(20))),
    }))
}

pub(super) fn retry() -> Next {
    let begun = START.plus(Duration::from_secs(1));
    Next::Retry {
        due: START.plus(Duration::from_secs(6)),
        since: begun,
        horizon: begun.plus(Duration::from_secs(86_400)),
    }
}

fn interrupted() -> Next {
    let begun = START.plus(Duration::from_secs(1));
    Next::Interrupted { due: START, since: begun, horizon: begun.plus(Duration::from_secs(86_400)) }
}

/// Every state of rows, as the changes that lead to it. The holder's token is always 7.
pub(super) fn states(epoch: i64) -> Vec<(&'static str, Box<dyn Fn(u32) -> Vec<Change>>)> {
    let own = Some(epoch);
    let failed = Outcome::ServerError;
    vec![
        ("nothing", Box::new(|_| vec![])),
        ("parked for room", Box::new(move |n| vec![park(n, None, epoch)])),
        ("parked with its lease", Box::new(move |n| vec![park(n, Some(7), epoch)])),
        ("failed once", Box::new(move |n| vec![settle(n, 7, own, failed, retry())])),
        ("parked, then failed", Box::new(move |n| vec![park(n, Some(7), epoch), settle(n, 7, own, failed, retry())])),
        (
            "parked, then interrupted",
            Box::new(move |n| vec![park(n, Some(7), epoch), settle(n, 7, own, Outcome::Interrupted, interrupted())]),
        ),
        ("delivered", Box::new(move |n| vec![settle(n, 7, own, Outcome::Ok, Next::Delivered)])),
        ("exhausted", Box::new(move |n| vec![settle(n, 7, own, failed, Next::Exhausted)])),
        (
            "abandoned",
            Box::new(move |n| vec![settle(n, 7, own, Outcome::UrlInvalid, Next::Abandoned(Reason::UrlInvalid))]),
        ),
        (
            "delivered late",
            Box::new(move |n| {
                vec![settle(n, 7, own, failed, Next::Exhausted), settle(n, 9, own, Outcome::Ok, Next::Delivered)]
            }),
        ),
    ]
}

pub(super) fn changes(epoch: i64) -> Vec<(&'static str, Box<dyn Fn(u32) -> Change>)> {
    let mut all: Vec<(&'static str, Box<dyn Fn(u32) -> Change>)> = Vec::new();
    for (holder, token) in [("holder", 7), ("another", 8)] {
        for (right, epoch) in [("ours", Some(epoch)), ("fenced", Some(epoch + 5)), ("row", None)] {
            for (what, outcome, next) in [
                ("succeeds", Outcome::Ok, Next::Delivered),
                ("fails", Outcome::HeadReset, retry()),
                ("is exhausted", Outcome::ServerError, Next::Exhausted),
                ("is refused", Outcome::NoUrl, Next::Abandoned(Reason::NoUrl)),
                ("is interrupted", Outcome::Interrupted, interrupted()),
            ] {
                let name: &'static str = Box::leak(format!("{holder} {right} {what}").into_boxed_str());
                all.push((name, Box::new(move |n| settle(n, token, epoch, outcome, next))));
            }
        }
        all.push(("release", Box::new(move |n| Change::Release { facts: facts(n), token: Token(token) })));
    }
    for (name, token, epoch) in [
        ("park ours", None, epoch),
        ("park ours leased", Some(8), epoch),
        ("park fenced", None, epoch + 5),
        ("park fenced leased", Some(7), epoch + 5),
    ] {
        all.push((name, Box::new(move |n| park(n, token, epoch))));
    }
    all
}

#[tokio::test]
async fn every_pair_of_rows_and_change_is_what_apply_says() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        let mut n = 0;
        for (state, lead) in states(epoch) {
            for (what, change) in changes(epoch) {
                n += 1;
                for step in lead(n) {
                    subject.write(vec![step], vec![]).await;
                }
                let id = facts(n).id;
                let before = subject.rows(id).await;
                let attempts_before = subject.attempts(id).await;
                let change = change(n);
                let ours = change.record().is_none_or(|(_, own)| own == epoch);
                let expected = apply(&before, &change, ours);
                let verdicts = subject.write(vec![change.clone()], vec![]).await;
                let context = format!("{}: {state}, then {what}", subject.name);
                assert_eq!(subject.rows(id).await, expected.rows, "{context}");
                let mut attempts = attempts_before;
                attempts.extend(expected.attempt);
                assert_eq!(subject.attempts(id).await, attempts, "{context}");
                if !verdicts.is_empty() {
                    assert_eq!(verdicts, [expected.verdict], "{context}");
                }
                holds(&subject.rows(id).await, &attempts, &context);
            }
        }
        assert!(n > 300, "{n} pairs");
    }
}

/// The invariants that can be seen from one callback's rows.
fn holds(rows: &Rows, attempts: &[NumberedAttempt], context: &str) {
    if let Some(settled) = &rows.settled {
        let recorded = u32::try_from(attempts.len()).unwrap();
        // Only the settled row records a delivery; no other attempt is missing.
        assert!(settled.attempts == recorded || settled.attempts == recorded + 1, "{context}: {settled:?}");
        assert!(rows.pending.is_none(), "{context}: no pending row stays beside it");
    }
    if let Some(pending) = &rows.pending {
        assert_eq!(pending.progress.attempts as usize, attempts.len(), "{context}: attempts = settles applied");
        assert_eq!(pending.token.is_some(), pending.lease_until.is_some(), "{context}");
    }
    let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.n).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(numbers, sorted, "{context}: each attempt has its own number");
}

#[tokio::test]
async fn delivered_is_final() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![]).await;
        for (what, change) in changes(epoch) {
            subject.write(vec![change(1)], vec![]).await;
            let settled = subject.rows(facts(1).id).await.settled.unwrap();
            assert_eq!(settled.ended, Ended::Delivered, "{}: after {what}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_batch_applied_twice_equals_once() {
    for subject in subjects().await {
        let batch = Arc::new(Batch {
            instance: subject.instance,
            number: 1,
            changes: vec![
                settle(1, 7, Some(subject.epoch), Outcome::ServerError, retry()),
                settle(2, 7, None, Outcome::Ok, Next::Delivered),
            ],
            watermarks: vec![],
        });
        for _ in 0..20 {
            match subject.store.write(Arc::clone(&batch)).await {
                Ok(_) | Err(StoreError::Uncertain(_)) => {}
                Err(other) => panic!("{}: {other}", subject.name),
            }
        }
        assert_eq!(subject.attempts(facts(1).id).await.len(), 1, "{}", subject.name);
        assert_eq!(subject.rows(facts(2).id).await.settled.unwrap().attempts, 1, "{}", subject.name);
    }
}

/// Two processes may have copies of one event under way, each from a partition of its own.
#[tokio::test]
async fn a_copy_of_an_event_from_another_partition_counts_with_the_first_one() {
    for mut subject in subjects().await {
        let (name, epoch) = (subject.name, subject.epoch);
        let other = Arc::new(PartitionKey { number: 1, ..(*partition()).clone() });
        let other_epoch = take(&*subject.store, subject.instance, Arc::clone(&other)).await.epoch;
        let copy = |n: u32, outcome: Outcome, next: Next| {
            let Change::Settle(mut settle) = settle(n, 8, Some(other_epoch), outcome, next) else { unreachable!() };
            let record = RecordRef { partition: Arc::clone(&other), ..settle.facts.record.clone() };
            settle.facts = Arc::new(Facts { record, ..Facts::clone(&settle.facts) });
            Change::Settle(settle)
        };
        let first = vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered), park(2, None, epoch)];
        subject.write(first, vec![]).await;
        let copies = vec![copy(1, Outcome::Ok, Next::Delivered), copy(2, Outcome::ServerError, retry())];
        let verdicts = subject.write(copies, vec![]).await;
        assert!(verdicts.is_empty() || verdicts == [Verdict::Late, Verdict::Late], "{name}: {verdicts:?}");
        let settled = subject.rows(facts(1).id).await.settled.unwrap();
        assert_eq!((settled.attempts, &settled.facts.record.partition), (2, &partition()), "{name}");
        let pending = subject.rows(facts(2).id).await.pending.unwrap();
        assert_eq!((pending.progress.attempts, &pending.facts.record.partition), (1, &partition()), "{name}");
    }
}

pub(super) fn raised(epoch: i64, upto: i64) -> PartitionWatermark {
    let watermark = Watermark { upto, seen_upto: upto, last: Some((upto - 1, [1; 32])) };
    PartitionWatermark { partition: partition(), epoch, watermark }
}

#[tokio::test]
async fn the_watermark_rises_with_its_rows_and_only_in_our_epoch() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![raised(epoch, 2)]).await;
        assert_eq!(subject.watermark().await, Watermark { upto: 2, seen_upto: 2, last: Some((1, [1; 32])) });
        subject.write(vec![], vec![raised(epoch, 1)]).await;
        assert_eq!(subject.watermark().await.upto, 2, "{}: it never falls", subject.name);
        let taken = take(&*subject.store, subject.instance, partition()).await;
        assert_eq!((taken.epoch, taken.watermark.upto, taken.fresh), (epoch + 1, 2, false));
        // Writes under the earlier epoch are fenced: no watermark, no first try, no park.
        let verdicts = subject.write(vec![park(2, None, epoch)], vec![raised(epoch, 9)]).await;
        assert!(verdicts.is_empty() || verdicts == [Verdict::Nothing], "{}", subject.name);
        assert_eq!(subject.watermark().await.upto, 2, "{}", subject.name);
        assert_eq!(subject.rows(facts(2).id).await, Rows::default(), "{}", subject.name);
        let restarted = {
            let log = NewLog { start: 0, log_end: 50, accepted: None };
            let (store, instance) = (&subject.store, subject.instance);
            let stale = store.start_over(instance, partition(), epoch, log.clone()).await.unwrap();
            assert!(stale.is_none(), "{}: another one has taken it since", subject.name);
            store.start_over(instance, partition(), epoch + 1, log).await.unwrap().unwrap()
        };
        assert_eq!(restarted.epoch, epoch + 2);
        assert_eq!(restarted.watermark, Watermark { upto: 0, seen_upto: 50, last: None }, "{}", subject.name);
    }
}

#[tokio::test]
async fn a_watermark_that_an_operator_moved_rises_again_from_there() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![raised(epoch, 9)]).await;
        let taken = take(&*subject.store, subject.instance, partition()).await;
        let log = NewLog { start: 4, log_end: 12, accepted: None };
        let moved = subject.store.start_over(subject.instance, partition(), taken.epoch, log).await.unwrap().unwrap();
        assert_eq!(moved.watermark, Watermark { upto: 4, seen_upto: 12, last: None }, "{}", subject.name);
        assert!(!moved.fresh, "{}: the store has read it", subject.name);
        let known = subject.store.known(vec![facts(1).id]).await.unwrap();
        assert!(known[0].is_some(), "{}: what is known stays known", subject.name);
        subject.write(vec![], vec![raised(taken.epoch, 10)]).await;
        assert_eq!(subject.watermark().await.upto, 4, "{}: the epoch before is over", subject.name);
        subject.write(vec![], vec![raised(moved.epoch, 6)]).await;
        let expected = Watermark { upto: 6, seen_upto: 12, last: Some((5, [1; 32])) };
        assert_eq!(subject.watermark().await, expected, "{}: what was seen stays seen", subject.name);
        let log = NewLog { start: 30, log_end: 40, accepted: None };
        let skipped = subject.store.start_over(subject.instance, partition(), moved.epoch, log).await.unwrap().unwrap();
        assert_eq!(skipped.epoch, moved.epoch + 1, "{}", subject.name);
        assert_eq!(subject.watermark().await, Watermark { upto: 30, seen_upto: 40, last: None }, "{}", subject.name);
    }
}

#[tokio::test]
async fn a_partition_that_was_never_read_tells_whether_its_cluster_is_known() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![raised(epoch, 2)]).await;
        for (cluster, knows) in [("c", true), ("another", false)] {
            let other = PartitionKey { cluster: cluster.into(), topic: "another".into(), number: 0 };
            let taken = take(&*subject.store, subject.instance, Arc::new(other)).await;
            assert_eq!((taken.fresh, taken.knows_cluster), (true, knows), "{}: {cluster}", subject.name);
        }
    }
}

#[tokio::test]
async fn due_rows_are_claimed_once_in_turns_and_by_room() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        for n in 1..=5 {
            subject.write(vec![park(n, None, epoch)], vec![]).await;
        }
        subject.write(vec![settle(6, 7, Some(epoch), Outcome::ServerError, retry())], vec![]).await;
        let queue = facts(1).queue.clone();
        let mut ask = subject.ask();
        ask.room.insert(queue.clone(), 2);
        let claimed = subject.store.claim(ask.clone()).await.unwrap();
        assert_eq!(claimed.rows.len(), 2, "{}: the lane's room", subject.name);
        assert!(claimed.rows.iter().all(|(row, body)| row.starts == 1 && &body[..] == b"{\"task\":{}}"));
        ask.room.insert(queue, 0);
        assert!(subject.store.claim(ask).await.unwrap().rows.is_empty(), "{}: no room, no row", subject.name);
        let rest = subject.store.claim(subject.ask()).await.unwrap();
        assert_eq!(rest.rows.len(), 3, "{}: leased rows are not claimed again", subject.name);
        assert_eq!(rest.next_at.map(|at| at.since(START)), Some(Duration::from_secs(6)), "{}", subject.name);
        // The retry is claimed when it is due, and leased rows when their leases have expired.
        subject.clock.advance(Duration::from_secs(6));
        assert_eq!(subject.store.claim(subject.ask()).await.unwrap().rows.len(), 1, "{}", subject.name);
        subject.clock.advance(Duration::from_secs(61));
        assert_eq!(subject.store.free_leases(LEASE).await.unwrap(), 6, "{}", subject.name);
        let again = subject.store.claim(subject.ask()).await.unwrap();
        assert_eq!(again.rows.len(), 6, "{}", subject.name);
        assert!(again.rows.iter().all(|(row, _)| row.starts >= 2), "{}: starts are counted", subject.name);
    }
}

#[tokio::test]
async fn leases_of_an_earlier_instance_end_at_the_start_where_it_was_alone() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![park(1, Some(7), epoch)], vec![]).await;
        assert!(subject.store.claim(subject.ask()).await.unwrap().rows.is_empty(), "{}", subject.name);
        let begun = subject.store.begin().await.unwrap();
        assert!(begun.unclean, "{}: the first instance did not end", subject.name);
        let ask = ClaimAsk { instance: begun.instance, ..subject.ask() };
        if subject.name.starts_with("postgres") {
            // Its requests may be under way.
            assert_eq!(subject.store.free_leases(LEASE).await.unwrap(), 0, "{}", subject.name);
            assert!(subject.store.claim(ask.clone()).await.unwrap().rows.is_empty(), "{}", subject.name);
            subject.clock.advance(LEASE);
            assert_eq!(subject.store.free_leases(LEASE).await.unwrap(), 1, "{}", subject.name);
        }
        assert_eq!(subject.store.claim(ask).await.unwrap().rows.len(), 1, "{}", subject.name);
        subject.store.end(begun.instance).await.unwrap();
    }
}

#[tokio::test]
async fn deaths_at_the_same_watermark_are_counted_until_an_instance_ends_well() {
    for mut subject in subjects().await {
        let deaths = async |subject: &Subject| {
            let begun = subject.store.begin().await.unwrap();
            let taken = take(&*subject.store, begun.instance, partition()).await;
            (begun.instance, taken.epoch, taken.deaths)
        };
        let (_, _, first) = deaths(&subject).await;
        assert_eq!(first, 1, "{}", subject.name);
        let (instance, epoch, second) = deaths(&subject).await;
        assert_eq!(second, 2, "{}", subject.name);
        // The watermark moves, so it was another record.
        (subject.instance, subject.number) = (instance, 0);
        subject.write(vec![], vec![raised(epoch, 5)]).await;
        let (_, _, moved) = deaths(&subject).await;
        assert_eq!(moved, 1, "{}", subject.name);
        let (instance, ..) = deaths(&subject).await;
        subject.store.end(instance).await.unwrap();
        let (_, _, after) = deaths(&subject).await;
        assert_eq!(after, 0, "{}: an instance ended well", subject.name);
        // A new log has nothing of the old one.
        deaths(&subject).await;
        let (instance, epoch, again) = deaths(&subject).await;
        assert_eq!(again, 2, "{}", subject.name);
        let log = NewLog { start: 0, log_end: 9, accepted: None };
        let taken = subject.store.start_over(instance, partition(), epoch, log).await.unwrap().unwrap();
        assert_eq!(taken.deaths, 0, "{}", subject.name);
    }
}

#[tokio::test]
async fn event_ids_belong_to_the_first_who_claims_them() {
    for subject in subjects().await {
        let claim = |hash: u8, n: u32| EventClaim { hash: [hash; 32], id: facts(n).id };
        let store = &subject.store;
        let first = store.claim_event_ids(vec![claim(1, 1), claim(2, 2), claim(1, 3)]).await.unwrap();
        assert_eq!(first, [facts(1).id, facts(2).id, facts(1).id], "{}", subject.name);
        let later = store.claim_event_ids(vec![claim(2, 9)]).await.unwrap();
        assert_eq!(later, [facts(2).id], "{}", subject.name);
    }
}

#[tokio::test]
async fn pruning_keeps_what_is_pending_or_young() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![]).await;
        subject.write(vec![settle(2, 7, Some(epoch), Outcome::ServerError, Next::Exhausted)], vec![]).await;
        subject.write(vec![park(3, None, epoch)], vec![]).await;
        let settled_at = subject.rows(facts(1).id).await.settled.unwrap().settled_at;
        let ask = |before| PruneAsk {
            now: before,
            settled_before: before,
            after: None,
            dead_letters_before: before,
            event_ids_before: before,
            at_most: 10,
        };
        assert_eq!(subject.store.prune(ask(settled_at)).await.unwrap().settled, 0, "{}", subject.name);
        let later = settled_at.plus(Duration::from_millis(1));
        assert_eq!(subject.store.prune(ask(later)).await.unwrap().settled, 2, "{}", subject.name);
        assert_eq!(subject.rows(facts(1).id).await, Rows::default(), "{}", subject.name);
        assert!(subject.attempts(facts(2).id).await.is_empty(), "{}: attempts go with it", subject.name);
        assert!(subject.rows(facts(3).id).await.pending.is_some(), "{}", subject.name);
        let known = subject.store.known(vec![facts(1).id, facts(3).id]).await.unwrap();
        assert_eq!(known.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true], "{}", subject.name);
    }
}

#[tokio::test]
async fn a_dead_letter_is_buried_once() {
    for mut subject in subjects().await {
        let letter = DeadLetter {
            id: facts(1).id,
            record: facts(1).record.clone(),
            reason: Unreadable::NotJson,
            detail: "at line 1".to_owned(),
            team: None,
            task_id: Some("a\u{0}b".into()),
            event_id: None,
            value: Bytes::from_static(b"\0\xff{"),
            value_len: 3,
            value_hash: Some([3; 32]),
            headers: None,
        };
        let epoch = subject.epoch;
        for _ in 0..2 {
            subject.write(vec![Change::Bury(Box::new(letter.clone()), epoch)], vec![]).await;
        }
        let found = subject.reads.dead_letter(letter.id).await.unwrap().unwrap();
        assert_eq!(found.letter.value, letter.value, "{}", subject.name);
        assert_eq!(found.letter.task_id, letter.task_id, "{}", subject.name);
        let totals = subject.reads.totals().await.unwrap();
        assert_eq!(totals.dead_letters, [(Unreadable::NotJson, 1)], "{}", subject.name);
    }
}

#[tokio::test]
async fn pruning_goes_on_where_the_last_piece_ended() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        for n in 1..=5 {
            subject.write(vec![settle(n, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![]).await;
        }
        let cutoff = subject.rows(facts(5).id).await.settled.unwrap().settled_at.plus(Duration::from_millis(1));
        let ask = |after| PruneAsk {
            now: cutoff,
            settled_before: cutoff,
            after,
            dead_letters_before: cutoff,
            event_ids_before: cutoff,
            at_most: 2,
        };
        let (mut after, mut pieces) = (None, Vec::new());
        loop {
            let pruned = subject.store.prune(ask(after)).await.unwrap();
            pieces.push(pruned.settled);
            after = pruned.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(pieces, [2, 2, 1], "{}", subject.name);
        let known = subject.store.known((1..=5).map(|n| facts(n).id).collect()).await.unwrap();
        assert!(known.iter().all(Option::is_none), "{}", subject.name);
    }
}

#[tokio::test]
async fn a_second_process_on_one_directory_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::Directory(folder.path().join("store"));
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START));
    let first = store::open(&config, super::OPTIONS, Arc::clone(&clock)).await.unwrap();
    let second = store::open(&config, super::OPTIONS, Arc::clone(&clock)).await.err().expect("it is locked");
    assert!(second.to_string().contains("is in use by another callbackd"), "{second}");
    drop(first);
    let garbage = folder.path().join("garbage");
    std::fs::create_dir(&garbage).unwrap();
    std::fs::write(garbage.join("callbackd.db"), b"this is no database, is it").unwrap();
    let error = store::open(&Config::Directory(garbage), super::OPTIONS, clock).await.err().expect("garbage");
    assert!(error.to_string().contains("can't be used as a store"), "{error}");
}

/// A dead letter of the usual partition.
pub(super) fn letter(n: u32) -> Box<DeadLetter> {
    Box::new(dead_letter(n, &partition().topic, 3))
}

fn dead_letter(n: u32, topic: &str, bytes: usize) -> DeadLetter {
    let partition = Arc::new(PartitionKey { topic: topic.into(), ..(*partition()).clone() });
    DeadLetter {
        id: facts(n).id,
        record: RecordRef { partition, ..facts(n).record.clone() },
        reason: Unreadable::NotJson,
        detail: String::new(),
        team: None,
        task_id: None,
        event_id: None,
        value: Bytes::from(vec![b'x'; bytes]),
        value_len: bytes as u64,
        value_hash: Some([9; 32]),
        headers: None,
    }
}

#[tokio::test]
async fn the_values_of_dead_letters_have_a_budget() {
    for mut subject in subjects().await {
        let name = subject.name;
        let other = Arc::new(PartitionKey { topic: "other".into(), ..(*partition()).clone() });
        let other_epoch = take(&*subject.store, subject.instance, other).await.epoch;
        let epochs = [("t", subject.epoch), ("other", other_epoch)];
        let epoch_of = |topic: &str| epochs.iter().find(|(of, _)| *of == topic).unwrap().1;
        // Of one topic 20,000 bytes are kept, and 30,000 in all.
        for (n, topic, bytes, is_kept) in [
            (1, "t", 12_000, true),
            (2, "t", 8_001, false),
            (3, "t", 8_000, true),
            (4, "t", 1, false),
            (5, "other", 10_001, false),
            (6, "other", 10_000, true),
            (7, "other", 0, true),
        ] {
            let letter = dead_letter(n, topic, bytes);
            let verdict = if is_kept { Verdict::Buried } else { Verdict::BuriedWithoutValue };
            let change = Change::Bury(Box::new(letter.clone()), epoch_of(topic));
            let verdicts = subject.write(vec![change], vec![]).await;
            // Behind faults, a batch that was applied already gives no verdicts.
            assert!(verdicts.is_empty() || verdicts == [verdict], "{name}: {n}: {verdicts:?}");
            let found = subject.reads.dead_letter(letter.id).await.unwrap().unwrap().letter;
            let kept = if is_kept { letter.value } else { Bytes::new() };
            assert_eq!((found.value, found.value_len), (kept, bytes as u64), "{name}: {n}");
            assert_eq!(found.value_hash, letter.value_hash, "{name}: {n}");
            subject.clock.advance(Duration::from_secs(1));
        }
        // Of pruned ones the bytes are free again.
        let ask = PruneAsk {
            now: START,
            settled_before: START,
            after: None,
            dead_letters_before: START.plus(Duration::from_secs(1)),
            event_ids_before: START,
            at_most: 10,
        };
        assert_eq!(subject.store.prune(ask).await.unwrap().dead_letters, 1, "{name}");
        let letter = dead_letter(8, "t", 12_000);
        let epoch = subject.epoch;
        subject.write(vec![Change::Bury(Box::new(letter.clone()), epoch)], vec![]).await;
        assert_eq!(subject.reads.dead_letter(letter.id).await.unwrap().unwrap().letter.value, letter.value, "{name}");
    }
}

#[tokio::test]
async fn a_claim_takes_no_more_bytes_than_it_asked_for() {
    for mut subject in subjects().await {
        let name = subject.name;
        let epoch = subject.epoch;
        let sized = |n: u32, bytes: usize| match park(n, None, epoch) {
            Change::Park(mut park) => {
                park.body = Bytes::from(vec![b'x'; bytes]);
                Change::Park(park)
            }
            _ => unreachable!(),
        };
        for (n, bytes) in [(1, 600), (2, 500), (3, 10)] {
            subject.write(vec![sized(n, bytes)], vec![]).await;
            subject.clock.advance(Duration::from_secs(1));
        }
        let mut ask = ClaimAsk { bytes: 599, takes_larger_body_alone: false, ..subject.ask() };
        assert!(subject.store.claim(ask.clone()).await.unwrap().rows.is_empty(), "{name}: the first has no room");
        let claimed = subject.store.claim(ask.clone()).await.unwrap();
        assert!(claimed.rows.is_empty() && claimed.next_at <= Some(claimed.now), "{name}: no other passes it");
        ask.bytes = 1_099;
        let taken = |rows: &[(Pending, Bytes)]| rows.iter().map(|(row, _)| row.facts.id).collect::<Vec<_>>();
        let first = subject.store.claim(ask.clone()).await.unwrap().rows;
        assert_eq!(taken(&first), [facts(1).id], "{name}: both would be too much");
        ask.bytes = 1;
        ask.takes_larger_body_alone = true;
        let alone = subject.store.claim(ask.clone()).await.unwrap().rows;
        assert_eq!(taken(&alone), [facts(2).id], "{name}");
        ask.bytes = 10;
        assert_eq!(taken(&subject.store.claim(ask).await.unwrap().rows), [facts(3).id], "{name}");
    }
}

#[tokio::test]
async fn an_event_of_the_future_is_pruned_by_when_its_callback_settled() {
    for mut subject in subjects().await {
        let (name, epoch) = (subject.name, subject.epoch);
        let year = Duration::from_secs(365 * 24 * 3_600);
        let future = |n: u32| {
            let facts = facts(n);
            let mut id = *facts.id.as_bytes();
            id[..6].copy_from_slice(&START.plus(year).millis().to_be_bytes()[2..]);
            Arc::new(Facts { id: CallbackId::from_bytes(id), ..(*facts).clone() })
        };
        let settled = |n: u32, facts: Arc<Facts>| match settle(n, 7, Some(epoch), Outcome::Ok, Next::Delivered) {
            Change::Settle(settle) => Change::Settle(Box::new(Settle { facts, ..*settle })),
            _ => unreachable!(),
        };
        subject.write(vec![settled(1, future(1)), settled(2, facts(2))], vec![]).await;
        subject.clock.advance(Duration::from_secs(3_600));
        let cutoff = subject.rows(facts(2).id).await.settled.unwrap().settled_at.plus(Duration::from_secs(1));
        let late = future(3);
        let Change::Settle(mut last) = settled(3, Arc::clone(&late)) else { unreachable!() };
        last.attempt.begun_at = cutoff;
        subject.write(vec![Change::Settle(last)], vec![]).await;
        let ask = |after| PruneAsk {
            now: cutoff,
            settled_before: cutoff,
            after,
            dead_letters_before: START,
            event_ids_before: START,
            at_most: 1,
        };
        let (mut after, mut pruned) = (None, 0);
        loop {
            let piece = subject.store.prune(ask(after)).await.unwrap();
            pruned += piece.settled;
            after = piece.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(pruned, 2, "{name}");
        assert!(subject.rows(future(1).id).await.settled.is_none(), "{name}: it settled before the cutoff");
        assert!(subject.rows(late.id).await.settled.is_some(), "{name}: it settled after it");
    }
}

/// The id of an event of a wrong clock lies ahead when its callback settles, and behind when that is pruned. Then the callback stays
/// for a while longer, and so does its queue.
#[tokio::test]
async fn a_queue_stays_as_long_as_an_ended_callback_names_it() {
    for mut subject in subjects().await {
        let (name, epoch) = (subject.name, subject.epoch);
        let day = Duration::from_secs(86_400);
        let ahead = |facts: Arc<Facts>| {
            let mut id = *facts.id.as_bytes();
            id[..6].copy_from_slice(&START.plus(day * 12).millis().to_be_bytes()[2..]);
            Arc::new(Facts { id: CallbackId::from_bytes(id), ..(*facts).clone() })
        };
        let Change::Settle(mut settle) = settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered) else {
            unreachable!()
        };
        settle.facts = ahead(settle.facts);
        let id = settle.facts.id;
        subject.write(vec![Change::Settle(settle)], vec![]).await;
        subject.clock.advance(day * 20);
        let ask = PruneAsk {
            now: START.plus(day * 20),
            settled_before: START.plus(day * 8),
            after: None,
            dead_letters_before: START,
            event_ids_before: START,
            at_most: 100,
        };
        while subject.store.prune(ask).await.unwrap().more_days {}
        assert!(subject.reads.rows(id).await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn times_that_a_wrong_clock_wrote_are_taken_back() {
    for mut subject in subjects().await {
        let (name, epoch) = (subject.name, subject.epoch);
        let day = Duration::from_secs(24 * 3_600);
        let hour = Duration::from_secs(3_600);
        let retry = |n: u32, begun_at: Timestamp| {
            let next = Next::Retry { due: begun_at.plus(hour), since: begun_at, horizon: begun_at.plus(day) };
            settle(n, 7, Some(epoch), Outcome::ServerError, next)
        };
        subject.write(vec![retry(1, START)], vec![]).await;
        // The clock is 25 hours ahead for a while.
        let by = hour * 25;
        subject.clock.advance(by);
        let wrong = START.plus(by);
        subject.write(vec![retry(2, wrong), park(3, None, epoch)], vec![]).await;
        assert_eq!(subject.store.newest_time().await.unwrap(), Some(wrong), "{name}");
        subject.store.set_back(SetBack { by, now: START, from: wrong }).await.unwrap();
        for n in [1, 2] {
            let pending = subject.rows(facts(n).id).await.pending.unwrap();
            let times = (pending.due, pending.progress.since, pending.progress.horizon);
            assert_eq!(times, (START.plus(hour), Some(START), Some(START.plus(day))), "{name}: {n}");
        }
        assert_eq!(subject.store.newest_time().await.unwrap(), Some(START), "{name}");
    }
}
