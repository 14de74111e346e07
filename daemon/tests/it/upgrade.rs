//! Stores that earlier versions wrote, and versions that run together. Each fixture was written by the released binary of its
//! schema, with a real Kafka: `callbacks list` of that binary is the expectation here. A fixture is never changed. The next version is
//! this one with a fault switch, which gives it one more migration.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

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

use crate::harness::{PATIENCE, TEAM, config, settings, until};
use crate::postgres;
use crate::process::{BINARY, Process};
use crate::processes::World;

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

/// The next version, whose migration is additive, and the next version, whose migration older ones can't bear.
const NEXT: &str = "next-schema";
const NEXT_ALONE: &str = "next-schema-alone";

/// Statements in the database of this URL.
fn sql(url: &str, statements: &str) -> String {
    postgres::server().sql(url.rsplit('/').next().unwrap(), statements).unwrap()
}

/// The schema's number and the oldest writer.
fn schema(url: &str) -> (u64, u64) {
    let found = sql(url, "SELECT version, oldest_writer FROM schema_version");
    let (version, oldest) = found.split_once('|').unwrap();
    (version.parse().unwrap(), oldest.parse().unwrap())
}

/// `callbackd migrate` of the version that this switch makes.
fn migrate(daemon: &Process, fault: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["migrate", "--config"]).arg(daemon.config()).env("CALLBACKD_FAULT", fault).output().unwrap()
}

/// A stop in order, and a start as this version or as the one that a switch makes.
async fn restart(daemon: &mut Process, fault: Option<&str>) {
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log_text());
    daemon.start(fault, "info").await;
}

async fn says(daemon: &Process, what: &str) {
    until(&format!("the log says: {what}"), async || daemon.log_text().contains(what).then_some(())).await;
}

/// Waits until the daemon knows that older versions work on its store, too, or that none does.
async fn sees_older(daemon: &Process, wanted: bool) {
    until(&format!("it sees older versions: {wanted}"), async || {
        let log = daemon.log_text();
        let sees = log.rfind("older callbackd work on this store, too") > log.rfind("no older callbackd works on this");
        (sees == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_versions_share_a_store_and_either_delivers() {
    let url = postgres::database();
    let mut world = World::on(url.clone(), "versions", Duration::ZERO).await;
    world.join("two").await;
    world.shared_by(0, 2).await;
    let (version, oldest) = schema(&url);
    world.produce(0, 60);

    // The store is migrated while both run.
    let done = migrate(&world.daemons[1], NEXT);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(schema(&url), (version + 1, oldest), "older programs may write");
    world.produce(60, 60);
    world.all_arrive(120).await;

    // One is upgraded. It writes nothing that the other one can't read.
    restart(&mut world.daemons[1], Some(NEXT)).await;
    world.shared_by(0, 2).await;
    sees_older(&world.daemons[1], true).await;
    world.produce(120, 60);
    world.all_arrive(180).await;

    // The older version may be started on the newer store, too.
    restart(&mut world.daemons[0], None).await;
    world.shared_by(1, 2).await;
    sees_older(&world.daemons[1], true).await;
    world.produce(180, 60);
    world.all_arrive(240).await;
    assert_eq!(sql(&url, "SELECT count(*) FROM settled WHERE builder > 1"), "0");

    // When the last older one is gone, the newer one may do what it knows.
    world.daemons[0].signal("TERM");
    assert_eq!(world.daemons[0].ended().await, 0, "{}", world.daemons[0].log_text());
    sees_older(&world.daemons[1], false).await;
    world.shared_by(1, 1).await;
    world.produce(240, 30);
    world.all_arrive(270).await;
    until("they are recorded", async || {
        (sql(&url, "SELECT count(*) FROM settled WHERE builder = 2") == "30").then_some(())
    })
    .await;
    assert!(world.repeats().is_empty(), "{:?}", world.repeats());
    let left = sql(&url, "SELECT count(*) FROM pending");
    assert_eq!(left, "0");
}

#[tokio::test]
async fn what_only_the_newer_version_can_send_waits_for_it() {
    let url = postgres::database();
    let mut world = World::on(url.clone(), "left-for-newer", Duration::ZERO).await;
    restart(&mut world.daemons[0], Some(NEXT)).await;
    until("its API answers", async || world.daemons[0].cli(&["teams", "list"]).status.success().then_some(())).await;
    // What a paused team gets waits in the store.
    world.daemons[0].json(&["teams", "pause", TEAM, "--reason", "upgrade"]);
    world.produce(0, 20);
    until("they wait", async || {
        (sql(&url, "SELECT count(*) FROM pending WHERE builder = 2 AND token IS NULL") == "20").then_some(())
    })
    .await;

    // The older version passes over them, says so once, and sends what comes after them.
    restart(&mut world.daemons[0], None).await;
    until("its API answers", async || world.daemons[0].cli(&["teams", "list"]).status.success().then_some(())).await;
    world.daemons[0].json(&["teams", "resume", TEAM]);
    let passed_over = "callbackd_rows_set_aside_total{reason=\"unknown_builder\"}";
    until("it passes over them twice", async || (world.daemons[0].metric(passed_over).await? >= 2.0).then_some(()))
        .await;
    world.produce(20, 20);
    world.all_arrive(20).await;
    assert_eq!(world.daemons[0].log_text().matches("callbacks wait for a newer callbackd").count(), 1);
    assert_eq!(sql(&url, "SELECT count(*) FROM pending WHERE builder = 2"), "20");

    restart(&mut world.daemons[0], Some(NEXT)).await;
    world.all_arrive(40).await;
    assert!(world.repeats().is_empty(), "{:?}", world.repeats());
}

#[tokio::test]
async fn a_migration_that_older_versions_can_not_bear_waits_for_their_end() {
    let url = postgres::database();
    let mut world = World::on(url.clone(), "raised", Duration::ZERO).await;
    world.join("blue").await;
    world.shared_by(0, 2).await;
    let before = schema(&url);
    let refused = migrate(&world.daemons[0], NEXT_ALONE);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("migration pretended waits until these older callbackd have ended"), "{said}");
    assert!(said.contains("\"blue\" on ") && said.contains(&format!(", schema {})", before.0)), "{said}");

    // One that is upgraded waits and says why, and the other one goes on.
    restart(&mut world.daemons[1], Some(NEXT_ALONE)).await;
    until("it says why it waits", async || {
        let (status, page) = world.daemons[1].page("/readyz").await?;
        (status == 503 && page.contains("waits until these older callbackd have ended")).then_some(())
    })
    .await;
    assert_eq!(schema(&url), before);
    world.produce(0, 60);
    world.all_arrive(60).await;

    // When the last older one has ended, the newer one migrates the store and delivers.
    world.daemons[0].signal("TERM");
    assert_eq!(world.daemons[0].ended().await, 0, "{}", world.daemons[0].log_text());
    let raised = (before.0 + 1, before.0 + 1);
    until("the store is migrated", async || (schema(&url) == raised).then_some(())).await;
    world.produce(60, 60);
    world.all_arrive(120).await;
    assert!(world.repeats().is_empty(), "{:?}", world.repeats());

    // An older one is refused from now on, and does not start again and again.
    world.daemons[0].spawn(None, "info");
    assert_eq!(world.daemons[0].ended().await, 2, "{}", world.daemons[0].log_text());
    says(&world.daemons[0], &format!("it needs one that knows schema {}", before.0 + 1)).await;
}

#[tokio::test]
async fn a_process_that_a_migration_has_left_behind_gives_up_and_ends() {
    let url = postgres::database();
    let mut world = World::on(url.clone(), "left-behind", Duration::ZERO).await;
    world.produce(0, 30);
    world.all_arrive(30).await;
    // As a migration would do that took it for gone.
    sql(&url, "UPDATE schema_version SET version = 99, oldest_writer = 99");
    let daemon = &mut world.daemons[0];
    assert_eq!(daemon.ended().await, 2, "{}", daemon.log_text());
    let log = daemon.log_text();
    assert!(
        log.contains("this instance gives everything up") && log.contains("it needs one that knows schema 99"),
        "{log}"
    );
}
