//! A daemon on SQLite is moved to PostgreSQL under traffic: nothing is lost, nothing is repeated, and the old store refuses a start.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use callbackd_bench::recorder::{Recorder, Rule};
use scale_callback::receiver::Reply;
use scale_callback_auth::{Credential, Verifier};

use crate::harness::{PAUSE, TEAM, until};
use crate::kafka::{by_task, create_topic, events, produce, shared_broker};
use crate::postgres;
use crate::process::{BINARY, Process, run};

const TOPIC: &str = "moved";
const PARTITIONS: i32 = 2;
/// One event of so many fails at its first attempt.
const FAILS: u64 = 16;

/// Starts `store copy` to this database.
fn copy(daemon: &Process, to: &str, more: &[&str]) -> Child {
    let mut command = Command::new(BINARY);
    command.args(["--json", "store", "copy", "--to", to, "--config"]).arg(daemon.config()).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a copy that must succeed. Returns its answer.
fn ended(mut copy: Child) -> serde_json::Value {
    let (mut out, mut errors) = (String::new(), String::new());
    copy.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    if let Some(mut stderr) = copy.stderr.take() {
        stderr.read_to_string(&mut errors).unwrap();
    }
    assert!(copy.wait().unwrap().success(), "{errors}");
    serde_json::from_str(&out).unwrap()
}

/// Waits until a copy says that the daemon must stop.
fn says_stop(copy: &mut Child) {
    let mut line = String::new();
    BufReader::new(copy.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("Stop the daemon now"), "{line}");
}

/// Ends the traffic, also where the test fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn number(task: &str) -> u64 {
    u64::from_str_radix(task, 16).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_moves_to_postgresql_under_traffic_and_nothing_is_lost_or_repeated() {
    let servers = shared_broker();
    create_topic(&servers, TOPIC, PARTITIONS).await;
    let mut daemon = Process::with_store(&servers, TOPIC, "", "[retry]\nfirst = \"2s\"\n");
    daemon.start(None, "info").await;
    let (secret, key) = daemon.team(TEAM);
    let verifier = Verifier::new(Credential::signed_and_keyed("acme", &secret, &key).unwrap());
    let rule: Rule = Arc::new(|received, before| {
        let task = received.verdict.as_ref().map(|facts| facts.task_id.clone());
        let fails = before == 0 && task.is_ok_and(|task| number(&task).is_multiple_of(FAILS));
        Reply::status(if fails { 503 } else { 204 })
    });
    let receiver = Recorder::start(verifier, rule).await.unwrap();

    // Events come all the time.
    let (sent, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let stop = Stop(Arc::clone(&stopped));
    let traffic = {
        let (sent, stopped, servers, url) =
            (Arc::clone(&sent), Arc::clone(&stopped), servers.clone(), receiver.url("/"));
        tokio::task::spawn_blocking(move || {
            while !stopped.load(Ordering::SeqCst) {
                let first = sent.load(Ordering::SeqCst);
                produce(&servers, TOPIC, PARTITIONS, &events(first, 20, &url));
                sent.store(first + 20, Ordering::SeqCst);
                std::thread::sleep(PAUSE);
            }
        })
    };
    until("many arrived", async || (receiver.count() > 300).then_some(())).await;

    let to = postgres::database();
    let ahead = tokio::task::block_in_place(|| ended(copy(&daemon, &to, &[])));
    assert_eq!((&ahead["finished"], ahead["rows"].as_u64() > Some(300)), (&false.into(), true), "{ahead}");
    // It waits for the end of the daemon, and can be interrupted.
    let mut interrupted = copy(&daemon, &to, &["--finish"]);
    tokio::task::block_in_place(|| says_stop(&mut interrupted));
    assert!(Command::new("kill").args(["-INT", &interrupted.id().to_string()]).status().unwrap().success());
    let output = tokio::task::block_in_place(|| interrupted.wait_with_output()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(130) && said.contains("the copy goes on"), "{said}");
    let mut last = copy(&daemon, &to, &["--finish"]);
    tokio::task::block_in_place(|| says_stop(&mut last));

    let begun = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log_text());
    let finished = tokio::task::block_in_place(|| ended(last));
    assert_eq!((&finished["finished"], &finished["store_id"]), (&true.into(), &ahead["store_id"]), "{finished}");
    let config = daemon.config().display().to_string();
    let sealed = run(&["run", "--config", &config], &[]);
    let refusal = String::from_utf8_lossy(&sealed.stderr).into_owned();
    assert!(sealed.status.code() == Some(2) && refusal.contains("is sealed"), "{refusal}");
    daemon.edit("url = \"\"", &format!("url = \"{to}\""));
    daemon.start(None, "info").await;
    until("it is ready", async || (daemon.page("/readyz").await?.0 == 200).then_some(())).await;
    let stood = begun.elapsed();
    println!(
        "from SIGTERM until the daemon was ready on PostgreSQL: {stood:?}; locked: {} s",
        finished["locked_seconds"]
    );
    assert!(stood < Duration::from_secs(60), "{stood:?}");

    // What comes after the move is delivered, too.
    let before = sent.load(Ordering::SeqCst);
    until("more came", async || (sent.load(Ordering::SeqCst) > before + 200).then_some(())).await;
    drop(stop);
    traffic.await.unwrap();
    let count = sent.load(Ordering::SeqCst);
    let expected = usize::try_from(count + count.div_ceil(FAILS)).unwrap();
    until("all arrived", async || (receiver.count() >= expected).then_some(())).await;
    until("all are settled", async || (daemon.metric("callbackd_unsettled").await == Some(0.0)).then_some(())).await;
    let tasks = by_task(&receiver.receipts());
    assert_eq!(tasks.len() as u64, count, "nothing is lost");
    for (task, receipts) in &tasks {
        let wanted = if number(task).is_multiple_of(FAILS) { 2 } else { 1 };
        assert_eq!(receipts.len(), wanted, "{task} was repeated: {}", daemon.log_text());
    }
    assert!(receiver.refused().is_empty(), "{:?}", receiver.refused());
    // The history came along.
    let first = daemon.json(&["callbacks", "list", "--task", &format!("{:024x}", 1)]);
    assert_eq!(first["docs"][0]["state"], "delivered", "{first}");
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log_text());
    let verified = run(&["store", "verify", "--config", &config], &[]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
