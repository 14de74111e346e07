//! The way of the data in one process: what the customer receives, and what the store records.

use std::sync::Arc;
use std::time::Duration;

use callbackd::model::attempt::Outcome;
use callbackd::model::dead_letter::Unreadable;
use callbackd::model::retry::Reason;
use callbackd::model::settlement::Ended;
use callbackd::model::team::{KeyKind, Mode};
use callbackd::ops::OpsError;
use callbackd::ops::teams::TeamChange;
use callbackd::store::EngineStore;
use callbackd::store::faulty::{Faults, FaultyStore};
use scale_callback::receiver::Reply;

use crate::harness::{Event, HMAC_TEAM, Harness, PATIENCE, TEAM};

const ULID: &str = "01KAV9FT00ZKEK0KFES3QVF608";

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_arrives_signed_and_leaves_one_small_row() {
    let mut harness = Harness::start().await;
    let receiver = harness.accepting().await;
    let event = Event::new("task-1").to(receiver.url("/in?x=1")).response(r#"{"a":1.0}"#);
    harness.produce(&event);
    harness.produce(&Event::new("task-2").of(HMAC_TEAM).to(receiver.url("/in")).test());
    let (id, rows, attempts) = harness.ended("task-1").await;
    let (_, test_rows, _) = harness.ended("task-2").await;
    let settled = rows.settled.unwrap();
    assert_eq!(
        (settled.ended, settled.attempts, settled.status, settled.revision),
        (Ended::Delivered, 1, Some(204), 1)
    );
    assert!(attempts.is_empty(), "the settled row records a delivery by the first attempt");
    assert_eq!(test_rows.settled.unwrap().facts.mode, Mode::Test);
    let receipts = receiver.receipts();
    let receipt = receipts.iter().find(|receipt| receipt.task_id == "task-1").unwrap();
    assert_eq!(receipt.id, id.to_string());
    assert_eq!(receipt.path, "/in?x=1");
    let url = receiver.url("/in?x=1");
    let body = format!(
        r#"{{"task":{{"task_id":"task-1","callback_url":"{url}","is_test":false}},"response":{{"a":1.0}},"task_id":"task-1"}}"#
    );
    assert_eq!(receipt.body, body.as_bytes());
    let header = |name: &str| receipt.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    assert_eq!(header("scale-callback-attempt").as_deref(), Some("1"));
    assert_eq!(header("accept").as_deref(), Some("*/*"), "firewalls refuse a request without it");
    assert!(header("user-agent").unwrap().starts_with("callbackd/"));
    assert_eq!(header("host").as_deref(), Some(receiver.address.to_string().as_str()));
    assert_eq!(header("scale-callback-auth"), Some(harness.key(TEAM, KeyKind::CallbackAuth, Mode::Live).await));
    let hmac = receipts.iter().find(|receipt| receipt.task_id == "task-2").unwrap();
    assert!(hmac.headers["scale-callback-auth"].to_str().unwrap().starts_with("t="), "the key is never sent");
    assert!(receiver.refused().is_empty());
    assert_eq!(harness.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn opaque_parts_reach_the_customer_byte_for_byte() {
    let harness = Harness::start().await;
    let receiver = harness.accepting().await;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let responses =
        [deep.as_str(), r#"{"a":1,"a":2}"#, "1e400", r#""\ud800""#, r#""\u0000""#, r#"{"ü":"\ud83d\ude00 😀"}"#];
    for (n, response) in responses.iter().enumerate() {
        harness.produce(&Event::new(&format!("task-{n}")).to(receiver.url("/")).response(response));
    }
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() >= responses.len()).await);
    for (n, response) in responses.iter().enumerate() {
        let task = format!("task-{n}");
        let receipt = receiver.receipts().into_iter().find(|receipt| receipt.task_id == task).unwrap();
        let end = format!(",\"response\":{response},\"task_id\":\"{task}\"}}");
        assert!(receipt.body.ends_with(end.as_bytes()), "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_retry_is_byte_identical_and_counted() {
    let harness = Harness::start().await;
    let receiver = harness
        .recorder(Arc::new(|_, before| match before {
            0 => Reply::status(500).saying("\0no"),
            1 => Reply::status(429).retry_after(1),
            _ => Reply::status(200),
        }))
        .await;
    harness.produce(&Event::new("task-1").to(receiver.url("/")).id(ULID));
    let (id, rows, attempts) = harness.ended("task-1").await;
    let settled = rows.settled.unwrap();
    assert_eq!((settled.ended, settled.attempts), (Ended::Delivered, 3));
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::ServerError, Outcome::RateLimited]);
    assert_eq!(&attempts[0].attempt.snippet[..], b"\0no");
    let receipts = receiver.receipts();
    assert_eq!(receipts.len(), 3);
    for (n, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt.id, id.to_string());
        assert_eq!(receipt.body, receipts[0].body);
        assert_eq!(receipt.headers["scale-callback-attempt"].to_str().unwrap(), (n + 1).to_string());
    }
    let waited = receipts[2].came.duration_since(receipts[1].came);
    // Times are kept in whole milliseconds.
    assert!(waited >= Duration::from_millis(999), "Retry-After is obeyed: {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_always_fails_is_exhausted() {
    let harness = Harness::start().await;
    let receiver = harness.recorder(Arc::new(|_, _| Reply::status(503))).await;
    harness.produce(&Event::new("task-1").to(receiver.url("/")));
    let (_, rows, attempts) = harness.ended("task-1").await;
    let settled = rows.settled.unwrap();
    assert_eq!((settled.ended, settled.attempts), (Ended::Exhausted, 4));
    assert_eq!(attempts.len(), 4, "1 attempt and 3 retries, as this test is set");
    assert_eq!(receiver.count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_never_posts_where_it_must_not() {
    let harness = Harness::start().await;
    let receiver = harness.accepting().await;
    let long = format!("{}{}", receiver.url("/"), "x".repeat(10_000));
    let urls = [
        ("nonsense", Reason::UrlInvalid),
        ("https://", Reason::UrlInvalid),
        ("ftp://files.example.com/x", Reason::UrlInvalid),
        ("https://a.example:25/", Reason::UrlInvalid),
        ("dev@acme.example", Reason::EmailNotSupported),
        (long.as_str(), Reason::UrlInvalid),
        ("http://169.254.169.254/latest", Reason::AddressDenied),
        ("http://10.0.0.1/", Reason::AddressDenied),
        ("http://2852039166/", Reason::AddressDenied),
        ("http://0xa9.0xfe.0xa9.0xfe/", Reason::AddressDenied),
        ("http://[::ffff:169.254.169.254]/", Reason::AddressDenied),
        ("http://[fd00:ec2::254]/", Reason::AddressDenied),
        ("http://localhost/", Reason::AddressDenied),
        ("http://metadata.internal/", Reason::AddressDenied),
    ];
    for (n, (url, _)) in urls.iter().enumerate() {
        harness.produce(&Event::new(&format!("task-{n}")).to(*url));
    }
    harness.produce(&Event::new("task-none"));
    for (n, (url, reason)) in urls.iter().enumerate() {
        let (_, rows, attempts) = harness.ended(&format!("task-{n}")).await;
        assert_eq!(rows.settled.unwrap().ended, Ended::Abandoned(*reason), "{url}");
        assert!(attempts.len() == 1 && !attempts[0].attempt.sent, "{url}");
    }
    let (_, rows, _) = harness.ended("task-none").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Abandoned(Reason::NoUrl));
    assert_eq!(receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_records_are_buried_and_their_neighbours_go_on() {
    let harness = Harness::with(&[("INTAKE__MAX_EVENT", "64KiB")]).await;
    let receiver = harness.accepting().await;
    let large = vec![b' '; 65 * 1024];
    let valid = Event::new("task-ok").to(receiver.url("/")).json();
    let bad: [(&[u8], &[(&str, &str)], Unreadable); 9] = [
        (&large, &[], Unreadable::TooLarge),
        (b"nonsense", &[], Unreadable::NotJson),
        (b"[1]", &[], Unreadable::NotObject),
        (b"{\"team_id\":\"t\"}", &[], Unreadable::MissingTask),
        (b"{\"team_id\":\"\xff\"}", &[], Unreadable::InvalidUtf8),
        (b"{\"team_id\":\"t\",\"task\":{\"task_id\":\"a\\u0007\"}}", &[], Unreadable::InvalidId),
        (b"{\"team_id\":\"t\",\"team_id\":\"u\",\"task\":{\"task_id\":\"a\"}}", &[], Unreadable::DuplicateField),
        (b"{\"team_id\":\"t\",\"task\":{\"task_id\":\"a\"}}", &[("team-id", "u")], Unreadable::ConflictingIdentity),
        (b"{\"team_id\":\"nobody\",\"task\":{\"task_id\":\"a\"}}", &[], Unreadable::UnknownTeam),
    ];
    for (value, headers, _) in &bad {
        harness.produce_raw(value, headers);
    }
    harness.produce_to(0, None, &[]);
    harness.produce_raw(valid.as_bytes(), &[]);
    let letters = harness.dead_letters(bad.len()).await;
    harness.ended("task-ok").await;
    for (value, _, reason) in &bad {
        let letter = letters.iter().find(|letter| letter.letter.reason == *reason).unwrap();
        if *reason != Unreadable::UnknownTeam {
            let kept = value.len().min(64 * 1024);
            assert_eq!(&letter.letter.value[..], &value[..kept], "{reason:?}: its bytes are kept");
            assert_eq!(letter.letter.value_len, value.len() as u64);
        }
        assert_eq!(harness.metric("dead_letters", reason.name()), 1);
    }
    harness.watermark(i64::try_from(bad.len()).unwrap() + 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_event_id_makes_no_second_callback() {
    let harness = Harness::start().await;
    let receiver = harness.accepting().await;
    let url = receiver.url("/");
    for id in [ULID, "evt-without-a-time"] {
        let task = format!("task-{id}");
        for _ in 0..3 {
            harness.produce(&Event::new(&task).to(&url).id(id));
        }
        // The same event comes on another partition, and once more after it was settled.
        harness.produce_to(1, Some(Event::new(&task).to(&url).id(id).json().as_bytes()), &[]);
        harness.ended(&task).await;
        harness.produce(&Event::new(&task).to(&url).id(id));
        harness.produce(&Event::new(&task).to(&url).id(id).response("\"another content\""));
    }
    // In another team the same id is another callback.
    harness.produce(&Event::new("task-other-team").of(HMAC_TEAM).to(&url).id(ULID));
    harness.ended("task-other-team").await;
    let letters = harness.dead_letters(2).await;
    assert!(letters.iter().all(|letter| letter.letter.reason == Unreadable::EventIdReused));
    harness.watermark(13).await;
    assert_eq!(receiver.count(), 3);
    assert_eq!(harness.callbacks(&format!("task-{ULID}")).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_task_may_owe_several_callbacks() {
    let harness = Harness::start().await;
    let receiver = harness.accepting().await;
    for kind in ["task.completed", "task.recalled", "anything.else"] {
        let event = Event { event_type: Some(kind.to_owned()), ..Event::new("task-1").to(receiver.url("/")) };
        harness.produce(&event);
    }
    harness.until("three callbacks", async || (harness.callbacks("task-1").await.len() == 3).then_some(())).await;
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() == 3).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mended_default_url_moves_what_waits_for_it() {
    let harness = Harness::with(&[("RETRY__FIRST", "1s"), ("RETRY__HORIZON", "20s")]).await;
    let broken = harness.recorder(Arc::new(|_, _| Reply::status(500))).await;
    let mended = harness.accepting().await;
    let ops = harness.session();
    let default = |url: String| TeamChange { default_url: Some(Some(url)), ..TeamChange::default() };
    ops.update_team(TEAM, default(broken.url("/")), true).await.unwrap();
    harness.produce(&Event::new("task-1"));
    assert!(broken.until(PATIENCE, |receipts| !receipts.is_empty()).await);
    ops.update_team(TEAM, default(mended.url("/mended")), true).await.unwrap();
    let (_, rows, _) = harness.ended("task-1").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Delivered);
    assert_eq!(mended.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_origins_and_http_are_refusals_like_any_other() {
    let harness = Harness::start().await;
    let receiver = harness.accepting().await;
    let ops = harness.session();
    let change =
        TeamChange { allowed_origins: Some(vec!["https://hooks.acme.example".to_owned()]), ..TeamChange::default() };
    ops.update_team(TEAM, change, true).await.unwrap();
    harness.produce(&Event::new("task-origin").to(receiver.url("/")));
    let (_, rows, _) = harness.ended("task-origin").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Abandoned(Reason::OriginNotAllowed));
    let change =
        TeamChange { allowed_origins: Some(vec![]), http: Some(Some("hmac-only".to_owned())), ..TeamChange::default() };
    ops.update_team(TEAM, change, true).await.unwrap();
    let change = TeamChange { http: Some(Some("hmac-only".to_owned())), ..TeamChange::default() };
    ops.update_team(HMAC_TEAM, change, true).await.unwrap();
    harness.produce(&Event::new("task-http").to(receiver.url("/")));
    harness.produce(&Event::new("task-hmac").of(HMAC_TEAM).to(receiver.url("/")));
    let (_, rows, _) = harness.ended("task-http").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Abandoned(Reason::HttpNotAllowed));
    let (_, rows, _) = harness.ended("task-hmac").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Delivered);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_without_a_refused_callback() {
    let harness = Harness::start().await;
    let ops = harness.session();
    let old = harness.key(TEAM, KeyKind::CallbackAuth, Mode::Live).await;
    let receiver = harness.accepting().await;
    let (row, value) = harness.new_key(KeyKind::Signing).await;
    ops.promote_key(TEAM, &row.id, None).await.unwrap();
    harness.produce(&Event::new("task-1").to(receiver.url("/")));
    harness.ended("task-1").await;
    let receipts = receiver.receipts();
    let signatures = receipts[0].headers["webhook-signature"].to_str().unwrap();
    assert_eq!(signatures.split(' ').count(), 2, "both secrets sign during a rotation");
    let fresh = scale_callback_auth::Credential::signed_and_keyed("new", &value, &old).unwrap();
    let pairs: Vec<_> = receipts[0].headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    scale_callback_auth::Verifier::new(fresh).verify(&pairs[..], &receipts[0].body).unwrap();
    // The auth header has one value: that of the key promoted last.
    let (row, value) = harness.new_key(KeyKind::CallbackAuth).await;
    harness.produce(&Event::new("task-2").to(receiver.url("/")));
    harness.ended("task-2").await;
    assert_eq!(
        receiver.receipts()[1].headers["scale-callback-auth"].to_str().unwrap(),
        old,
        "a created key is not used yet"
    );
    ops.promote_key(TEAM, &row.id, None).await.unwrap();
    harness.produce(&Event::new("task-3").to(receiver.url("/")));
    harness.until("the receiver refuses the new key", async || (!receiver.refused().is_empty()).then_some(())).await;
    assert_eq!(ops.reveal_key(TEAM, &row.id).await.unwrap().as_str(), value.as_str());
    // Without a usable key nothing is sent, and the callback is retried.
    for key in ops.keys(TEAM).await.unwrap().iter().filter(|key| key.kind == KeyKind::Signing && key.mode == Mode::Live)
    {
        ops.revoke_key(TEAM, &key.id, true).await.unwrap();
    }
    harness.produce(&Event::new("task-4").to(receiver.url("/")));
    let (_, rows, attempts) = harness.ended("task-4").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Exhausted);
    assert!(attempts.iter().all(|attempt| attempt.attempt.outcome == Outcome::NoKey && !attempt.attempt.sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_receiver_never_holds_a_watermark() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0")]).await;
    let hanging = harness.recorder(Arc::new(|_, _| Reply::status(200).after(Duration::from_secs(60)))).await;
    let prompt = harness.accepting().await;
    harness.produce(&Event::new("task-hangs").to(hanging.url("/")));
    harness.produce(&Event::new("task-prompt").to(prompt.url("/")));
    assert!(hanging.until(PATIENCE, |receipts| !receipts.is_empty()).await);
    harness.watermark(2).await;
    let pending = harness.callbacks("task-hangs").await;
    assert!(pending[0].1.pending.as_ref().unwrap().token.is_some(), "its row carries the attempt's lease");
    assert_eq!(harness.metric("parked", "slow"), 1);
    let (_, rows, attempts) = harness.ended("task-hangs").await;
    assert_eq!((rows.settled.unwrap().ended, attempts[0].attempt.outcome), (Ended::Exhausted, Outcome::HeadTimeout));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_customer_slows_no_other() {
    let harness =
        Harness::with(&[("DELIVER__TOTAL_TIMEOUT", "4s"), ("DELIVER__HEAD_TIMEOUT", "4s"), ("SHUTDOWN__GRACE", "7s")])
            .await;
    let hanging = harness.recorder(Arc::new(|_, _| Reply::status(200).after(Duration::from_secs(60)))).await;
    let prompt = harness.accepting().await;
    for n in 0..300 {
        harness.produce(&Event::new(&format!("task-hangs-{n}")).to(hanging.url("/")));
        if n % 10 == 0 {
            harness.produce(&Event::new(&format!("task-prompt-{n}")).of(HMAC_TEAM).to(prompt.url("/")));
        }
    }
    assert!(prompt.until(Duration::from_secs(20), |receipts| receipts.len() == 30).await, "{}", prompt.count());
    let at_once = hanging.count();
    assert!(at_once <= 64, "an endpoint has 16 slots, a few times over: {at_once}");
    // Callbacks that wait for the slow endpoint are parked. So they do not keep the watermark from rising.
    harness.watermark(330).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_delivers_what_was_pending_and_repeats_nothing() {
    let mut harness = Harness::with(&[("RETRY__FIRST", "2s"), ("RETRY__HORIZON", "60s")]).await;
    let receiver = harness
        .recorder(Arc::new(|received, before| {
            let fails = received.path == "/later" && before == 0;
            Reply::status(if fails { 500 } else { 200 })
        }))
        .await;
    for n in 0..20 {
        harness.produce(&Event::new(&format!("task-{n}")).to(receiver.url(if n % 4 == 0 { "/later" } else { "/" })));
    }
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() >= 20).await);
    harness.watermark(20).await;
    assert_eq!(harness.stop().await, 0, "a clean stop cuts no attempt off");
    harness.run(None).await;
    for n in 0..20 {
        let (_, rows, _) = harness.ended(&format!("task-{n}")).await;
        assert_eq!(rows.settled.unwrap().ended, Ended::Delivered);
    }
    assert_eq!(receiver.count(), 25, "20 first tries and 5 retries");
    let repeats = &harness.app().ops.metrics().repeats_possible_total;
    assert_eq!(repeats.with_label_values(&["unclean_stop"]).get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_loses_and_repeats_nothing() {
    let mut faulty = None;
    let slot = &mut faulty;
    let (sender, receiver_of) = std::sync::mpsc::sync_channel(1);
    let wrap = Box::new(move |inner: Arc<dyn EngineStore>| {
        let faults =
            Faults { happened_but_uncertain: 150, did_not_happen: 150, slow: 100, slowness: Duration::from_millis(30) };
        let store = Arc::new(FaultyStore::new(inner, 42, faults));
        sender.send(Arc::clone(&store)).unwrap();
        store as Arc<dyn EngineStore>
    });
    let harness = Harness::wrapped(&[], Some(wrap)).await;
    *slot = Some(receiver_of.recv().unwrap());
    let store = faulty.unwrap();
    let receiver = harness.recorder(Arc::new(|_, before| Reply::status(if before == 0 { 500 } else { 200 }))).await;
    for n in 0..100 {
        harness.produce(&Event::new(&format!("task-{n}")).to(receiver.url("/")));
        if n == 50 {
            store.set_down(true);
        }
    }
    harness.until("the daemon notices", async || (!harness.app().ops.store_up()).then_some(())).await;
    assert!(!harness.app().ops.readiness().ready, "the daemon is not ready while the store is down");
    store.set_down(false);
    for n in 0..100 {
        let (_, rows, attempts) = harness.ended(&format!("task-{n}")).await;
        let settled = rows.settled.unwrap();
        assert_eq!((settled.ended, settled.attempts, attempts.len()), (Ended::Delivered, 2, 1), "task {n}");
    }
    harness.watermark(100).await;
    assert_eq!(receiver.count(), 200, "every attempt once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_store_refuses_ends_alone() {
    let wrap = Box::new(|inner: Arc<dyn EngineStore>| {
        Arc::new(FaultyStore::new(inner, 1, Faults::default()).refusing("task-bad")) as Arc<dyn EngineStore>
    });
    let harness = Harness::wrapped(&[], Some(wrap)).await;
    let receiver = harness.recorder(Arc::new(|_, _| Reply::status(500))).await;
    for task in ["task-1", "task-bad", "task-2"] {
        harness.produce(&Event::new(task).to(receiver.url("/")));
    }
    let (_, rows, _) = harness.ended("task-bad").await;
    let settled = rows.settled.unwrap();
    assert_eq!((settled.ended, settled.outcome), (Ended::Abandoned(Reason::StoreRejected), Outcome::StoreRejected));
    for task in ["task-1", "task-2"] {
        let (_, rows, _) = harness.ended(task).await;
        assert_eq!(rows.settled.unwrap().ended, Ended::Exhausted, "{task}");
    }
    harness.watermark(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_bounded() {
    let harness = Harness::with(&[
        ("INTAKE__MAX_EVENT", "512KiB"),
        ("INTAKE__BODY_BUDGET", "1MiB"),
        ("DELIVER__FAST", "8"),
        ("DELIVER__SLOW", "4"),
        ("DELIVER__SETTLING", "4"),
        ("RETRY__RETRIES", "0"),
    ])
    .await;
    // This receiver accepts connections and never reads, so the bytes stay in our buffers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf_url = format!("http://{}/", deaf.local_addr().unwrap());
    let receiver = harness.accepting().await;
    let large = format!("\"{}\"", "x".repeat(150_000));
    for n in 0..24 {
        let url = if n % 3 == 0 { deaf_url.clone() } else { receiver.url("/") };
        harness.produce(&Event::new(&format!("task-{n}")).to(url).response(&large));
    }
    let most = std::sync::atomic::AtomicI64::new(0);
    harness
        .until("all have ended", async || {
            let metrics = harness.app().ops.metrics();
            most.fetch_max(metrics.unsettled.get(), std::sync::atomic::Ordering::Relaxed);
            assert!(metrics.body_bytes.get() <= 1 << 20, "the budget holds");
            let ended = harness.app().reads().totals().await.ok()?.settled;
            (ended.iter().map(|(_, _, count)| count).sum::<u64>() == 24).then_some(())
        })
        .await;
    assert!(most.into_inner() <= 16, "there are no more permits than the fast, slow and settling ones");
    harness
        .until("the budget is whole again", async || (harness.app().ops.metrics().body_bytes.get() == 0).then_some(()))
        .await;
    let totals = harness.app().reads().totals().await.unwrap().settled;
    assert!(
        totals.contains(&("delivered".to_owned(), None, 16)) && totals.contains(&("exhausted".to_owned(), None, 8)),
        "{totals:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_ends() {
    use callbackd::api::shapes::CallbackShape;
    use callbackd::ops::callbacks::CallbackReport;
    let harness = Harness::with(&[("RETRY__HORIZON", "60s"), ("RETRY__RETRIES", "1")]).await;
    let receiver =
        harness.recorder(Arc::new(|received, _| Reply::status(if received.path == "/ok" { 200 } else { 500 }))).await;
    harness.produce(&Event::new("task-ok").to(receiver.url("/ok")));
    harness.produce(&Event::new("task-bad").to(receiver.url("/bad")));
    harness.produce(&Event::new("task-none"));
    harness.produce(&Event::new("task-url").to("nonsense"));
    let shape = async |task: &str| {
        let (id, rows, _) = harness.ended(task).await;
        let shape = CallbackShape::new(&CallbackReport { id, rows, last_status: None, changed_at: None }).unwrap();
        (shape.state, shape.reason, shape.callback_succeeded)
    };
    assert_eq!(shape("task-ok").await, ("delivered", None, Some(true)));
    assert_eq!(shape("task-bad").await, ("exhausted", None, Some(false)));
    assert_eq!(shape("task-none").await, ("abandoned", Some("no_url"), None), "absent if there was no URL");
    assert_eq!(shape("task-url").await, ("abandoned", Some("url_invalid"), Some(false)));
    // The event was not read yet, or never produced: the answer says up to which time everything is recorded.
    let ops = &harness.app().ops;
    harness.until("both partitions are recorded to their ends", async || ops.kafka().borrow().recorded_upto()).await;
    let session = harness.session();
    let absent = session.task("task-unknown").await.err().unwrap();
    assert!(matches!(absent, OpsError::NotFound(_)), "{absent:?}");
    assert!(absent.to_string().contains("every partition, 2 of them, is recorded up to 20"), "{absent}");
    // The task is older than the rows that are kept: its id begins with its time.
    assert!(matches!(session.task("4d0000000000000000000000").await.err().unwrap(), OpsError::Pruned(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_locked_by_another_program_is_waited_for() {
    let harness = Harness::start().await;
    let receiver = harness.accepting().await;
    let other = crate::harness::hold(&harness.store().join("callbackd.db")).await;
    harness.produce(&Event::new("task-1").to(receiver.url("/")));
    harness.until("it is noticed", async || (!harness.app().ops.readiness().ready).then_some(())).await;
    other.execute_batch("ROLLBACK").unwrap();
    let (_, rows, _) = harness.ended("task-1").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Delivered);
    harness.until("it is ready again", async || harness.app().ops.readiness().ready.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_refused_is_told_and_read_once_it_is_allowed() {
    let properties = r#"{"topic.metadata.refresh.interval.ms":"300","session.timeout.ms":"6000"}"#;
    let harness = Harness::with(&[("KAFKA__PROPERTIES", properties)]).await;
    let receiver = harness.accepting().await;
    harness.produce(&Event::new("task-1").to(receiver.url("/")));
    harness.ended("task-1").await;
    let broker = harness.broker.as_ref().unwrap();
    broker.refuse(true);
    let errors = harness.app().ops.metrics().kafka_errors_total.with_label_values(&["not_authorised"]);
    harness.until("it is told", async || (errors.get() > 0).then_some(())).await;
    broker.refuse(false);
    // Kafka refuses the old producer, too, so the test makes a new one.
    let event = Event::new("task-2").to(receiver.url("/")).json();
    crate::kafka::produce(&broker.servers, &harness.topic, 1, &[("k".to_owned(), event)]);
    harness.ended("task-2").await;
    assert_eq!(receiver.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_bodies_beyond_their_budget_pause_intake() {
    let settings =
        [("STORE__PARKED_BYTES", "1MiB"), ("RETRY__FIRST", "3s"), ("RETRY__RETRIES", "1"), ("RETRY__HORIZON", "1h")];
    let harness = Harness::with(&settings).await;
    let refusing = harness.recorder(Arc::new(|_, _| Reply::status(500))).await;
    let large = format!("\"{}\"", "x".repeat(100_000));
    let produce = |from: usize, to: usize| {
        for n in from..to {
            harness.produce(&Event::new(&format!("task-{n}")).to(refusing.url("/")).response(&large));
        }
    };
    produce(0, 30);
    harness
        .until("intake pauses, and says why", async || {
            let note = harness.session().status().await.ok()?.note?;
            note.contains("store.parked_bytes allows 1 MiB").then_some(())
        })
        .await;
    produce(30, 35);
    // Once the first ones have ended, their bodies go and the others are read.
    for n in [0, 29, 34] {
        harness.ended(&format!("task-{n}")).await;
    }
    harness
        .until("there is room again", async || harness.session().status().await.ok()?.note.is_none().then_some(()))
        .await;
}
