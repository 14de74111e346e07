//! Keys rotate while callbacks are sent: no callback is refused, and no change takes longer than promised. And the
//! switch to another form.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use callbackd_bench::recorder::{Recorder, Rule};
use scale_callback::receiver::{Handler, Received, Reply};
use scale_callback_auth::{Credential, Mode, Verifier};
use scale_callback_serve::server::Listener;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::harness::{TEAM, until};
use crate::kafka::{create_topic, produce, shared_broker};
use crate::process::Process;

/// After this time a changed key is used, or not used any more. It includes an attempt that was under way.
const WINDOW: Duration = Duration::from_millis(1_000 + 500);

/// A receiver with its own verifier. It keeps each request and its time.
struct Watched {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<(Instant, Received)>>>,
    _stop: watch::Sender<bool>,
}

impl Watched {
    async fn start(verifier: Verifier) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = Arc::clone(&seen);
        let handler: Handler = Arc::new(move |received| {
            kept.lock().unwrap().push((Instant::now(), received.clone()));
            Reply::status(204)
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(scale_callback::receiver::run(Listener::Tcp(listener), verifier, handler, stopped));
        Self { address, seen, _stop: stop }
    }
}

/// Whether a request verifies with this one key.
fn verifies(credential: &Credential, received: &Received) -> bool {
    let time = received.headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    Verifier::new(credential.clone()).verify_at(&received.headers, &received.body, time).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_each_kind_rotate_under_load_and_no_callback_is_refused() {
    let servers = shared_broker();
    create_topic(&servers, "rotation", 4).await;
    let mut process = Process::new(&servers, "rotation", "[retry]\nretries = 0\n");
    process.start(None, "info").await;
    let hmac_team = "team_hmac";
    process.team(TEAM);
    process.json(&["teams", "create", hmac_team, "--auth-form", "hmac"]);
    let made = |team: &str, kind: &str| {
        let made = process.json(&["keys", "create", "--team", team, "--kind", kind, "--mode", "live"]);
        (made["key_id"].as_str().unwrap().to_owned(), made["value"].as_str().unwrap().to_owned())
    };
    let first_id = |team: &str, kind: &str| {
        let keys = process.json(&["keys", "list", "--team", team]);
        let keys = keys["docs"].as_array().unwrap().clone();
        let first = keys.iter().find(|key| key["kind"] == kind && key["mode"] == "live" && key["state"] == "active");
        first.unwrap()["key_id"].as_str().unwrap().to_owned()
    };
    let signed = |secret: &str| Credential::signed("one", Mode::Live, secret).unwrap();
    let keyed = |key: &str| Credential::static_key_authenticates_no_body("one", key).unwrap();
    let hmac = |key: &str| Credential::hmac_header("one", key).unwrap();
    // For each kind, the old key and the new key, each as a credential of its own.
    let (old_signing, old_auth) = (process.key(TEAM, "signing"), process.key(TEAM, "callback-auth"));
    let old_hmac = process.key(hmac_team, "hmac");
    let kinds: Vec<(&str, &str, String, String, Credential, Credential)> = [
        (TEAM, "signing", old_signing.clone()),
        (TEAM, "callback-auth", old_auth.clone()),
        (hmac_team, "hmac", old_hmac.clone()),
    ]
    .into_iter()
    .map(|(team, kind, old)| {
        let old_id = first_id(team, kind);
        let (new_id, new) = made(team, kind);
        let of = |key: &str| match kind {
            "signing" => signed(key),
            "callback-auth" => keyed(key),
            _ => hmac(key),
        };
        (team, kind, old_id, new_id, of(&old), of(&new))
    })
    .collect();
    // A customer's receiver that has the old and the new keys.
    let value = |id: &str, team: &str| {
        process.json(&["keys", "reveal", id, "--team", team])["value"].as_str().unwrap().to_owned()
    };
    let new_signing = value(&kinds[0].3, TEAM);
    let new_auth = value(&kinds[1].3, TEAM);
    let new_hmac = value(&kinds[2].3, hmac_team);
    let mut verifier = Verifier::new(Credential::signed_and_keyed("a", &old_signing, &old_auth).unwrap());
    for (secret, key) in [(&old_signing, &new_auth), (&new_signing, &old_auth), (&new_signing, &new_auth)] {
        verifier = verifier.or_credential(Credential::signed_and_keyed("a", secret, key).unwrap());
    }
    verifier = verifier.or_credential(hmac(&old_hmac)).or_credential(hmac(&new_hmac));
    let receiver = Watched::start(verifier).await;

    // The load: 40 events every 50 ms, half of them for each team, until all keys have changed.
    let (stop, mut stopped) = watch::channel(false);
    let url = format!("http://{}/", receiver.address);
    let load = tokio::spawn({
        let servers = servers.clone();
        async move {
            let mut sent = 0_u32;
            while !*stopped.borrow() {
                let events: Vec<_> = (0..40)
                    .map(|n| {
                        let (task, team) = (format!("t{}", sent + n), if n % 2 == 0 { TEAM } else { "team_hmac" });
                        let value =
                            format!(r#"{{"team_id":"{team}","task":{{"task_id":"{task}","callback_url":"{url}"}}}}"#);
                        (task, value)
                    })
                    .collect();
                let servers = servers.clone();
                tokio::task::spawn_blocking(move || produce(&servers, "rotation", 4, &events)).await.unwrap();
                sent += 40;
                drop(tokio::time::timeout(Duration::from_millis(50), stopped.changed()).await);
            }
            sent
        }
    });
    until("callbacks flow", async || (receiver.seen.lock().unwrap().len() > 100).then_some(())).await;
    let mut changes = Vec::new();
    for (team, kind, old_id, new_id, ..) in &kinds {
        process.json(&["keys", "promote", new_id, "--team", team]);
        let promoted = Instant::now();
        tokio::time::sleep(WINDOW * 2).await;
        process.json(&["keys", "revoke", old_id, "--team", team]);
        let revoked = Instant::now();
        tokio::time::sleep(WINDOW * 2).await;
        changes.push((*kind, promoted, revoked));
    }
    stop.send_replace(true);
    let sent = load.await.unwrap();
    until("everything came", async || {
        (receiver.seen.lock().unwrap().len() >= usize::try_from(sent).unwrap()).then_some(())
    })
    .await;

    let seen = receiver.seen.lock().unwrap();
    let refused: Vec<_> = seen.iter().filter_map(|(_, received)| received.verdict.as_ref().err()).collect();
    assert!(refused.is_empty(), "{} of {} were refused: {refused:?}", refused.len(), seen.len());
    for ((team, kind, .., old, new), (_, promoted, revoked)) in kinds.iter().zip(&changes) {
        // Only requests of the key's team count.
        let of_team = |received: &Received| {
            (received.headers["scale-callback-auth"].as_bytes().starts_with(b"t=")) == (*team == "team_hmac")
        };
        let own: Vec<_> = seen.iter().filter(|(_, received)| of_team(received)).collect();
        let late_old = own.iter().filter(|(at, received)| *at > *revoked + WINDOW && verifies(old, received)).count();
        assert_eq!(late_old, 0, "{kind}: the old one is used after it was revoked");
        let late_new = own.iter().filter(|(at, received)| *at > *promoted + WINDOW && !verifies(new, received)).count();
        assert_eq!(late_new, 0, "{kind}: the new one is not used though it was promoted");
        let before = own.iter().filter(|(at, received)| *at < *promoted - WINDOW && verifies(new, received)).count();
        assert_eq!(before, 0, "{kind}: the new one was used before it was promoted");
        let after = own.iter().filter(|(at, received)| *at > *revoked + WINDOW && verifies(new, received)).count();
        assert!(after > 20, "{kind}: callbacks flowed to the end: {after}");
    }
    // Every callback was delivered by its first attempt.
    let exhausted = process.json(&["callbacks", "list", "--state", "exhausted"]);
    assert_eq!(exhausted["docs"].as_array().unwrap().len(), 0, "{exhausted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_the_form_is_tried_first_and_changes_nothing_where_the_receiver_is_not_ready() {
    let servers = shared_broker();
    create_topic(&servers, "switch", 1).await;
    let mut process = Process::new(&servers, "switch", "");
    process.start(None, "info").await;
    let (signing, auth) = process.team(TEAM);
    let of = |kind: &str, mode: &str| process.key_of(TEAM, kind, mode);
    let (test_signing, test_auth) = (of("signing", "test"), of("callback-auth", "test"));
    let (hmac, test_hmac) = (of("hmac", "live"), of("hmac", "test"));
    let keyed = |secret: &str, key: &str| Credential::signed_and_keyed("a", secret, key).unwrap();
    let rule: Rule = Arc::new(|_, _| Reply::status(204));
    let old = Verifier::new(keyed(&signing, &auth)).or_credential(keyed(&test_signing, &test_auth));
    let not_ready = Recorder::start(old.clone(), Arc::clone(&rule)).await.unwrap();
    let hmac_header = |key: &str| Credential::hmac_header("a", key).unwrap();
    let ready = Recorder::start(old.or_credential(hmac_header(&hmac)).or_credential(hmac_header(&test_hmac)), rule)
        .await
        .unwrap();
    // This receiver accepts everything.
    let credulous = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let make = |_| {
            hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                drop(scale_callback_serve::body::whole(request.into_body(), 1 << 20).await);
                Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
            })
        };
        tokio::spawn(scale_callback_serve::server::serve(
            Listener::Tcp(listener),
            scale_callback_serve::server::Limits::default(),
            make,
            stopped,
        ));
        (address, stop)
    };
    let form = || process.json(&["teams", "get", TEAM]);
    let switch = |more: &[&str]| {
        let output = process.cli(&[&["--json", "teams", "switch-auth", TEAM], more].concat());
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        (output.status.code(), serde_json::from_slice::<serde_json::Value>(&text).unwrap())
    };
    process.json(&["teams", "update", TEAM, "--default-url", &not_ready.url("/")]);
    let (status, answer) = switch(&["--to", "hmac"]);
    assert_eq!((status, answer["switched"].as_bool()), (Some(1), Some(false)), "{answer}");
    assert!(
        answer["result"].as_str().unwrap().contains("the receiver did not accept a valid test callback"),
        "{answer}"
    );
    let (status, answer) = switch(&["--to", "hmac", "--url", &format!("http://{}/", credulous.0)]);
    assert_eq!(status, Some(1), "{answer}");
    assert!(answer["result"].as_str().unwrap().contains("so it verifies nothing"), "{answer}");
    assert_eq!((form()["auth_form"].as_str(), form()["origin_forms"].as_array().unwrap().len()), (Some("key"), 0));

    // First one origin is switched, then the team.
    let origin = format!("http://{}", ready.address);
    let (status, answer) = switch(&["--to", "hmac", "--origin", &origin]);
    assert_eq!(status, Some(2), "the default URL is not there: {answer}");
    let (status, answer) = switch(&["--to", "hmac", "--origin", &origin, "--url", &ready.url("/x")]);
    assert_eq!((status, answer["switched"].as_bool()), (Some(0), Some(true)), "{answer}");
    assert_eq!(answer["forged"]["steps"].as_array().unwrap().last().unwrap()["outcome"], "client_error");
    assert_eq!(form()["origin_forms"][0]["auth_form"], "hmac");
    assert_eq!(form()["auth_form"], "key");
    process.json(&["teams", "update", TEAM, "--default-url", &ready.url("/")]);
    let (status, answer) = switch(&["--to", "hmac"]);
    assert_eq!(status, Some(0), "{answer}");
    assert_eq!(switch(&["--to", "hmac"]).0, Some(2), "it is sent already");
    assert_eq!(form()["auth_form"], "hmac");
    let audit = process.json(&["audit", "list"]).to_string();
    assert_eq!(audit.matches("team.switch_auth").count(), 2, "{audit}");
    assert!(audit.contains("key -> hmac"), "{audit}");

    // A callback is sent in the new form.
    let task = ("switched".to_owned(), format!(r#"{{"team_id":"{TEAM}","task":{{"task_id":"switched"}}}}"#));
    produce(&servers, "switch", 1, &[task]);
    let receipt =
        until("it came", async || ready.receipts().into_iter().find(|receipt| receipt.task_id == "switched")).await;
    assert!(receipt.headers["scale-callback-auth"].to_str().unwrap().starts_with("t="));
    // Without a promoted key of that form, nothing can be tried.
    let key = process.json(&["keys", "list", "--team", TEAM]);
    let key =
        key["docs"].as_array().unwrap().iter().find(|key| key["kind"] == "callback-auth" && key["mode"] == "test");
    process.json(&["keys", "revoke", key.unwrap()["key_id"].as_str().unwrap(), "--team", TEAM, "--force"]);
    let (status, answer) = switch(&["--to", "key"]);
    assert_eq!((status, answer["code"].as_str()), (Some(2), Some("key_state")), "{answer}");
}
