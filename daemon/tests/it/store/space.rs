//! The contract of the disk space: what bodies take, which queues have many, and bodies that are not stored.

use bytes::Bytes;
use callbackd::model::settlement::Change;
use callbackd::store::{ClaimAsk, SpaceAsk};

use super::engine::{facts, park, subjects};

/// The park of a body of so many bytes.
fn parked(n: u32, bytes: usize, epoch: i64) -> Change {
    match park(n, None, epoch) {
        Change::Park(mut park) => {
            park.body = Bytes::from(vec![b'x'; bytes]);
            Change::Park(park)
        }
        other => other,
    }
}

#[tokio::test]
async fn queues_with_many_bytes_are_named_and_pending_callbacks_are_counted() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write((1..=3).map(|n| parked(n, 100, epoch)).collect(), vec![]).await;
        let ask = |queue_bytes, count_pending_upto| SpaceAsk { queue_bytes, count_pending_upto };
        let space = async |ask| subject.store.space(ask).await.unwrap();
        let found = space(ask(299, 10)).await;
        assert_eq!((found.parked_bytes, found.pending), (300, Some(3)), "{}", subject.name);
        assert_eq!(found.full_queues, [facts(1).queue.clone()], "{}", subject.name);
        let found = space(ask(300, 2)).await;
        assert_eq!((found.full_queues.len(), found.pending), (0, Some(2)), "{}", subject.name);
        assert_eq!(space(SpaceAsk::BYTES).await.pending, None, "{}", subject.name);
    }
}

#[tokio::test]
async fn a_callback_that_is_stored_without_its_body_is_claimed_without_it() {
    for mut subject in subjects().await {
        let epoch = subject.epoch;
        subject.write(vec![parked(1, 0, epoch)], vec![]).await;
        assert_eq!(subject.store.space(SpaceAsk::BYTES).await.unwrap().parked_bytes, 0, "{}", subject.name);
        assert_eq!(subject.reads.body(facts(1).id).await.unwrap(), None, "{}: it has none", subject.name);
        assert_eq!(subject.reads.bodies(vec![facts(1).id], 100).await.unwrap(), [None], "{}", subject.name);
        let claimed = subject.store.claim(ClaimAsk { bytes: 0, ..subject.ask() }).await.unwrap();
        assert_eq!(claimed.rows.len(), 1, "{}: it needs no room", subject.name);
        assert!(claimed.rows[0].1.is_empty(), "{}", subject.name);
    }
}
