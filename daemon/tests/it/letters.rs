//! A dead letter becomes a callback after what was wrong was mended, or is set aside.

use callbackd::model::dead_letter::{LetterState, Unreadable};
use callbackd::ops::dead_letters::LetterReport;
use callbackd::ops::teams::TeamChange;
use callbackd::ops::{OpsError, Session};
use callbackd::store::reads::{DeadLetterFilter, Page};

use crate::harness::{Event, Harness, TEAM};

fn refused(result: Result<LetterReport, OpsError>, with: &str) {
    match result {
        Err(error) => assert!(error.to_string().contains(with), "{with:?} is not in: {error}"),
        Ok(report) => panic!("{:?} was not refused", report.row.letter.id),
    }
}

async fn listed(session: &Session, state: LetterState) -> usize {
    let filter = DeadLetterFilter { state: Some(state), ..DeadLetterFilter::default() };
    session.dead_letters(filter, Page { before: None, limit: 100 }).await.unwrap().docs.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_team_that_was_created_later_arrives_with_the_id_of_its_event() {
    let harness = Harness::start().await;
    let session = harness.session();
    let late = "team_late";
    // The team and the event's id come in headers alone.
    let value = br#"{"task":{"task_id":"task-late"},"response":{"a":[1, 2]}}"#;
    harness.produce_raw(value, &[("team-id", late), ("event-id", "evt-late"), ("event-type", "task.recalled")]);
    let letter = harness.dead_letters(1).await.remove(0).letter;
    assert_eq!(letter.reason, Unreadable::UnknownTeam);
    let id = letter.id.to_dead_letter_id();
    refused(session.resend_dead_letter(&id).await, "there is no team team_late; create it first");
    let receiver = harness.recorder_of(&[late]).await;
    let url = TeamChange { default_url: Some(Some(receiver.url("/late"))), ..TeamChange::default() };
    session.update_team(late, url, true).await.unwrap();
    let report = session.resend_dead_letter(&id).await.unwrap();
    assert_eq!(report.row.fate.state(), LetterState::Resent);
    let (callback, rows, _) = harness.ended("task-late").await;
    assert_eq!(report.row.fate.callback(), Some(callback));
    let facts = rows.settled.unwrap().facts.clone();
    assert_eq!((&*facts.event_type, facts.event_id.as_deref()), ("task.recalled", Some("evt-late")));
    let receipts = receiver.receipts();
    assert_eq!((receipts.len(), receipts[0].id.clone()), (1, callback.to_string()));
    assert_eq!(
        &receipts[0].body[..],
        br#"{"task":{"task_id":"task-late"},"response":{"a":[1, 2]},"task_id":"task-late"}"#
    );
    refused(session.resend_dead_letter(&id).await, "became the callback cb_");
    refused(session.discard_dead_letter(&id).await, "became the callback cb_");
    assert_eq!((listed(&session, LetterState::Open).await, listed(&session, LetterState::Resent).await), (0, 1));
    // The producer publishes it once more: it is known.
    harness.produce_raw(value, &[("team-id", late), ("event-id", "evt-late"), ("event-type", "task.recalled")]);
    let skipped = || harness.app().ops.metrics().repeats_skipped_total.get();
    harness.until("the repeat is skipped", async || (skipped() == 1).then_some(())).await;
    assert_eq!(receiver.count(), 1);
    let audit = session.audit(Default::default(), None, 100).await.unwrap();
    assert!(audit.iter().any(|row| row.action == "dead_letter.resend" && row.object == late), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_can_not_be_read_says_so_and_can_be_set_aside() {
    let harness = Harness::start().await;
    let session = harness.session();
    harness.produce_raw(b"{\"team_id\":\"team_acme\"", &[]);
    let receiver = harness.accepting().await;
    harness.produce(&Event::new("task-one").id("evt-one").to(receiver.url("/")));
    harness.ended("task-one").await;
    // The same event id with another content.
    harness.produce(&Event::new("task-two").id("evt-one").to(receiver.url("/")));
    let letters = harness.dead_letters(2).await;
    let id_of = |reason| letters.iter().find(|row| row.letter.reason == reason).unwrap().letter.id.to_dead_letter_id();
    let (garbage, reused) = (id_of(Unreadable::NotJson), id_of(Unreadable::EventIdReused));
    refused(session.resend_dead_letter(&garbage).await, "still can't become a callback (not_json)");
    refused(session.resend_dead_letter(&reused).await, "was used for another content, by the callback cb_");
    assert_eq!(listed(&session, LetterState::Open).await, 2, "nothing has changed");
    session.discard_dead_letter(&garbage).await.unwrap();
    assert_eq!((listed(&session, LetterState::Open).await, listed(&session, LetterState::Discarded).await), (1, 1));
    refused(session.resend_dead_letter(&garbage).await, "not_json");
    refused(session.discard_dead_letter("dl_none").await, "no dead letter id");
    let unknown = callbackd::model::callback::CallbackId::from_bytes([9; 16]).to_dead_letter_id();
    refused(session.resend_dead_letter(&unknown).await, "there is no dead letter");
    assert_eq!(receiver.count(), 1);
    assert!(session.audit(Default::default(), None, 100).await.unwrap().iter().any(|row| row.object == TEAM));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_whose_id_no_path_can_hold_is_not_created_and_its_events_are_dead_letters() {
    let harness = Harness::start().await;
    let session = harness.session();
    for id in [".", ".."] {
        match session.create_team(id, TeamChange::default(), None).await {
            Err(OpsError::InvalidRequest(sentence)) => assert!(sentence.contains("no path of a URL"), "{sentence}"),
            other => panic!("{other:?}"),
        }
        harness.produce(&Event::new("task-dots").of(id));
    }
    for row in harness.dead_letters(2).await {
        assert_eq!(row.letter.reason, Unreadable::UnknownTeam);
        let team = row.letter.team.clone().unwrap_or_default();
        assert!([".", ".."].contains(&&*team), "{team}");
        refused(session.resend_dead_letter(&row.letter.id.to_dead_letter_id()).await, "there is no team .");
    }
}
