//! Pauses of all deliveries, of a team and of an endpoint, and teams that are deleted: nothing is sent meanwhile, nothing is lost,
//! and others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use callbackd::model::retry::Reason;
use callbackd::model::settlement::Ended;
use callbackd::model::state::State;
use callbackd::ops::OpsError;
use callbackd::ops::endpoints::EndpointFilter;
use callbackd::ops::teams::TeamChange;
use callbackd::store::reads::{CallbackFilter, Page};
use callbackd::store::resends::ResendForm;
use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;

use crate::harness::{Event, HMAC_TEAM, Harness, TEAM};

/// A receiver whose answer can be changed.
async fn receiver(harness: &Harness, status: u16) -> (Recorder, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let now = Arc::clone(&status);
    let recorder = harness.recorder(Arc::new(move |_: &_, _| Reply::status(now.load(Ordering::SeqCst)))).await;
    (recorder, status)
}

async fn count(harness: &Harness, team: &str, state: State) -> usize {
    let filter = CallbackFilter { team: Some(team.to_owned()), state: Some(state), ..CallbackFilter::default() };
    harness.app().reads().callback_ids(filter, Page { before: None, limit: 1_000 }).await.unwrap().docs.len()
}

async fn until_count(harness: &Harness, team: &str, state: State, wanted: usize) {
    harness
        .until(&format!("{wanted} {} of {team}", state.name()), async || {
            (count(harness, team, state).await == wanted).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_deliveries_are_paused_nothing_is_sent_and_nothing_is_lost() {
    // A retry is due while everything is paused, and its lease would run out if it was kept.
    let mut harness = Harness::with(&[("RETRY__FIRST", "200ms"), ("DELIVER__PARK_AFTER", "300ms")]).await;
    let (recorder, status) = receiver(&harness, 503).await;
    harness.produce(&Event::new("retried").to(recorder.url("/callbacks")));
    harness.until("a first attempt", async || (!recorder.receipts().is_empty()).then_some(())).await;
    let session = harness.session();
    let pause = session.pause_delivery("the network is changed".to_owned()).await.unwrap();
    let again = session.pause_delivery("for another reason".to_owned()).await.unwrap();
    assert_eq!(pause, again, "what is paused stays as it is");
    // An attempt that began before the pause may still be under way.
    harness
        .until("nothing is under way", async || {
            (session.status().await.ok()?.in_flight == 0 && count(&harness, TEAM, State::Pending).await == 1)
                .then_some(())
        })
        .await;
    let before = recorder.receipts().len();
    status.store(204, Ordering::SeqCst);
    for n in 0..50 {
        harness.produce(&Event::new(&format!("fresh-{n}")).to(recorder.url("/callbacks")));
    }
    let status_now = session.status().await.unwrap();
    assert!(status_now.note.is_some_and(|note| note.contains("all deliveries are paused since")), "it is told");
    // The retry becomes due, and the fresh ones are read.
    harness.until("the fresh ones wait", async || (session.status().await.ok()?.waiting == 50).then_some(())).await;
    assert_eq!(recorder.receipts().len(), before);
    // A restart does not end the pause.
    drop(session);
    harness.stop().await;
    harness.run(None).await;
    let session = harness.session();
    harness
        .until("the fresh ones wait again", async || (session.status().await.ok()?.waiting == 50).then_some(()))
        .await;
    assert_eq!(recorder.receipts().len(), before);
    assert!(session.delivery().await.unwrap().all);
    session.resume_delivery().await.unwrap();
    until_count(&harness, TEAM, State::Delivered, 51).await;
    assert_eq!(recorder.receipts().len(), before + 51, "each once");
    assert_eq!(harness.app().ops.metrics().repeats_possible_total.with_label_values(&["lease_expired"]).get(), 0);
    match session.resume_delivery().await {
        Err(OpsError::Conflict(sentence)) => assert!(sentence.contains("not paused"), "{sentence}"),
        other => panic!("{other:?}"),
    }
    let audit = session.audit(Default::default(), None, 100).await.unwrap();
    let actions: Vec<_> =
        audit.iter().map(|row| row.action.as_str()).filter(|action| action.starts_with("delivery.")).collect();
    assert_eq!(actions, ["delivery.resume", "delivery.pause", "delivery.pause"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_team_waits_in_the_store_and_others_go_on() {
    let harness = Harness::with(&[("DELIVER__PARK_AFTER", "300ms")]).await;
    let recorder = harness.accepting().await;
    let session = harness.session();
    session.pause_team(TEAM, String::new()).await.unwrap();
    for n in 0..30 {
        harness.produce(&Event::new(&format!("a-{n}")).to(recorder.url("/callbacks")));
        harness.produce(&Event::new(&format!("b-{n}")).of(HMAC_TEAM).to(recorder.url("/callbacks")));
    }
    until_count(&harness, HMAC_TEAM, State::Delivered, 30).await;
    until_count(&harness, TEAM, State::Pending, 30).await;
    harness.watermark(60).await;
    assert_eq!(harness.metric("parked", "paused"), 30);
    assert!(
        recorder.receipts().iter().all(|receipt| receipt.task_id.starts_with("b-")),
        "nothing went out for the paused team"
    );
    let own: Vec<_> = session.delivery().await.unwrap().pauses;
    assert_eq!(own.len(), 1);
    // Others that are due are not kept waiting by what may not be sent.
    harness.produce(&Event::new("b-late").of(HMAC_TEAM).to(recorder.url("/callbacks")));
    until_count(&harness, HMAC_TEAM, State::Delivered, 31).await;
    session.resume_team(TEAM).await.unwrap();
    until_count(&harness, TEAM, State::Delivered, 30).await;
    assert_eq!(recorder.receipts().len(), 61, "each once");
    assert!(matches!(session.pause_team("nobody", String::new()).await, Err(OpsError::NotFound(_))));
    assert!(matches!(session.pause_team(TEAM, "two\nlines".to_owned()).await, Err(OpsError::InvalidRequest(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_endpoint_holds_its_own_and_the_default_url_that_leads_to_it() {
    let harness = Harness::start().await;
    let held = harness.accepting().await;
    let free = harness.accepting().await;
    let session = harness.session();
    let default = TeamChange { default_url: Some(Some(held.url("/default"))), ..TeamChange::default() };
    session.update_team(TEAM, default, true).await.unwrap();
    let origin = held.url("");
    session.pause_endpoint(TEAM, origin.trim_end_matches('/'), "their disk is full".to_owned()).await.unwrap();
    harness.produce(&Event::new("own").to(held.url("/callbacks")));
    harness.produce(&Event::new("default"));
    harness.produce(&Event::new("other").to(free.url("/callbacks")));
    until_count(&harness, TEAM, State::Delivered, 1).await;
    until_count(&harness, TEAM, State::Pending, 2).await;
    assert_eq!((held.receipts().len(), free.receipts().len()), (0, 1));
    let endpoints = session.endpoints(EndpointFilter::default(), None, 10).await.unwrap().docs;
    let mut states: Vec<_> = endpoints.iter().map(|endpoint| (endpoint.state.name(), endpoint.pending)).collect();
    states.sort_unstable();
    assert_eq!(states, [("active", 0), ("paused", 2)]);
    // The default URL leads elsewhere now, and its queue with it.
    let default = TeamChange { default_url: Some(Some(free.url("/default"))), ..TeamChange::default() };
    session.update_team(TEAM, default, true).await.unwrap();
    until_count(&harness, TEAM, State::Delivered, 2).await;
    assert_eq!((held.receipts().len(), free.receipts().len()), (0, 2));
    session.resume_endpoint(TEAM, origin.trim_end_matches('/')).await.unwrap();
    until_count(&harness, TEAM, State::Delivered, 3).await;
    assert_eq!(held.receipts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_endpoints_counts_up_to_a_thousand_and_says_that_there_are_more() {
    let harness = Harness::start().await;
    let held = harness.accepting().await;
    let (session, origin) = (harness.session(), format!("http://{}", held.address));
    session.pause_endpoint(TEAM, &origin, String::new()).await.unwrap();
    let produce = |n: usize| harness.produce(&Event::new(&format!("held-{n}")).to(held.url("/callbacks")));
    let until_pending = async |wanted: u64| {
        harness.until("all wait", async || (session.status().await.ok()?.pending == wanted).then_some(())).await;
    };
    let listed = async || {
        let endpoint = session.endpoints(EndpointFilter::default(), None, 10).await.unwrap().docs.pop().unwrap();
        (endpoint.pending, endpoint.pending_is_all)
    };
    (0..1_000).for_each(produce);
    until_pending(1_000).await;
    assert_eq!(listed().await, (1_000, true));
    produce(1_000);
    until_pending(1_001).await;
    assert_eq!(listed().await, (1_000, false));
    let alone = session.endpoint(TEAM, &origin).await.unwrap();
    assert_eq!((alone.pending, alone.pending_is_all), (1_001, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_team_ends_in_steps_and_its_history_stays() {
    let harness = Harness::with(&[("RETRY__FIRST", "1h")]).await;
    let (recorder, status) = receiver(&harness, 503).await;
    for n in 0..300 {
        harness.produce(&Event::new(&format!("failed-{n}")).to(recorder.url("/callbacks")));
    }
    until_count(&harness, TEAM, State::Pending, 300).await;
    status.store(204, Ordering::SeqCst);
    harness.produce(&Event::new("good").to(recorder.url("/callbacks")));
    until_count(&harness, TEAM, State::Delivered, 1).await;
    let session = harness.session();
    session.pause_team(TEAM, String::new()).await.unwrap();
    match session.delete_team(TEAM, false).await {
        Err(OpsError::ConfirmationNeeded(sentence)) => {
            assert!(sentence.contains("300 pending callbacks"), "{sentence}")
        }
        other => panic!("{other:?}"),
    }
    let deleted = session.delete_team(TEAM, true).await.unwrap();
    assert!(deleted.deleted_at.is_some());
    until_count(&harness, TEAM, State::Abandoned, 300).await;
    let (_, rows, _) = harness.ended("failed-0").await;
    assert_eq!(rows.settled.unwrap().ended, Ended::Abandoned(Reason::TeamDeleted));
    assert!(session.keys(TEAM).await.unwrap().iter().all(|key| key.revoked_at.is_some()), "no key is left");
    assert!(session.delivery().await.unwrap().pauses.is_empty(), "its pause went with it");
    // A new event becomes a dead letter, and nothing is sent again.
    harness.produce(&Event::new("late").to(recorder.url("/callbacks")));
    let letters = harness.dead_letters(1).await;
    assert_eq!(letters[0].letter.reason.name(), "unknown_team");
    let delivered = harness.callbacks("good").await[0].0;
    match session.resend_callback(&delivered.to_string(), ResendForm::default()).await {
        Err(OpsError::Conflict(sentence)) => assert!(sentence.contains("no team"), "{sentence}"),
        other => panic!("{:?}", other.map(|report| report.id)),
    }
    for refused in [
        session.delete_team(TEAM, true).await.err(),
        session.update_team(TEAM, TeamChange::default(), true).await.err(),
        session.create_team(TEAM, TeamChange::default(), None).await.err(),
    ] {
        assert!(matches!(&refused, Some(OpsError::Conflict(sentence)) if sentence.contains("deleted")), "{refused:?}");
    }
    assert_eq!(recorder.receipts().len(), 301);
}
