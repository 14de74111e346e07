//! The contract of the reads for people. Every filter is compared with a simple model: a page of the store must equal a
//! filter over all rows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::{ManualClock, Timestamp};
use callbackd::model::attempt::{Attempt, Outcome};
use callbackd::model::callback::{BUILDER, CallbackId, EventKey};
use callbackd::model::dead_letter::{DeadLetter, Unreadable};
use callbackd::model::endpoint::{Origin, QueueKey, QueueTarget};
use callbackd::model::event::{PartitionKey, RecordRef};
use callbackd::model::lease::{Facts, Token};
use callbackd::model::offsets::Watermark;
use callbackd::model::pause::PausedQueues;
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::{Change, Settle};
use callbackd::model::state::State;
use callbackd::model::team::Mode;
use callbackd::store::reads::{
    CallbackFilter, DeadLetterFilter, InstanceEnd, LISTED_BYTES, LastAttempt, Page, QueueAsk, QueueMatch, Queues, Span,
};
use callbackd::store::{Batch, ClaimAsk, InstanceId, PartitionWatermark, Stores};
use proptest::prelude::*;

use super::{START, opened, take};

const STORES: [&str; 3] = ["memory", "sqlite", "postgres"];
const ROWS: u64 = 400;
const BASE: i64 = START.millis();

/// A row as the model knows it.
#[derive(Debug, Clone)]
struct Known {
    id: CallbackId,
    team: String,
    task: String,
    target: String,
    state: State,
    reason: Option<Reason>,
    outcome: Outcome,
    status: Option<u16>,
    mode: Mode,
    /// When the event happened and was read.
    at: i64,
    /// The record's timestamp. For some it is in seconds, so that the id has no time.
    timestamp: i64,
}

fn known(n: u64) -> Known {
    let mut seed = scale_callback::samples::Seed::new(n);
    let at = BASE + i64::try_from(seed.below(50)).unwrap() * 1_000;
    let team = format!("team_{}", seed.below(3));
    let task = format!("task_{}", seed.below(60));
    let target = ["https://a.example:443", "http://b.example:8080", "default:live"][seed.below(3) as usize].to_owned();
    let (state, reason, outcome) = match seed.below(10) {
        0..=5 => (State::Delivered, None, Outcome::Ok),
        6 => (State::Exhausted, None, Outcome::ServerError),
        7 => (State::Abandoned, Some(Reason::Gone), Outcome::Gone),
        8 => (State::Abandoned, Some(Reason::UrlInvalid), Outcome::UrlInvalid),
        _ => (State::Pending, None, Outcome::ConnectRefused),
    };
    let mode = if seed.below(4) == 0 { Mode::Test } else { Mode::Live };
    let timestamp = if seed.below(8) == 0 { at / 1_000 } else { at };
    let id = CallbackId::of(&team, EventKey::Id(&format!("event {n}")), timestamp);
    // A delivery was answered with a 2xx.
    let any = if state == State::Delivered { 1 } else { 3 };
    let status =
        (state != State::Pending && seed.below(2) == 0).then_some(200 + u16::try_from(seed.below(any)).unwrap() * 100);
    Known { id, team, task, target, state, reason, outcome, status, mode, at, timestamp }
}

fn change(row: &Known, offset: i64, partition: &Arc<PartitionKey>, epoch: i64) -> Change {
    let begun_at = Timestamp::from_millis(row.at);
    let target = QueueTarget::parse(&row.target).unwrap();
    let next = match row.state {
        State::Pending => {
            let due = begun_at.plus(Duration::from_secs(3_600));
            Next::Retry { due, since: begun_at, horizon: begun_at.plus(Duration::from_secs(86_400)) }
        }
        State::Delivered => Next::Delivered,
        State::Exhausted => Next::Exhausted,
        State::Abandoned => Next::Abandoned(row.reason.unwrap()),
    };
    Change::Settle(Box::new(Settle {
        facts: Arc::new(Facts {
            id: row.id,
            record: RecordRef { partition: Arc::clone(partition), offset, timestamp: row.timestamp },
            team: row.team.as_str().into(),
            task_id: row.task.as_str().into(),
            event_id: None,
            event_type: "task.completed".into(),
            queue: QueueKey { team: row.team.as_str().into(), target },
            mode: row.mode,
            content_hash: [7; 32],
            builder: BUILDER,
        }),
        token: Token(offset.unsigned_abs() + 1),
        epoch: Some(epoch),
        url: None,
        body: Bytes::from_static(b"{}"),
        number: 1,
        attempt: Attempt {
            outcome: row.outcome,
            sent: true,
            status: row.status,
            begun_at,
            took: Duration::from_millis(3),
            peer: None,
            redialed: false,
            sent_with: None,
            snippet: Bytes::new(),
        },
        next,
    }))
}

/// A store with all rows of the model.
async fn filled(name: &str, folder: &tempfile::TempDir) -> (Stores, Vec<Known>) {
    let stores = opened(name, folder, &Arc::new(ManualClock::new(START))).await;
    let (instance, epoch) = begun(&stores).await;
    let mut rows: Vec<_> = (0..ROWS).map(known).collect();
    let changes = rows.iter().zip(0..).map(|(row, offset)| change(row, offset, &partition(), epoch)).collect();
    let done = i64::try_from(ROWS).unwrap();
    write(&stores, (instance, 1), changes, vec![watermark(epoch, done)]).await;
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    (stores, rows)
}

fn partition() -> Arc<PartitionKey> {
    Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 })
}

fn watermark(epoch: i64, upto: i64) -> PartitionWatermark {
    let watermark = Watermark { upto, seen_upto: upto, last: None };
    PartitionWatermark { partition: partition(), epoch, watermark }
}

/// A registered instance that has taken the partition over.
async fn begun(stores: &Stores) -> (InstanceId, i64) {
    let instance = stores.engine.begin().await.unwrap().instance;
    (instance, take(&*stores.engine, instance, partition()).await.epoch)
}

async fn write(
    stores: &Stores,
    (instance, number): (InstanceId, u64),
    changes: Vec<Change>,
    watermarks: Vec<PartitionWatermark>,
) {
    stores.engine.write(Arc::new(Batch { instance, number, changes, watermarks })).await.unwrap();
}

fn matches(filter: &CallbackFilter, row: &Known) -> bool {
    let queue =
        |queue: &QueueMatch| queue.target == row.target && queue.team.as_ref().is_none_or(|team| *team == row.team);
    filter.team.as_ref().is_none_or(|team| *team == row.team)
        && filter.teams.as_ref().is_none_or(|teams| teams.contains(&row.team))
        && filter.task.as_ref().is_none_or(|task| *task == row.task)
        && filter.queues.as_ref().is_none_or(|queues| queues.iter().any(queue))
        && filter.state.is_none_or(|state| state == row.state)
        && filter.reason.is_none_or(|reason| Some(reason) == row.reason)
        && filter.outcome.is_none_or(|outcome| outcome == row.outcome)
        && filter.status.is_none_or(|status| Some(status) == row.status)
        && !(filter.undelivered && matches!(row.state, State::Pending | State::Delivered))
        && filter.failed.is_none_or(|span| {
            // A delivery has no attempt that failed, and all others have one.
            row.outcome != Outcome::Ok && row.at >= span.from.millis() && row.at < span.until.millis()
        })
        && filter.mode.is_none_or(|mode| mode == row.mode)
        && filter.since.is_none_or(|since| row.at >= since.millis())
        && filter.until.is_none_or(|until| row.at < until.millis())
}

fn any_filter() -> impl Strategy<Value = CallbackFilter> {
    let some = |values: &'static [&'static str]| proptest::option::weighted(0.35, proptest::sample::select(values));
    let time = || proptest::option::weighted(0.3, (0_i64..50).prop_map(|s| Timestamp::from_millis(BASE + s * 1_000)));
    let teams = proptest::sample::subsequence(vec!["team_0", "team_1", "team_9"], 1..3);
    let teams = proptest::option::weighted(0.3, teams);
    let queue = (
        some(&["team_0", "team_1"]),
        proptest::sample::select(vec!["https://a.example:443", "default:live", "http://no.example:80"]),
    )
        .prop_map(|(team, target)| QueueMatch { team: team.map(str::to_owned), target: target.to_owned() });
    (
        (some(&["team_0", "team_1", "team_9"]), teams, some(&["task_1", "task_2", "task_59"])),
        proptest::option::weighted(0.35, proptest::collection::vec(queue, 1..3)),
        proptest::option::weighted(0.5, proptest::sample::select(State::ALL.to_vec())),
        proptest::option::weighted(
            0.2,
            proptest::sample::select(vec![Reason::Gone, Reason::UrlInvalid, Reason::Poison]),
        ),
        proptest::option::weighted(
            0.2,
            proptest::sample::select(vec![Outcome::Ok, Outcome::Gone, Outcome::ConnectRefused]),
        ),
        proptest::option::weighted(0.3, proptest::sample::select(vec![Mode::Live, Mode::Test])),
        (time(), time(), proptest::option::weighted(0.2, (time(), time()))),
        (proptest::option::weighted(0.2, proptest::sample::select(vec![200, 300, 404])), proptest::bool::weighted(0.2)),
    )
        .prop_map(|((team, teams, task), queues, state, reason, outcome, mode, times, (status, undelivered))| {
            let (since, until, failed) = times;
            CallbackFilter {
                team: team.map(str::to_owned),
                teams: teams.map(|teams| teams.into_iter().map(str::to_owned).collect()),
                task: task.map(str::to_owned),
                queues,
                state,
                reason,
                outcome,
                status,
                failed: failed.map(|(from, until)| Span {
                    from: from.unwrap_or_default(),
                    until: until.unwrap_or(Timestamp::from_millis(i64::MAX / 2)),
                }),
                undelivered,
                mode,
                since,
                until,
            }
        })
}

#[test]
fn every_filter_gives_what_the_model_gives_page_by_page() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let (stores, rows) = runtime.block_on(filled(name, &folder));
        assert!(rows.iter().any(|row| row.state == State::Pending) && rows.len() == ROWS as usize);
        let config = ProptestConfig { cases: 400, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        runner
            .run(&(any_filter(), 1_usize..70), |(filter, limit)| {
                let expected: Vec<_> = rows.iter().filter(|row| matches(&filter, row)).map(|row| row.id).collect();
                let mut seen = Vec::new();
                let mut before = None;
                loop {
                    let page = Page { before, limit };
                    let found = runtime.block_on(stores.reads.callbacks(filter.clone(), page)).unwrap();
                    prop_assert!(found.docs.len() <= limit);
                    seen.extend(found.docs.iter().map(|(id, _)| *id));
                    before = found.next;
                    if before.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(&seen, &expected, "{}: {:?}", name, filter);
                let (mut ids, mut before) = (Vec::new(), None);
                loop {
                    let page = Page { before, limit };
                    let found = runtime.block_on(stores.reads.callback_ids(filter.clone(), page)).unwrap();
                    ids.extend(found.docs);
                    before = found.next;
                    if before.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(&ids, &expected, "{}: {:?}", name, filter);
                Ok(())
            })
            .unwrap();
    }
    // The origin of a queue is read back as it was written.
    assert_eq!(Origin::parse("http://b.example:8080").map(|o| o.to_string()).as_deref(), Some("http://b.example:8080"));
}

/// A callback, and when its attempts failed.
struct Failed {
    row: Known,
    /// The time in its id, or when it was read.
    event_at: i64,
    failures: Vec<i64>,
}

const HOUR: u64 = 3_600_000;

fn failed(n: u64) -> Failed {
    let mut seed = scale_callback::samples::Seed::new(n);
    let mut within = |hours: u64| i64::try_from(seed.below(hours * HOUR)).unwrap();
    let mut row = known(n);
    row.at = BASE + within(60);
    row.timestamp = match n % 8 {
        0 => row.at / 1_000,
        // The clock of whoever made the event is ahead.
        1 => row.at + within(20),
        _ => row.at,
    };
    row.id = CallbackId::of(&row.team, EventKey::Id(&format!("event {n}")), row.timestamp);
    let event_at = if n.is_multiple_of(8) { row.at } else { row.timestamp };
    let mut failures: Vec<_> = Some(row.at).filter(|_| row.outcome != Outcome::Ok).into_iter().collect();
    failures.extend((0..n % 3).map(|again| row.at + if again == 0 { within(1) / 4 } else { within(30) }));
    Failed { row, event_at, failures }
}

/// An attempt whose lease has ended fails after another one has decided.
fn fails_late(row: &Known, offset: i64, epoch: i64, at: i64) -> Change {
    let Change::Settle(mut settle) = change(row, offset, &partition(), epoch) else { unreachable!() };
    settle.token = Token(1_000_000);
    settle.attempt.outcome = Outcome::HeadReset;
    settle.attempt.status = None;
    settle.attempt.begun_at = Timestamp::from_millis(at);
    settle.next = Next::Exhausted;
    Change::Settle(settle)
}

#[tokio::test]
async fn callbacks_are_found_by_when_an_attempt_failed() {
    let hours = |count: u64| i64::try_from(count * HOUR).unwrap();
    let mut rows: Vec<_> = (0..700).map(failed).collect();
    let one = rows[100..].iter().find_map(|failed| failed.failures.first()).unwrap() - BASE;
    let spans = [
        (0, hours(1)),
        (hours(1) / 2, hours(3) / 2),
        (one, one + 1),
        (one + 1, one + 2),
        (hours(10), hours(34)),
        // From here on, there are too many hours.
        (hours(10) + 1, hours(36) + 1),
        (hours(3), hours(50)),
        (-BASE, i64::MAX / 2),
        (hours(200), hours(201)),
        (hours(7), hours(7)),
        (hours(9), hours(5)),
    ];
    let any = CallbackFilter::default;
    let time = |at: i64| Some(Timestamp::from_millis(BASE + at));
    let filters = [
        any(),
        CallbackFilter { team: Some("team_1".to_owned()), ..any() },
        CallbackFilter { state: Some(State::Pending), ..any() },
        CallbackFilter { state: Some(State::Delivered), mode: Some(Mode::Live), ..any() },
        CallbackFilter { undelivered: true, ..any() },
        CallbackFilter { since: time(hours(12)), ..any() },
        CallbackFilter { since: time(hours(2)), until: time(hours(30)), ..any() },
    ];
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let stores = opened(name, &folder, &Arc::new(ManualClock::new(START))).await;
        let (instance, epoch) = begun(&stores).await;
        let offset = |row: &Known| row.at - BASE;
        let first = rows.iter().map(|failed| change(&failed.row, offset(&failed.row), &partition(), epoch)).collect();
        write(&stores, (instance, 1), first, vec![]).await;
        for (again, batch) in (0..2).zip(2..) {
            let late = rows.iter().filter_map(|Failed { row, failures, .. }| {
                let at = failures.get(again + usize::from(row.outcome != Outcome::Ok))?;
                Some(fails_late(row, offset(row), epoch, *at))
            });
            write(&stores, (instance, batch), late.collect(), vec![]).await;
        }
        rows.sort_by_key(|failed| std::cmp::Reverse(failed.row.id));
        for (filter, (from, until)) in filters.iter().flat_map(|filter| spans.map(|span| (filter, span))) {
            let [from, until] = [from, until].map(|at| Timestamp::from_millis(BASE.saturating_add(at)));
            let others = CallbackFilter { since: None, until: None, ..filter.clone() };
            let expected = rows.iter().filter(|Failed { row, event_at, failures }| {
                failures.iter().any(|at| (from.millis()..until.millis()).contains(at))
                    && matches(&others, row)
                    && filter.since.is_none_or(|since| *event_at >= since.millis())
                    && filter.until.is_none_or(|until| *event_at < until.millis())
            });
            let expected: Vec<_> = expected.map(|failed| failed.row.id).collect();
            let filter = CallbackFilter { failed: Some(Span { from, until }), ..filter.clone() };
            for limit in [40, 1_000] {
                let (mut found, mut before) = (Vec::new(), None);
                loop {
                    let page = stores.reads.callback_ids(filter.clone(), Page { before, limit }).await.unwrap();
                    found.extend(page.docs);
                    before = page.next;
                    if before.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected, "{name}: {filter:?}, {limit} a page");
            }
        }
    }
}

#[tokio::test]
async fn totals_and_backlog_count_every_row() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let (stores, rows) = filled(name, &folder).await;
        let totals = stores.reads.totals().await.unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for row in rows.iter().filter(|row| row.state != State::Pending) {
            let reason = row.reason.map(|reason| reason.name().to_owned());
            *counts.entry((row.state.name().to_owned(), reason)).or_insert(0) += 1;
        }
        let expected: Vec<_> = counts.into_iter().map(|((state, reason), count)| (state, reason, count)).collect();
        assert_eq!(totals.settled, expected, "{name}");
        let pending = || rows.iter().filter(|row| row.state == State::Pending);
        let due = pending().map(|row| Timestamp::from_millis(row.at).plus(Duration::from_secs(3_600))).min();
        let backlog = (pending().count() as u64, due);
        assert_eq!((totals.pending, totals.oldest_due), backlog, "{name}");
        assert_eq!(stores.reads.backlog().await.unwrap(), backlog, "{name}");
    }
}

#[tokio::test]
async fn a_callback_shows_its_attempts_and_its_body_unless_it_arrived() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let (stores, rows) = filled(name, &folder).await;
        for (state, body, attempts) in [
            (State::Pending, Some(Bytes::from_static(b"{}")), 1),
            (State::Delivered, None, 0),
            (State::Exhausted, Some(Bytes::from_static(b"{}")), 1),
        ] {
            let id = rows.iter().find(|row| row.state == state).unwrap().id;
            let context = format!("{name}: {state:?}");
            assert_eq!(stores.reads.body(id).await.unwrap(), body, "{context}");
            assert_eq!(stores.reads.attempts(id).await.unwrap().len(), attempts, "{context}");
            let last = stores.reads.last_attempts(vec![id]).await.unwrap()[0];
            let recorded = stores.reads.attempts(id).await.unwrap().pop().map(|last| last.attempt.ended_at());
            assert_eq!(last.map(|last| last.ended_at), recorded, "{context}: only recorded attempts count");
            assert_eq!(last.and_then(|last| last.status), None, "{context}");
            assert_eq!(stores.reads.rows(id).await.unwrap().pending.is_some(), state == State::Pending, "{context}");
        }
        let mut first = known(0);
        first.id = CallbackId::of("team_0", EventKey::Id("with a status"), BASE);
        first.state = State::Exhausted;
        let Change::Settle(mut settle) = change(&first, 0, &partition(), 1) else { unreachable!() };
        settle.attempt.status = Some(503);
        settle.attempt.took = std::time::Duration::from_millis(250);
        let ended_at = settle.attempt.ended_at();
        let instance = InstanceId(stores.reads.instances(1).await.unwrap()[0].id);
        write(&stores, (instance, 2), vec![Change::Settle(settle)], vec![]).await;
        let unknown = CallbackId::of("team_0", EventKey::Id("never stored"), BASE);
        let last = stores.reads.last_attempts(vec![unknown, first.id]).await.unwrap();
        assert_eq!(
            last,
            [None, Some(LastAttempt { status: Some(503), ended_at })],
            "{name}: in the order that was asked"
        );
    }
}

#[tokio::test]
async fn queues_are_listed_with_what_waits_in_them() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let (stores, rows) = filled(name, &folder).await;
        let mut expected = std::collections::BTreeMap::new();
        for row in rows.iter().filter(|row| row.state == State::Pending) {
            let (count, oldest) = expected.entry((row.team.clone(), row.target.clone())).or_insert((0_u64, i64::MAX));
            *count += 1;
            *oldest = row.at.min(*oldest);
        }
        let ask = |which, count_upto| QueueAsk { which, count_upto };
        let all = Queues::From { team: None, at_most: 100 };
        let listed = stores.reads.queues(ask(all, 1_000)).await.unwrap();
        let seen: Vec<_> = listed.iter().map(|row| ((row.team.clone(), row.target.clone()), row.pending)).collect();
        let wanted: Vec<_> = expected.iter().map(|(queue, (count, _))| (queue.clone(), *count)).collect();
        assert_eq!(seen, wanted, "{name}: by team and target");
        for (row, (count, oldest)) in listed.iter().zip(expected.values()) {
            let due = Timestamp::from_millis(*oldest).plus(Duration::from_secs(3_600));
            assert_eq!(row.oldest_due, Some(due), "{name}");
            assert_eq!(row.parked_bytes, count * 2, "{name}: two bytes a body");
            assert_eq!((row.last_outcome, row.tries), (Some(Outcome::ConnectRefused), 1), "{name}");
        }
        let few = stores.reads.queues(ask(Queues::From { team: Some("team_1".to_owned()), at_most: 2 }, 1)).await;
        let few: Vec<_> = few.unwrap().into_iter().map(|row| (row.team, row.target, row.pending)).collect();
        let from_team_1 = wanted.iter().filter(|((team, _), _)| team.as_str() >= "team_1");
        let bounded: Vec<_> =
            from_team_1.take(2).map(|((team, target), _)| (team.clone(), target.clone(), 1)).collect();
        assert_eq!(few, bounded, "{name}: from a team on, and counted up to 1");
        let of = stores.reads.queues(ask(Queues::Of("team_2".to_owned()), 0)).await.unwrap();
        assert!(of.iter().all(|row| row.team == "team_2" && row.pending == 0), "{name}: nothing is counted");
        let named = Queues::These(vec![wanted[0].0.clone(), ("nobody".to_owned(), "default:live".to_owned())]);
        assert_eq!(stores.reads.queues(ask(named, 9)).await.unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_queue_whose_callbacks_are_all_under_way_is_listed() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let stores = opened(name, &folder, &clock).await;
        let (instance, epoch) = begun(&stores).await;
        let pending = (0..).map(known).find(|row| row.state == State::Pending).unwrap();
        write(&stores, (instance, 1), vec![change(&pending, 0, &partition(), epoch)], vec![]).await;
        clock.advance(Duration::from_secs(7_200));
        let ask = ClaimAsk {
            instance,
            at_most: 9,
            bytes: 1 << 20,
            takes_larger_body_alone: true,
            lease: Duration::from_secs(60),
            usual_room: 9,
            room: std::collections::HashMap::new(),
            paused: PausedQueues::default(),
            first_token: Token(1),
        };
        assert_eq!(stores.engine.claim(ask).await.unwrap().rows.len(), 1, "{name}");
        let ask = QueueAsk { which: Queues::From { team: None, at_most: 9 }, count_upto: 9 };
        let listed = stores.reads.queues(ask).await.unwrap();
        assert_eq!((listed.len(), listed[0].pending, listed[0].oldest_due), (1, 0, None), "{name}");
        assert_eq!(stores.reads.backlog().await.unwrap(), (1, None), "{name}");
    }
}

fn letter(n: u8, task: Option<&str>, team: &str, reason: Unreadable) -> DeadLetter {
    let at = BASE + i64::from(n) * 1_000;
    let value = Bytes::from(vec![n; 1_000]);
    DeadLetter {
        id: CallbackId::of_dead_letter(&partition(), i64::from(n), at, &[n; 32]),
        record: RecordRef { partition: partition(), offset: i64::from(n), timestamp: at },
        reason,
        detail: "why".to_owned(),
        team: Some(team.into()),
        task_id: task.map(Into::into),
        event_id: None,
        value_len: 1_000,
        value_hash: Some([n; 32]),
        headers: None,
        value,
    }
}

#[tokio::test]
async fn dead_letters_are_found_by_what_could_be_read_of_them() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let stores = opened(name, &folder, &Arc::new(ManualClock::new(START))).await;
        let (instance, epoch) = begun(&stores).await;
        let letters = [
            letter(1, Some("task_a"), "team_a", Unreadable::NotJson),
            letter(2, None, "team_a", Unreadable::NotJson),
            letter(3, Some("task_a"), "team_b", Unreadable::UnknownTeam),
            letter(4, None, "team_b", Unreadable::NotJson),
        ];
        let changes = letters.iter().map(|letter| Change::Bury(Box::new(letter.clone()), epoch)).collect();
        write(&stores, (instance, 1), changes, vec![]).await;
        let found = async |filter: DeadLetterFilter, limit: usize, before: Option<usize>| {
            let page = Page { before: before.map(|n| letters[n - 1].id), limit };
            let found = stores.reads.dead_letters(filter, page).await.unwrap();
            assert!(found.docs.iter().all(|letter| letter.letter.value.len() == LISTED_BYTES), "{name}");
            assert!(found.docs.iter().all(|letter| letter.letter.value_len == 1_000), "{name}");
            let numbers: Vec<_> = found.docs.iter().map(|found| found.letter.record.offset).collect();
            (numbers, found.next.is_some())
        };
        let any = DeadLetterFilter::default;
        let time = |n: i64| Some(Timestamp::from_millis(BASE + n * 1_000));
        assert_eq!(found(any(), 9, None).await, (vec![4, 3, 2, 1], false), "{name}: newest first");
        assert_eq!(found(any(), 2, None).await, (vec![4, 3], true), "{name}");
        assert_eq!(found(any(), 2, Some(3)).await, (vec![2, 1], false), "{name}");
        let of_task = DeadLetterFilter { task: Some("task_a".to_owned()), ..any() };
        assert_eq!(found(of_task, 9, None).await, (vec![3, 1], false), "{name}");
        let of_team = DeadLetterFilter { team: Some("team_a".to_owned()), ..any() };
        assert_eq!(found(of_team, 9, None).await, (vec![2, 1], false), "{name}");
        for (teams, numbers) in [(vec!["team_b", "team_x"], vec![4, 3]), (vec!["team_x"], vec![])] {
            let teams = Some(teams.into_iter().map(str::to_owned).collect());
            let of_teams = DeadLetterFilter { teams, ..any() };
            assert_eq!(found(of_teams, 9, None).await, (numbers, false), "{name}");
        }
        let unknown = DeadLetterFilter { reason: Some(Unreadable::UnknownTeam), ..any() };
        assert_eq!(found(unknown, 9, None).await, (vec![3], false), "{name}");
        let between = DeadLetterFilter { since: time(2), until: time(4), ..any() };
        assert_eq!(found(between, 9, None).await, (vec![3, 2], false), "{name}");
        assert_eq!(stores.reads.nameless_dead_letters(9).await.unwrap(), 2, "{name}");
        assert_eq!(stores.reads.nameless_dead_letters(1).await.unwrap(), 1, "{name}");
        let whole = stores.reads.dead_letter(letters[0].id).await.unwrap().unwrap();
        assert_eq!((whole.letter.value.len(), whole.buried_at), (1_000, START), "{name}");
    }
}

#[tokio::test]
async fn empty_values_and_names_are_listed_like_any_other() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let stores = opened(name, &folder, &Arc::new(ManualClock::new(START))).await;
        let (instance, epoch) = begun(&stores).await;
        let empty = DeadLetter {
            value: Bytes::new(),
            value_len: 0,
            detail: String::new(),
            event_id: Some("".into()),
            ..letter(1, Some(""), "", Unreadable::Tombstone)
        };
        let letters = [empty.clone(), letter(2, Some("task_a"), "team_a", Unreadable::NotJson)];
        let changes = letters.iter().map(|letter| Change::Bury(Box::new(letter.clone()), epoch)).collect();
        write(&stores, (instance, 1), changes, vec![]).await;
        let page = || Page { before: None, limit: 9 };
        let any = DeadLetterFilter::default;
        let of_task = DeadLetterFilter { task: Some(String::new()), ..any() };
        let of_team = DeadLetterFilter { team: Some(String::new()), ..any() };
        for (filter, count) in [(any(), 2), (of_task, 1), (of_team, 1)] {
            let found = stores.reads.dead_letters(filter.clone(), page()).await.unwrap();
            assert_eq!(found.docs.len(), count, "{name}: {filter:?}");
            let last = &found.docs.last().unwrap().letter;
            assert_eq!((&last.value, last.value_len), (&Bytes::new(), 0), "{name}: {filter:?}");
            assert_eq!((last.team.as_deref(), last.task_id.as_deref()), (Some(""), Some("")), "{name}: {filter:?}");
            assert_eq!(last.event_id.as_deref(), Some(""), "{name}: {filter:?}");
        }
        let whole = stores.reads.dead_letter(empty.id).await.unwrap().unwrap();
        assert_eq!(whole.letter.value, Bytes::new(), "{name}");
        assert_eq!(stores.reads.nameless_dead_letters(9).await.unwrap(), 0, "{name}: an empty name is a name");

        // A callback without a body, with an empty answer and empty names.
        let row = Known {
            id: CallbackId::of("", EventKey::Id("empty"), BASE),
            team: String::new(),
            task: String::new(),
            state: State::Pending,
            ..known(0)
        };
        let Change::Settle(mut settle) = change(&row, 9, &partition(), epoch) else { unreachable!() };
        settle.body = Bytes::new();
        write(&stores, (instance, 2), vec![Change::Settle(settle)], vec![]).await;
        for task in [None, Some(String::new())] {
            let filter = CallbackFilter { task, ..CallbackFilter::default() };
            let found = stores.reads.callbacks(filter, page()).await.unwrap();
            assert_eq!(found.docs.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [row.id], "{name}");
        }
        assert_eq!(stores.reads.body(row.id).await.unwrap(), None, "{name}: such a body is one that is not stored");
        assert_eq!(stores.reads.attempts(row.id).await.unwrap()[0].attempt.snippet, Bytes::new(), "{name}");
        let all = QueueAsk { which: Queues::From { team: None, at_most: 9 }, count_upto: 9 };
        let queues = stores.reads.queues(all).await.unwrap();
        assert_eq!(queues.iter().map(|queue| queue.pending).collect::<Vec<_>>(), [1], "{name}");
    }
}

#[tokio::test]
async fn offsets_and_instances_tell_who_runs() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let stores = opened(name, &folder, &clock).await;
        let (first, epoch) = begun(&stores).await;
        clock.advance(Duration::from_secs(5));
        write(&stores, (first, 1), vec![], vec![watermark(epoch, 9)]).await;
        let offsets = stores.reads.offsets().await.unwrap();
        assert_eq!(offsets.len(), 1, "{name}");
        let own = &offsets[0];
        assert_eq!((&own.partition, own.epoch, own.owner), (&*partition(), epoch, Some(first.0)), "{name}");
        assert_eq!((own.watermark.upto, own.moved_at.since(START)), (9, Duration::from_secs(5)), "{name}");
        let (second, _) = begun(&stores).await;
        stores.engine.end(second).await.unwrap();
        assert_eq!(stores.reads.offsets().await.unwrap()[0].owner, None, "{name}: the owner has ended");
        let rows = stores.reads.instances(9).await.unwrap();
        let ends: Vec<_> = rows.iter().map(|row| (row.id, row.end)).collect();
        let expected = [(second.0, Some(InstanceEnd::Clean)), (first.0, Some(InstanceEnd::Died))];
        assert_eq!(ends, expected, "{name}: newest first");
        assert_eq!(rows[1].seen_at.since(rows[1].started_at), Duration::from_secs(5), "{name}: its last write");
        assert_eq!(stores.reads.instances(1).await.unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_dead_letter_without_a_time_is_found_by_when_it_was_buried() {
    for name in STORES {
        let folder = tempfile::tempdir().unwrap();
        let stores = opened(name, &folder, &Arc::new(ManualClock::new(START))).await;
        let (instance, epoch) = begun(&stores).await;
        let id = CallbackId::of_dead_letter(&partition(), 1, BASE / 1_000, &[1; 32]);
        let timeless = DeadLetter { id, ..letter(1, None, "team_0", Unreadable::NotJson) };
        let timed = letter(2, None, "team_0", Unreadable::NotJson);
        let changes = [&timeless, &timed].map(|letter| Change::Bury(Box::new(letter.clone()), epoch));
        write(&stores, (instance, 1), changes.to_vec(), vec![]).await;
        let second = Duration::from_secs(1);
        for (since, until, expected) in [
            (None, None, vec![timed.id, timeless.id]),
            (Some(START), None, vec![timed.id, timeless.id]),
            (Some(START.plus(second)), None, vec![timed.id]),
            (None, Some(START), vec![]),
            (None, Some(START.plus(second)), vec![timeless.id]),
        ] {
            let filter = DeadLetterFilter { since, until, ..DeadLetterFilter::default() };
            let found = stores.reads.dead_letters(filter.clone(), Page { before: None, limit: 9 }).await.unwrap();
            let ids: Vec<_> = found.docs.iter().map(|row| row.letter.id).collect();
            assert_eq!(ids, expected, "{name}: {filter:?}");
            let mut one_by_one = Vec::new();
            let mut before = None;
            loop {
                let page = stores.reads.dead_letters(filter.clone(), Page { before, limit: 1 }).await.unwrap();
                one_by_one.extend(page.docs.iter().map(|row| row.letter.id));
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(one_by_one, expected, "{name}: {filter:?}, page by page");
        }
    }
}
