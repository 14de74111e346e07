//! Pending rows that name a queue without a row. Nobody claims them until a sweep has made the row again.

use callbackd::deliver::resolve::queue_of;
use callbackd::model::settlement::{Change, Park};
use callbackd::store::{SpaceAsk, tools};

use super::engine::park;
use super::versions::{STORES, World, numbers};
use crate::harness::until;

/// A park whose URL leads to its queue.
fn with_url(n: u32, token: Option<u64>, epoch: i64) -> Change {
    let Change::Park(park) = park(n, token, epoch) else { unreachable!("a park") };
    Change::Park(Box::new(Park { url: Some("https://a.example/x".into()), ..*park }))
}

#[tokio::test]
async fn a_sweep_makes_the_row_of_a_queue_again_in_which_callbacks_wait() {
    for name in STORES {
        for (damage, what) in [
            ("DELETE FROM queue", "the row is gone"),
            ("UPDATE pending SET queue = 777", "the queue has another number by now"),
        ] {
            let world = World::new(name);
            let one = world.begin().await;
            one.write(1, vec![with_url(1, None, one.epoch), with_url(2, None, one.epoch)]).await;
            one.write(2, vec![with_url(3, Some(7), one.epoch)]).await;
            let parked = async || one.stores.engine.space(SpaceAsk::BYTES).await.unwrap().parked_bytes;
            let bytes = parked().await;
            assert!(bytes > 0, "{name}");
            world.sql(damage);
            assert_eq!(numbers(&one.claim().await), [0_i64; 0], "{name}: {what}");
            one.stores.engine.sweep(queue_of).await.unwrap();
            assert_eq!(numbers(&one.claim().await), [1, 2], "{name}: {what}");
            assert_eq!(parked().await, bytes, "{name}: {what}");
            drop(one);
            let wrong = until("the store is free", async || tools::verify(&world.config).await.ok()).await;
            assert_eq!(wrong, Vec::<String>::new(), "{name}: {what}");
        }
    }
}
