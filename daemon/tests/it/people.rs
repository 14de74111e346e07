//! What people see at the moment at which something happens: a callback under way, a daemon that reads nothing, a demo that
//! is stopped, a reader that has gone.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use callbackd::demo::broker::Broker;
use callbackd::model::retry::Reason;
use callbackd::model::settlement::Ended;
use callbackd::ops::OpsError;
use callbackd::ops::teams::TeamChange;
use scale_callback::receiver::Reply;

use crate::api::started;
use crate::harness::{Event, Harness, PAUSE, TEAM, until};
use crate::kafka::produce;
use crate::process::{BINARY, Process};

const TOPIC: &str = "tasks.people";

/// The mock broker waits for members for longer than the session of most tests.
fn with_long_sessions(process: Process) -> Process {
    process.edit("\"1500\"", "\"10000\"");
    process.edit("\"300\"", "\"3000\"");
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_first_attempt_runs_is_under_way_until_the_store_has_it() {
    // No row is made before the attempt has ended.
    let settings =
        [("DELIVER__PARK_AFTER", "4s"), ("DELIVER__HEAD_TIMEOUT", "2900ms"), ("DELIVER__TOTAL_TIMEOUT", "3s")];
    let harness = Harness::with(&settings).await;
    let receiver = harness.recorder(Arc::new(|_: &_, _| Reply::status(204).after(Duration::from_secs(2)))).await;
    harness.produce(&Event::new("task-slow").to(receiver.url("/callbacks")));
    let session = harness.session();
    let seen = harness
        .until("it is under way", async || {
            let history = session.task("task-slow").await.ok()?;
            history.under_way.into_iter().find(|first| first.is_started)
        })
        .await;
    assert_eq!((&*seen.facts.team, &*seen.facts.task_id), (TEAM, "task-slow"));
    let id = seen.facts.id.to_string();
    match session.callback(&id).await {
        Err(OpsError::NotFound(sentence)) => assert!(sentence.contains("is under way"), "{sentence}"),
        other => panic!("it has no row yet: {:?}", other.map(|report| report.id)),
    }
    harness.ended("task-slow").await;
    let history = session.task("task-slow").await.unwrap();
    assert!(history.under_way.is_empty(), "the store has it now");
    assert_eq!(history.callbacks.len(), 1);
    assert!(session.task("task-never").await.is_err_and(|error| error.to_string().contains("nothing is known")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_has_the_time_at_which_the_attempt_ended() {
    let harness = Harness::with(&[("RETRY__FIRST", "1h"), ("RETRY__HORIZON", "24h")]).await;
    let rule = Arc::new(|_: &_, _| Reply::status(503).after(Duration::from_millis(300)));
    let receiver = harness.recorder(rule).await;
    harness.produce(&Event::new("task-down").to(receiver.url("/callbacks")));
    let session = harness.session();
    let report = harness.until("it was tried", async || session.task("task-down").await.ok()?.callbacks.pop()).await;
    let attempts = session.attempts(&report.id.to_string()).await.unwrap().attempts;
    let last = &attempts.last().unwrap().row.attempt;
    assert_eq!(report.changed_at, Some(last.ended_at()));
    assert!(last.ended_at().since(last.begun_at) >= Duration::from_millis(300), "not the time at which it began");
    assert_eq!(report.last_status, Some(503));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_makes_a_retry_come_now_or_ends_a_callback() {
    let harness = Harness::with(&[("RETRY__FIRST", "1h"), ("RETRY__HORIZON", "24h")]).await;
    let rule = Arc::new(|_: &_, before| Reply::status(if before == 0 { 503 } else { 204 }));
    let receiver = harness.recorder(rule).await;
    let session = harness.session();
    let tried = async |task: &str| {
        harness.produce(&Event::new(task).to(receiver.url("/callbacks")));
        let failed = async || {
            let report = session.task(task).await.ok()?.callbacks.pop()?;
            report.rows.pending.is_some_and(|row| row.progress.attempts == 1).then(|| report.id.to_string())
        };
        harness.until("it failed once", failed).await
    };
    // Its next attempt would come in an hour.
    let retried = tried("task-mended").await;
    session.retry_callback(&retried).await.unwrap();
    let (_, rows, _) = harness.ended("task-mended").await;
    let settled = rows.settled.unwrap();
    assert_eq!((settled.ended, settled.attempts), (Ended::Delivered, 2));
    let cancelled = tried("task-wrong").await;
    let report = session.cancel_callback(&cancelled).await.unwrap();
    let settled = report.rows.settled.unwrap();
    assert_eq!((settled.ended, settled.attempts), (Ended::Abandoned(Reason::Cancelled), 1));
    for (id, state) in [(&retried, "delivered"), (&cancelled, "abandoned")] {
        for refused in [session.retry_callback(id).await, session.cancel_callback(id).await] {
            match refused {
                Err(OpsError::Conflict(sentence)) => assert!(sentence.contains(state), "{sentence}"),
                other => panic!("{id} has ended: {:?}", other.map(|report| report.id)),
            }
        }
    }
    // What was refused left no row in the audit.
    let audit = session.audit(Default::default(), None, 100).await.unwrap();
    let told: Vec<_> = audit.iter().filter(|row| row.object == TEAM).map(|row| (&*row.action, &*row.change)).collect();
    assert!(
        told.contains(&("callback.retry", &*retried)) && told.contains(&("callback.cancel", &*cancelled)),
        "{told:?}"
    );
    assert_eq!(told.iter().filter(|(action, _)| action.starts_with("callback.")).count(), 2, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_intake_reads_nothing_until_a_start_without_it() {
    let broker = Broker::start(TOPIC, 1).unwrap();
    let mut process = with_long_sessions(Process::new(&broker.servers, TOPIC, ""));
    produce(
        &broker.servers,
        TOPIC,
        1,
        &[("t".to_owned(), format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"task-early"}}}}"#))],
    );
    process.holds_intake = true;
    process.start(None, "info").await;
    let (status, body) = process.page("/readyz").await.unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("intake is held") && body.contains(r#""intake":{"held":true}"#), "{body}");
    assert!(process.log_text().contains("intake is held"), "{}", process.log_text());
    let shown = process.json(&["status"]);
    assert_eq!(
        (shown["ready"].as_bool(), shown["kafka_reachable"].is_null()),
        (Some(false), true),
        "Kafka is not asked"
    );
    assert!(shown["troubles"][0].as_str().unwrap().contains("restart callbackd without --hold-intake"), "{shown}");
    let unread = process.cli(&["tasks", "get", "task-early"]);
    let unread = String::from_utf8_lossy(&unread.stderr).into_owned();
    assert!(unread.contains("intake is held"), "{unread}");
    process.json(&["teams", "create", TEAM]);
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
    assert_eq!(process.log_text().matches("ended by itself").count(), 0, "{}", process.log_text());
    process.holds_intake = false;
    process.start(None, "info").await;
    // The team exists, so the event became a callback and no dead letter. It has no URL.
    until("it was read", async || {
        let listed = process.json(&["callbacks", "list", "--task", "task-early"]);
        (listed["docs"][0]["reason"] == "no_url").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_with_a_mistake_gets_a_sentence() {
    let (harness, api) = started().await;
    for (path, status, sentence) in [
        ("/callbacks?team=nope", 404, "there is no team nope"),
        ("/endpoints?team=nope", 404, "there is no team nope"),
        ("/endpoints/nope/https%3A%2F%2Fa.example", 404, "there is no team nope"),
        ("/dead_letters?team=nope", 404, "there is no team nope"),
        ("/callbacks?since=2026-11-29&until=2026-11-28", 400, "must be earlier than until"),
        ("/dead_letters?since=2026-11-29&until=2026-11-29", 400, "must be earlier than until"),
        ("/callbacks?state=delivered&reason=no_url", 400, "only callbacks in the state abandoned have a reason"),
        ("/callbacks?since=2026-11-31", 400, "is not a time"),
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.json);
        assert!(answer.json["detail"].as_str().unwrap().contains(sentence), "{path}: {}", answer.json);
    }
    for good in [
        format!("/callbacks?team={TEAM}&since=2026-11-29"),
        "/callbacks?state=abandoned&reason=no_url&until=2026-11-29".to_owned(),
        format!("/dead_letters?team={TEAM}"),
    ] {
        assert_eq!(api.get(&good).await.status, 200, "{good}");
    }
    // Dead letters may name a team that does not exist: that is why they are dead letters.
    harness.produce(&Event::new("task-x").of("team_unknown"));
    harness.dead_letters(1).await;
    let answer = api.get("/dead_letters?team=team_unknown").await;
    assert_eq!((answer.status, answer.json["docs"].as_array().unwrap().len()), (200, 1), "{}", answer.json);
    assert_eq!(api.get("/dead_letters?team=team_unknown&reason=not_json").await.status, 200, "another letter names it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_an_invalid_url_belongs_to_no_endpoint() {
    let (harness, api) = started().await;
    let receiver = harness.accepting().await;
    let url = TeamChange { default_url: Some(Some(receiver.url("/default"))), ..TeamChange::default() };
    harness.session().update_team(TEAM, url, true).await.unwrap();
    harness.produce(&Event::new("task-bad").to("ftp://files.acme.example/inbox"));
    harness.produce(&Event::new("task-default"));
    harness.ended("task-bad").await;
    harness.ended("task-default").await;
    let tasks = async |endpoint: &str| -> Vec<String> {
        let answer = api.get(&format!("/callbacks?endpoint={endpoint}")).await;
        let docs = answer.json["docs"].as_array().unwrap().clone();
        docs.iter().map(|doc| doc["task_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tasks("default:live").await, ["task-default"]);
    assert_eq!(tasks("none").await, ["task-bad"]);
    let bad = api.get("/tasks/task-bad").await.json;
    let bad = &bad["callbacks"][0];
    assert_eq!((bad["queue"].as_str(), bad["reason"].as_str()), (Some("none"), Some("url_invalid")), "{bad}");
}

#[test]
fn a_demo_that_is_stopped_half_way_balances_and_says_what_is_open() {
    let mut demo = Command::new(BINARY).arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    // Several retries wait for their next attempts, so something is open when it stops.
    let mut retries = std::collections::HashSet::new();
    for line in lines.by_ref() {
        let line = line.unwrap();
        seen += &format!("{line}\n");
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, what, callback, ..] = words[..] {
            if what == "retry" {
                retries.insert(callback.to_owned());
            } else {
                retries.remove(callback);
            }
        }
        if retries.len() == 3 {
            break;
        }
    }
    let sent = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(sent.success());
    for line in lines {
        seen += &format!("{}\n", line.unwrap());
    }
    let status = demo.wait().unwrap();
    let mut errors = String::new();
    demo.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(status.code(), Some(130), "{seen}{errors}");
    assert!(seen.contains("Stopped half-way. The ledger balances"), "{seen}");
    let open = seen.lines().find_map(|line| line.strip_prefix("still open")).expect("a line of the ledger");
    let counts: Vec<u64> = open.split_whitespace().filter_map(|count| count.parse().ok()).collect();
    assert!(counts[0] >= counts[1] && counts[0] > 0, "{seen}");
    let in_all = seen.lines().find_map(|line| line.strip_prefix("in all")).expect("the sum");
    let sums: Vec<u64> = in_all.split_whitespace().filter_map(|count| count.parse().ok()).collect();
    assert_eq!(sums[0] - sums[1], counts[0] - counts[1], "what is produced and not stored is still open: {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_reader_has_gone_ends_in_silence() {
    let broker = Broker::start(TOPIC, 1).unwrap();
    let mut process = with_long_sessions(Process::new(&broker.servers, TOPIC, ""));
    process.start(None, "info").await;
    process.json(&["teams", "create", TEAM]);
    produce(
        &broker.servers,
        TOPIC,
        1,
        &[("t".to_owned(), format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"task-one"}}}}"#))],
    );
    until("it ended", async || {
        let listed = process.json(&["callbacks", "list"]);
        listed["docs"].get(0).map(drop)
    })
    .await;
    let socket = format!("unix:{}", process.folder.path().join("store/callbackd.sock").display());
    for command in [
        &["callbacks", "export"][..],
        &["callbacks", "export", "--format", "csv"],
        &["--jsonl", "callbacks", "list"],
        &["callbacks", "watch"],
        &["status", "--watch"],
        &["callbacks", "list"],
        &["config", "default"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = Command::new(BINARY)
            .args(["--api", &socket])
            .args(command)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "{command:?} goes on though nobody reads it");
            std::thread::sleep(PAUSE);
        }
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{command:?}");
    }
}
