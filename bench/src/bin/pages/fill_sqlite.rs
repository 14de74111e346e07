//! Fills a store on SQLite with rows, in the order of their ids. No daemon may have it open.

use std::ops::Range;
use std::path::Path;

use rusqlite::{Connection, Transaction, params};
use scale_callback::samples::Seed;

use super::filled::{self, ENDPOINTS_A_TEAM, Filled, NUMBERS, TEAMS};

/// Rows of one transaction, so that the log of writes stays small.
const CHUNK: u64 = 200_000;

pub(crate) async fn fill(file: &Path, filled: Filled) -> anyhow::Result<()> {
    let mut connection = Connection::open(file)?;
    // Until the end, nobody relies on what is written here.
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "cache_size", -262_144)?;
    names(&connection)?;
    for from in (0..filled.rows).step_by(usize::try_from(CHUNK)?) {
        let transaction = connection.transaction()?;
        rows(&transaction, filled, from..(from + CHUNK).min(filled.rows))?;
        transaction.commit()?;
        // A run that takes too long is given up here.
        tokio::task::yield_now().await;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    drop(connection);
    std::fs::File::open(file)?.sync_all()?;
    Ok(())
}

/// The partition and the queues that the rows name.
fn names(connection: &Connection) -> anyhow::Result<()> {
    connection.execute(
        "INSERT INTO partition_offsets (id, cluster, topic, partition, watermark, seen_upto, epoch, moved_at)
         VALUES (?1, 'filled', 'filled', 0, 0, 0, 0, 0)",
        [NUMBERS],
    )?;
    let mut insert = connection.prepare("INSERT INTO queue (id, team, target, used_at) VALUES (?1, ?2, ?3, ?4)")?;
    for team in 0..TEAMS {
        for endpoint in 0..ENDPOINTS_A_TEAM {
            let number = NUMBERS + team * ENDPOINTS_A_TEAM + endpoint;
            insert.execute(params![number, filled::team(team), filled::target(endpoint), filled::now()])?;
        }
    }
    Ok(())
}

/// How a callback ended.
struct End {
    state: &'static str,
    reason: Option<&'static str>,
    attempts: u64,
    status: Option<u16>,
    outcome: &'static str,
}

impl End {
    fn of(seed: &mut Seed) -> Self {
        let delivered =
            |attempts| Self { state: "delivered", reason: None, attempts, status: Some(200), outcome: "ok" };
        match seed.below(20) {
            0 => Self { state: "exhausted", reason: None, attempts: 3, status: Some(503), outcome: "server_error" },
            1 => {
                let reason = if seed.below(2) == 0 { "url_invalid" } else { "address_denied" };
                Self { state: "abandoned", reason: Some(reason), attempts: 1, status: None, outcome: reason }
            }
            2 => delivered(2),
            _ => delivered(1),
        }
    }

    /// Whether its attempts have rows. The first attempt has none if it delivered the callback.
    fn has_attempts(&self) -> bool {
        self.state != "delivered" || self.attempts > 1
    }
}

fn rows(transaction: &Transaction<'_>, filled: Filled, range: Range<u64>) -> anyhow::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO settled (id, partition_id, off, record_at, team, task, event_id, event_type, queue, test,
             content_hash, builder, state, reason, attempts, status, outcome, round, first_at, settled_at, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'task.completed', ?8, 0, ?9, 1, ?10, ?11, ?12, ?13, ?14, 0, ?4, ?15, 1)",
    )?;
    for n in range {
        let mut seed = Seed::new(n);
        let (at, id) = (filled.at(n), filled.id(n));
        let (team, endpoint) = (seed.below(TEAMS), seed.below(ENDPOINTS_A_TEAM));
        let end = End::of(&mut seed);
        let mut hash = [0_u8; 32];
        hash.chunks_mut(8).for_each(|part| part.copy_from_slice(&seed.next_u64().to_be_bytes()));
        // As long as the ids of real events.
        let event_id = format!("{:036x}", u128::from_be_bytes(id));
        insert.execute(params![
            id,
            NUMBERS,
            n,
            at,
            filled::team(team),
            filled::task(n).as_bytes(),
            event_id.as_bytes(),
            NUMBERS + team * ENDPOINTS_A_TEAM + endpoint,
            hash,
            end.state,
            end.reason,
            end.attempts,
            end.status,
            end.outcome,
            at + (end.attempts - 1) * 10_000,
        ])?;
        if end.has_attempts() {
            attempts(transaction, id, at, &end)?;
        }
    }
    Ok(())
}

/// All attempts but the last of a delivered callback failed.
fn attempts(transaction: &Transaction<'_>, id: [u8; 16], at: u64, end: &End) -> anyhow::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO attempt (id, n, round, outcome, sent, status, begun_at, ms, peer, redialed, snippet)
         VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, 20, NULL, 0, ?7)",
    )?;
    for n in 1..=end.attempts {
        let (outcome, status) = if n == end.attempts { (end.outcome, end.status) } else { ("server_error", Some(503)) };
        let snippet: &[u8] = if status == Some(503) { b"unavailable" } else { b"" };
        insert.execute(params![id, n, outcome, status.is_some(), status, at + (n - 1) * 10_000, snippet])?;
    }
    Ok(())
}
