//! `kill -9` at any moment: every event is received, and each repeat has the same id and bytes. An answered callback is
//! repeated only if the kill came before its settle could be durable. Three broken builds show that the test finds
//! this.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use callbackd_bench::recorder::{Receipt, Recorder};
use scale_callback::receiver::Reply;
use scale_callback::samples::Seed;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{PAUSE, TEAM, until};
use crate::kafka::{by_task, create_topic, events, produce, shared_broker};
use crate::process::Process;

const PARTITIONS: i32 = 8;
/// With the daemon's defaults, at most this many attempts are under way or await their settle.
const MAX_UNSETTLED: usize = 1_024;
/// How long a slow receiver takes by default.
const SLOW: Duration = Duration::from_millis(900);
/// An answered callback may be repeated if its answer was written this shortly before a kill.
const WINDOW: Duration = Duration::from_millis(250);

/// When the daemon was killed, and when the next one was up.
struct Kill {
    at: Instant,
    next: Instant,
}

struct Plan {
    topic: &'static str,
    events: u64,
    kills: u64,
    fault: Option<&'static str>,
    /// How long one receiver in forty takes.
    slow: Duration,
    /// Kills while many records above an open one are settled: only look-ups prevent repeats then.
    aimed: bool,
    patience: Duration,
}

#[derive(Debug)]
struct Report {
    repeats_answered: usize,
    repeats_open: usize,
    longest_commit: Duration,
}

/// Runs a plan. `Err` says what is wrong.
async fn run(plan: &Plan) -> Result<Report, String> {
    let servers = shared_broker();
    create_topic(&servers, plan.topic, PARTITIONS).await;
    let mut process = Process::new(&servers, plan.topic, "");
    process.start(None, "info").await;
    let (secret, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    // Every 40th receiver is slow: the watermark waits for it while records above it are settled.
    let slow = plan.slow;
    let rule = Arc::new(move |received: &scale_callback::receiver::Received, _| {
        Reply::status(200).after(if received.path == "/slow" { slow } else { Duration::ZERO })
    });
    let receiver = Recorder::start(verifier, rule).await.unwrap();
    process.signal("TERM");
    process.ended().await;
    let mut all = events(0, plan.events, &receiver.url("/"));
    for (n, (_, value)) in all.iter_mut().enumerate() {
        if n % 40 == 7 {
            *value = value.replace(&receiver.url("/"), &receiver.url("/slow"));
        }
    }
    produce(&servers, plan.topic, PARTITIONS, &all);

    let mut seed = Seed::new(2_026);
    let (mut kills, mut longest) = (Vec::new(), Duration::ZERO);
    process.start(plan.fault, "info").await;
    for _ in 0..plan.kills {
        let goal = receiver.count() + 1 + usize::try_from(seed.below(plan.events / (plan.kills + 1))).unwrap();
        if !receiver.until(plan.patience, |receipts| receipts.len() >= goal).await {
            return Err(format!("only {} receipts came, of {goal}", receiver.count()));
        }
        if plan.aimed {
            until("there is something to aim at", async || {
                settled_above_an_open_one(&receiver.receipts()).then_some(())
            })
            .await;
        }
        if let Some(seconds) = process.metric("callbackd_store_longest_commit_seconds").await {
            longest = longest.max(Duration::from_secs_f64(seconds));
        }
        let at = process.kill();
        process.start(plan.fault, "info").await;
        kills.push(Kill { at, next: Instant::now() });
    }
    let wanted = usize::try_from(plan.events).unwrap();
    let complete = |receipts: &[Receipt]| {
        receipts.len() >= wanted
            && receipts.iter().map(|receipt| &receipt.task_id).collect::<std::collections::HashSet<_>>().len() == wanted
    };
    if !receiver.until(plan.patience, complete).await {
        let found = by_task(&receiver.receipts()).len();
        return Err(format!("{} of {wanted} events were lost", wanted - found));
    }
    // Every repeat has come when the watermarks are at the ends of the logs and nothing is under way.
    let end = Instant::now() + plan.patience;
    loop {
        let shown = process.json(&["offsets", "show"]);
        let watermark: Option<i64> =
            shown["docs"].as_array().map(|docs| docs.iter().filter_map(|doc| doc["watermark"].as_i64()).sum());
        let mut idle = watermark == i64::try_from(plan.events).ok();
        for metric in ["callbackd_waiting", "callbackd_unsettled", "callbackd_pending"] {
            idle &= process.metric(metric).await == Some(0.0);
        }
        if idle {
            break;
        }
        if Instant::now() > end {
            return Err("something never settles".to_owned());
        }
        tokio::time::sleep(PAUSE).await;
    }
    if !receiver.refused().is_empty() {
        return Err(format!("{} did not verify", receiver.refused().len()));
    }
    let report = judge(&by_task(&receiver.receipts()), &kills, longest);
    process.signal("TERM");
    if process.ended().await != 0 {
        return Err(format!("it did not end cleanly: {}", process.log_text()));
    }
    report
}

/// Whether a slow exchange is open, and many that came after it were answered well before now.
fn settled_above_an_open_one(receipts: &[Receipt]) -> bool {
    let now = Instant::now();
    let open = receipts.iter().find(|receipt| receipt.path == "/slow" && receipt.answered > now);
    open.is_some_and(|open| {
        let long_ago = |receipt: &&Receipt| receipt.came > open.came && receipt.answered + 2 * WINDOW < now;
        receipts.iter().filter(long_ago).count() >= 200
    })
}

fn judge(tasks: &HashMap<String, Vec<Receipt>>, kills: &[Kill], longest: Duration) -> Result<Report, String> {
    let window = WINDOW.max(longest);
    let (mut answered, mut open) = (0, 0);
    for (task, receipts) in tasks {
        let first = &receipts[0];
        for (earlier, later) in receipts.iter().zip(&receipts[1..]) {
            if later.id != first.id {
                return Err(format!("task {task} came again under another id"));
            }
            if later.body != first.body {
                return Err(format!("task {task} came again with other bytes"));
            }
            // The kill between the two receipts, if there was one. A receipt before the next process was up belongs to
            // the killed one.
            let between = kills.iter().find(|kill| kill.next >= earlier.came && kill.at <= later.came);
            let Some(kill) = between.map(|kill| kill.at) else {
                return Err(format!("task {task} came again though nothing was killed between"));
            };
            if earlier.answered > kill {
                open += 1;
                continue;
            }
            let before = kill.duration_since(earlier.answered);
            if before > window {
                return Err(format!("task {task} came again though it was answered {before:?} before the kill"));
            }
            answered += 1;
        }
    }
    if open > MAX_UNSETTLED * kills.len() {
        return Err(format!("{open} open exchanges were repeated"));
    }
    Ok(Report { repeats_answered: answered, repeats_open: open, longest_commit: longest })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_lost() {
    let plan = Plan {
        topic: "crash",
        events: 5_000,
        kills: 10,
        fault: None,
        slow: SLOW,
        aimed: false,
        patience: Duration::from_secs(60),
    };
    let report = run(&plan).await.unwrap();
    let Report { repeats_answered, repeats_open, longest_commit } = report;
    println!("repeats: {repeats_answered} answered, {repeats_open} open; longest commit {longest_commit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_once_rarely_twice_always_recognisable() {
    let servers = shared_broker();
    create_topic(&servers, "hanging", PARTITIONS).await;
    let more = "[deliver]\nper_endpoint = 64\nper_origin = 64\n";
    let mut process = Process::new(&servers, "hanging", more);
    process.start(None, "info").await;
    let (secret, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let rule =
        Arc::new(|_: &_, before| Reply::status(200).after(Duration::from_secs(if before == 0 { 60 } else { 0 })));
    let receiver = Recorder::start(verifier, rule).await.unwrap();
    produce(&servers, "hanging", PARTITIONS, &events(0, 50, &receiver.url("/")));
    let patience = Duration::from_secs(60);
    assert!(receiver.until(patience, |receipts| receipts.len() == 50).await, "50 POSTs hang");
    process.kill();
    process.start(None, "info").await;
    assert!(receiver.until(patience, |receipts| receipts.len() >= 100).await, "{}", receiver.count());
    for (task, receipts) in by_task(&receiver.receipts()) {
        assert_eq!(receipts.len(), 2, "{task}");
        assert_eq!(receipts[0].id, receipts[1].id);
        assert_eq!(receipts[0].body, receipts[1].body);
    }
    let (_, metrics) = process.page("/metrics").await.unwrap();
    assert!(metrics.contains("callbackd_repeats_possible_total{reason=\"unclean_stop\"} 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_writes_watermarks_first_is_caught() {
    let plan = Plan {
        topic: "broken-1",
        events: 2_000,
        kills: 6,
        fault: Some("watermark-first"),
        slow: SLOW,
        aimed: false,
        patience: Duration::from_secs(12),
    };
    let found = run(&plan).await.expect_err("it must be caught");
    println!("caught: {found}");
    assert!(found.contains("lost") || found.contains("only"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_with_random_ids_is_caught() {
    let plan = Plan {
        topic: "broken-2",
        events: 2_000,
        kills: 6,
        fault: Some("random-ids"),
        slow: SLOW,
        aimed: false,
        patience: Duration::from_secs(20),
    };
    let found = run(&plan).await.expect_err("it must be caught");
    println!("caught: {found}");
    assert!(found.contains("another id"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_looks_nothing_up_is_caught() {
    let plan = Plan {
        topic: "broken-3",
        events: 3_000,
        kills: 1,
        fault: Some("no-look-up"),
        // Just below the time at which a slow first attempt gets its row.
        slow: Duration::from_millis(1_900),
        aimed: true,
        patience: Duration::from_secs(20),
    };
    let found = run(&plan).await.expect_err("it must be caught");
    println!("caught: {found}");
    assert!(found.contains("answered"), "{found}");
}
