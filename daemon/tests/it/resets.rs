//! Watermarks that an operator moves, on a real Kafka: what the store knows is not sent again, what it lost is, and what is
//! skipped is never sent.

use std::sync::Arc;
use std::time::Duration;

use callbackd::intake::partition::ResetTo;
use callbackd::ops::OpsError;
use callbackd::ops::resets::{PartitionReset, ResetAsk, ResetState};
use callbackd::store::admin::AuditFilter;
use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;

use crate::harness::{Harness, PATIENCE};
use crate::kafka::{at_the_end, by_task, create_topic, delete_before, events, produce, shared_broker};

/// Everything of all topics, to this place.
fn all(to: ResetTo) -> ResetAsk {
    ResetAsk { topic: None, partition: None, to, at_most: 0, dry_run: false }
}

fn one(partition: i32, to: ResetTo) -> ResetAsk {
    ResetAsk { partition: Some(partition), ..all(to) }
}

fn each_once(receiver: &Recorder, count: usize) {
    let tasks = by_task(&receiver.receipts());
    let repeated: Vec<_> = tasks.iter().filter(|(_, receipts)| receipts.len() != 1).map(|(task, _)| task).collect();
    assert!(repeated.is_empty(), "{} came more than once: {repeated:?}", repeated.len());
    assert_eq!(tasks.len(), count);
    assert!(receiver.refused().is_empty(), "{:?}", receiver.refused());
}

/// Rewinds as soon as the partitions can be moved.
async fn rewound(harness: &Harness, ask: ResetAsk) -> Vec<PartitionReset> {
    harness.until("it is rewound", async || harness.session().rewind_offsets(ask.clone()).await.ok()).await
}

async fn audited(harness: &Harness, action: &str) -> Vec<(String, String)> {
    let rows = harness.session().audit(AuditFilter::default(), None, 100).await.unwrap();
    rows.into_iter().filter(|row| row.action == action).map(|row| (row.object, row.change)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_rewound_repeat_nothing() {
    let servers = shared_broker();
    create_topic(&servers, "rewound", 4).await;
    let over = [
        ("DELIVER__HEAD_TIMEOUT", "20s"),
        ("DELIVER__TOTAL_TIMEOUT", "20s"),
        ("SHUTDOWN__GRACE", "25s"),
        ("DELIVER__PER_ENDPOINT", "64"),
    ];
    let mut harness = Harness::on(&servers, None, "rewound", &over, None).await;
    let receiver = harness.recorder(Arc::new(|_, _| Reply::status(200).after(Duration::from_millis(400)))).await;
    produce(&servers, "rewound", 4, &events(0, 200, &receiver.url("/")));
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() == 200).await);
    at_the_end(&harness, &servers, 4).await;
    let session = harness.session();
    let planned = session.rewind_offsets(ResetAsk { dry_run: true, ..all(ResetTo::Earliest) }).await.unwrap();
    assert!(
        planned.iter().all(|one| (one.state, one.records, one.at_risk) == (ResetState::Planned, 50, 0)),
        "{planned:?}"
    );
    let epochs =
        async || -> Vec<i64> { harness.app().reads().offsets().await.unwrap().iter().map(|row| row.epoch).collect() };
    let before = epochs().await;
    assert!(audited(&harness, "offsets.rewind").await.is_empty(), "a dry run changes nothing");

    // Attempts are in flight while the partitions are given up.
    produce(&servers, "rewound", 4, &events(200, 40, &receiver.url("/")));
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() >= 204).await);
    let moved = session.rewind_offsets(all(ResetTo::Earliest)).await.unwrap();
    assert_eq!(moved.len(), 4);
    assert!(moved.iter().all(|one| (one.state, one.to) == (ResetState::Moved, Some(0))), "{moved:?}");
    assert!(before.iter().zip(epochs().await).all(|(before, after)| after > *before), "each has a new epoch");
    let rows = audited(&harness, "offsets.rewind").await;
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert!(
        rows.iter().all(|(object, change)| object.starts_with("rewound[") && change.contains("read again")),
        "{rows:?}"
    );
    at_the_end(&harness, &servers, 4).await;
    each_once(&receiver, 240);
    let skipped = harness.app().ops.metrics().repeats_skipped_total.get();
    assert!(skipped >= 200, "all were read and looked up: {skipped}");

    // The place of a time, a place above the watermark, and a time that has not come.
    let at = harness.session().now();
    let nothing = session.rewind_offsets(all(ResetTo::Time(at))).await.unwrap_err();
    assert!(matches!(&nothing, OpsError::Conflict(why) if why.contains("there already")), "{nothing}");
    let ahead = session.rewind_offsets(one(0, ResetTo::Offset(1_000))).await.unwrap_err();
    assert!(matches!(&ahead, OpsError::Conflict(why) if why.contains("offsets skip")), "{ahead}");
    let later = ResetTo::Time(at.plus(Duration::from_secs(3_600)));
    assert!(matches!(session.rewind_offsets(all(later)).await, Err(OpsError::InvalidRequest(_))));

    // After a restart, the store stands where Kafka's offsets stand.
    rewound(&harness, one(0, ResetTo::Offset(10))).await;
    drop(session);
    harness.stop().await;
    harness.run(None).await;
    produce(&servers, "rewound", 4, &events(240, 8, &receiver.url("/")));
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() >= 248).await);
    at_the_end(&harness, &servers, 4).await;
    each_once(&receiver, 248);
    let possible = &harness.app().ops.metrics().repeats_possible_total;
    assert_eq!(possible.with_label_values(&["store_went_back"]).get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_lost_is_sent_again_after_a_rewind_under_the_same_ids() {
    let servers = shared_broker();
    create_topic(&servers, "rewound-lost", 1).await;
    let mut harness = Harness::on(&servers, None, "rewound-lost", &[], None).await;
    let receiver = harness.accepting().await;
    produce(&servers, "rewound-lost", 1, &events(0, 10, &receiver.url("/")));
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() == 10).await);
    at_the_end(&harness, &servers, 1).await;
    let between = harness.session().now();
    crate::harness::next_millisecond();
    produce(&servers, "rewound-lost", 1, &events(10, 10, &receiver.url("/")));
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() == 20).await);
    at_the_end(&harness, &servers, 1).await;
    harness.stop().await;
    let database = rusqlite::Connection::open(harness.store().join("callbackd.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM settled", []).unwrap(), 20);
    drop(database);
    harness.run(None).await;
    // The record below the watermark must have been compared, and that takes a moment.
    let moved = rewound(&harness, all(ResetTo::Time(between))).await;
    assert_eq!((moved[0].from, moved[0].to), (Some(20), Some(10)), "{moved:?}");
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() >= 30).await, "{}", receiver.count());
    at_the_end(&harness, &servers, 1).await;
    for (task, receipts) in by_task(&receiver.receipts()) {
        let again = u64::from_str_radix(&task, 16).unwrap() >= 10;
        assert_eq!(receipts.len(), if again { 2 } else { 1 }, "{task}");
        assert!(receipts.iter().all(|receipt| receipt.id == receipts[0].id && receipt.body == receipts[0].body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_to_before_the_log_starts_where_the_log_begins_and_says_so() {
    let servers = shared_broker();
    create_topic(&servers, "rewound-cut", 1).await;
    let harness = Harness::on(&servers, None, "rewound-cut", &[], None).await;
    let receiver = harness.accepting().await;
    let before = harness.session().now();
    produce(&servers, "rewound-cut", 1, &events(0, 20, &receiver.url("/")));
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() == 20).await);
    at_the_end(&harness, &servers, 1).await;
    delete_before(&servers, "rewound-cut", 12).await;
    let moved = rewound(&harness, all(ResetTo::Time(before))).await;
    assert_eq!((moved[0].from, moved[0].to), (Some(20), Some(12)), "{moved:?}");
    assert!(moved[0].note.as_ref().is_some_and(|note| note.starts_with("its log begins at 12")), "{moved:?}");
    at_the_end(&harness, &servers, 1).await;
    each_once(&receiver, 20);
    assert_eq!(harness.app().ops.metrics().records_lost_to_retention_total.get(), 0, "they had been read");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_skipped_is_never_sent_and_is_told() {
    let servers = shared_broker();
    create_topic(&servers, "skipped", 1).await;
    let over = [
        ("DELIVER__HEAD_TIMEOUT", "30s"),
        ("DELIVER__TOTAL_TIMEOUT", "30s"),
        ("SHUTDOWN__GRACE", "40s"),
        ("DELIVER__PER_ENDPOINT", "4"),
        // What waits behind the slow ones waits in memory.
        ("DELIVER__PARK_AFTER", "30s"),
    ];
    let mut harness = Harness::on(&servers, None, "skipped", &over, None).await;
    let receiver = harness.recorder(Arc::new(|_, _| Reply::status(200).after(Duration::from_secs(3)))).await;
    produce(&servers, "skipped", 1, &events(0, 40, &receiver.url("/")));
    assert!(receiver.until(PATIENCE, |receipts| !receipts.is_empty()).await);
    let session = harness.session();
    let records = harness
        .until("all records are in the log", async || {
            let asked = ResetAsk { dry_run: true, ..one(0, ResetTo::Offset(40)) };
            Some(session.skip_offsets(asked).await.ok()?[0].at_risk)
        })
        .await;
    assert!((20..=40).contains(&records), "{records}");
    let refused = session.skip_offsets(one(0, ResetTo::Offset(40))).await.unwrap_err();
    assert!(matches!(&refused, OpsError::TooManyRows(why) if why.contains("would never be read")), "{refused}");
    assert!(
        matches!(session.skip_offsets(all(ResetTo::End)).await, Err(OpsError::InvalidRequest(_))),
        "of one partition"
    );
    let unknown = session.skip_offsets(one(7, ResetTo::End)).await.unwrap_err();
    assert!(matches!(&unknown, OpsError::NotFound(_)), "{unknown}");
    assert!(audited(&harness, "offsets.skip").await.is_empty(), "what is refused is not done");

    let skipped = session.skip_offsets(ResetAsk { at_most: records, ..one(0, ResetTo::Offset(40)) }).await.unwrap();
    assert_eq!((skipped[0].state, skipped[0].to), (ResetState::Moved, Some(40)), "{skipped:?}");
    let rows = audited(&harness, "offsets.skip").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].0 == "skipped[0]" && rows[0].1.contains("never read"), "{rows:?}");
    let counted = harness.app().ops.metrics().records_skipped_total.get();
    assert!((1..=records).contains(&counted), "{counted}");
    let back = session.skip_offsets(one(0, ResetTo::Offset(3))).await.unwrap_err();
    assert!(matches!(&back, OpsError::Conflict(why) if why.contains("offsets rewind")), "{back}");

    // What was in flight ends as usual, what waited is left out, and what comes from now on arrives: also after a restart.
    produce(&servers, "skipped", 1, &events(40, 4, &receiver.url("/")));
    let arrived = |first: u64, receipts: &[callbackd_bench::recorder::Receipt]| {
        let tasks = by_task(receipts);
        (first..first + 4).all(|n| tasks.contains_key(&format!("{n:024x}")))
    };
    assert!(receiver.until(PATIENCE, |receipts| arrived(40, receipts)).await);
    at_the_end(&harness, &servers, 1).await;
    drop(session);
    harness.stop().await;
    harness.run(None).await;
    produce(&servers, "skipped", 1, &events(44, 4, &receiver.url("/")));
    assert!(receiver.until(PATIENCE, |receipts| arrived(44, receipts)).await);
    at_the_end(&harness, &servers, 1).await;
    let count = by_task(&receiver.receipts()).len();
    each_once(&receiver, count);
    assert!(count as u64 + counted >= 48 && count < 40, "{count} came, {counted} were left out");
}
