//! Stores that earlier versions wrote. Each fixture was written by the released binary of its schema, with a real Kafka:
//! `callbacks list` of that binary is the expectation here. A fixture is never changed.

use std::path::Path;

use callbackd::app::App;
use callbackd::base::telemetry::LogLevel;
use callbackd::demo::broker::Broker;
use callbackd::model::permission::Rights;
use callbackd::model::settlement::Ended;
use callbackd::model::team::{KeyKind, Mode};
use callbackd::ops::Caller;
use callbackd::ops::teams::TeamChange;
use callbackd::store::reads::{CallbackFilter, DeadLetterFilter, Page};
use callbackd_bench::recorder::Recorder;
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{PATIENCE, config, settings, until};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// The store of a fixture in a folder of its own, with the keyring that seals its keys.
fn unpack(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = Path::new(FIXTURES).join(fixture);
    std::fs::create_dir(folder.path().join("store")).unwrap();
    std::fs::copy(from.join("callbackd.db"), folder.path().join("store/callbackd.db")).unwrap();
    std::fs::copy(from.join("keyring"), folder.path().join("keyring")).unwrap();
    restrict(&folder.path().join("keyring"));
    folder
}

/// A keyring that others may read is refused.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn all() -> Page {
    Page { before: None, limit: 100 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_schema_3_opens_and_delivers() {
    let folder = unpack("store-0003");
    let broker = Broker::start("tasks.events", 2).unwrap();
    let mut settings = settings(folder.path(), &broker.servers);
    // The fixture's settled callbacks are kept, however old they are.
    settings.push(("CALLBACKD_RETENTION__SETTLED".to_owned(), "36500d".to_owned()));
    let app = App::start(config(&settings), LogLevel::none()).await.unwrap();
    let session = app.ops.as_caller(&Caller::at_the_store("test"));

    // What had ended stands as it was.
    let of_task = async |task: &str| {
        let filter = CallbackFilter { task: Some(task.to_owned()), ..CallbackFilter::default() };
        app.reads().callbacks(filter, all()).await.unwrap().docs
    };
    for n in 1..=3 {
        let found = of_task(&format!("delivered-{n}")).await;
        let settled = found[0].1.settled.as_ref().expect("it had ended");
        assert_eq!((found.len(), settled.ended, settled.attempts), (1, Ended::Delivered, 1));
        assert_eq!(&*settled.facts.team, "team_globex");
    }
    let abandoned = of_task("abandoned").await;
    assert_eq!(abandoned[0].1.settled.as_ref().unwrap().ended.name(), "abandoned");
    let letters = app.reads().dead_letters(DeadLetterFilter::default(), all()).await.unwrap().docs;
    let mut reasons: Vec<_> = letters.iter().map(|letter| letter.letter.reason.name()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["not_json", "unknown_team"]);

    // What was pending is delivered under the keys of then, once its team's URL is mended.
    let value = async |kind: KeyKind| {
        let keys = session.keys("team_acme").await.unwrap();
        let key = keys.iter().find(|key| key.kind == kind && key.mode == Mode::Live).unwrap();
        session.reveal_key("team_acme", &key.id).await.unwrap().to_string()
    };
    let (secret, key) = (value(KeyKind::Signing).await, value(KeyKind::CallbackAuth).await);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let receiver = Recorder::start(verifier, std::sync::Arc::new(|_, _| Reply::status(204))).await.unwrap();
    let mended = TeamChange { default_url: Some(Some(receiver.url("/mended"))), ..TeamChange::default() };
    session.update_team("team_acme", mended, true).await.unwrap();
    assert!(receiver.until(PATIENCE, |receipts| receipts.len() == 4).await, "{} came", receiver.count());
    assert!(receiver.refused().is_empty());
    for n in 1..=4 {
        let task = format!("pending-{n}");
        let settled = until("it is settled", async || of_task(&task).await.pop()?.1.settled).await;
        assert_eq!(settled.ended, Ended::Delivered);
        assert!(settled.attempts >= 2, "the attempts of then still count: {}", settled.attempts);
    }

    // Tokens of then may do what they could, but reveal no keys.
    let tokens = session.tokens().await.unwrap();
    let mut scopes: Vec<_> = tokens.iter().map(|token| (token.name.as_str(), token.scope)).collect();
    scopes.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(scopes, [("dashboards", Rights::READ), ("operators", Rights::OPERATE)]);
    app.stop().await.unwrap();
}
