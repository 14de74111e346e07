//! What was sent is shown after the settings have changed: the URL, the form and the keys of each request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use callbackd::model::permission::Rights;
use callbackd::model::team::{AuthForm, KeyKind, KeyState, Mode};
use callbackd::ops::Caller;
use callbackd::ops::requests::SentRequest;
use callbackd::ops::teams::TeamChange;
use callbackd::store::resends::ResendForm;
use scale_callback::receiver::Reply;

use crate::harness::{Event, Harness, TEAM};

fn header<'r>(request: &'r SentRequest, name: &str) -> &'r str {
    request.headers.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value)
}

async fn default_url(harness: &Harness, url: &str) {
    let change = TeamChange { default_url: Some(Some(url.to_owned())), ..TeamChange::default() };
    harness.session().update_team(TEAM, change, true).await.unwrap();
}

/// The requests of the attempts of a callback, and that which delivered it, once they are known.
async fn requests(harness: &Harness, id: &str) -> (Vec<Option<SentRequest>>, Option<SentRequest>) {
    let session = harness.session();
    let known = async || {
        let report = session.attempts(id).await.ok()?;
        // What a request was sent with is written soon after.
        let all: Vec<_> = report.attempts.into_iter().map(|attempt| attempt.request).collect();
        let is_known = all.iter().all(Option::is_some) && report.delivery.is_some();
        is_known.then_some((all, report.delivery))
    };
    harness.until("what was sent is known", known).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_shown_after_the_settings_have_changed() {
    let harness = Harness::with(&[("RETRY__FIRST", "50ms"), ("RETRY__RETRIES", "3")]).await;
    let status = Arc::new(AtomicU16::new(503));
    let now = Arc::clone(&status);
    let rule = move |_: &_, _| Reply::status(now.swap(204, Ordering::SeqCst));
    let recorder = harness.recorder(Arc::new(rule)).await;
    let first_url = recorder.url("/first?secret=1").replace("http://", "http://redacted@");
    default_url(&harness, &first_url.replace("redacted@", "us:pass-word@")).await;
    harness.produce(&Event::new("task-default"));
    let (id, rows, _) = harness.ended("task-default").await;
    assert_eq!(rows.settled.unwrap().attempts, 2);
    let id = id.to_string();
    let (attempts, delivery) = requests(&harness, &id).await;
    let keys = harness.session().keys(TEAM).await.unwrap();
    let of_kind = |kind| {
        let live = |key: &&callbackd::store::admin::KeyRow| {
            (key.kind, key.mode, key.state) == (kind, Mode::Live, KeyState::Active)
        };
        keys.iter().find(live).unwrap()
    };
    let (signing, auth) = (of_kind(KeyKind::Signing), of_kind(KeyKind::CallbackAuth));
    for (request, number) in [(attempts[0].as_ref().unwrap(), "1"), (delivery.as_ref().unwrap(), "2")] {
        assert_eq!(request.url.as_deref(), Some(&*first_url));
        assert!(request.follows_default);
        assert_eq!(request.form, AuthForm::Key);
        assert_eq!(request.signing_keys, std::slice::from_ref(&signing.id));
        assert_eq!(request.auth_keys, std::slice::from_ref(&auth.id));
        assert_eq!(header(request, "webhook-id"), id);
        assert_eq!(header(request, "scale-callback-attempt"), number);
        assert_eq!(header(request, "webhook-signature"), "v1,[masked]");
        assert_eq!(header(request, "scale-callback-auth"), format!("[masked]{}", auth.last4));
        assert_eq!(header(request, "host"), recorder.address.to_string());
        assert_eq!(header(request, "authorization"), "[masked]");
        assert!(!format!("{request:?}").contains("pass-word"), "{request:?}");
    }

    // The team changes its URL and its keys. What was sent stays what it was.
    let second_url = recorder.url("/second");
    default_url(&harness, &second_url).await;
    harness
        .until("the new URL is used", async || {
            harness.produce(&Event::new("task-after"));
            recorder.receipts().iter().any(|receipt| receipt.path == "/second").then_some(())
        })
        .await;
    // A task's own URL stands in the body, once the callback has ended.
    harness.produce(&Event::new("task-own").to(recorder.url("/own")));
    let (own, ..) = harness.ended("task-own").await;
    let (_, delivery) = requests(&harness, &own.to_string()).await;
    let delivery = delivery.unwrap();
    assert_eq!((delivery.url, delivery.follows_default), (None, false));

    let (new_key, _) = harness.new_key(KeyKind::CallbackAuth).await;
    harness.session().promote_key(TEAM, &new_key.id, None).await.unwrap();
    let session = harness.session();
    // The receiver does not know the new key and refuses it, so each attempt has a row.
    let with_new_key = async || {
        harness.produce(&Event::new("task-key"));
        for (id, _) in harness.callbacks("task-key").await {
            let attempts = session.attempts(&id.to_string()).await.ok()?.attempts;
            let sent = attempts.into_iter().filter_map(|attempt| attempt.request);
            if let Some(sent) = { sent }.find(|sent| sent.auth_keys == [new_key.id.clone()]) {
                return Some(sent);
            }
        }
        None
    };
    let sent = harness.until("the new key is shown", with_new_key).await;
    assert_eq!(sent.url.as_deref(), Some(&*second_url));
    assert_eq!(header(&sent, "scale-callback-auth"), format!("[masked]{}", new_key.last4));
    let (_, again) = requests(&harness, &id).await;
    assert_eq!(again.unwrap().url.as_deref(), Some(&*first_url));
    assert_eq!(header(&requests(&harness, &id).await.1.unwrap(), "webhook-id"), id);

    // Who may not see URLs sees the origin alone.
    let reader = Caller::operator("reader", "reader", Rights::READ);
    let report = harness.app().ops.as_caller(&reader).attempts(&id).await.unwrap();
    assert_eq!(report.delivery.unwrap().url, Some(format!("http://{}", recorder.address)));
}

/// Whether a value that is shown can be that of a header that was sent.
fn can_be(shown: &str, sent: &str) -> bool {
    match shown.split_once("[masked]") {
        Some((before, behind)) => sent.starts_with(before) && sent.ends_with(behind) && sent.len() > shown.len() - 8,
        None => shown == sent,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_headers_that_are_shown_are_those_that_a_receiver_saw() {
    let settings =
        [("STORE__BODIES", "all"), ("RETRY__RETRIES", "0"), ("DELIVER__CONTACT", "(+https://platform.example)")];
    let harness = Harness::with(&settings).await;
    let status = AtomicU16::new(503);
    let rule = move |_: &_, _| Reply::status(status.swap(204, Ordering::SeqCst));
    let recorder = harness.recorder(Arc::new(rule)).await;
    default_url(&harness, &recorder.url("/callbacks").replace("http://", "http://us:pass-word@")).await;
    harness.produce(&Event::new("task-seen"));
    let (id, ..) = harness.ended("task-seen").await;
    let (session, id) = (harness.session(), id.to_string());
    session.resend_callback(&id, ResendForm { new_id: true, ..ResendForm::default() }).await.unwrap();
    let (attempts, delivery) = requests(&harness, &id).await;
    let delivered_by = session.attempts(&id).await.unwrap().delivered_by.unwrap();
    assert_eq!((delivered_by.number, delivered_by.round, delivered_by.status), (2, 1, Some(204)));
    let requests = [attempts[0].as_ref().unwrap(), delivery.as_ref().unwrap()];
    let receipts = recorder.receipts();
    assert_eq!((attempts.len(), receipts.len()), (1, 2));
    for (request, receipt) in requests.into_iter().zip(&receipts) {
        let shown: BTreeSet<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        let seen: BTreeSet<_> = receipt.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(shown, seen);
        for (name, value) in &request.headers {
            let sent = receipt.headers[name.as_str()].to_str().unwrap();
            // Of the delivery, the store keeps neither the begin nor whether its round had an id of its own.
            let is_known = match (name.as_str(), receipt.status) {
                ("webhook-id", 204) => {
                    sent == format!("{id}_r1")
                        && *value == format!("{id}, or {sent} if this round had an id of its own")
                }
                ("webhook-timestamp", 204) => value == "[not recorded]",
                // It is signed soon after the attempt has begun.
                ("webhook-timestamp", _) => value.parse::<u64>().unwrap().abs_diff(sent.parse().unwrap()) <= 5,
                _ => can_be(value, sent),
            };
            assert!(is_known, "{name}: {value:?} is shown, and {sent:?} was sent");
        }
    }
}
