//! Receivers that choose HTTP/2: callbacks are delivered as over HTTP/1.1, and each fault has the same outcome.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use callbackd::model::attempt::Outcome;
use callbackd::model::settlement::{Ended, NumberedAttempt};
use callbackd_bench::http2::{Act, Http2, frame, go_away};
use callbackd_bench::recorder::Recorder;
use callbackd_bench::tls::Certificates;
use h2::Reason;
use scale_callback::receiver::Reply;

use crate::harness::{Event, Harness};

/// What the library says when it has lost the reason.
const LOST: &[u8] = b"dispatch task is gone";

async fn started(over: &[(&str, &str)]) -> (Harness, Certificates, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path()).unwrap();
    let ca_file = certificates.ca_file.display().to_string();
    let mut all = vec![("EGRESS__CA_FILE", ca_file.as_str())];
    all.extend_from_slice(over);
    (Harness::with(&all).await, certificates, folder)
}

/// Raw receivers, like those over HTTP/1.1, by the outcome that each provokes.
fn acts() -> Vec<(Outcome, Act)> {
    vec![
        (Outcome::Ok, Act::Status(299)),
        (Outcome::Ok, Act::EndlessBody),
        (Outcome::Ok, Act::DripBody),
        (Outcome::Redirect, Act::Status(301)),
        (Outcome::Gone, Act::Status(410)),
        (Outcome::RateLimited, Act::Status(429)),
        (Outcome::ClientError, Act::Status(404)),
        (Outcome::ServerError, Act::Status(500)),
        (Outcome::BadStatus, Act::Status(777)),
        (Outcome::HeadTimeout, Act::Silence),
        (Outcome::HeadTimeout, Act::DripHead),
        (Outcome::HeadReset, Act::Reset(Reason::INTERNAL_ERROR)),
        (Outcome::HeadReset, Act::Reset(Reason::REFUSED_STREAM)),
        (Outcome::HeadReset, Act::GoAway),
        (Outcome::HeadReset, Act::Close),
        (Outcome::HeadReset, Act::CloseAtOnce),
        (Outcome::HeadInvalid, Act::EndlessHead),
        (Outcome::HeadInvalid, Act::Greet(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        (Outcome::HeadInvalid, Act::Greet(b"220 mail.example ESMTP, ready when you are\r\n".to_vec())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_receiver_is_told_over_http2_as_well() {
    let (harness, certificates, _folder) = started(&[("RETRY__RETRIES", "1"), ("RETRY__FIRST", "10ms")]).await;
    let mut expected = Vec::new();
    for (n, (outcome, act)) in acts().into_iter().enumerate() {
        let name: String = format!("h2-{n}-{act:?}").chars().take(20).collect();
        let receiver = Http2::start(&certificates, act).await.unwrap();
        harness.produce(&Event::new(&name).to(format!("https://{}/", receiver.address)));
        expected.push((name, outcome, receiver));
    }
    for (task, outcome, _) in &expected {
        let (_, rows, attempts) = harness.ended(task).await;
        let settled = rows.settled.unwrap();
        let first = attempts.first().map(|attempt| attempt.attempt.outcome).unwrap_or(settled.outcome);
        // A receiver that closes the connection may do so before or after the whole request is written.
        let closes = ["CloseAtOnce", "GoAway"].iter().any(|act| task.contains(act));
        let either = closes && first == Outcome::WriteFailed;
        // The library may drop a request with its connection before it has told why. Then all that is known is that it ended.
        let lost = |attempt: &NumberedAttempt| attempt.attempt.snippet.starts_with(LOST);
        let unknown = first == Outcome::HeadReset && attempts.first().is_some_and(lost);
        assert!(first == *outcome || either || unknown, "{task}: {outcome:?}, {attempts:?}");
        assert_eq!(settled.ended == Ended::Delivered, *outcome == Outcome::Ok, "{task}");
        // If there was an answer or a reset, the request had been sent.
        for attempt in attempts.iter().filter(|attempt| attempt.attempt.status.is_some()) {
            assert!(attempt.attempt.sent, "{task}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_leaves_in_order_costs_no_attempt() {
    let (harness, certificates, _folder) = started(&[]).await;
    let leaves = go_away(0, Reason::NO_ERROR, b"");
    let refuses = frame(3, 0, 1, &u32::from(Reason::REFUSED_STREAM).to_be_bytes());
    for (task, frames) in [("leaves", leaves), ("refuses", refuses)] {
        let mut costs = Vec::new();
        // The library may drop a request with its connection before it has told why. Then nobody knows that it was not handled, and
        // an attempt is charged. That is rare.
        while costs.last() != Some(&1) && costs.len() < 3 {
            let first = Act::Frames(frames.clone(), Vec::new());
            let act = Act::First(Box::new(first), Box::new(Act::Status(204)));
            let receiver = Http2::start(&certificates, act).await.unwrap();
            let task = format!("{task}-{}", costs.len());
            harness.produce(&Event::new(&task).to(format!("https://{}/", receiver.address)));
            let (_, rows, attempts) = harness.ended(&task).await;
            let settled = rows.settled.unwrap();
            assert!(settled.ended == Ended::Delivered && settled.attempts <= 2, "{task}: {attempts:?}");
            assert_eq!(receiver.requests.load(Ordering::SeqCst), 2, "{task}");
            costs.push(settled.attempts);
        }
        assert_eq!(costs.last(), Some(&1), "{task}: {costs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_no_body_keeps_none_of_our_memory() {
    let (harness, certificates, _folder) = started(&[("RETRY__RETRIES", "0")]).await;
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    for (act, ends) in [(Act::AnswerUnread, Ended::Delivered), (Act::Deaf, Ended::Exhausted)] {
        let receiver = Http2::start(&certificates, act.clone()).await.unwrap();
        for n in 0..4 {
            let task = format!("{act:?}-{n}");
            harness.produce(&Event::new(&task).to(format!("https://{}/", receiver.address)).response(&large));
            let (_, rows, attempts) = harness.ended(&task).await;
            assert_eq!(rows.settled.unwrap().ended, ends, "{attempts:?}");
        }
        assert!(receiver.connections.load(Ordering::SeqCst) >= 4, "no connection is used again on which a body waits");
        let held = &harness.app().ops.metrics().body_bytes;
        harness.until("the bodies are let go", async || (held.get() == 0).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_one_request_at_a_time_is_given_one() {
    let (harness, certificates, _folder) = started(&[]).await;
    let receiver = Http2::start(&certificates, Act::OneAtATime).await.unwrap();
    let url = format!("https://{}/", receiver.address);
    harness.produce(&Event::new("first").to(url.clone()));
    harness.ended("first").await;
    for n in 0..12 {
        harness.produce(&Event::new(&format!("more-{n}")).to(url.clone()));
    }
    for n in 0..12 {
        let (_, rows, attempts) = harness.ended(&format!("more-{n}")).await;
        assert_eq!(rows.settled.unwrap().ended, Ended::Delivered);
        assert!(attempts.is_empty(), "no request failed because it waited for another: {attempts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_share_an_http2_connection_and_every_one_verifies() {
    let (harness, certificates, _folder) = started(&[]).await;
    let rule = Arc::new(|_: &_, seen| Reply::status(if seen == 0 { 503 } else { 204 }));
    let receiver = Recorder::behind_tls(certificates.server().unwrap(), harness.verifier().await, rule).await.unwrap();
    let url = format!("https://{}/hook?token=1", receiver.address);
    for n in 0..40 {
        harness.produce(&Event::new(&format!("task-{n}")).to(url.clone()).response(&format!("{{\"n\":{n}.50}}")));
    }
    for n in 0..40 {
        let (_, rows, attempts) = harness.ended(&format!("task-{n}")).await;
        assert_eq!(rows.settled.unwrap().ended, Ended::Delivered, "{attempts:?}");
    }
    assert!(receiver.refused().is_empty(), "{:?}", receiver.refused());
    let receipts = receiver.receipts();
    assert_eq!(receipts.len(), 80, "each failed once");
    assert!(receipts.iter().all(|receipt| receipt.path == "/hook?token=1"), "{}", receipts[0].path);
    for receipt in &receipts {
        let first = receipts.iter().find(|other| other.id == receipt.id).unwrap();
        assert_eq!(first.body, receipt.body, "every retry is byte-identical");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_requests_and_http1_is_spoken_where_it_is_chosen() {
    let (harness, certificates, _folder) = started(&[]).await;
    let receiver = Http2::start(&certificates, Act::Status(204)).await.unwrap();
    let url = format!("https://{}/", receiver.address);
    harness.produce(&Event::new("first").to(url.clone()));
    harness.ended("first").await;
    for n in 0..30 {
        harness.produce(&Event::new(&format!("more-{n}")).to(url.clone()));
    }
    for n in 0..30 {
        harness.ended(&format!("more-{n}")).await;
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1, "thirty more on the connection of the first");

    let (harness, certificates, _folder) = started(&[("DELIVER__HTTP2", "false")]).await;
    let rule = Arc::new(|_: &_, _| Reply::status(204));
    let plain = Recorder::behind_tls(certificates.server().unwrap(), harness.verifier().await, rule).await.unwrap();
    harness.produce(&Event::new("over-1.1").to(format!("https://{}/", plain.address)));
    harness.ended("over-1.1").await;
    assert!(plain.receipts()[0].headers.contains_key("host"), "HTTP/1.1 names its host in a header");
}
