//! Every filter against a plain model: what a page of the store holds is what a filter over all rows gives.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::{Clock, SystemClock, Timestamp};
use callbackd::model::attempt::{Attempt, Outcome};
use callbackd::model::callback::{BUILDER, CallbackId, EventKey};
use callbackd::model::endpoint::{Origin, QueueKey, QueueTarget};
use callbackd::model::event::{PartitionKey, RecordRef};
use callbackd::model::lease::{Facts, Token};
use callbackd::model::offsets::Watermark;
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::{Change, Settle};
use callbackd::model::team::Mode;
use callbackd::store::reads::{CallbackFilter, Page, QueueMatch, Reads as _, State};
use callbackd::store::sqlite::{Config, SqliteStore};
use callbackd::store::{Batch, PartitionWatermark, Store as _};
use proptest::prelude::*;

const ROWS: u64 = 400;
const BASE: i64 = 1_764_000_000_000;

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
    mode: Mode,
    at: i64,
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
    let id = CallbackId::of(&team, EventKey::Id(&format!("event {n}")), at);
    Known { id, team, task, target, state, reason, outcome, mode, at }
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
            record: RecordRef { partition: Arc::clone(partition), offset, timestamp: row.at },
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
            status: None,
            begun_at,
            took: Duration::from_millis(3),
            peer: None,
            redialed: false,
            snippet: Bytes::new(),
        },
        next,
    }))
}

/// A store with all rows of the model.
async fn filled(folder: &std::path::Path) -> (SqliteStore, Vec<Known>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = SqliteStore::open(&Config { directory: folder.to_owned() }, clock).unwrap();
    let begun = store.begin().await.unwrap();
    let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
    let taken = store.take(begun.instance, Arc::clone(&partition)).await.unwrap();
    let mut rows: Vec<_> = (0..ROWS).map(known).collect();
    let changes = rows.iter().zip(0..).map(|(row, offset)| change(row, offset, &partition, taken.epoch)).collect();
    let done = i64::try_from(ROWS).unwrap();
    let watermark = Watermark { upto: done, seen_upto: done, last: None };
    let watermarks = vec![PartitionWatermark { partition, epoch: taken.epoch, watermark }];
    store.write(Arc::new(Batch { instance: begun.instance, number: 1, changes, watermarks })).await.unwrap();
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    (store, rows)
}

fn matches(filter: &CallbackFilter, row: &Known) -> bool {
    let queue =
        |queue: &QueueMatch| queue.target == row.target && queue.team.as_ref().is_none_or(|team| *team == row.team);
    filter.team.as_ref().is_none_or(|team| *team == row.team)
        && filter.task.as_ref().is_none_or(|task| *task == row.task)
        && filter.queues.as_ref().is_none_or(|queues| queues.iter().any(queue))
        && filter.state.is_none_or(|state| state == row.state)
        && filter.reason.is_none_or(|reason| Some(reason) == row.reason)
        && filter.outcome.is_none_or(|outcome| outcome == row.outcome)
        && filter.mode.is_none_or(|mode| mode == row.mode)
        && filter.since.is_none_or(|since| row.at >= since.millis())
        && filter.until.is_none_or(|until| row.at < until.millis())
}

fn any_filter() -> impl Strategy<Value = CallbackFilter> {
    let some = |values: &'static [&'static str]| proptest::option::weighted(0.35, proptest::sample::select(values));
    let time = || proptest::option::weighted(0.3, (0_i64..50).prop_map(|s| Timestamp::from_millis(BASE + s * 1_000)));
    let queue = (
        some(&["team_0", "team_1"]),
        proptest::sample::select(vec!["https://a.example:443", "default:live", "http://no.example:80"]),
    )
        .prop_map(|(team, target)| QueueMatch { team: team.map(str::to_owned), target: target.to_owned() });
    (
        (some(&["team_0", "team_1", "team_9"]), some(&["task_1", "task_2", "task_59"])),
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
        (time(), time()),
    )
        .prop_map(|((team, task), queues, state, reason, outcome, mode, (since, until))| CallbackFilter {
            team: team.map(str::to_owned),
            task: task.map(str::to_owned),
            queues,
            state,
            reason,
            outcome,
            mode,
            since,
            until,
        })
}

#[test]
fn every_filter_gives_what_the_model_gives_page_by_page() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (store, rows) = runtime.block_on(filled(folder.path()));
    assert!(rows.iter().any(|row| row.state == State::Pending) && rows.len() == ROWS as usize);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 400, ..ProptestConfig::default() });
    runner
        .run(&(any_filter(), 1_usize..70), |(filter, limit)| {
            let expected: Vec<_> = rows.iter().filter(|row| matches(&filter, row)).map(|row| row.id).collect();
            let mut seen = Vec::new();
            let mut before = None;
            loop {
                let page = Page { before, limit };
                let found = runtime.block_on(store.callbacks(filter.clone(), page)).unwrap();
                prop_assert!(found.docs.len() <= limit);
                seen.extend(found.docs.iter().map(|(id, _)| *id));
                before = found.next;
                if before.is_none() {
                    break;
                }
            }
            prop_assert_eq!(&seen, &expected, "{:?}", filter);
            Ok(())
        })
        .unwrap();
    // A queue's own origin reads as it is written.
    assert_eq!(Origin::parse("http://b.example:8080").map(|o| o.to_string()).as_deref(), Some("http://b.example:8080"));
}
