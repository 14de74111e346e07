//! A callback that has ended is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use callbackd::demo::broker::Broker;
use callbackd::model::retry::Reason;
use callbackd::model::settlement::Ended;
use callbackd::ops::OpsError;
use callbackd::ops::callbacks::CallbackReport;
use callbackd::store::resends::ResendForm;
use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{Event, Harness, TEAM, until};
use crate::kafka::produce;
use crate::process::{Process, closed_url};

const TOPIC: &str = "tasks.resend";

/// A receiver whose answer can be changed.
async fn receiver(harness: &Harness, status: u16) -> (Recorder, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let now = Arc::clone(&status);
    let recorder = harness.recorder(Arc::new(move |_: &_, _| Reply::status(now.load(Ordering::SeqCst)))).await;
    (recorder, status)
}

fn refused(result: Result<CallbackReport, OpsError>, with: &str) {
    match result {
        Err(OpsError::Conflict(sentence) | OpsError::Pruned(sentence)) => {
            assert!(sentence.contains(with), "{with:?} is not in: {sentence}");
        }
        other => panic!("{:?}", other.map(|report| report.id)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_arrives_when_it_is_sent_again_with_the_same_id_and_body() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0")]).await;
    let (recorder, status) = receiver(&harness, 503).await;
    let ask = ResendForm::default();
    let session = harness.session();
    harness.produce(&Event::new("task-down").to(recorder.url("/callbacks")));
    let (id, rows, _) = harness.ended("task-down").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Exhausted);
    let id = id.to_string();
    let body = session.payload(&id).await.expect("the body of what did not arrive is kept");
    // The receiver is still down: the round is used up, and nothing else changes.
    session.resend_callback(&id, ask).await.unwrap();
    let failed = async || {
        let rows = session.callback(&id).await.ok()?.rows;
        rows.pending.is_none().then_some(rows.settled?)
    };
    let settled = harness.until("the round is over", failed).await;
    assert_eq!((settled.ended, settled.attempts, settled.round), (Ended::Exhausted, 2, 1));
    status.store(204, Ordering::SeqCst);
    session.resend_callback(&id, ask).await.unwrap();
    let delivered = async || {
        let settled = session.callback(&id).await.ok()?.rows.settled?;
        (settled.ended == Ended::Delivered).then_some(settled)
    };
    let settled = harness.until("it arrives", delivered).await;
    assert_eq!((settled.attempts, settled.round, settled.revision), (3, 2, 2));
    let receipts = recorder.receipts();
    let seen: Vec<_> = receipts.iter().map(|receipt| (receipt.id.clone(), receipt.body.clone())).collect();
    assert_eq!(seen, vec![(id.clone(), body); 3], "each is the same callback");
    // All three attempts are told, each with its number.
    let report = session.attempts(&id).await.unwrap();
    let numbers: Vec<_> = report.attempts.iter().map(|attempt| (attempt.row.n, attempt.row.round)).collect();
    assert_eq!(numbers, [(1, 0), (2, 1)], "the delivery stands in the callback");
    assert_eq!(report.delivered_by.map(|attempt| (attempt.number, attempt.round)), Some((3, 2)));
    let audit = session.audit(Default::default(), None, 100).await.unwrap();
    assert_eq!(audit.iter().filter(|row| row.action == "callback.resend" && row.object == TEAM).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_ended_or_is_sent_again_already_is_refused_with_what_to_do() {
    let harness = Harness::with(&[("RETRY__FIRST", "1h"), ("RETRY__HORIZON", "24h")]).await;
    let (recorder, status) = receiver(&harness, 503).await;
    let (session, ask) = (harness.session(), ResendForm::default());
    harness.produce(&Event::new("task-waits").to(recorder.url("/callbacks")));
    let id = harness
        .until("it failed once", async || {
            let report = session.task("task-waits").await.ok()?.callbacks.pop()?;
            report.rows.pending.is_some_and(|row| row.progress.attempts == 1).then(|| report.id.to_string())
        })
        .await;
    refused(session.resend_callback(&id, ask).await, "has not ended");
    refused(session.resend_callback(&id, ask).await, "say retry");
    session.cancel_callback(&id).await.unwrap();
    session.resend_callback(&id, ask).await.unwrap();
    // It failed once more, and its next try comes in an hour.
    harness
        .until("the round failed once", async || {
            let rows = session.callback(&id).await.ok()?.rows;
            rows.pending.filter(|row| row.progress.tries == 1 && row.token.is_none())
        })
        .await;
    refused(session.resend_callback(&id, ask).await, "is being sent again already (round 1)");
    // A round can be retried at once, and cancelled; the callback stays what it was.
    status.store(500, Ordering::SeqCst);
    session.retry_callback(&id).await.unwrap();
    harness
        .until("the round failed twice", async || {
            let rows = session.callback(&id).await.ok()?.rows;
            rows.pending.filter(|row| row.progress.tries == 2 && row.token.is_none())
        })
        .await;
    let report = session.cancel_callback(&id).await.unwrap();
    let settled = report.rows.settled.unwrap();
    assert_eq!((settled.ended, settled.attempts), (Ended::Abandoned(Reason::Cancelled), 3));
    refused(session.cancel_callback(&id).await, "has ended (abandoned)");
    assert!(session.resend_callback("cb_none", ask).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_wrong_url_is_mended_by_the_default_with_consent() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0")]).await;
    let recorder = harness.accepting().await;
    let session = harness.session();
    let to_default = ResendForm { to_default: true, ..ResendForm::default() };
    harness.produce(&Event::new("task-lost").to(closed_url()));
    let (id, rows, _) = harness.ended("task-lost").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Exhausted);
    let id = id.to_string();
    refused(session.resend_callback(&id, to_default).await, "has no default URL");
    let change =
        callbackd::ops::teams::TeamChange { default_url: Some(Some(recorder.url("/default"))), ..Default::default() };
    session.update_team(TEAM, change, true).await.unwrap();
    refused(session.resend_callback(&id, to_default).await, "where this callback never went");
    session.resend_callback(&id, ResendForm { allow_new_origin: true, ..to_default }).await.unwrap();
    harness
        .until("it arrives at the default", async || {
            let settled = session.callback(&id).await.ok()?.rows.settled?;
            (settled.ended == Ended::Delivered).then_some(())
        })
        .await;
    assert_eq!(recorder.receipts()[0].path, "/default");
}

/// The real binary, because a process of its own reads the record.
#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_delivered_callback_comes_from_kafka() {
    let broker = Broker::start(TOPIC, 1).unwrap();
    let mut process = Process::new(&broker.servers, TOPIC, "");
    process.edit("\"1500\"", "\"10000\"");
    process.edit("\"300\"", "\"3000\"");
    process.start(None, "info").await;
    let (signing, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &signing, &key).unwrap());
    let recorder = Recorder::start(verifier, Arc::new(|_: &_, _| Reply::status(204))).await.unwrap();
    let value = format!(
        r#"{{"team_id":"{TEAM}","task":{{"task_id":"task-twice","callback_url":"{}"}},"response":{{"a":[1, 2]}}}}"#,
        recorder.url("/callbacks")
    );
    produce(&broker.servers, TOPIC, 1, &[("t".to_owned(), value)]);
    let id = until("it is delivered", async || {
        let output = process.cli(&["--json", "tasks", "get", "task-twice"]);
        let task: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let callback = task["callbacks"].get(0)?;
        (callback["state"] == "delivered").then(|| callback["callback_id"].as_str().unwrap().to_owned())
    })
    .await;
    let resent = process.json(&["callbacks", "resend", &id]);
    assert_eq!((&resent["round"], &resent["resending"]), (&1.into(), &true.into()), "{resent}");
    until("it arrives once more", async || (recorder.count() == 2).then_some(())).await;
    let receipts = recorder.receipts();
    assert_eq!((&receipts[0].id, &receipts[0].body), (&receipts[1].id, &receipts[1].body));
    assert_eq!(receipts[1].id, id);
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
    assert!(!process.log_text().contains("ERROR"), "{}", process.log_text());
}

/// The real binary, because a process of its own reads the record.
#[tokio::test(flavor = "multi_thread")]
async fn a_lower_bound_of_events_holds_for_new_ones_and_not_for_what_was_accepted() {
    let topic = "tasks.resend.lowered";
    let broker = Broker::start(topic, 1).unwrap();
    let mut process = Process::new(&broker.servers, topic, "[intake]\nmax_event = \"1MiB\"\n");
    process.edit("\"1500\"", "\"10000\"");
    process.edit("\"300\"", "\"3000\"");
    process.start(None, "info").await;
    let (signing, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &signing, &key).unwrap());
    let recorder = Recorder::start(verifier, Arc::new(|_: &_, _| Reply::status(204))).await.unwrap();
    let event = |task: &str| {
        let (url, long) = (recorder.url("/callbacks"), "x".repeat(100_000));
        let task_json = format!(r#"{{"task_id":"{task}","callback_url":"{url}"}}"#);
        (task.to_owned(), format!(r#"{{"team_id":"{TEAM}","task":{task_json},"response":"{long}"}}"#))
    };
    produce(&broker.servers, topic, 1, &[event("task-large")]);
    let id = until("it is delivered", async || {
        let output = process.cli(&["--json", "tasks", "get", "task-large"]);
        let task: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let callback = task["callbacks"].get(0)?;
        (callback["state"] == "delivered").then(|| callback["callback_id"].as_str().unwrap().to_owned())
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
    process.edit("\"1MiB\"", "\"10KiB\"");
    process.start(None, "info").await;
    produce(&broker.servers, topic, 1, &[event("task-too-large")]);
    until("a new one of this size is refused", async || {
        let letters = process.json(&["dead-letters", "list"]);
        (letters["docs"].get(0)?["reason"] == "too_large").then_some(())
    })
    .await;
    process.json(&["callbacks", "resend", &id]);
    until("the accepted one arrives once more", async || (recorder.count() == 2).then_some(())).await;
    let receipts = recorder.receipts();
    assert!(receipts[0].id == receipts[1].id && receipts[0].body == receipts[1].body);
}
