//! `/admin/v1` over TCP: every operation, every error code, scopes, pages, and requests that are refused early.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use callbackd::model::permission::Rights;
use callbackd_bench::recorder::Recorder;
use http::{HeaderMap, HeaderValue, Method};
use scale_callback::receiver::Reply;
use scale_callback_serve::client::{Remote, call};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Event, Harness, TEAM};

const TASK: &str = "6583f1a2b0c4d5e6f7081920";

/// An API with its caller's token.
pub struct Api {
    pub address: SocketAddr,
    pub token: String,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub json: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }
}

impl Api {
    pub async fn send(&self, method: &str, path: &str, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let mut all = HeaderMap::new();
        if !self.token.is_empty() {
            all.insert("authorization", HeaderValue::from_str(&format!("Bearer {}", self.token)).unwrap());
        }
        if !body.is_empty() {
            all.insert("content-type", HeaderValue::from_static("application/json"));
        }
        for (name, value) in headers {
            all.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        exchange(&Remote::Tcp(self.address), method, path, all, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", &format!("/admin/v1{path}"), &[], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", &format!("/admin/v1{path}"), &[], &body.to_string()).await
    }

    /// The same API with another token.
    pub fn with(&self, token: impl Into<String>) -> Self {
        Self { address: self.address, token: token.into() }
    }
}

async fn exchange(remote: &Remote, method: &str, path: &str, headers: HeaderMap, body: &str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let body = Bytes::from(body.to_owned());
    let answer = call(remote, method, path, headers, body, Duration::from_secs(60)).await.unwrap();
    let json = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    Answer { status: answer.status.as_u16(), headers: answer.headers, json }
}

/// A request without a token.
pub async fn send(remote: &Remote, method: &str, path: &str, body: &str) -> Answer {
    let mut headers = HeaderMap::new();
    if !body.is_empty() {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    exchange(remote, method, path, headers, body).await
}

/// A daemon whose API listens on TCP, and a token with every right.
pub async fn started() -> (Harness, Api) {
    let mut harness = Harness::with(&[("API__LISTEN", "127.0.0.1:0"), ("API__HOSTS", "ops.example")]).await;
    assert!(harness.app().api_address.is_none(), "without a token it is off");
    let token = harness.token(Rights::ALL).await;
    harness.stop().await;
    harness.run(None).await;
    let address = harness.app().api_address.expect("there is a token");
    (harness, Api { address, token })
}

/// A request for each operation of the document, by method and path template, in an order that works.
pub fn requests(ids: &BTreeMap<&str, String>) -> Vec<(&'static str, &'static str, String, Value)> {
    let id = |name: &str| ids[name].clone();
    let escaped = |text: &str| text.replace(':', "%3A").replace('/', "%2F");
    let team = format!("/teams/{TEAM}");
    let endpoint = format!("/endpoints/{TEAM}/{}", escaped(&id("origin")));
    let key = format!("{team}/keys/{}", id("key"));
    vec![
        ("get", "/status", "/status".into(), Value::Null),
        ("get", "/instances", "/instances".into(), Value::Null),
        ("get", "/offsets", "/offsets".into(), Value::Null),
        ("post", "/offsets/accept", "/offsets/accept".into(), json!({"from": "end"})),
        ("post", "/offsets/rewind", "/offsets/rewind".into(), json!({"to": "earliest", "dry_run": true})),
        ("post", "/offsets/skip", "/offsets/skip".into(), json!({"to": "end", "partition": 0, "dry_run": true})),
        ("post", "/clock/accept", "/clock/accept".into(), json!({})),
        ("get", "/log_level", "/log_level".into(), Value::Null),
        ("put", "/log_level", "/log_level".into(), json!({"level": "off"})),
        ("get", "/delivery", "/delivery".into(), Value::Null),
        ("post", "/delivery/pause", "/delivery/pause".into(), json!({"reason": "a move"})),
        ("post", "/delivery/resume", "/delivery/resume".into(), json!({})),
        ("post", "/teams/{team}/pause", format!("{team}/pause"), json!({})),
        ("post", "/teams/{team}/resume", format!("{team}/resume"), json!({})),
        ("post", "/endpoints/{team}/{origin}/pause", format!("{endpoint}/pause"), json!({})),
        ("post", "/endpoints/{team}/{origin}/resume", format!("{endpoint}/resume"), json!({})),
        ("get", "/teams", "/teams?limit=1".into(), Value::Null),
        ("post", "/teams", "/teams".into(), json!({"team_id": "team_new", "name": "New"})),
        ("get", "/teams/{team}", team.clone(), Value::Null),
        ("patch", "/teams/{team}", team.clone(), json!({"retries": 15})),
        ("post", "/teams/{team}/check", format!("{team}/check"), json!({"url": id("url")})),
        ("post", "/teams/{team}/switch_auth", format!("{team}/switch_auth"), json!({"to": "hmac", "url": id("url")})),
        ("get", "/teams/{team}/keys", format!("{team}/keys"), Value::Null),
        ("post", "/teams/{team}/keys", format!("{team}/keys"), json!({"kind": "hmac", "mode": "test"})),
        ("post", "/teams/{team}/keys/{key}/promote", format!("{key}/promote"), json!({})),
        ("post", "/teams/{team}/keys/{key}/reveal", format!("{key}/reveal"), json!({})),
        ("post", "/teams/{team}/keys/{key}/revoke", format!("{key}/revoke"), json!({"force": true})),
        ("get", "/callbacks", format!("/callbacks?team={TEAM}&state=pending"), Value::Null),
        ("get", "/callbacks/{id}", format!("/callbacks/{}", id("pending")), Value::Null),
        ("get", "/callbacks/{id}/attempts", format!("/callbacks/{}/attempts", id("pending")), Value::Null),
        ("get", "/callbacks/{id}/payload", format!("/callbacks/{}/payload", id("pending")), Value::Null),
        ("post", "/callbacks/{id}/retry", format!("/callbacks/{}/retry", id("pending")), json!({})),
        ("get", "/tasks/{task}", format!("/tasks/{TASK}"), Value::Null),
        ("get", "/dead_letters", "/dead_letters?reason=not_json".into(), Value::Null),
        ("get", "/dead_letters/{id}", format!("/dead_letters/{}", id("letter")), Value::Null),
        ("post", "/dead_letters/{id}/discard", format!("/dead_letters/{}/discard", id("letter")), json!({})),
        ("post", "/dead_letters/{id}/resend", format!("/dead_letters/{}/resend", id("letter")), json!({})),
        ("get", "/endpoints", "/endpoints".into(), Value::Null),
        ("get", "/endpoints/{team}/{origin}", endpoint.clone(), Value::Null),
        ("post", "/endpoints/{team}/{origin}/retry", format!("{endpoint}/retry"), json!({})),
        ("post", "/callbacks/retry", "/callbacks/retry".into(), json!({"team": TEAM, "task": "none"})),
        ("post", "/callbacks/cancel", "/callbacks/cancel".into(), json!({"team": TEAM, "task": "none"})),
        ("post", "/resends/preview", "/resends/preview".into(), json!({"team": TEAM})),
        ("post", "/resends", "/resends".into(), json!({"team": TEAM, "reason": "gone"})),
        ("get", "/resends", "/resends?limit=1".into(), Value::Null),
        ("get", "/resends/{id}", format!("/resends/{}", id("resend")), Value::Null),
        ("post", "/resends/{id}/pause", format!("/resends/{}/pause", id("resend")), json!({})),
        ("post", "/resends/{id}/resume", format!("/resends/{}/resume", id("resend")), json!({"rate": 5})),
        ("post", "/resends/{id}/cancel", format!("/resends/{}/cancel", id("resend")), json!({})),
        ("get", "/tokens", "/tokens".into(), Value::Null),
        ("post", "/tokens", "/tokens".into(), json!({"name": "a", "scope": "read"})),
        ("post", "/tokens/{id}/revoke", format!("/tokens/{}/revoke", id("token")), json!({})),
        ("get", "/audit", "/audit?object=team_acme".into(), Value::Null),
        ("post", "/callbacks/{id}/cancel", format!("/callbacks/{}/cancel", id("pending")), json!({})),
        ("post", "/callbacks/{id}/resend", format!("/callbacks/{}/resend", id("pending")), json!({})),
        ("delete", "/teams/{team}", "/teams/team_new?confirm=true".into(), Value::Null),
    ]
}

/// One thing of each kind: a delivered task, a pending callback, a dead letter, a new key, a token to revoke, a paused job.
pub async fn furnished(harness: &Harness, api: &Api) -> (BTreeMap<&'static str, String>, [Recorder; 2]) {
    let good = harness.accepting().await;
    let bad = harness.recorder(std::sync::Arc::new(|_, _| Reply::status(503))).await;
    let url = format!("http://{}/hook", good.address);
    // The failing one stays pending for long.
    api.send("PATCH", &format!("/admin/v1/teams/{TEAM}"), &[], r#"{"retries":20,"horizon_seconds":86400}"#).await;
    harness.produce(&Event::new(TASK).to(url.clone()));
    harness.produce(&Event::new("failing").to(format!("http://{}/hook", bad.address)));
    harness.produce_raw(b"\x1b[2J this is no JSON", &[]);
    let letter = harness.dead_letters(1).await.remove(0).letter.id.to_dead_letter_id();
    let (delivered, ..) = harness.ended(TASK).await;
    let pending = harness
        .until("the failing one is pending", async || {
            harness
                .callbacks("failing")
                .await
                .into_iter()
                .find(|(_, rows)| rows.pending.as_ref().is_some_and(|p| p.progress.attempts > 0))
        })
        .await;
    let key = api.post(&format!("/teams/{TEAM}/keys"), &json!({"kind": "signing", "mode": "live"})).await;
    let token = api.post("/tokens", &json!({"name": "goes", "scope": "read"})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    // It is paused before its first second is over.
    let job = api.post("/resends", &json!({"team": TEAM, "state": "delivered", "rate": 1})).await;
    let resend = text(&job.json["resend_id"]);
    assert_eq!(api.post(&format!("/resends/{resend}/pause"), &json!({})).await.json["state"], "paused");
    let ids = [
        ("resend", resend),
        ("delivered", delivered.to_string()),
        ("pending", pending.0.to_string()),
        ("letter", letter),
        ("key", text(&key.json["key_id"])),
        ("token", text(&token.json["token_id"])),
        ("origin", format!("http://{}", bad.address)),
        ("url", url),
    ];
    (ids.into_iter().collect(), [good, bad])
}

/// A partition waits for an operator, and Kafka is down when its offsets are accepted.
async fn accept_without_kafka() -> Answer {
    let mut broker = crate::kafka::own_broker();
    let servers = broker.servers();
    crate::kafka::create_topic(&servers, "waits", 1).await;
    let mut first = Harness::on(&servers, None, "waits", &[], None).await;
    let receiver = first.accepting().await;
    crate::kafka::produce(&servers, "waits", 1, &crate::kafka::events(0, 5, &receiver.url("/")));
    crate::kafka::at_the_end(&first, &servers, 1).await;
    first.stop().await;
    // The store is replaced by another one.
    let mut other = Harness::on(&servers, None, "waits", &[("API__LISTEN", "127.0.0.1:0")], None).await;
    let token = other.token(Rights::ALL).await;
    other.stop().await;
    other.run(None).await;
    let api = Api { address: other.app().api_address.expect("there is a token"), token };
    other.until("it waits", async || (!other.app().ops.readiness().ready).then_some(())).await;
    broker.stop();
    api.post("/offsets/accept", &json!({"from": "committed"})).await
}

/// Operations of the document: method, path, the scope it names, the statuses it names.
pub fn operations() -> Vec<(String, String, String, BTreeSet<String>)> {
    let document: Value = serde_json::from_str(&callbackd::api::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let scope = operation["security"][0]["token"][0].as_str().unwrap_or_default();
            let statuses = operation["responses"].as_object().unwrap().keys().cloned().collect();
            let path = path.strip_prefix("/admin/v1").unwrap();
            found.push((method.clone(), path.to_owned(), scope.to_owned(), statuses));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_the_document_says() {
    let (harness, api) = started().await;
    let (ids, _receivers) = furnished(&harness, &api).await;
    let requests = requests(&ids);
    for (method, path, _, statuses) in operations() {
        if path.ends_with("/cancel") || path.ends_with("/resend") {
            continue;
        }
        let request = requests.iter().find(|(m, p, ..)| **m == method && **p == path);
        let (_, _, uri, body) = request.unwrap_or_else(|| panic!("no request for {method} {path}"));
        // No partition waits for an operator here.
        let expected = if ["/offsets/accept", "/clock/accept"].contains(&path.as_str()) {
            "4XX"
        } else {
            statuses.iter().find(|s| s.starts_with('2')).unwrap()
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let send = async || api.send(&method.to_uppercase(), &format!("/admin/v1{uri}"), &[], &body).await;
        let answer = harness
            .until("no attempt of the callback is under way", async || {
                let answer = send().await;
                (!(path.ends_with("/retry") && answer.code() == "conflict")).then_some(answer)
            })
            .await;
        let named = answer.status.to_string() == expected || (expected == "4XX" && answer.code() == "conflict");
        assert!(named, "{method} {uri}: {} {}", answer.status, answer.json);
        assert!(answer.headers.contains_key("x-request-id"), "{uri}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{uri}");
    }
    let task = api.get(&format!("/tasks/{TASK}")).await.json;
    assert_eq!(task["callbacks"][0]["state"], "delivered", "{task}");
    // Between two attempts, the callback waits in the store again.
    let failing = harness
        .until("the failing callback waits", async || {
            let listed = api.get("/endpoints?team=team_acme").await.json;
            let failing =
                listed["docs"].as_array()?.iter().find(|doc| doc["origin"] == ids["origin"].as_str())?.clone();
            (failing["pending"] == 1).then_some(failing)
        })
        .await;
    assert_eq!(failing["last_outcome"], "server_error", "{failing}");
    assert!(failing["consecutive_failures"].as_u64().unwrap() >= 1, "{failing}");
    let letter = api.get(&format!("/dead_letters/{}", ids["letter"])).await.json;
    assert_eq!(letter["value"], "\\u{1b}[2J this is no JSON", "escape sequences are escaped");
    let checked = api.post(&format!("/teams/{TEAM}/check"), &json!({"url": ids["url"]})).await.json;
    assert_eq!((&checked["succeeded"], &checked["mode"]), (&json!(true), &json!("test")), "{checked}");
    let steps: Vec<_> = checked["steps"].as_array().unwrap().iter().map(|step| step["step"].clone()).collect();
    assert_eq!(steps, ["url", "dns", "egress", "connect", "tls", "post"]);
    let status = api.get("/status").await.json;
    assert_eq!(status["worst_endpoints"][0]["origin"], ids["origin"].as_str(), "{status}");
    // A cancelled callback does not wait any more, so that comes last.
    let cancelled = api.post(&format!("/callbacks/{}/cancel", ids["pending"]), &json!({})).await;
    assert_eq!((cancelled.status, &cancelled.json["reason"]), (200, &json!("cancelled")), "{}", cancelled.json);
    let resent = api.post(&format!("/callbacks/{}/resend", ids["pending"]), &json!({})).await;
    assert_eq!((resent.status, &resent.json["resending"]), (200, &json!(true)), "{}", resent.json);
    let again = api.post(&format!("/callbacks/{}/resend", ids["pending"]), &json!({"to": "x"})).await;
    assert_eq!((again.status, again.code()), (400, "unknown_field"), "{}", again.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_what_stands_in_the_repository() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let standing = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        standing == callbackd::api::openapi(),
        "docs/openapi.json differs from the code; write it again: callbackd openapi > docs/openapi.json"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scope_may_do_what_the_document_says_and_no_more() {
    let (harness, api) = started().await;
    let (ids, _receivers) = furnished(&harness, &api).await;
    let reader = api.with(harness.token(Rights::READ).await);
    let stranger = api.with("");
    let forged = api.with(format!("cbt_{}", "0".repeat(64)));
    let before = api.get("/audit").await.json["docs"][0]["audit_id"].clone();
    for (method, path, scope, _) in operations() {
        let requests = requests(&ids);
        let (_, _, uri, body) = requests.iter().find(|(m, p, ..)| **m == method && **p == path).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (method, uri) = (method.to_uppercase(), format!("/admin/v1{uri}"));
        for unknown in [&stranger, &forged] {
            let answer = unknown.send(&method, &uri, &[], &body).await;
            assert_eq!((answer.status, answer.code()), (401, "unauthenticated"), "{method} {uri}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
        let answer = reader.send(&method, &uri, &[], &body).await;
        match scope.as_str() {
            "operate" | "secrets" => assert_eq!((answer.status, answer.code()), (403, "forbidden"), "{method} {uri}"),
            "read" => assert_eq!(answer.status, 200, "{method} {uri}: {}", answer.json),
            other => panic!("{method} {uri} names the scope {other:?}"),
        }
    }
    assert_eq!(api.get("/audit").await.json["docs"][0]["audit_id"], before, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_error_code_comes_with_its_problem_and_changes_nothing() {
    let (harness, api) = started().await;
    let (ids, _receivers) = furnished(&harness, &api).await;
    let keys = format!("/teams/{TEAM}/keys");
    let of_key = |verb: &str| format!("/teams/{TEAM}/keys/{}/{verb}", ids["key"]);
    let cases: Vec<(&str, u16, Answer)> = vec![
        ("unknown_field", 400, api.get("/callbacks?colour=red").await),
        ("unknown_field", 400, api.get("/status?x=1").await),
        ("unknown_field", 400, api.post("/teams", &json!({"team_id": "t", "colour": 1})).await),
        ("unknown_field", 400, api.post(&of_key("revoke"), &json!({"forced": true})).await),
        ("invalid_request", 400, api.get("/callbacks/cb_short").await),
        ("invalid_request", 400, api.get("/callbacks?state=lost").await),
        ("invalid_request", 400, api.get("/callbacks?since=yesterday").await),
        ("invalid_request", 400, api.get("/callbacks?limit=0").await),
        ("invalid_request", 400, api.get("/callbacks?limit=1001").await),
        ("invalid_request", 400, api.get("/callbacks?team=a&team=b").await),
        ("invalid_request", 400, api.get("/callbacks?endpoint=nonsense").await),
        ("invalid_request", 400, api.get("/teams/%ff").await),
        ("invalid_request", 400, api.send("POST", "/admin/v1/teams", &[], "{").await),
        ("invalid_request", 400, api.send("POST", "/admin/v1/teams", &[], "[1]").await),
        ("invalid_request", 400, api.post("/teams", &json!({"team_id": 7})).await),
        ("invalid_request", 400, api.send("POST", "/admin/v1/teams", &[("idempotency-key", "")], "{}").await),
        ("invalid_request", 415, api.send("POST", "/admin/v1/teams", &[("content-type", "text/plain")], "{}").await),
        ("invalid_request", 413, api.post("/teams", &json!({"team_id": "x".repeat(70_000)})).await),
        ("invalid_request", 405, api.send("DELETE", "/admin/v1/teams", &[], "").await),
        ("not_found", 404, api.get("/nonsense").await),
        ("not_found", 404, api.send("GET", "/elsewhere", &[], "").await),
        ("not_found", 404, api.get("/callbacks/cb_01kav9ft00zkek0kfes3qvf608").await),
        ("not_found", 404, api.get("/tasks/unheard-of").await),
        ("not_found", 404, api.get("/endpoints/nobody/http%3A%2F%2Fa.example").await),
        ("pruned", 410, api.get("/tasks/4d0000000000000000000000").await),
        ("conflict", 409, api.post("/teams", &json!({"team_id": TEAM})).await),
        // A callback of the team waits for its retry.
        ("confirmation_needed", 409, {
            api.send("PATCH", &format!("/admin/v1/teams/{TEAM}"), &[], r#"{"retries":0}"#).await
        }),
        ("too_many_rows", 409, api.post("/callbacks/cancel", &json!({"team": TEAM, "at_most": 0})).await),
        ("url_refused", 400, api.post("/teams", &json!({"team_id": "t", "default_url": "http://10.0.0.1/"})).await),
        ("key_state", 409, {
            api.post(&of_key("promote"), &json!({})).await;
            api.post(&of_key("promote"), &json!({})).await
        }),
        ("idempotency_mismatch", 422, {
            let once = [("idempotency-key", "k1")];
            api.send("POST", &format!("/admin/v1{keys}"), &once, r#"{"kind":"hmac","mode":"live"}"#).await;
            api.send("POST", &format!("/admin/v1{keys}"), &once, r#"{"kind":"hmac","mode":"test"}"#).await
        }),
        ("unauthenticated", 401, api.with("").get("/status").await),
        ("unauthenticated", 401, api.with("nonsense").get("/status").await),
        ("forbidden", 403, api.send("GET", "/admin/v1/status", &[("host", "evil.example")], "").await),
        ("store_unavailable", 503, {
            // Another program holds the store's lock.
            let file = harness.store().join("callbackd.db");
            let _holder = crate::harness::hold(&file).await;
            api.post("/teams", &json!({"team_id": "team_late"})).await
        }),
        ("not_ready", 503, accept_without_kafka().await),
    ];
    let mut codes = BTreeSet::new();
    for (at, (code, status, answer)) in cases.iter().enumerate() {
        assert_eq!((answer.code(), answer.status), (*code, *status), "case {at}: {}", answer.json);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "case {at}");
        let problem = &answer.json;
        assert_eq!(problem["detail"], problem["error"], "case {at}");
        assert_eq!((&problem["status"], &problem["status_code"]), (&json!(status), &json!(status)), "case {at}");
        assert_eq!(problem["request_id"].as_str(), answer.headers["x-request-id"].to_str().ok(), "case {at}");
        codes.insert(*code);
    }
    let document: Value = serde_json::from_str(&callbackd::api::openapi()).unwrap();
    let documented: BTreeSet<_> = document["components"]["schemas"]["Code"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap())
        .collect();
    assert_eq!(codes, documented, "each code of the document comes at least once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_makes_nothing_twice() {
    let (harness, api) = started().await;
    let once = [("idempotency-key", "the same")];
    let path = format!("/admin/v1/teams/{TEAM}/keys");
    let body = r#"{"kind":"callback-auth","mode":"live"}"#;
    let first = api.send("POST", &path, &once, body).await;
    let again = api.send("POST", &path, &once, body).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json["key_id"], again.json["key_id"]);
    assert!(first.json["value"].is_string() && again.json["value"].is_null(), "a value is shown once");
    let keys = api.get(&format!("/teams/{TEAM}/keys")).await.json;
    assert_eq!(keys["docs"].as_array().unwrap().len(), 7, "six that the team began with, and one more");
    let team = r#"{"team_id":"team_once"}"#;
    for _ in 0..2 {
        assert_eq!(api.send("POST", "/admin/v1/teams", &[("idempotency-key", "t")], team).await.status, 201);
    }
    for _ in 0..2 {
        let token =
            api.send("POST", "/admin/v1/tokens", &[("idempotency-key", "u")], r#"{"name":"x","scope":"read"}"#).await;
        assert_eq!(token.status, 201);
    }
    assert_eq!(api.get("/tokens").await.json["docs"].as_array().unwrap().len(), 2);
    // The same idempotency key of another caller is another key.
    let other = api.with(harness.token(Rights::ALL).await);
    assert_ne!(other.send("POST", &path, &once, body).await.json["key_id"], first.json["key_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_everything_once_and_belong_to_their_query() {
    let (harness, api) = started().await;
    let receiver = harness.accepting().await;
    for n in 0..25 {
        harness.produce(&Event::new(&format!("task-{n}")).to(format!("http://{}/", receiver.address)));
    }
    for n in 0..7 {
        harness.produce_raw(format!("no JSON {n}").as_bytes(), &[]);
        api.post("/teams", &json!({"team_id": format!("team_{n}")})).await;
    }
    harness.dead_letters(7).await;
    for n in 0..25 {
        harness.ended(&format!("task-{n}")).await;
    }
    for (path, member, count) in [
        ("/callbacks?team=team_acme&state=delivered", "callback_id", 25),
        ("/callbacks?mode=live", "callback_id", 25),
        ("/dead_letters?reason=not_json", "dead_letter_id", 7),
        ("/teams?", "team_id", 9),
        ("/audit?caller=nobody", "audit_id", 0),
        ("/audit?", "audit_id", 16),
    ] {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let next = if token.is_empty() { String::new() } else { format!("&next_token={token}") };
            let page = api.get(&format!("{path}&limit=4{next}")).await.json;
            let docs = page["docs"].as_array().unwrap_or_else(|| panic!("{path}: {page}"));
            assert!(docs.len() <= 4 && page["limit"] == 4);
            seen.extend(docs.iter().map(|doc| doc[member].to_string()));
            assert_eq!(page["has_more"], json!(page["next_token"].is_string()));
            match page["next_token"].as_str() {
                Some(next) => next.clone_into(&mut token),
                None => break,
            }
        }
        assert_eq!(seen.len(), count, "{path}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), count, "{path}: nothing twice");
        if !token.is_empty() {
            for (other, text) in [
                (format!("/callbacks?outcome=ok&next_token={token}"), token.clone()),
                (format!("{path}&next_token={}", &token[1..]), token.clone()),
                (format!("{path}&next_token=%00"), token.clone()),
            ] {
                let refused = api.get(&other).await;
                assert_eq!((refused.status, refused.code()), (400, "invalid_request"), "{other} {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_filter_is_short_and_names_only_modules_and_levels() {
    let (harness, api) = started().await;
    let put = async |level: &str| {
        let body = json!({ "level": level }).to_string();
        api.send("PUT", "/admin/v1/log_level", &[], &body).await
    };
    let bomb = format!("callbackd[{{x=~\"{}\"}}]=debug", "(a{1,1000}){1,1000}");
    let many = (0..200).map(|n| format!("m{n}=off")).collect::<Vec<_>>().join(",");
    for hostile in [&*bomb, "[{x}]=trace", "a[span]=trace", "[span{x=1}]=off", "a=~b", "%s=info", &many, "", ","] {
        let refused = put(hostile).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid_request"), "{hostile}: {}", refused.json);
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.len() < 500, "{detail}");
        assert_eq!(api.get("/log_level").await.json["level"], "off", "nothing has changed");
    }
    assert_eq!(put("callbackd=debug,off").await.status, 200);
    assert_eq!(api.get("/log_level").await.json["level"], "callbackd=debug,off");
    drop(harness);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_and_hosts_and_slow_clients_are_refused() {
    let (harness, api) = started().await;
    let made = api.post("/tokens", &json!({"name": "short", "scope": "read"})).await.json;
    let short = api.with(made["value"].as_str().unwrap());
    assert_eq!(short.get("/status").await.status, 200);
    assert!(short.get("/tokens").await.json.to_string().contains("short"));
    assert!(!short.get("/tokens").await.json.to_string().contains(made["value"].as_str().unwrap()));
    api.post(&format!("/tokens/{}/revoke", made["token_id"].as_str().unwrap()), &json!({})).await;
    assert_eq!(short.get("/status").await.status, 401, "a revoked token is refused at once");
    for (body, why) in [
        (json!({"name": "", "scope": "read"}), "name"),
        (json!({"name": "x", "scope": "all"}), "scope"),
        (json!({"name": "x", "scope": "read", "valid_for_seconds": 1}), "time"),
    ] {
        assert_eq!(api.post("/tokens", &body).await.code(), "invalid_request", "{why}");
    }
    for (host, status) in [("ops.example", 200), ("localhost:1", 200), ("rebound.example", 403)] {
        assert_eq!(api.send("GET", "/admin/v1/status", &[("host", host)], "").await.status, status, "{host}");
    }
    // The API waits for a body until the deadline, and then closes the connection.
    let mut slow = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "POST /admin/v1/teams HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        api.token
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(40), slow.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection ends");
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    drop(harness);
}
