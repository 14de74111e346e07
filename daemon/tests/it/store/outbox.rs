//! The contract of the outbox: what a transaction has to tell stands there until it is published, and it tells each ending once.

use std::sync::Arc;
use std::time::Duration;

use callbackd::base::clock::ManualClock;
use callbackd::model::amendment::Amendment;
use callbackd::model::attempt::Outcome;
use callbackd::model::notice::{Notice, Notices};
use callbackd::model::retry::{Next, Reason};
use callbackd::model::settlement::{Change, Ended};
use callbackd::store::outbox::OutboxRow;
use callbackd::store::{Batch, Options, SpaceAsk, Stores};

use super::engine::{facts, letter, partition, retry, settle};
use super::{OPTIONS, START, opened_with, take};

const TOLD: Options = Options { notices: Notices { outcomes: true, dead_letters: true }, ..OPTIONS };

async fn notices(stores: &Stores, instance: callbackd::store::InstanceId) -> Vec<Notice> {
    let rows = stores.outbox.outbox(instance, 100).await.unwrap();
    rows.into_iter().flat_map(|row| row.notices).collect()
}

#[tokio::test]
async fn each_ending_is_told_once_with_its_revision() {
    for name in ["memory", "sqlite", "postgres"] {
        let clock = Arc::new(ManualClock::new(START));
        let folder = tempfile::tempdir().unwrap();
        let stores = opened_with(TOLD, name, &folder, &clock).await;
        let engine = &stores.engine;
        let instance = engine.begin().await.unwrap().instance;
        let epoch = take(&**engine, instance, partition()).await.epoch;
        let id = |n| facts(n).id;
        let fails = |n| settle(n, 7, Some(epoch), Outcome::ServerError, retry());
        let batches: Vec<(Vec<Change>, Vec<Notice>)> = vec![
            (vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![Notice::Ended(id(1), 1)]),
            // The same once more tells nothing.
            (vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)], vec![]),
            (vec![fails(2), fails(3)], vec![]),
            (
                vec![
                    settle(4, 7, Some(epoch), Outcome::Gone, Next::Abandoned(Reason::Gone)),
                    settle(5, 7, Some(epoch), Outcome::ServerError, Next::Exhausted),
                    Change::Bury(letter(6), epoch),
                ],
                vec![Notice::Ended(id(4), 1), Notice::Ended(id(5), 1), Notice::Buried(letter(6).id)],
            ),
            // A late success makes an abandoned callback a delivered one.
            (vec![settle(4, 9, None, Outcome::Ok, Next::Delivered)], vec![Notice::Ended(id(4), 2)]),
            // One whose epoch is gone tells nothing.
            (vec![Change::Bury(letter(8), epoch - 1)], vec![]),
        ];
        let mut expected = Vec::new();
        for (number, (changes, told)) in (1..).zip(batches) {
            let batch = Arc::new(Batch { instance, number, changes, watermarks: Vec::new() });
            engine.write(Arc::clone(&batch)).await.unwrap();
            // A batch that is written again tells nothing new.
            engine.write(batch).await.unwrap();
            expected.extend(told);
            let mut found = notices(&stores, instance).await;
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{name}: batch {number}");
        }
        engine.amend(vec![(id(2), Amendment::Cancel(Reason::Cancelled)), (id(3), Amendment::RetryNow)]).await.unwrap();
        let found = notices(&stores, instance).await;
        assert_eq!(found.len(), expected.len() + 1, "{name}: {found:?}");
        assert!(found.contains(&Notice::Ended(id(2), 1)), "{name}");
        assert_eq!(engine.space(SpaceAsk::BYTES).await.unwrap().notices, found.len() as u64, "{name}");

        let endings = stores.outbox.endings(vec![id(4), id(3), id(4)]).await.unwrap();
        let ended: Vec<_> = endings.iter().map(|row| row.as_ref().map(|row| (row.ended, row.revision))).collect();
        assert_eq!(ended, [Some((Ended::Delivered, 2)), None, Some((Ended::Delivered, 2))], "{name}");

        let rows = stores.outbox.outbox(instance, 2).await.unwrap();
        assert_eq!(rows.len(), 2, "{name}");
        stores.outbox.published(rows.iter().map(|row| row.id).collect()).await.unwrap();
        let left = stores.outbox.outbox(instance, 100).await.unwrap();
        assert!(left.iter().all(|row| !rows.contains(row)), "{name}");
        stores.outbox.published(left.iter().map(|row| row.id).collect()).await.unwrap();
        assert_eq!(engine.space(SpaceAsk::BYTES).await.unwrap().notices, 0, "{name}");
    }
}

#[tokio::test]
async fn without_a_topic_nothing_is_kept_to_be_told() {
    for name in ["memory", "sqlite", "postgres"] {
        let clock = Arc::new(ManualClock::new(START));
        let folder = tempfile::tempdir().unwrap();
        let stores = opened_with(OPTIONS, name, &folder, &clock).await;
        let instance = stores.engine.begin().await.unwrap().instance;
        let epoch = take(&*stores.engine, instance, partition()).await.epoch;
        let changes = vec![
            settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered),
            settle(2, 7, Some(epoch), Outcome::ServerError, retry()),
            Change::Bury(letter(6), epoch),
        ];
        let batch = Batch { instance, number: 1, changes, watermarks: Vec::new() };
        stores.engine.write(Arc::new(batch)).await.unwrap();
        stores.engine.amend(vec![(facts(2).id, Amendment::Cancel(Reason::Cancelled))]).await.unwrap();
        assert_eq!(notices(&stores, instance).await, [], "{name}");
    }
}

#[tokio::test]
async fn what_an_instance_that_died_had_to_tell_is_told_by_another_one() {
    let clock = Arc::new(ManualClock::new(START));
    let folder = tempfile::tempdir().unwrap();
    let stores = opened_with(TOLD, "postgres", &folder, &clock).await;
    let first = stores.engine.begin().await.unwrap().instance;
    let second = stores.engine.begin().await.unwrap().instance;
    let epoch = take(&*stores.engine, first, partition()).await.epoch;
    let changes = vec![settle(1, 7, Some(epoch), Outcome::Ok, Next::Delivered)];
    let batch = Batch { instance: first, number: 1, changes, watermarks: Vec::new() };
    stores.engine.write(Arc::new(batch)).await.unwrap();
    let of = async |instance| -> Vec<OutboxRow> { stores.outbox.outbox(instance, 10).await.unwrap() };
    assert!(of(second).await.is_empty(), "it belongs to the first one");
    assert_eq!(of(first).await.len(), 1);
    // The first one still works on it.
    clock.advance(Duration::from_secs(20));
    assert_eq!(of(first).await.len(), 1);
    clock.advance(Duration::from_secs(20));
    assert!(of(second).await.is_empty(), "it was taken for longer");
    clock.advance(Duration::from_secs(31));
    assert_eq!(of(second).await.len(), 1);
    assert!(of(first).await.is_empty(), "one publishes it");
    // What an operator changed belongs to nobody.
    let changes = vec![settle(2, 7, Some(epoch), Outcome::ServerError, retry())];
    let batch = Batch { instance: first, number: 2, changes, watermarks: Vec::new() };
    stores.engine.write(Arc::new(batch)).await.unwrap();
    stores.engine.amend(vec![(facts(2).id, Amendment::Cancel(Reason::Cancelled))]).await.unwrap();
    assert_eq!(of(first).await.len(), 1);
}
