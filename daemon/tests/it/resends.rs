//! Many callbacks are sent again by a job.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use callbackd::base::clock::Timestamp;
use callbackd::demo::broker::Broker;
use callbackd::model::callback::CallbackId;
use callbackd::model::permission::{Rights, TeamLimit};
use callbackd::model::retry::Reason;
use callbackd::model::settlement::Pending;
use callbackd::model::state::State;
use callbackd::ops::bulk::{Bulk, Which};
use callbackd::ops::resends::NewResend;
use callbackd::ops::{Caller, Creation, OpsError, Session};
use callbackd::store::admin::IdempotencyKey;
use callbackd::store::reads::{CallbackFilter, Page, Span};
use callbackd::store::resends::{ResendForm, ResendRow, ResendState};
use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{Event, HMAC_TEAM, Harness, TEAM, until};
use crate::kafka::{create_topic, delete_before, produce, shared_broker};
use crate::process::Process;

/// A receiver whose answer can be changed.
async fn receiver(harness: &Harness, status: u16) -> (Recorder, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let now = Arc::clone(&status);
    let recorder = harness.recorder(Arc::new(move |_: &_, _| Reply::status(now.load(Ordering::SeqCst)))).await;
    (recorder, status)
}

fn of_team(team: &str) -> CallbackFilter {
    CallbackFilter { team: Some(team.to_owned()), ..CallbackFilter::default() }
}

fn all_of(filter: CallbackFilter) -> NewResend {
    NewResend { filter, endpoint: None, form: ResendForm::default(), rate: None, at_most: 1_000 }
}

async fn begun(session: &Session, new: NewResend) -> ResendRow {
    session.create_resend(new, None).await.unwrap().into_inner()
}

async fn done(harness: &Harness, id: &str) -> ResendRow {
    let session = harness.session();
    harness
        .until("the job is done", async || session.resend(id).await.ok().filter(|row| row.state == ResendState::Done))
        .await
}

/// Callbacks that used up their one attempt.
async fn exhausted(harness: &Harness, recorder: &Recorder, team: &str, count: usize) -> BTreeSet<String> {
    for n in 0..count {
        harness.produce(&Event::new(&format!("{team}-{n}")).of(team).to(recorder.url("/callbacks")));
    }
    let filter = CallbackFilter { state: Some(State::Exhausted), ..of_team(team) };
    let reads = harness.app().reads();
    harness
        .until("all are exhausted", async || {
            let page = Page { before: None, limit: 10_000 };
            let found = reads.callback_ids(filter.clone(), page).await.unwrap().docs;
            (found.len() == count).then(|| found.iter().map(CallbackId::to_string).collect())
        })
        .await
}

/// How often each id was received with success.
fn accepted(recorder: &Recorder) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    for receipt in recorder.receipts().iter().filter(|receipt| receipt.status < 300) {
        *times.entry(receipt.id.clone()).or_default() += 1;
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_failed_while_a_receiver_was_down_arrives_once() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0")]).await;
    let (recorder, status) = receiver(&harness, 503).await;
    let session = harness.session();
    let before = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
    let ids = exhausted(&harness, &recorder, TEAM, 700).await;
    let others = exhausted(&harness, &recorder, HMAC_TEAM, 3).await;
    let down = Span { from: before, until: harness.session().now().plus(Duration::from_secs(1)) };
    let filter = CallbackFilter { failed: Some(down), status: Some(503), ..of_team(TEAM) };
    let matched = session.preview_resend(filter.clone(), None).await.unwrap();
    assert_eq!((matched.count, matched.is_all), (700, true));
    let earlier = Span { from: Timestamp::default(), until: before };
    let none = CallbackFilter { failed: Some(earlier), ..of_team(TEAM) };
    assert_eq!(session.preview_resend(none, None).await.unwrap().count, 0);
    let few = NewResend { at_most: 699, ..all_of(filter.clone()) };
    match session.create_resend(few, None).await {
        Err(OpsError::TooManyRows(sentence)) => assert!(sentence.contains("700 callbacks match"), "{sentence}"),
        other => panic!("{other:?}"),
    }
    status.store(204, Ordering::SeqCst);
    let job = begun(&session, all_of(filter)).await;
    assert_eq!(job.matched, 700);
    let job = done(&harness, &job.id).await;
    assert_eq!((job.counts.opened, job.counts.looked_at()), (700, 700));
    let arrived =
        harness.until("all have arrived", async || Some(accepted(&recorder)).filter(|times| times.len() == 700)).await;
    assert!(arrived.iter().all(|(id, times)| ids.contains(id) && *times == 1), "each once: {arrived:?}");
    assert!(others.iter().all(|id| !arrived.contains_key(id)), "and no other team's");
    // Nothing is left to send again, and what is on its way is left alone.
    let delivered = CallbackFilter { state: Some(State::Delivered), ..of_team(TEAM) };
    harness
        .until("all are delivered", async || {
            let page = Page { before: None, limit: 1_000 };
            let found = harness.app().reads().callback_ids(delivered.clone(), page).await.unwrap();
            (found.docs.len() == 700).then_some(())
        })
        .await;
    assert_eq!(session.preview_resend(of_team(TEAM), None).await.unwrap().count, 0);
    let audit = session.audit(Default::default(), None, 100).await.unwrap();
    let rows: Vec<_> = audit.iter().filter(|row| row.action == "resend.create").collect();
    assert!(rows.len() == 1 && rows[0].object == TEAM && rows[0].change.contains("700 callbacks match"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_keeps_its_rate_and_is_paused_resumed_and_cancelled() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0")]).await;
    let (recorder, status) = receiver(&harness, 503).await;
    let session = harness.session();
    exhausted(&harness, &recorder, TEAM, 120).await;
    status.store(204, Ordering::SeqCst);
    let begin = Instant::now();
    let job = begun(&session, NewResend { rate: Some(20), ..all_of(of_team(TEAM)) }).await;
    let opened = async || session.resend(&job.id).await.unwrap().counts.opened;
    harness.until("twenty are sent again", async || (opened().await >= 20).then_some(())).await;
    assert!(begin.elapsed() >= Duration::from_millis(950), "{:?}: 20 a second", begin.elapsed());
    assert_eq!(session.pause_resend(&job.id).await.unwrap().state, ResendState::Paused);
    let paused_at = opened().await;
    assert!(paused_at < 60, "{paused_at} of 120 in about a second");
    // What is open goes on, and nothing else is opened.
    let arrived = async || accepted(&recorder).len() as u64;
    harness.until("the open ones arrive", async || (arrived().await == paused_at).then_some(())).await;
    // Another job goes on meanwhile.
    done(&harness, &begun(&session, all_of(of_team(HMAC_TEAM))).await.id).await;
    assert_eq!((opened().await, arrived().await), (paused_at, paused_at));
    let resumed = session.resume_resend(&job.id, Some(40)).await.unwrap();
    assert_eq!((resumed.state, resumed.rate), (ResendState::Running, Some(40)));
    harness.until("more are sent again", async || (opened().await > paused_at).then_some(())).await;
    assert_eq!(session.cancel_resend(&job.id).await.unwrap().state, ResendState::Cancelled);
    let ended_at = opened().await;
    assert!(ended_at < 120, "{ended_at}");
    for refused in [session.pause_resend(&job.id).await, session.resume_resend(&job.id, None).await] {
        assert!(matches!(refused, Err(OpsError::Conflict(sentence)) if sentence.contains("has ended (cancelled)")));
    }
    // The next job takes the rest, and not what the first one has sent.
    let rest = done(&harness, &begun(&session, all_of(of_team(TEAM))).await.id).await;
    assert!(rest.counts.opened + ended_at >= 120, "{rest:?}");
    harness.until("all have arrived", async || (arrived().await == 120).then_some(())).await;
    assert!(accepted(&recorder).values().all(|times| *times == 1), "each once");
    let (listed, next) = session.resends(None, 10).await.unwrap();
    assert_eq!((listed.len(), &listed[0].id, next), (3, &rest.id, None), "newest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_id_tells_a_receiver_that_it_is_new() {
    let harness = Harness::with(&[("STORE__BODIES", "all")]).await;
    let recorder = harness.accepting().await;
    harness.produce(&Event::new("task-new").to(recorder.url("/callbacks")));
    let (id, ..) = harness.ended("task-new").await;
    let session = harness.session();
    let filter = CallbackFilter { state: Some(State::Delivered), ..of_team(TEAM) };
    let form = ResendForm { new_id: true, ..ResendForm::default() };
    let job = begun(&session, NewResend { form, ..all_of(filter) }).await;
    assert_eq!(done(&harness, &job.id).await.counts.opened, 1);
    harness.until("it arrives again", async || (recorder.count() == 2).then_some(())).await;
    let receipts = recorder.receipts();
    assert_eq!(receipts[0].id, id.to_string());
    assert_eq!((receipts[1].id.clone(), &receipts[1].body), (format!("{id}_r1"), &receipts[0].body));
    let settled = async || {
        let rows = session.callback(&id.to_string()).await.ok()?.rows;
        rows.pending.is_none().then_some(rows.settled?)
    };
    harness.until("the round is over", settled).await;
    session.resend_callback(&id.to_string(), form).await.unwrap();
    harness.until("it arrives once more", async || (recorder.count() == 3).then_some(())).await;
    assert_eq!(recorder.receipts()[2].id, format!("{id}_r2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_can_not_do_is_refused_and_what_it_leaves_alone_is_counted() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0"), ("STORE__BODIES", "failed")]).await;
    let (recorder, _) = receiver(&harness, 503).await;
    let session = harness.session();
    exhausted(&harness, &recorder, TEAM, 2).await;
    // To the default URL, which there is none of.
    let form = ResendForm { to_default: true, ..ResendForm::default() };
    let job = begun(&session, NewResend { form, ..all_of(of_team(TEAM)) }).await;
    let counts = done(&harness, &job.id).await.counts;
    assert_eq!((counts.refused, counts.opened), (2, 0));
    let sentence = |result: Result<_, OpsError>| match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.to_string(),
    };
    let pending = CallbackFilter { state: Some(State::Pending), ..of_team(TEAM) };
    let refused = sentence(session.create_resend(all_of(pending), None).await.map(drop));
    assert!(refused.contains("say retry"), "{refused}");
    let consent = ResendForm { allow_new_origin: true, ..ResendForm::default() };
    let refused = NewResend { form: consent, ..all_of(of_team(TEAM)) };
    assert!(sentence(session.create_resend(refused, None).await.map(drop)).contains("to_default"));
    for rate in [0, 1_000_001] {
        let refused = NewResend { rate: Some(rate), ..all_of(of_team(TEAM)) };
        assert!(sentence(session.create_resend(refused, None).await.map(drop)).contains("rate is"), "{rate}");
    }
    assert!(sentence(session.create_resend(all_of(of_team("nobody")), None).await.map(drop)).contains("nobody"));
    assert!(sentence(session.resend("rs_none").await.map(drop)).contains("there is no job rs_none"));
    let at = Timestamp::from_millis(7);
    let empty = CallbackFilter { failed: Some(Span { from: at, until: at }), ..of_team(TEAM) };
    assert!(sentence(session.preview_resend(empty, None).await.map(drop)).contains("nothing lies between"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_finds_its_job_though_more_callbacks_match_by_now() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0")]).await;
    let (recorder, _) = receiver(&harness, 503).await;
    let session = harness.session();
    exhausted(&harness, &recorder, TEAM, 2).await;
    let few = || NewResend { at_most: 2, ..all_of(CallbackFilter::default()) };
    let once = |request: u8| Some(IdempotencyKey { key: "again".to_owned(), fingerprint: [request; 32] });
    let job = match session.create_resend(few(), once(1)).await {
        Ok(Creation::New(job)) => job,
        other => panic!("{other:?}"),
    };
    done(&harness, &job.id).await;
    exhausted(&harness, &recorder, HMAC_TEAM, 3).await;
    assert!(matches!(session.create_resend(few(), None).await, Err(OpsError::TooManyRows(_))), "without a key");
    match session.create_resend(few(), once(1)).await {
        Ok(Creation::Repeated(found)) => assert_eq!((found.id, found.matched), (job.id, 2)),
        other => panic!("{other:?}"),
    }
    let other = session.create_resend(few(), once(2)).await;
    assert!(matches!(other, Err(OpsError::IdempotencyMismatch)), "another request: {other:?}");
    assert_eq!(session.resends(None, 10).await.unwrap().0.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_some_teams_sends_only_theirs_again() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0")]).await;
    let (recorder, status) = receiver(&harness, 503).await;
    exhausted(&harness, &recorder, TEAM, 2).await;
    exhausted(&harness, &recorder, HMAC_TEAM, 3).await;
    status.store(204, Ordering::SeqCst);
    let limited = |teams: &[&str]| {
        let teams = TeamLimit::of(teams.iter().map(|team| (*team).to_owned()));
        harness.app().ops.as_caller(&Caller { teams, ..Caller::operator("limited", "test", Rights::OPERATE) })
    };
    let (one, both, all) = (limited(&[TEAM]), limited(&[TEAM, HMAC_TEAM]), harness.session());
    assert_eq!(one.preview_resend(CallbackFilter::default(), None).await.unwrap().count, 2, "of their own team");
    assert_eq!(both.preview_resend(CallbackFilter::default(), None).await.unwrap().count, 5);
    assert!(matches!(one.preview_resend(of_team(HMAC_TEAM), None).await, Err(OpsError::Forbidden(_))));
    let slow = |filter| NewResend { rate: Some(1), ..all_of(filter) };
    let of_all = begun(&all, slow(CallbackFilter::default())).await;
    let of_both = begun(&both, slow(CallbackFilter::default())).await;
    let of_one = begun(&one, slow(CallbackFilter::default())).await;
    let seen = async |session: &Session| {
        let (rows, _) = session.resends(None, 10).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(seen(&one).await, std::slice::from_ref(&of_one.id));
    // Newest first, and jobs of one millisecond by the rest of their ids.
    let newest_first = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    };
    assert_eq!(seen(&both).await, newest_first(&[&of_one.id, &of_both.id]));
    assert_eq!(seen(&all).await, newest_first(&[&of_one.id, &of_both.id, &of_all.id]));
    for id in [&of_all.id, &of_both.id] {
        assert!(matches!(one.cancel_resend(id).await, Err(OpsError::NotFound(_))), "it does not exist for them");
    }
}

/// The real binary is killed in the middle of a job, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_killed_goes_on_and_sends_each_callback_again_once() {
    const EVENTS: usize = 400;
    let topic = "tasks.resends";
    let broker = Broker::start(topic, 1).unwrap();
    // On a store that several processes may share, what a killed one had claimed waits for its lease to end.
    let short = "[deliver]\nlease = \"9s\"\ntotal_timeout = \"3s\"\nhead_timeout = \"3s\"\n";
    let mut process = Process::new(&broker.servers, topic, &format!("{short}[retry]\nretries = 0\n"));
    process.edit("\"1500\"", "\"10000\"");
    process.edit("\"300\"", "\"3000\"");
    process.start(None, "info").await;
    let (signing, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &signing, &key).unwrap());
    let status = Arc::new(AtomicU16::new(503));
    let now = Arc::clone(&status);
    let rule = Arc::new(move |_: &_, _| Reply::status(now.load(Ordering::SeqCst)));
    let recorder = Recorder::start(verifier, rule).await.unwrap();
    produce(&broker.servers, topic, 1, &crate::kafka::events(0, EVENTS as u64, &recorder.url("/callbacks")));
    let listed = |process: &Process, state: &str| {
        let output = process.cli(&["--jsonl", "callbacks", "list", "--state", state]);
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    until("all are exhausted", async || (listed(&process, "exhausted") == EVENTS).then_some(())).await;
    status.store(204, Ordering::SeqCst);
    let job = process.json(&["callbacks", "resend", "--team", TEAM, "--rate", "100", "--yes"]);
    let id = job["resend_id"].as_str().unwrap().to_owned();
    for round in 1..=3_u64 {
        let opened = async || {
            let job = process.json(&["resends", "get", &id]);
            (job["opened"].as_u64()? >= round * 60).then_some(())
        };
        until("some are sent again", opened).await;
        process.signal("KILL");
        process.ended().await;
        process.start(None, "info").await;
    }
    until("the job is done", async || (process.json(&["resends", "get", &id])["state"] == "done").then_some(())).await;
    until("all are delivered", async || (listed(&process, "delivered") == EVENTS).then_some(())).await;
    let job = process.json(&["resends", "get", &id]);
    assert_eq!((&job["opened"], &job["left_alone"]), (&EVENTS.into(), &0.into()), "{job}");
    // Each was sent again in one round. An attempt that was under way at a kill may be repeated in it.
    let output = process.cli(&["--jsonl", "callbacks", "list", "--team", TEAM]);
    let rounds: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["round"].as_u64().unwrap())
        .collect();
    assert!(rounds.len() == EVENTS && rounds.iter().all(|round| *round == 1), "{rounds:?}");
    assert_eq!(accepted(&recorder).len(), EVENTS);
}

/// The real binary, because a process of its own reads the records.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_kept_come_from_kafka() {
    let topic = "tasks.resends.kafka";
    let broker = Broker::start(topic, 2).unwrap();
    let mut process = Process::new(&broker.servers, topic, "");
    process.edit("\"1500\"", "\"10000\"");
    process.edit("\"300\"", "\"3000\"");
    process.start(None, "info").await;
    let (signing, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &signing, &key).unwrap());
    let recorder = Recorder::start(verifier, Arc::new(|_: &_, _| Reply::status(204))).await.unwrap();
    produce(&broker.servers, topic, 2, &crate::kafka::events(0, 150, &recorder.url("/callbacks")));
    until("all arrive", async || (recorder.count() == 150).then_some(())).await;
    let delivered = async || {
        let output = process.cli(&["--jsonl", "callbacks", "list", "--state", "delivered"]);
        (String::from_utf8_lossy(&output.stdout).lines().count() == 150).then_some(())
    };
    until("all are recorded", delivered).await;
    let job =
        process.json(&["callbacks", "resend", "--team", TEAM, "--state", "delivered", "--yes", "--new-id", "--wait"]);
    assert_eq!((&job["state"], &job["opened"], &job["no_body"]), (&"done".into(), &150.into(), &0.into()), "{job}");
    until("all arrive again", async || (recorder.count() == 300).then_some(())).await;
    let mut bodies: HashMap<String, Vec<bytes::Bytes>> = HashMap::new();
    for receipt in recorder.receipts() {
        let id = receipt.id.trim_end_matches("_r1").to_owned();
        bodies.entry(id).or_default().push(receipt.body);
    }
    assert!(bodies.len() == 150 && bodies.values().all(|pair| pair.len() == 2 && pair[0] == pair[1]));
    assert!(!process.log_text().contains("ERROR"), "{}", process.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_has_deleted_is_counted_and_the_rest_is_sent() {
    let (servers, topic) = (shared_broker(), "tasks.resends.deleted");
    create_topic(&servers, topic, 1).await;
    let mut process = Process::new(&servers, topic, "");
    process.start(None, "info").await;
    let (signing, key) = process.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &signing, &key).unwrap());
    let recorder = Recorder::start(verifier, Arc::new(|_: &_, _| Reply::status(204))).await.unwrap();
    produce(&servers, topic, 1, &crate::kafka::events(0, 30, &recorder.url("/callbacks")));
    let delivered = async || {
        let output = process.cli(&["--jsonl", "callbacks", "list", "--state", "delivered"]);
        (String::from_utf8_lossy(&output.stdout).lines().count() == 30).then_some(())
    };
    until("all are delivered", delivered).await;
    delete_before(&servers, topic, 20).await;
    let job = process.json(&["callbacks", "resend", "--team", TEAM, "--state", "delivered", "--yes", "--wait"]);
    assert_eq!((&job["opened"], &job["no_body"]), (&10.into(), &20.into()), "{job}");
    let id = job["resend_id"].as_str().unwrap();
    assert_eq!(process.json(&["resends", "get", id, "--wait"]), job, "it is over already");
    let told = process.cli(&["resends", "get", id]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.ends_with(&format!("\n  callbackd callbacks list --team {TEAM}\n")), "{told}");
    until("ten arrive again", async || (recorder.count() == 40).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_callbacks_are_retried_and_cancelled_by_a_filter() {
    let harness = Harness::with(&[("RETRY__FIRST", "1h"), ("RETRY__HORIZON", "24h"), ("RETRY__RETRIES", "10")]).await;
    let (recorder, status) = receiver(&harness, 503).await;
    let session = harness.session();
    let wait = async |team: &str, attempts: u32| {
        let filter = CallbackFilter { state: Some(State::Pending), ..of_team(team) };
        harness
            .until("each waits after so many attempts", async || {
                let page = Page { before: None, limit: 100 };
                let found = harness.app().reads().callbacks(filter.clone(), page).await.unwrap().docs;
                let waits = |row: &Pending| row.token.is_none() && row.progress.attempts == attempts;
                let all = found.len() == 5 && found.iter().all(|(_, rows)| rows.pending.as_ref().is_some_and(waits));
                all.then_some(())
            })
            .await;
    };
    for team in [TEAM, HMAC_TEAM] {
        for n in 0..5 {
            harness.produce(&Event::new(&format!("{team}-{n}")).of(team).to(recorder.url("/callbacks")));
        }
        wait(team, 1).await;
    }
    let which = |filter, at_most| Which { filter, endpoint: None, at_most, before: None };
    for refused in [
        session.retry_callbacks(which(of_team(TEAM), 4)).await,
        session.cancel_callbacks(which(of_team(TEAM), 4)).await,
        session.retry_callbacks(which(CallbackFilter { state: Some(State::Exhausted), ..of_team(TEAM) }, 9)).await,
    ] {
        assert!(matches!(refused, Err(OpsError::TooManyRows(_) | OpsError::InvalidRequest(_))), "{refused:?}");
    }
    let bulk = session.retry_callbacks(which(of_team(TEAM), 5)).await.unwrap();
    assert_eq!(bulk, Bulk { changed: 5, left_alone: 0, next: None });
    wait(TEAM, 2).await;
    status.store(204, Ordering::SeqCst);
    let endpoint = Some(format!("http://{}", recorder.address));
    let bulk = session.retry_callbacks(Which { endpoint, ..which(of_team(TEAM), 5) }).await.unwrap();
    assert_eq!(bulk.changed, 5);
    harness.until("they arrive", async || (accepted(&recorder).len() == 5).then_some(())).await;
    let bulk = session.cancel_callbacks(which(CallbackFilter { status: Some(503), ..of_team(HMAC_TEAM) }, 5)).await;
    assert_eq!(bulk.unwrap(), Bulk { changed: 5, left_alone: 0, next: None });
    let cancelled = CallbackFilter { reason: Some(Reason::Cancelled), ..CallbackFilter::default() };
    let found = harness.app().reads().callback_ids(cancelled, Page { before: None, limit: 100 }).await.unwrap();
    assert_eq!(found.docs.len(), 5);
    assert_eq!(accepted(&recorder).len(), 5, "and nothing else arrived");
}
