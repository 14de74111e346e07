//! Every operation with every kind of caller: directly at `ops`, and over the API.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use callbackd::app::App;
use callbackd::base::telemetry::LogLevel;
use callbackd::demo::broker::Broker;
use callbackd::intake::partition::{AcceptFrom, ResetTo};
use callbackd::model::permission::{Right, Rights, TeamLimit};
use callbackd::model::team::{AuthForm, KeyKind, Mode};
use callbackd::ops::bulk::Which;
use callbackd::ops::endpoints::EndpointFilter;
use callbackd::ops::keys::NewKey;
use callbackd::ops::policy::{Denied, Operation, Subject};
use callbackd::ops::resends::NewResend;
use callbackd::ops::resets::ResetAsk;
use callbackd::ops::switch::Switch;
use callbackd::ops::teams::TeamChange;
use callbackd::ops::tokens::NewToken;
use callbackd::ops::{Caller, OpsError, Session};
use callbackd::store::admin::AuditFilter;
use callbackd::store::reads::{CallbackFilter, DeadLetterFilter, Page};
use callbackd::store::resends::ResendForm;
use scale_callback_serve::client::Remote;
use serde_json::{Value, json};

use crate::api::{Api, operations, requests, send, started};
use crate::harness::{Harness, TEAM, TOPIC, config, settings};

/// Calls the operation with arguments that change nothing.
async fn ask(session: &Session, operation: Operation) -> Result<(), OpsError> {
    let (team, key) = ("team_nobody", "key_none");
    let page = || Page { before: None, limit: 1 };
    let nothing = TeamChange::default;
    match operation {
        Operation::Status => session.status().await.map(drop),
        Operation::Instances => session.instances().await.map(drop),
        Operation::Offsets => session.offsets().await.map(drop),
        Operation::AcceptOffsets => session.accept_offsets(AcceptFrom::End).await.map(drop),
        Operation::RewindOffsets => session.rewind_offsets(no_partition()).await.map(drop),
        Operation::SkipOffsets => session.skip_offsets(no_partition()).await.map(drop),
        Operation::AcceptClock => session.accept_clock().await.map(drop),
        Operation::LogLevel => session.log_level().map(drop),
        Operation::SetLogLevel => session.set_log_level("infoo").await.map(drop),
        Operation::Delivery => session.delivery().await.map(drop),
        Operation::PauseDelivery => session.pause_delivery("two\nlines".to_owned()).await.map(drop),
        Operation::ResumeDelivery => session.resume_delivery().await,
        Operation::PauseTeam => session.pause_team(team, String::new()).await.map(drop),
        Operation::ResumeTeam => session.resume_team(team).await,
        Operation::DeleteTeam => session.delete_team(team, true).await.map(drop),
        Operation::PauseEndpoint => session.pause_endpoint(team, "https://a.example", String::new()).await.map(drop),
        Operation::ResumeEndpoint => session.resume_endpoint(team, "https://a.example").await.map(drop),
        Operation::Teams => session.teams(None, 1).await.map(drop),
        Operation::Team => session.team(team).await.map(drop),
        Operation::CreateTeam => session.create_team("", nothing(), None).await.map(drop),
        Operation::UpdateTeam => session.update_team(team, nothing(), true).await.map(drop),
        Operation::CheckTeam => session.check_team(team, None, Mode::Test).await.map(drop),
        Operation::SwitchAuth => {
            let switch = Switch { to: AuthForm::Hmac, origin: None, url: None };
            session.switch_auth(team, switch).await.map(drop)
        }
        Operation::Keys => session.keys(team).await.map(drop),
        Operation::CreateKey => {
            let new = NewKey { kind: KeyKind::Hmac, mode: Mode::Live, given: None };
            session.create_key(team, new, None).await.map(drop)
        }
        Operation::PromoteKey => session.promote_key(team, key, None).await.map(drop),
        Operation::RevokeKey => session.revoke_key(team, key, false).await.map(drop),
        Operation::RevealKey => session.reveal_key(team, key).await.map(drop),
        Operation::Callbacks => session.callbacks(CallbackFilter::default(), None, page()).await.map(drop),
        Operation::Callback => session.callback("cb_none").await.map(drop),
        Operation::Attempts => session.attempts("cb_none").await.map(drop),
        Operation::Payload => session.payload("cb_none").await.map(drop),
        Operation::RetryCallback => session.retry_callback("cb_none").await.map(drop),
        Operation::ResendCallback => session.resend_callback("cb_none", Default::default()).await.map(drop),
        Operation::CancelCallback => session.cancel_callback("cb_none").await.map(drop),
        Operation::RetryCallbacks => session.retry_callbacks(no_pending()).await.map(drop),
        Operation::CancelCallbacks => session.cancel_callbacks(no_pending()).await.map(drop),
        Operation::PreviewResend => session.preview_resend(CallbackFilter::default(), None).await.map(drop),
        Operation::CreateResend => {
            let nowhere = ResendForm { allow_new_origin: true, ..ResendForm::default() };
            let filter = CallbackFilter::default();
            let new = NewResend { filter, endpoint: None, form: nowhere, rate: None, at_most: 0 };
            session.create_resend(new, None).await.map(drop)
        }
        Operation::Resends => session.resends(None, 1).await.map(drop),
        Operation::Resend => session.resend("rs_none").await.map(drop),
        Operation::PauseResend => session.pause_resend("rs_none").await.map(drop),
        Operation::ResumeResend => session.resume_resend("rs_none", None).await.map(drop),
        Operation::CancelResend => session.cancel_resend("rs_none").await.map(drop),
        Operation::Task => session.task("none").await.map(drop),
        Operation::DeadLetters => session.dead_letters(DeadLetterFilter::default(), page()).await.map(drop),
        Operation::DeadLetter => session.dead_letter("dl_none").await.map(drop),
        Operation::ResendDeadLetter => session.resend_dead_letter("dl_none").await.map(drop),
        Operation::DiscardDeadLetter => session.discard_dead_letter("dl_none").await.map(drop),
        Operation::Endpoints => session.endpoints(EndpointFilter::default(), None, 1).await.map(drop),
        Operation::Endpoint => session.endpoint(team, "https://a.example").await.map(drop),
        Operation::RetryEndpoint => session.retry_endpoint(team, "https://a.example").await.map(drop),
        Operation::Tokens => session.tokens().await.map(drop),
        Operation::CreateToken => {
            let new = NewToken {
                name: String::new(),
                scope: Rights::default(),
                valid_for: Some(Duration::from_secs(60)),
                teams: Vec::new(),
            };
            session.create_token(new, None).await.map(drop)
        }
        Operation::RevokeToken => session.revoke_token("tok_none").await.map(drop),
        Operation::Audit => session.audit(AuditFilter::default(), None, 1).await.map(drop),
    }
}

/// There is no such topic.
fn no_partition() -> ResetAsk {
    let topic = Some("no-topic".to_owned());
    ResetAsk { topic, partition: Some(0), to: ResetTo::Offset(0), at_most: 0, dry_run: false }
}

/// There is no pending callback.
fn no_pending() -> Which {
    Which { filter: CallbackFilter::default(), endpoint: None, at_most: 0, before: None }
}

fn kinds() -> Vec<Rights> {
    let read_secrets = Rights::READ.and(Rights::SECRETS);
    vec![Rights::default(), Rights::READ, Rights::OPERATE, Rights::SECRETS, read_secrets, Rights::ALL]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_asks_the_policy_whoever_calls() {
    let harness = Harness::start().await;
    let audited = async || harness.session().audit(AuditFilter::default(), None, 1).await.unwrap()[0].id;
    let before = audited().await;
    // The requests name the team "team_nobody".
    let limits = [TeamLimit::All, TeamLimit::of([TEAM.to_owned()]), TeamLimit::of(["team_nobody".to_owned()])];
    for (rights, teams) in kinds().into_iter().flat_map(|rights| limits.clone().map(|teams| (rights, teams))) {
        let caller = Caller { teams: teams.clone(), ..Caller::operator("walker", "test", rights) };
        let session = harness.app().ops.as_caller(&caller);
        for operation in Operation::ALL {
            let answer = ask(&session, *operation).await;
            let denied = match &answer {
                Err(OpsError::Forbidden(denied)) => Some(denied.clone()),
                _ => None,
            };
            let operation = *operation;
            let expected = match operation.subject() {
                _ if !rights.has(operation.needs()) => Some(Denied::Lacks { operation, has: rights }),
                Subject::Installation if teams != TeamLimit::All => Some(Denied::Installation { operation }),
                Subject::Team if !teams.includes("team_nobody") => Some(Denied::Team { operation }),
                _ => None,
            };
            assert_eq!(denied, expected, "{rights:?} {teams:?} {operation:?}: {answer:?}");
        }
    }
    let session = harness.app().ops.as_caller(&Caller::unix_user(1000));
    for operation in Operation::ALL {
        let answer = ask(&session, *operation).await;
        assert!(!matches!(answer, Err(OpsError::Forbidden(_))), "{operation:?}: {answer:?}");
    }
    assert_eq!(audited().await, before, "nothing was changed");
}

/// The public functions of every `impl Session`, with their first statement.
fn operations_of(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for block in text.split("\nimpl Session {\n").skip(1) {
        let block = block.split("\n}\n").next().unwrap();
        for function in block.split("\n    pub ").chain(block.strip_prefix("    pub ")).skip(1) {
            let name = function.split('(').next().unwrap().to_owned();
            let body = function.split_once("{\n").map_or("", |(_, body)| body);
            found.push((name, body.lines().next().unwrap_or_default().trim().to_owned()));
        }
    }
    found
}

#[test]
fn every_function_of_a_session_asks_first() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // The folders hold tests.
        if path.is_dir() {
            continue;
        }
        for (name, first) in operations_of(&std::fs::read_to_string(&path).unwrap()) {
            // The function that tells the time is not an operation.
            if name == "fn now" {
                continue;
            }
            seen += 1;
            let asks = first.strip_prefix("self.allow(Operation::").map(|rest| (rest, false));
            let asks = asks.or_else(|| first.strip_prefix("self.allow_team(Operation::").map(|rest| (rest, true)));
            let (rest, names_a_team) =
                asks.unwrap_or_else(|| panic!("{}: {name} begins with: {first}", path.display()));
            let variant = rest.split([',', ')']).next().unwrap();
            let operation = Operation::ALL.iter().find(|operation| format!("{operation:?}") == variant).unwrap();
            assert_eq!(names_a_team, operation.subject() == Subject::Team, "{}: {name}: {first}", path.display());
        }
    }
    assert_eq!(seen, Operation::ALL.len(), "each operation has one function");
    let broken = "\nimpl Session {\n    /// It forgets.\n    pub async fn keys(&self) -> R {\n        self.inner.keys()\n    }\n}\n";
    assert_eq!(operations_of(broken), [("async fn keys".to_owned(), "self.inner.keys()".to_owned())]);
}

#[test]
fn no_handler_of_the_api_holds_the_daemon_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/routes");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for holder in ["State(", "Extension("] {
            assert!(!text.contains(holder), "{} takes more than a session", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_of_the_api_refuses_whoever_lacks_the_right() {
    let (harness, api) = started().await;
    // The ids do not exist: whether a caller may ask does not depend on what exists.
    let names = ["key", "pending", "letter", "token", "resend", "origin", "url"];
    let ids: BTreeMap<_, _> = names.into_iter().map(|name| (name, "none".to_owned())).collect();
    let mut callers = vec![(None, api.with("")), (None, api.with(format!("cbt_{}", "0".repeat(64))))];
    for rights in kinds().into_iter().filter(|rights| *rights != Rights::default()) {
        callers.push((Some(rights), api.with(harness.token(rights).await)));
    }
    let socket = Remote::Unix(harness.app().api_socket.clone());
    for (method, path, right, _) in operations() {
        let needed = Right::parse(&right).unwrap_or_else(|| panic!("{method} {path} names the right {right:?}"));
        let (_, _, uri, body) = request(&ids, &method, &path);
        let (method, uri) = (method.to_uppercase(), format!("/admin/v1{uri}"));
        for (rights, caller) in &callers {
            let answer = caller.send(&method, &uri, &[], &body).await;
            let expected = match rights {
                None => Some(401),
                Some(rights) if !rights.has(needed) => Some(403),
                Some(_) => None,
            };
            let refused = Some(answer.status).filter(|status| [401, 403].contains(status));
            assert_eq!(refused, expected, "{method} {uri} as {rights:?}: {}", answer.json);
        }
        let answer = send(&socket, &method, &uri, &body).await;
        assert!(![401, 403].contains(&answer.status), "{method} {uri} over the socket: {}", answer.json);
    }
}

fn request(ids: &BTreeMap<&str, String>, method: &str, path: &str) -> (String, String, String, String) {
    let found = requests(ids).into_iter().find(|(m, p, ..)| *m == method && *p == path);
    let (method, path, uri, body) = found.unwrap_or_else(|| panic!("no request for {method} {path}"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    (method.to_owned(), path.to_owned(), uri, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_away_a_right_that_they_lack_and_secrets_alone_reveal() {
    let (harness, api) = started().await;
    let operator = api.with(harness.token(Rights::OPERATE).await);
    let count = async |api: &Api| api.get("/tokens").await.json["docs"].as_array().unwrap().len();
    let before = count(&api).await;
    let new = |scope: &str| json!({ "name": "more", "scope": scope }).to_string();
    for scope in ["secrets", "operate secrets", "read secrets"] {
        let answer = operator.send("POST", "/admin/v1/tokens", &[], &new(scope)).await;
        assert_eq!((answer.status, &answer.json["code"]), (403, &Value::from("forbidden")), "{}", answer.json);
        assert!(answer.json["detail"].as_str().unwrap().contains("\"secrets\""), "{}", answer.json);
    }
    assert_eq!(count(&api).await, before, "no token was created");
    for scope in ["read", "operate", "read operate"] {
        assert_eq!(operator.send("POST", "/admin/v1/tokens", &[], &new(scope)).await.status, 201, "{scope}");
    }
    let everything = api.send("POST", "/admin/v1/tokens", &[], &new("secrets operate")).await;
    assert_eq!((everything.status, &everything.json["scope"]), (201, &Value::from("operate secrets")));

    // A caller who may create a key sees the value of this key, and of no other.
    let keys = format!("/admin/v1/teams/{TEAM}/keys");
    let created = operator.send("POST", &keys, &[], r#"{"kind":"signing","mode":"live"}"#).await;
    assert!(created.json["value"].as_str().is_some_and(|value| value.starts_with("whsec_")), "{}", created.json);
    let reveal = format!("{keys}/{}/reveal", created.json["key_id"].as_str().unwrap());
    let refused = operator.send("POST", &reveal, &[], "{}").await;
    assert_eq!(refused.status, 403, "{}", refused.json);
    let detail = refused.json["detail"].as_str().unwrap();
    assert_eq!(detail, "to reveal the value of a key the right \"secrets\" is needed; this caller's rights: operate");
    let auditor = api.with(harness.token(Rights::SECRETS).await);
    assert_eq!(auditor.send("POST", &reveal, &[], "{}").await.json["value"], created.json["value"]);
}

/// A store of the previous version with its keyring, opened by this version, and its token of the scope `operate`.
async fn older_store(folder: &Path, servers: &str) -> (App, Api) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-0003");
    let (keyring, store) = (folder.join("keyring"), folder.join("store"));
    std::fs::copy(fixture.join("keyring"), &keyring).unwrap();
    std::fs::set_permissions(&keyring, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::create_dir(&store).unwrap();
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::copy(fixture.join("callbackd.db"), store.join("callbackd.db")).unwrap();
    // Its tokens must be valid until this test ends.
    let database = rusqlite::Connection::open(store.join("callbackd.db")).unwrap();
    database.execute("UPDATE token SET expires_at = 9999999999999", []).unwrap();
    drop(database);
    let mut settings = settings(folder, servers);
    settings.retain(|(name, _)| name != "CALLBACKD_API__LISTEN");
    settings.push(("CALLBACKD_API__LISTEN".to_owned(), "127.0.0.1:0".to_owned()));
    let app = App::start(config(&settings), LogLevel::none()).await.unwrap();
    let token = std::fs::read_to_string(fixture.join("token.operate")).unwrap().trim().to_owned();
    let address = app.api_address.expect("there is a token");
    (app, Api { address, token })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_version_before_may_do_what_it_could_but_reveal_keys() {
    let broker = Broker::start(TOPIC, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (app, api) = older_store(folder.path(), &broker.servers).await;
    let keys = api.get(&format!("/teams/{TEAM}/keys")).await.json;
    let key = keys["docs"][0]["key_id"].as_str().unwrap();
    let tokens = api.get("/tokens").await.json;
    let scopes: Vec<_> = tokens["docs"].as_array().unwrap().iter().map(|token| token["scope"].clone()).collect();
    assert_eq!(scopes, ["operate", "read"]);
    let path = format!("/admin/v1/teams/{TEAM}/keys/{key}");
    assert_eq!(api.send("POST", &format!("{path}/reveal"), &[], "{}").await.status, 403);
    assert_eq!(api.send("PATCH", &format!("/admin/v1/teams/{TEAM}"), &[], r#"{"retries":3}"#).await.status, 200);
    let revealed = app.ops.as_caller(&Caller::unix_user(0)).reveal_key(TEAM, key).await;
    assert!(revealed.is_ok(), "the key can still be opened: {:?}", revealed.err());
    app.stop().await.unwrap();
}
