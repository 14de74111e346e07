//! How long a page of 50 callbacks takes on a store with a million settled ones while callbackd delivers at half its
//! speed, by what is asked for, and how much the reading slows delivery down.
//!
//! Run it with `make bench-pages`. All processes share this machine.

#![allow(clippy::print_stdout, reason = "it prints a report")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use callbackd_bench::broker::Broker;
use callbackd_bench::load::{self, Daemon, Source};
use http::{HeaderMap, Method};
use rusqlite::{Connection, params};
use scale_callback::samples::Seed;
use scale_callback_serve::client::{Remote, call};

const ROWS: u64 = 1_000_000;
const TEAMS: u64 = 50;
const ENDPOINTS_A_TEAM: u64 = 4;
const FULL: u64 = 60_000;
const PHASE: Duration = Duration::from_secs(20);
/// The time between the oldest and the newest row: less than rows are kept for. The newest one is from now.
const SPAN: u64 = 20 * 86_400_000;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("receiver") {
        return runtime.block_on(load::receiver());
    }
    runtime.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let (_receiver, address) = load::start_receiver()?;
    let broker = Broker::start(&load::kafka_libs())?;
    let mut source = Source::start(&broker.servers(), address).await?;
    let (folder, binary) = (tempfile::tempdir()?, load::binary()?);
    anyhow::ensure!(load::keyring(&binary, folder.path())?, "the keyring was not created");
    let idle = Daemon::start(&binary, folder.path(), "127.0.0.1:9")?;
    idle.team(&binary).await?;
    drop(idle);
    let begun = Instant::now();
    fill(&folder.path().join("store/callbackd.db"))?;
    println!("{ROWS} settled rows were written in {:.0?}", begun.elapsed());

    source.produce(FULL)?;
    let daemon = Daemon::start(&binary, folder.path(), &broker.servers())?;
    let full = load::rate(address, 0, FULL).await?;
    println!("full speed              {full:>8.0} /s");
    let half = (full / 2.0) as u64;
    let alone = paced(&mut source, address, half).await?;
    println!("half speed, alone       {alone:>8.0} /s  (wanted {half})");
    let api = Remote::Unix(daemon.socket.clone());
    let asking = tokio::spawn(ask(api));
    let asked = paced(&mut source, address, half).await?;
    let pages = asking.await??;
    println!(
        "half speed, with pages  {asked:>8.0} /s  ({} pages in {PHASE:?})",
        pages.iter().map(|(_, t)| t.len()).sum::<usize>()
    );
    println!("kept                    {:>8.2}", asked / alone);
    println!("{:<28} {:>7} {:>9} {:>9} {:>10}", "page of 50 by", "pages", "median ms", "p95 ms", "longest ms");
    for (kind, mut times) in pages {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        println!("{kind:<28} {:>7} {:>9.1} {:>9.1} {:>10.1}", times.len(), at(0.5), at(0.95), at(1.0));
    }
    drop(daemon);
    Ok(())
}

/// Produces at a pace for a phase. Answers how many deliveries a second there were, those of the second after it
/// included.
async fn paced(source: &mut Source, address: SocketAddr, pace: u64) -> anyhow::Result<f64> {
    let before = load::count(address).await?;
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < PHASE {
        let wanted = (begun.elapsed().as_secs_f64() * pace as f64) as u64;
        while sent < wanted {
            source.send()?;
            sent += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let done = load::count(address).await? - before;
    Ok(done as f64 / took.as_secs_f64())
}

type Times = Vec<(&'static str, Vec<Duration>)>;

/// Asks for one page after another, of each kind in turn, for a phase. The first page of each kind is not measured.
async fn ask(api: Remote) -> anyhow::Result<Times> {
    let mut times: Times = Vec::new();
    let begun = Instant::now();
    let mut n = 0_u64;
    while begun.elapsed() < PHASE {
        n += 1;
        for (kind, path) in questions(&api, n).await? {
            let asked = Instant::now();
            let answer = get(&api, &path).await?;
            let took = asked.elapsed();
            let docs = answer["docs"].as_array().map_or(1, Vec::len);
            anyhow::ensure!(docs > 0 && answer["code"].is_null(), "{path}: {answer}");
            let place = times.iter().position(|(known, _)| *known == kind);
            let place = place.unwrap_or_else(|| {
                times.push((kind, Vec::new()));
                times.len() - 1
            });
            if n > 1 {
                times[place].1.push(took);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(times)
}

async fn questions(api: &Remote, n: u64) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut seed = Seed::new(n);
    let team = format!("team_{}", seed.below(TEAMS));
    let origin = format!("https%3A%2F%2Fr{}.example%3A443", seed.below(ENDPOINTS_A_TEAM));
    let since = rfc3339(now() - seed.below(SPAN));
    let some = get(api, "/callbacks?state=exhausted&limit=1").await?;
    let id = some["docs"][0]["callback_id"].as_str().unwrap_or_default().to_owned();
    Ok(vec![
        ("callback id", format!("/callbacks/{id}")),
        ("task", format!("/callbacks?task={:024x}", seed.below(ROWS))),
        ("time", format!("/callbacks?until={since}")),
        ("state", "/callbacks?state=exhausted".to_owned()),
        ("reason", "/callbacks?reason=url_invalid".to_owned()),
        ("team, not delivered", format!("/callbacks?team={team}&state=exhausted")),
        ("endpoint, not delivered", format!("/callbacks?team={team}&endpoint={origin}&state=abandoned")),
        ("team, any state (a scan)", format!("/callbacks?team={team}")),
    ])
}

#[expect(clippy::disallowed_methods, reason = "the rows must be of the last days whenever this runs")]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn rfc3339(millis: u64) -> String {
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    // The well-known algorithm that turns a number of days into a date. It is right for this century.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

async fn get(api: &Remote, path: &str) -> anyhow::Result<serde_json::Value> {
    let path = format!("/admin/v1{path}");
    let answer = call(api, Method::GET, &path, HeaderMap::new(), Bytes::new(), Duration::from_secs(20)).await?;
    Ok(serde_json::from_slice(&answer.body)?)
}

/// Writes a million callbacks that ended. Nine in ten were delivered, and the others were exhausted or abandoned.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut connection = Connection::open(file)?;
    let transaction = connection.transaction()?;
    transaction.execute(
        "INSERT INTO partition_offsets (id, cluster, topic, partition, watermark, seen_upto, epoch, moved_at)
         VALUES (1000, 'filled', 'filled', 0, 0, 0, 0, 0)",
        [],
    )?;
    for team in 0..TEAMS {
        for endpoint in 0..ENDPOINTS_A_TEAM {
            transaction.execute(
                "INSERT INTO queue (id, team, target) VALUES (?1, ?2, ?3)",
                params![
                    1000 + team * ENDPOINTS_A_TEAM + endpoint,
                    format!("team_{team}"),
                    format!("https://r{endpoint}.example:443")
                ],
            )?;
        }
    }
    let mut insert = transaction.prepare(
        "INSERT INTO settled (id, partition_id, off, record_at, team, task, event_type, queue, test, content_hash, builder,
             state, reason, attempts, status, outcome, round, first_at, settled_at, revision)
         VALUES (?1, 1000, ?2, ?3, ?4, ?5, 'task.completed', ?6, 0, zeroblob(32), 1, ?7, ?8, 1, 200, ?9, 0, ?3, ?3, 1)",
    )?;
    let newest = now();
    for n in 0..ROWS {
        let mut seed = Seed::new(n);
        let at = newest - SPAN + n * (SPAN / ROWS);
        let mut id = [0_u8; 16];
        id[..6].copy_from_slice(&at.to_be_bytes()[2..]);
        id[8..].copy_from_slice(&seed.next_u64().to_be_bytes());
        let (team, endpoint) = (seed.below(TEAMS), seed.below(ENDPOINTS_A_TEAM));
        let (state, reason, outcome) = match seed.below(20) {
            0 => ("exhausted", None, "server_error"),
            1 => {
                ("abandoned", Some(if seed.below(2) == 0 { "url_invalid" } else { "address_denied" }), "address_denied")
            }
            _ => ("delivered", None, "ok"),
        };
        let queue = 1000 + team * ENDPOINTS_A_TEAM + endpoint;
        let task = format!("{n:024x}");
        insert.execute(params![id, n, at, format!("team_{team}"), task.as_bytes(), queue, state, reason, outcome])?;
    }
    drop(insert);
    transaction.commit()?;
    Ok(())
}
