use std::sync::Arc;

use super::*;
use crate::base::clock::Timestamp;
use crate::model::callback::{CallbackId, EventKey};
use crate::model::endpoint::{Origin, QueueKey, QueueTarget};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::Facts;
use crate::model::retry::Progress;
use crate::model::team::{AuthForm, Mode, RetryOverride};

const INSTALLATION: Installation = Installation {
    retry: RetryPolicy {
        first: Duration::from_secs(5),
        doublings: 11,
        retries: 20,
        horizon: Duration::from_secs(86_400),
        end_on_gone: false,
    },
    http: HttpPolicy::Allow,
};

fn team() -> Team {
    Team {
        id: "team_a".into(),
        name: "A".to_owned(),
        default_url: Some("https://a.example/hook".to_owned()),
        default_url_test: None,
        allowed_origins: Vec::new(),
        auth_form: AuthForm::Key,
        origin_forms: Vec::new(),
        http: None,
        retry: RetryOverride::default(),
        deleted_at: None,
    }
}

fn pending(url: Option<&str>, tries: u32, last_outcome: Outcome) -> Pending {
    let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
    Pending {
        facts: Arc::new(Facts {
            id: CallbackId::of("team_a", EventKey::Id("e"), 0),
            record: RecordRef { partition, offset: 0, timestamp: 0 },
            team: "team_a".into(),
            task_id: "t".into(),
            event_id: None,
            event_type: "task.completed".into(),
            queue: QueueKey { team: "team_a".into(), target: QueueTarget::Default(Mode::Live) },
            mode: Mode::Live,
            content_hash: [0; 32],
            builder: 1,
        }),
        url: url.map(Into::into),
        progress: Progress { since: None, horizon: None, tries, attempts: tries },
        due: Timestamp::from_millis(0),
        token: None,
        lease_until: None,
        starts: 0,
        last_outcome: Some(last_outcome),
        round: 0,
        new_id: false,
    }
}

#[test]
fn each_setting_that_ends_a_callback_is_named() {
    let origin = |text: &str| Origin::parse(text).unwrap();
    let retries = |retries| RetryOverride { retries: Some(retries), ..RetryOverride::default() };
    let gone = RetryOverride { end_on_gone: Some(true), ..RetryOverride::default() };
    let own = Some("http://own.example/x");
    for (after, url, tries, last, expected) in [
        (team(), None, 19, Outcome::ServerError, None),
        (team(), None, 20, Outcome::ServerError, Some("exhausted")),
        (Team { retry: retries(1), ..team() }, None, 4, Outcome::ServerError, Some("exhausted")),
        (Team { retry: retries(4), ..team() }, None, 4, Outcome::ServerError, Some("exhausted")),
        (Team { retry: retries(5), ..team() }, None, 4, Outcome::ServerError, None),
        (Team { default_url: None, ..team() }, None, 1, Outcome::ServerError, Some("no_url")),
        (Team { default_url: None, ..team() }, own, 1, Outcome::ServerError, None),
        (Team { http: Some(HttpPolicy::Refuse), ..team() }, own, 1, Outcome::ServerError, Some("http_not_allowed")),
        (Team { http: Some(HttpPolicy::HmacOnly), ..team() }, own, 1, Outcome::ServerError, Some("http_not_allowed")),
        (
            Team { http: Some(HttpPolicy::HmacOnly), auth_form: AuthForm::Hmac, ..team() },
            own,
            1,
            Outcome::ServerError,
            None,
        ),
        (Team { http: Some(HttpPolicy::Refuse), ..team() }, None, 1, Outcome::ServerError, None),
        (
            Team { allowed_origins: vec![origin("https://a.example")], ..team() },
            own,
            1,
            Outcome::ServerError,
            Some("origin_not_allowed"),
        ),
        (Team { allowed_origins: vec![origin("https://a.example")], ..team() }, None, 1, Outcome::ServerError, None),
        (Team { retry: gone, ..team() }, None, 1, Outcome::Gone, Some("gone")),
        (Team { retry: gone, ..team() }, None, 1, Outcome::ServerError, None),
    ] {
        assert_eq!(
            end(&pending(url, tries, last), &after, INSTALLATION),
            expected,
            "{after:?} {url:?} {tries} {last:?}"
        );
    }
}

#[test]
fn the_sentence_counts_and_tells_what_to_do() {
    assert_eq!(Ending::default().sentence("team_a"), None);
    let ending = Ending { by_name: [("exhausted", 9), ("no_url", 1)].into(), incomplete: false };
    let sentence = ending.sentence("team_a").unwrap();
    assert!(
        sentence.starts_with(
            "this change would end 10 pending callbacks of team team_a (9 exhausted, 1 no_url). Each ends"
        ),
        "{sentence}"
    );
    assert!(sentence.contains("Nothing was changed.") && sentence.contains("--yes"), "{sentence}");
    let ending = Ending { by_name: [("exhausted", 1)].into(), incomplete: true };
    let sentence = ending.sentence("team_a").unwrap();
    assert!(sentence.starts_with("this change would end at least 1 pending callback of"), "{sentence}");
    let unknown = Ending { incomplete: true, ..Ending::default() };
    assert!(unknown.sentence("team_a").is_some(), "what was not looked at may end");
}

#[test]
fn only_a_name_changes_nothing_for_callbacks() {
    assert!(!may_end(&team(), &Team { name: "B".to_owned(), ..team() }));
    assert!(may_end(&team(), &Team { default_url: None, ..team() }));
}
