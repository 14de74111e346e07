//! Several daemons as processes, on one PostgreSQL database and in one consumer group: they share the partitions, take over from
//! each other, and repeat nothing that they need not.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::{Received, Reply};
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{PAUSE, TEAM, until};
use crate::kafka::{by_task, committed, create_topic, events, produce, shared_broker};
use crate::postgres;
use crate::process::Process;

const PARTITIONS: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);
/// As the tests' configuration sets it.
const SESSION: Duration = Duration::from_millis(1_500);
const LEASE: Duration = Duration::from_secs(9);
/// Short, so that a test can wait for a lease to end.
const SHORT: &str = "[deliver]\nlease = \"9s\"\ntotal_timeout = \"3s\"\nhead_timeout = \"3s\"\n";

/// Waits until its API answers.
async fn runs(daemon: &Process) {
    let end = Instant::now() + PATIENCE;
    while !daemon.cli(&["teams", "list"]).status.success() {
        assert!(Instant::now() < end, "its API does not answer: {}", daemon.log_text());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Daemons on one database and one topic, and a receiver that verifies.
pub struct World {
    pub servers: String,
    topic: &'static str,
    store: String,
    pub daemons: Vec<Process>,
    pub receiver: Recorder,
}

impl World {
    /// One daemon runs, with a team.
    async fn new(topic: &'static str, answer_after: Duration) -> Self {
        Self::on(postgres::database(), topic, answer_after).await
    }

    /// The same on this database.
    pub async fn on(store: String, topic: &'static str, answer_after: Duration) -> Self {
        Self::of(store, topic, move |_| answer_after).await
    }

    /// The same with a receiver that answers only the first requests late.
    async fn with_slow(topic: &'static str, slow: usize, answer_after: Duration) -> Self {
        let late = move |n| if n < slow { answer_after } else { Duration::ZERO };
        Self::of(postgres::database(), topic, late).await
    }

    async fn of(
        store: String,
        topic: &'static str,
        answer_after: impl Fn(usize) -> Duration + Send + Sync + 'static,
    ) -> Self {
        let servers = shared_broker();
        create_topic(&servers, topic, PARTITIONS).await;
        let mut first = Process::with_store(&servers, topic, &store, SHORT);
        first.start(None, "info").await;
        runs(&first).await;
        let (secret, key) = first.team(TEAM);
        let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
        let count = AtomicUsize::new(0);
        let rule = Arc::new(move |_: &Received, _| {
            Reply::status(200).after(answer_after(count.fetch_add(1, Ordering::SeqCst)))
        });
        let receiver = Recorder::start(verifier, rule).await.unwrap();
        Self { servers, topic, store, daemons: vec![first], receiver }
    }

    /// Another daemon joins.
    pub async fn join(&mut self, name: &str) {
        let mut daemon = Process::with_store(&self.servers, self.topic, &self.store, SHORT);
        daemon.shares_keys_of(&self.daemons[0]);
        daemon.variables.push(("CALLBACKD_INSTANCE__NAME".to_owned(), name.to_owned()));
        daemon.start(None, "info").await;
        runs(&daemon).await;
        self.daemons.push(daemon);
    }

    pub fn produce(&self, first: u64, count: u64) {
        produce(&self.servers, self.topic, PARTITIONS, &events(first, count, &self.receiver.url("/")));
    }

    /// How many partitions each running instance reads, the newest first.
    pub fn shares(&self, asked: usize) -> Vec<u64> {
        let shown = self.daemons[asked].json(&["instances", "list"]);
        let docs = shown["docs"].as_array().unwrap();
        let running = docs.iter().filter(|doc| doc["state"] == "running");
        running.map(|doc| doc["partitions"].as_u64().unwrap()).collect()
    }

    /// Waits until so many instances read all partitions, each of them some.
    pub async fn shared_by(&self, asked: usize, count: usize) {
        until(&format!("{count} instances share the partitions"), async || {
            let shares = self.shares(asked);
            let is_shared = shares.len() == count && shares.iter().all(|share| *share > 0);
            (is_shared && shares.iter().sum::<u64>() == 6).then_some(())
        })
        .await;
    }

    pub async fn all_arrive(&self, count: usize) {
        let arrived = self.receiver.until(PATIENCE, |receipts| {
            receipts.len() >= count
                && receipts.iter().map(|receipt| &receipt.task_id).collect::<HashSet<_>>().len() == count
        });
        let logs = || self.daemons.iter().map(Process::log_text).collect::<Vec<_>>().join("\n--\n");
        assert!(arrived.await, "{} of {count}: {}", by_task(&self.receiver.receipts()).len(), logs());
        assert!(self.receiver.refused().is_empty(), "{:?}", self.receiver.refused());
    }

    /// Waits until Kafka has the offsets of so many records. A daemon commits them after the store has their watermarks.
    pub async fn all_committed(&self, count: i64) {
        until("Kafka's offsets follow", async || {
            let offsets = committed(&self.servers, self.topic, PARTITIONS);
            let sum: i64 = offsets.elements().iter().filter_map(|element| element.offset().to_raw()).sum();
            (sum == count).then_some(())
        })
        .await;
    }

    pub fn repeats(&self) -> Vec<String> {
        let tasks = by_task(&self.receiver.receipts());
        tasks.iter().filter(|(_, receipts)| receipts.len() > 1).map(|(task, _)| task.clone()).collect()
    }
}

#[tokio::test]
async fn a_killed_ones_partitions_and_leases_are_taken_over() {
    // The first ones are so slow that the killed one has attempts under way, some of which have their rows already.
    let mut world = World::with_slow("taken-over", 100, Duration::from_millis(2_500)).await;
    world.join("two").await;
    world.join("three").await;
    world.shared_by(0, 3).await;
    world.produce(0, 300);
    until("some have their rows", async || {
        (world.daemons[1].metric("callbackd_parked_total{cause=\"slow\"}").await? > 0.0).then_some(())
    })
    .await;
    let unsettled = world.daemons[1].metric("callbackd_unsettled").await.unwrap();
    let at = world.daemons[1].kill();
    world.shared_by(0, 2).await;
    println!("the partitions were taken over after {:?}", at.elapsed());
    world.all_arrive(300).await;
    let took = at.elapsed();
    println!("everything had arrived after {took:?}");
    assert!(took < (SESSION + Duration::from_secs(5)).max(LEASE + Duration::from_secs(6)), "{took:?}");
    // What was under way at the kill may come again, and nothing else.
    let repeats = world.repeats();
    assert!(repeats.len() as f64 <= unsettled + 64.0, "{} repeats, {unsettled} were unsettled", repeats.len());
    for receipts in by_task(&world.receiver.receipts()).values() {
        assert!(receipts.iter().all(|receipt| (&receipt.id, &receipt.body) == (&receipts[0].id, &receipts[0].body)));
    }
    let shown = world.daemons[0].json(&["instances", "list"]);
    let two = shown["docs"].as_array().unwrap().iter().find(|doc| doc["name"] == "two").unwrap();
    assert_eq!((&two["state"], &two["partitions"]), (&"died".into(), &0.into()));
}

#[tokio::test]
async fn a_rewind_moves_its_own_partitions_and_says_who_has_the_others() {
    let mut world = World::new("rewound-by-two", Duration::ZERO).await;
    world.join("two").await;
    world.shared_by(0, 2).await;
    world.produce(0, 60);
    world.all_arrive(60).await;
    let all_durable = async |world: &World| {
        until("all of it is durable", async || {
            let shown = world.daemons[0].json(&["offsets", "show"]);
            let docs = shown["docs"].as_array()?;
            (docs.len() == 6 && docs.iter().all(|doc| doc["watermark"] == 10)).then_some(())
        })
        .await;
    };
    all_durable(&world).await;
    let rewound = |asked: usize| {
        let shown = world.daemons[asked].json(&["offsets", "rewind", "--to", "earliest"]);
        shown["docs"].as_array().unwrap().clone()
    };
    let first = rewound(0);
    let (moved, others): (Vec<_>, Vec<_>) = first.iter().partition(|doc| doc["state"] == "moved");
    assert!(!moved.is_empty() && !others.is_empty() && first.len() == 6, "{first:?}");
    assert!(
        others.iter().all(|doc| doc["state"] == "elsewhere" && doc["note"].as_str().unwrap().contains("(two on ")),
        "{others:?}"
    );
    let named = &others[0]["partition"].to_string();
    let refused = world.daemons[0].cli(&["offsets", "rewind", "--to", "earliest", "--partition", named]);
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    let second = rewound(1);
    assert_eq!(second.iter().filter(|doc| doc["state"] == "moved").count(), others.len(), "{second:?}");
    all_durable(&world).await;
    world.produce(60, 6);
    world.all_arrive(66).await;
    assert_eq!(world.repeats(), Vec::<String>::new());
}

#[tokio::test]
async fn joins_leaves_and_rolling_restarts_repeat_nothing() {
    let mut world = World::new("rolling", Duration::from_millis(30)).await;
    let mut sent = 0;
    // Before, within and after each change there are callbacks on their way.
    let mut more = |world: &World| {
        world.produce(sent, 150);
        sent += 150;
    };
    more(&world);
    for name in ["two", "three"] {
        world.join(name).await;
        more(&world);
    }
    world.shared_by(0, 3).await;
    for n in 0..3 {
        more(&world);
        world.daemons[n].signal("TERM");
        more(&world);
        assert_eq!(world.daemons[n].ended().await, 0, "{}", world.daemons[n].log_text());
        more(&world);
        world.daemons[n].start(None, "info").await;
        runs(&world.daemons[n]).await;
        more(&world);
    }
    world.shared_by(0, 3).await;
    world.all_arrive(usize::try_from(sent).unwrap()).await;
    let repeats = world.repeats();
    let logs = || world.daemons.iter().map(Process::log_text).collect::<Vec<_>>().join("\n--\n");
    assert!(repeats.is_empty(), "{} callbacks came more than once: {}", repeats.len(), logs());
}

#[tokio::test]
async fn a_named_instance_is_alone_under_its_name_and_comes_back_to_its_partitions() {
    let mut world = World::new("named", Duration::ZERO).await;
    world.join("blue").await;
    world.shared_by(0, 2).await;
    let mut second = Process::with_store(&world.servers, world.topic, &world.store, SHORT);
    second.shares_keys_of(&world.daemons[0]);
    second.variables.push(("CALLBACKD_INSTANCE__NAME".to_owned(), "blue".to_owned()));
    second.start(None, "info").await;
    until("the second one says why it waits", async || {
        let (status, page) = second.page("/readyz").await?;
        (status == 503 && page.contains("another callbackd runs under the name")).then_some(())
    })
    .await;
    second.signal("TERM");
    assert_eq!(second.ended().await, 0);
    // A short stop moves no partition: nobody else hears of it. The session is long enough for a slow start.
    let blue = &mut world.daemons[1];
    blue.edit("\"1500\"", "\"20000\"");
    for _ in 0..2 {
        blue.signal("TERM");
        assert_eq!(blue.ended().await, 0);
        blue.start(None, "info").await;
        runs(blue).await;
    }
    world.shared_by(0, 2).await;
    let rebalances = world.daemons[0].metric("callbackd_rebalances_total").await;
    world.daemons[1].signal("TERM");
    assert_eq!(world.daemons[1].ended().await, 0);
    world.produce(0, 60);
    world.daemons[1].start(None, "info").await;
    world.all_arrive(60).await;
    world.shared_by(0, 2).await;
    assert_eq!(world.daemons[0].metric("callbackd_rebalances_total").await, rebalances);
    assert!(world.repeats().is_empty());
}

#[tokio::test]
async fn an_instance_whose_store_went_back_begins_anew_and_goes_on() {
    let world = World::new("went-back", Duration::ZERO).await;
    world.produce(0, 30);
    world.all_arrive(30).await;
    world.all_committed(30).await;
    let name = world.store.rsplit('/').next().unwrap();
    let begun = Instant::now();
    postgres::server().sql(name, "DELETE FROM instance; DELETE FROM settled; UPDATE partition_offsets SET watermark = 1, seen_upto = 1, last_off = NULL, last_hash = NULL").unwrap();
    let daemon = &world.daemons[0];
    until("it says so", async || daemon.log_text().contains("begins anew").then_some(())).await;
    println!("it was noticed after {:?}", begun.elapsed());
    // It reads again from where the store is now, and says that Kafka has seen more.
    assert!(world.receiver.until(PATIENCE, |receipts| receipts.len() >= 54).await, "{}", daemon.log_text());
    world.produce(30, 30);
    world.all_arrive(60).await;
    assert!(daemon.log_text().contains("the store went back"), "{}", daemon.log_text());
    let counted = daemon.metric("callbackd_repeats_possible_total{reason=\"store_went_back\"}").await;
    assert!(counted.is_some_and(|count| count > 0.0), "{counted:?}");
    assert_eq!(world.repeats().len(), 24, "all but the first record of each partition");
}
