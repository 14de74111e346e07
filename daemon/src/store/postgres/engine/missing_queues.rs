//! Queues that pending rows name and that have no row. Nothing would ever claim from them. No write should leave such rows behind, but a
//! mistake may, or a repair by hand, and `store verify` only tells of them.

use super::super::cells::Uuid;
use super::super::error::PostgresError;
use super::super::transaction::Tx;
use crate::base::clock::Timestamp;
use crate::model::team::Mode;
use crate::store::QueueOf;

/// So many queues are made at once, and so many rows are moved. The next sweep goes on.
pub(super) const AT_ONCE: usize = 100;
const ROWS: i64 = 10_000;

/// A queue whose row was missing.
pub(super) struct Made {
    /// The number that pending rows name.
    named: i64,
    /// The number of the queue that they belong to: another one if the queue was made anew meanwhile.
    pub(super) number: i64,
}

/// Makes the rows of these queues again. Which queue it is follows from any pending row, as when the callback was read.
pub(super) async fn make(
    transaction: &Tx<'_>,
    missing: &[i64],
    queue_of: QueueOf,
    now: Timestamp,
) -> Result<Vec<Made>, PostgresError> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT DISTINCT ON (queue) queue, team, url, test FROM pending
               WHERE queue = ANY($1) AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.id = pending.queue) ORDER BY queue";
    let mut made = Vec::new();
    for row in transaction.query(sql, &[&missing]).await? {
        let (named, team): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
        let url = row.try_get::<_, Option<&[u8]>>(2)?.map(String::from_utf8_lossy);
        let mode = if row.try_get(3)? { Mode::Test } else { Mode::Live };
        let key = queue_of(&team.into(), url.as_deref(), mode);
        let target = key.target.name();
        let sql = "INSERT INTO queue (id, team, target, used_at) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4)
                   ON CONFLICT DO NOTHING";
        transaction.execute(sql, &[&named, &&*key.team, &target, &now.millis()]).await?;
        let sql = "SELECT id FROM queue WHERE team = $1 AND target = $2";
        let found = transaction.query_opt(sql, &[&&*key.team, &target]).await?;
        let Some(number) = found.map(|row| row.try_get(0)).transpose()? else { continue };
        tracing::warn!(queue = named, number, team, endpoint = %target, "callbacks waited in a queue without a row");
        made.push(Made { named, number });
    }
    Ok(made)
}

/// Rows whose queue has another number are moved to it. Its row is locked.
pub(super) async fn move_rows(transaction: &Tx<'_>, made: &[Made]) -> Result<(), PostgresError> {
    let moved = made.iter().filter(|made| made.named != made.number);
    let (named, numbers): (Vec<i64>, Vec<i64>) = moved.map(|made| (made.named, made.number)).unzip();
    if named.is_empty() {
        return Ok(());
    }
    let sql = "SELECT pending.id, moved.number FROM pending
               JOIN unnest($1::bigint[], $2::bigint[]) AS moved (named, number) ON pending.queue = moved.named
               ORDER BY pending.id LIMIT $3 FOR UPDATE OF pending SKIP LOCKED";
    let mut rows: (Vec<Uuid>, Vec<i64>) = (Vec::new(), Vec::new());
    for row in transaction.query(sql, &[&named, &numbers, &ROWS]).await? {
        rows.0.push(row.try_get(0)?);
        rows.1.push(row.try_get(1)?);
    }
    let sql = "UPDATE pending SET queue = moved.number FROM unnest($1::uuid[], $2::bigint[]) AS moved (id, number)
               WHERE pending.id = moved.id";
    transaction.execute(sql, &[&rows.0, &rows.1]).await?;
    Ok(())
}
