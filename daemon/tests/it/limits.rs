//! What a token can't see or do although its right allows the operation: other teams, URLs' paths, and more time than it
//! has. Also when tokens and keys were last used, wrong tokens, and changes that would end callbacks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use callbackd::model::permission::Rights;
use callbackd::model::team::{AuthForm, KeyKind, Mode};
use callbackd_bench::raw::{Act, Raw};
use serde_json::{Value, json};

use crate::api::{Answer, Api, started};
use crate::harness::{Event, HMAC_TEAM, Harness, TEAM};

/// A part of each URL that only callers with the right to operate may see.
const MARKER: &str = "hiddenx";

struct Things {
    callback: String,
    letter: String,
    task: String,
}

/// One pending callback of the team whose receiver repeats the URL's path in its answer, and one dead letter.
async fn things_of(harness: &Harness, api: &Api, team: &str, origin: &str) -> Things {
    let url = format!("{origin}/{MARKER}?token={MARKER}");
    let patch = json!({ "retries": 20, "horizon_seconds": 86_400, "default_url": url }).to_string();
    let patched = api.send("PATCH", &format!("/admin/v1/teams/{team}"), &[], &patch).await;
    assert_eq!(patched.status, 200, "{}", patched.json);
    let task = format!("task_of_{team}");
    harness.produce(&Event::new(&task).of(team).to(&url));
    let broken = Event::new(&format!("bad_{team}")).of(team).id("1").to(&url).json();
    harness.produce_raw(broken.as_bytes(), &[("event-id", "another")]);
    let found = async |path: String, ready: fn(&Value) -> bool, id: &str| {
        let page = api.get(&path).await.json;
        let doc = page["docs"].as_array()?.first().filter(|doc| ready(doc))?.clone();
        Some(doc[id].as_str().unwrap().to_owned())
    };
    let (pending, dead) = (format!("/callbacks?task={task}"), format!("/dead_letters?team={team}"));
    let failed = |doc: &Value| doc["attempts"].as_u64() >= Some(1);
    let callback = harness.until("it failed once", async || found(pending.clone(), failed, "callback_id").await).await;
    let letter = harness.until("a dead letter", async || found(dead.clone(), |_| true, "dead_letter_id").await).await;
    Things { callback, letter, task }
}

/// A receiver that fails, with a page that repeats the path.
async fn echoing() -> Raw {
    let page = format!("Cannot POST /{MARKER}");
    let head = format!("HTTP/1.1 500 No\r\ncontent-length: {}\r\n\r\n{page}", page.len());
    Raw::start(Act::Answer(head.into_bytes())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_keeps_a_callback_for_at_most_thirty_days() {
    let (_harness, api) = started().await;
    for (seconds, status) in [(0, 400), (1, 200), (30 * 86_400, 200), (30 * 86_400 + 1, 400), (u64::MAX, 400)] {
        let patch = json!({ "horizon_seconds": seconds }).to_string();
        let answer = api.send("PATCH", &format!("/admin/v1/teams/{TEAM}"), &[], &patch).await;
        assert_eq!(answer.status, status, "{seconds}: {}", answer.json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_sees_no_path_of_a_url() {
    let (harness, api) = started().await;
    let receiver = echoing().await;
    let origin = format!("http://{}", receiver.address);
    let things = things_of(&harness, &api, TEAM, &origin).await;
    let (reader, operator) =
        (api.with(harness.token(Rights::READ).await), api.with(harness.token(Rights::OPERATE).await));
    let callback = format!("/callbacks/{}", things.callback);
    // What shows a path, or a text that may repeat it, to operators.
    let showing = [
        "/teams".to_owned(),
        format!("/teams/{TEAM}"),
        format!("{callback}/attempts"),
        "/dead_letters".to_owned(),
        format!("/dead_letters/{}", things.letter),
        format!("/tasks/bad_{TEAM}"),
    ];
    let others =
        ["/callbacks", &callback, "/endpoints", "/status", "/audit", "/tokens", &format!("/tasks/{}", things.task)];
    for path in showing.iter().map(String::as_str).chain(others) {
        let (seen, shown) = (reader.get(path).await, operator.get(path).await);
        assert_eq!((seen.status, shown.status), (200, 200), "{path}: {}", seen.json);
        assert!(!seen.json.to_string().contains(MARKER), "{path}: {}", seen.json);
        let is_shown = shown.json.to_string().contains(MARKER);
        assert_eq!(is_shown, showing.iter().any(|showing| showing == path), "{path}: {}", shown.json);
    }
    let team = reader.get(&format!("/teams/{TEAM}")).await.json;
    assert_eq!(team["default_url"], origin.as_str(), "scheme, host and port are shown");
    let attempts = reader.get(&format!("{callback}/attempts")).await.json;
    assert_eq!(attempts["docs"][0]["answer"], Value::Null);
    assert_eq!(reader.get(&format!("/dead_letters/{}", things.letter)).await.json["value"], Value::Null);

    let refused = reader.get(&format!("{callback}/payload")).await;
    assert_eq!(refused.status, 403, "{}", refused.json);
    let payload = operator.get(&format!("{callback}/payload")).await;
    assert!(payload.status == 200 && payload.json.to_string().contains(MARKER), "{}", payload.json);
    let audit = api.get(&format!("/audit?object={TEAM}&limit=1")).await.json;
    assert_eq!(audit["docs"][0]["action"], "callback.payload", "{audit}");
    assert_eq!(audit["docs"][0]["change"], things.callback.as_str(), "{audit}");
}

fn values<'a>(page: &'a Value, member: &str) -> BTreeSet<&'a str> {
    page["docs"].as_array().unwrap().iter().map(|doc| doc[member].as_str().unwrap_or("-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_team_knows_nothing_of_the_others() {
    let (harness, api) = started().await;
    let receiver = echoing().await;
    let origin = format!("http://{}", receiver.address);
    let own = things_of(&harness, &api, TEAM, &origin).await;
    let other = things_of(&harness, &api, HMAC_TEAM, &origin).await;
    let limited = api.with(harness.limited_token(Rights::ALL, &[TEAM]).await);
    let both = api.with(harness.limited_token(Rights::ALL, &[TEAM, HMAC_TEAM]).await);

    for path in ["/teams", "/callbacks", "/dead_letters", "/endpoints"] {
        let all = [TEAM, HMAC_TEAM].into();
        assert_eq!(values(&limited.get(path).await.json, "team_id"), [TEAM].into(), "{path}");
        assert_eq!(values(&both.get(path).await.json, "team_id"), all, "{path}");
        assert_eq!(values(&api.get(path).await.json, "team_id"), all, "{path}");
        if path != "/teams" {
            let asked = format!("{path}?team={HMAC_TEAM}");
            assert_eq!((limited.get(&asked).await.status, both.get(&asked).await.status), (403, 200), "{path}");
        }
    }
    // Pages of a limited list follow each other like any other's.
    let first = both.get("/teams?limit=1").await.json;
    let next = format!("/teams?limit=1&next_token={}", first["next_token"].as_str().unwrap());
    assert_eq!(
        (values(&first, "team_id"), values(&both.get(&next).await.json, "team_id")),
        ([TEAM].into(), [HMAC_TEAM].into())
    );

    for (mine, foreign) in [
        (format!("/callbacks/{}", own.callback), format!("/callbacks/{}", other.callback)),
        (format!("/callbacks/{}/attempts", own.callback), format!("/callbacks/{}/attempts", other.callback)),
        (format!("/callbacks/{}/payload", own.callback), format!("/callbacks/{}/payload", other.callback)),
        (format!("/dead_letters/{}", own.letter), format!("/dead_letters/{}", other.letter)),
        (format!("/tasks/{}", own.task), format!("/tasks/{}", other.task)),
        (format!("/tasks/bad_{TEAM}"), format!("/tasks/bad_{HMAC_TEAM}")),
    ] {
        let (seen, hidden) = (limited.get(&mine).await, limited.get(&foreign).await);
        assert_eq!((seen.status, hidden.status), (200, 404), "{mine} {foreign}: {}", hidden.json);
        assert!(!hidden.json.to_string().contains("dead letter names"), "{}", hidden.json);
    }
    for path in ["/status", "/instances", "/offsets", "/log_level", &format!("/teams/{HMAC_TEAM}")] {
        assert_eq!(limited.get(path).await.status, 403, "{path}");
    }
    let audit = limited.get("/audit").await.json;
    assert_eq!(values(&audit, "object"), [TEAM].into(), "{audit}");
    assert!(values(&api.get("/audit").await.json, "object").contains(HMAC_TEAM));
    assert_eq!(limited.get(&format!("/audit?object={HMAC_TEAM}")).await.json["docs"], json!([]));
    drop(receiver);
}

async fn new_token(api: &Api, body: Value) -> Answer {
    api.send("POST", "/admin/v1/tokens", &[], &body.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_none_that_may_more_or_lives_longer() {
    let (_harness, api) = started().await;
    let nobody = new_token(&api, json!({ "name": "x", "scope": "read", "teams": ["team_nobody"] })).await;
    assert_eq!((nobody.status, &nobody.json["code"]), (404, &json!("not_found")), "{}", nobody.json);
    let made =
        new_token(&api, json!({ "name": "short", "scope": "operate", "valid_for_seconds": 120, "teams": [TEAM] }));
    let made = made.await.json;
    assert_eq!(made["teams"], json!([TEAM]), "{made}");
    let short = api.with(made["value"].as_str().unwrap());
    for (body, why) in [
        (json!({ "valid_for_seconds": 31_536_000 }), "can't outlive"),
        (json!({ "valid_for_seconds": 180 }), "can't outlive"),
        (json!({ "teams": [HMAC_TEAM] }), "more teams"),
        (json!({ "teams": [TEAM, HMAC_TEAM] }), "more teams"),
        (json!({ "scope": "secrets" }), "\"secrets\""),
    ] {
        let mut all = json!({ "name": "more", "scope": "read" });
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let refused = new_token(&short, all).await;
        assert_eq!(refused.status, 403, "{body}: {}", refused.json);
        assert!(refused.json["detail"].as_str().unwrap().contains(why), "{body}: {}", refused.json);
    }
    // What is not asked for is as the caller has it.
    let child = new_token(&short, json!({ "name": "child", "scope": "read" })).await.json;
    assert_eq!((&child["teams"], &child["expires_at"]), (&made["teams"], &made["expires_at"]), "{child}");
    let listed = short.get("/tokens").await.json;
    assert_eq!(values(&listed, "name"), ["short", "child"].into(), "{listed}");
    let all = api.get("/tokens").await.json;
    let full = all["docs"].as_array().unwrap().iter().find(|token| token["teams"].is_null()).unwrap();
    let revoke = |id: &Value| format!("/admin/v1/tokens/{}/revoke", id.as_str().unwrap());
    assert_eq!(short.send("POST", &revoke(&full["token_id"]), &[], "{}").await.status, 404, "it does not exist for it");
    assert_eq!(short.send("POST", &revoke(&child["token_id"]), &[], "{}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_tokens_and_keys_is_shown() {
    let (mut harness, api) = started().await;
    let unused = new_token(&api, json!({ "name": "unused", "scope": "read" })).await.json;
    let used = |tokens: &Value, name: &str| {
        let docs = tokens["docs"].as_array().unwrap();
        docs.iter().find(|token| token["name"] == name).unwrap()["used_at"].as_str().map(str::to_owned)
    };
    let mine = Rights::ALL.name();
    let first = harness.until("the use is recorded", async || used(&api.get("/tokens").await.json, &mine)).await;
    for _ in 0..20 {
        assert_eq!(used(&api.get("/tokens").await.json, &mine), Some(first.clone()), "one write a minute is enough");
    }
    assert_eq!((used(&api.get("/tokens").await.json, "unused"), &unused["used_at"]), (None, &Value::Null));

    let receiver = harness.accepting().await;
    harness.produce(&Event::new("signed").to(receiver.url("/")));
    harness.ended("signed").await;
    harness.stop().await;
    harness.run(None).await;
    for key in harness.session().keys(TEAM).await.unwrap() {
        let signs = key.mode == Mode::Live && key.kind != KeyKind::Hmac;
        assert_eq!(key.used_at.is_some(), signs, "{:?} {:?}", key.kind, key.mode);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_counted_and_slowed_and_right_ones_are_not() {
    let (harness, api) = started().await;
    let wrong = api.with(format!("cbt_{}", "0".repeat(64)));
    let began = Instant::now();
    let refused = futures_util::future::join_all((0..60).map(|_| wrong.get("/status")));
    let right = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let asked = Instant::now();
            assert_eq!(api.get("/log_level").await.status, 200);
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let (refused, slowest) = tokio::join!(refused, right);
    assert!(refused.iter().all(|answer| answer.status == 401));
    assert!(began.elapsed() >= Duration::from_millis(900), "some of them waited");
    assert!(slowest < Duration::from_millis(900), "a right token never waits: {slowest:?}");
    assert_eq!(api.with("").get("/status").await.status, 401);
    let metrics = harness.app().ops.metrics_page().await;
    for line in [
        "callbackd_api_unauthenticated_total{token=\"wrong\"} 60",
        "callbackd_api_unauthenticated_total{token=\"missing\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_would_end_callbacks_needs_a_confirmation() {
    let (harness, api) = started().await;
    let receiver = echoing().await;
    let things = things_of(&harness, &api, TEAM, &format!("http://{}", receiver.address)).await;
    let patch = async |query: &str, body: Value| {
        api.send("PATCH", &format!("/admin/v1/teams/{TEAM}{query}"), &[], &body.to_string()).await
    };
    for (body, name) in [
        (json!({ "retries": 0 }), "exhausted"),
        (json!({ "allowed_origins": ["https://else.example"], "default_url": null }), "origin_not_allowed"),
        (json!({ "http": "refuse", "default_url": null }), "http_not_allowed"),
    ] {
        let refused = patch("", body.clone()).await;
        assert_eq!((refused.status, &refused.json["code"]), (409, &json!("confirmation_needed")), "{}", refused.json);
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.starts_with("this change would end 1 pending callback of team team_acme"), "{detail}");
        assert!(detail.contains(&format!("(1 {name})")), "{detail}");
        let team = api.get(&format!("/teams/{TEAM}")).await.json;
        assert_eq!((&team["retries"], &team["http"]), (&json!(20), &Value::Null), "nothing was changed");
    }
    // What ends nothing needs no confirmation.
    for body in [json!({ "name": "Acme" }), json!({ "retries": 30 }), json!({ "default_url": null })] {
        assert_eq!(patch("", body.clone()).await.status, 200, "{body}");
    }
    assert_eq!(patch("?confirm=maybe", json!({ "retries": 0 })).await.status, 400);
    let changed = patch("?confirm=true", json!({ "retries": 0 })).await;
    assert_eq!((changed.status, &changed.json["retries"]), (200, &json!(0)), "{}", changed.json);
    assert_eq!(api.get(&format!("/callbacks/{}", things.callback)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_is_never_looser_than_the_installation() {
    let harness = Harness::with(&[("EGRESS__HTTP", "hmac-only")]).await;
    let session = harness.session();
    let change = |http: &str| callbackd::ops::teams::TeamChange {
        http: Some(Some(http.to_owned())),
        ..callbackd::ops::teams::TeamChange::default()
    };
    let looser = session.update_team(TEAM, change("allow"), false).await.expect_err("it is looser");
    assert_eq!(
        looser.to_string(),
        "http can't be \"allow\": a team can only be stricter than the installation, where egress.http is \"hmac-only\""
    );
    let created = session.create_team("team_new", change("allow"), None).await;
    assert!(created.is_err_and(|error| error.to_string() == looser.to_string()));
    for http in ["hmac-only", "refuse"] {
        assert!(session.update_team(TEAM, change(http), false).await.is_ok(), "{http}");
    }
    // An http URL that could never be called is refused when it is saved.
    let url = |form: AuthForm| callbackd::ops::teams::TeamChange {
        default_url: Some(Some("http://127.0.0.1:8080/".to_owned())),
        auth_form: Some(form.name().to_owned()),
        http: Some(None),
        ..callbackd::ops::teams::TeamChange::default()
    };
    let refused = session.update_team(TEAM, url(AuthForm::Key), false).await.expect_err("the key would be sent");
    assert!(refused.to_string().contains("name an https:// URL"), "{refused}");
    assert!(session.update_team(TEAM, url(AuthForm::Hmac), false).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_becomes_stricter_holds_for_a_team_that_was_looser() {
    let mut harness = Harness::start().await;
    let receiver = harness.accepting().await;
    let allow = callbackd::ops::teams::TeamChange {
        http: Some(Some("allow".to_owned())),
        ..callbackd::ops::teams::TeamChange::default()
    };
    harness.session().update_team(TEAM, allow, false).await.unwrap();
    harness.stop().await;
    harness.settings.push(("CALLBACKD_EGRESS__HTTP".to_owned(), "refuse".to_owned()));
    harness.run(None).await;
    harness.produce(&Event::new("over-http").to(receiver.url("/")));
    let (_, _, attempts) = harness.ended("over-http").await;
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.attempt.outcome.name()).collect();
    assert_eq!(outcomes, ["http_not_allowed"], "the stricter of the two holds");
    // Another change of the team is not in the way of that.
    let other = callbackd::ops::teams::TeamChange { name: Some("New".to_owned()), ..Default::default() };
    assert!(harness.session().update_team(TEAM, other, false).await.is_ok());
}
