//! The rows of queues, as a batch changes them.

use deadpool_postgres::GenericClient as _;

use super::super::cells::{Table, Uuid, rows_of};
use super::super::error::PostgresError;
use super::super::numbers::USE_NOTED;
use super::super::transaction::Tx;
use crate::base::clock::Timestamp;
use crate::store::queue_changes::QueueChanges;

/// Locks these queues, and those of the pending rows of these callbacks: a round may wait in another one than its callback did.
pub(super) async fn lock(transaction: &Tx<'_>, mut queues: Vec<i64>, ids: &[Uuid]) -> Result<(), PostgresError> {
    let sql = "SELECT queue FROM pending WHERE id = ANY($1) AND round > 0";
    let statement = transaction.prepare_cached(sql).await?;
    for row in transaction.query(&statement, &[&ids]).await? {
        queues.push(row.try_get(0)?);
    }
    queues.sort_unstable();
    queues.dedup();
    let sql = "SELECT id FROM queue WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.query(&statement, &[&queues]).await?;
    Ok(())
}

/// Next times come earlier, and bytes are added.
pub(super) async fn raise(transaction: &Tx<'_>, changes: &QueueChanges) -> Result<(), PostgresError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut table = Table::<3>::new();
    for (queue, due, bytes) in changes.iter() {
        table.push([queue.into(), due.into(), bytes.into()]);
    }
    let sql = format!(
        "UPDATE queue SET next_at = CASE WHEN new.due IS NULL THEN next_at ELSE least(next_at, new.due) END,
                          parked_bytes = greatest(0, parked_bytes + new.bytes)
         FROM ({}) AS new WHERE queue.id = new.id",
        rows_of("id bigint, due bigint, bytes bigint")
    );
    let statement = transaction.prepare_cached(&sql).await?;
    transaction.execute(&statement, &table.values()).await?;
    Ok(())
}

/// A settled row that changed keeps its queue for as long as itself.
pub(super) async fn note_use(transaction: &Tx<'_>, queues: &[i64], now: Timestamp) -> Result<(), PostgresError> {
    if queues.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE queue SET used_at = $2 WHERE id = ANY($1) AND used_at < $3";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &[&queues, &now.millis(), &now.minus(USE_NOTED).millis()]).await?;
    Ok(())
}
