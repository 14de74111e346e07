//! On PostgreSQL, claims write the next times of queues in steps, so that a queue which is claimed from all the time is seldom written.

use std::sync::Arc;
use std::time::Duration;

use callbackd::base::clock::ManualClock;
use callbackd::model::lease::Token;
use callbackd::model::settlement::Change;
use callbackd::store::{self, Batch, ClaimAsk, Config, Stores};

use super::engine::{claim_ask, park, partition};
use super::{OPTIONS, START, database, take};
use crate::postgres;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn the_next_times_of_queues_are_in_steps_and_nothing_is_claimed_too_late() {
    let clock = Arc::new(ManualClock::new(START.plus(ms(30))));
    let config = database();
    let Config::Postgres(url) = &config else { unreachable!("a database") };
    let name = url.to_string().rsplit('/').next().unwrap().to_owned();
    let Stores { engine, .. } = store::open(&config, OPTIONS, Arc::clone(&clock) as _).await.unwrap();
    let instance = engine.begin().await.unwrap().instance;
    let epoch = take(&*engine, instance, partition()).await.epoch;
    let due = |n: u32, after: u64| {
        let Change::Park(mut park) = park(n, None, epoch) else { unreachable!("a park") };
        park.due = START.plus(ms(after));
        Change::Park(park)
    };
    let changes = vec![due(1, 0), due(2, 0), due(3, 0), due(4, 1_234)];
    engine.write(Arc::new(Batch { instance, number: 1, changes, watermarks: vec![] })).await.unwrap();
    // The row moves in its table when it is written.
    let row = || postgres::server().sql(&name, "SELECT ctid, next_at FROM queue").unwrap();
    let claim = async |token: u64| {
        let ask = ClaimAsk { usual_room: 1, first_token: Token(token), ..claim_ask(instance) };
        let claimed = engine.claim(ask).await.unwrap();
        (claimed.rows.len(), claimed.next_at.map(|at| at.since(START)))
    };
    assert_eq!(claim(1).await, (1, Some(ms(100))));
    let first = row();
    clock.advance(ms(50));
    assert_eq!(claim(2).await, (1, Some(ms(100))), "the second one is claimed in the same step");
    assert_eq!(row(), first, "and nothing is written for it");
    clock.advance(ms(50));
    assert_eq!(claim(3).await, (1, Some(ms(1_300))));
    assert_ne!(row(), first);
    clock.advance(ms(1_103));
    assert_eq!(claim(4).await, (0, Some(ms(1_300))), "it is not due yet");
    clock.advance(ms(1));
    assert_eq!(claim(5).await.0, 1, "but now");
}
