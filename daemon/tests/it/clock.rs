//! The wall clock jumps, under the real binary. Only the wall clock is faked: the boot-time clock and the monotonic one go
//! on as they are.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{TEAM, until};
use crate::kafka::{create_topic, events, produce, shared_broker};
use crate::process::{Process, closed_url};

const CALLBACKS: u64 = 200;

/// The wall clock of a process.
struct WallClock {
    library: String,
    file: PathBuf,
}

impl WallClock {
    fn new(folder: &std::path::Path) -> Self {
        let listed = Command::new("dpkg").args(["-L", "libfaketime"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let library = listed.lines().find(|line| line.ends_with("libfaketimeMT.so.1"));
        let library = library.expect("libfaketime is installed; say: make test").to_owned();
        let clock = Self { library, file: folder.join("wall-clock") };
        clock.set("+0");
        clock
    }

    fn set(&self, offset: &str) {
        // The process reads the file at any moment, so it is replaced whole.
        let next = self.file.with_extension("next");
        std::fs::write(&next, offset).unwrap();
        std::fs::rename(&next, &self.file).unwrap();
    }

    fn variables(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

async fn counts(process: &Process) -> Option<(u64, u64)> {
    let status = process.json(&["status"]);
    Some((status["pending"].as_u64()?, status["exhausted"].as_u64()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_ends_nothing() {
    let servers = shared_broker();
    create_topic(&servers, "clock", 1).await;
    let mut process = Process::new(&servers, "clock", "[retry]\nfirst = \"1h\"\nhorizon = \"24h\"\n");
    let wall = WallClock::new(process.folder.path());
    process.variables = wall.variables();
    process.start(None, "info").await;
    process.team(TEAM);
    produce(&servers, "clock", 1, &events(0, CALLBACKS, &closed_url()));
    until("all have failed once", async || (counts(&process).await? == (CALLBACKS, 0)).then_some(())).await;

    // While it runs, far ahead and back again.
    wall.set("+25h");
    until("it is noticed", async || {
        let (status, page) = process.page("/readyz").await?;
        (status == 503 && page.contains("ahead of the store's clock")).then_some(())
    })
    .await;
    until("it is told and measured", async || {
        let told = process.log_text().contains("the wall clock is away from the store's clock");
        let distance = process.metric("callbackd_clock_distance_seconds").await?;
        (told && distance > 89_000.0).then_some(())
    })
    .await;
    assert_eq!(counts(&process).await, Some((CALLBACKS, 0)));
    wall.set("+0");
    until("it is over", async || (process.page("/readyz").await?.0 == 200).then_some(())).await;
    assert_eq!(counts(&process).await, Some((CALLBACKS, 0)));
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());

    // At the start far ahead: each callback is due and fails once more, but none ends.
    wall.set("+25h");
    process.start(None, "info").await;
    until("all have failed again", async || {
        let listed = process.json(&["callbacks", "list", "--limit", "200"]);
        let attempts = |doc: &serde_json::Value| doc["attempts"].as_u64().is_some_and(|attempts| attempts >= 2);
        listed["docs"].as_array()?.iter().all(attempts).then_some(())
    })
    .await;
    assert_eq!(counts(&process).await, Some((CALLBACKS, 0)), "{}", process.log_text());
    let told = "nothing ends and nothing is pruned until a new record confirms the clock";
    until("it is told", async || process.log_text().contains(told).then_some(())).await;
    wall.set("+0");
    until("the times are taken back", async || {
        process.log_text().contains("the store's clock was set back").then_some(())
    })
    .await;
    assert_eq!(counts(&process).await, Some((CALLBACKS, 0)));
    let within_a_day = callbackd::base::clock::Clock::now(&callbackd::base::clock::SystemClock)
        .plus(std::time::Duration::from_secs(86_400))
        .to_string();
    // The status looks at the backlog once a second.
    until("all are due within a day", async || {
        let due = process.json(&["status"])["oldest_due"].as_str()?.to_owned();
        (due < within_a_day).then_some(())
    })
    .await;

    // At the start behind the store: certain, so it waits for an operator.
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
    wall.set("-3h");
    process.start(None, "info").await;
    until("it is not ready", async || {
        let (status, page) = process.page("/readyz").await?;
        (status == 503 && page.contains("behind the store's clock")).then_some(())
    })
    .await;
    let accepted = process.json(&["clock", "accept"]);
    assert!(accepted["set_back_seconds"].as_u64().unwrap() >= 3 * 3_600 - 60, "{accepted}");
    until("it is ready", async || (process.page("/readyz").await?.0 == 200).then_some(())).await;
    assert_eq!(counts(&process).await, Some((CALLBACKS, 0)));
    process.signal("TERM");
    assert_eq!(process.ended().await, 0, "{}", process.log_text());
}
