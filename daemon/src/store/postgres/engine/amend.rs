//! An operator's change of one callback. Its rows are read before the transaction for the numbers that they need, and again
//! under locks.

use deadpool_postgres::Object;

use super::super::cells::Uuid;
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::transaction::{Tx, commit};
use super::rows::{self, Locking, RowNumbers, SettledTable};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment, amend as decide};
use crate::model::callback::CallbackId;
use crate::model::settlement::{Pending, Settled};

pub(super) async fn amend(
    store: &PostgresStore,
    client: &mut Object,
    id: CallbackId,
    amendment: Amendment,
    now: Timestamp,
) -> Result<Amended, PostgresError> {
    let seen = rows::load_one(client, &store.numbers, id).await?;
    let Some(pending) = &seen.pending else { return Ok(decide(&seen, amendment, now).1) };
    let partition = store.numbers.partition(client, &pending.facts.record.partition).await?;
    let partition = partition.ok_or(PostgresError::Corrupt("a row names a partition that is not there"))?;
    let numbers = RowNumbers { partition, queue: store.numbers.queue(client, &pending.facts.queue, now).await? };
    let transaction = client.transaction().await?;
    // The queue comes before its rows, as everywhere.
    let lock = transaction.prepare_cached("SELECT id FROM queue WHERE id = $1 FOR UPDATE").await?;
    transaction.query(&lock, &[&numbers.queue]).await?;
    let mut locked = rows::load(&transaction, &store.numbers, &[id.into()], Locking::Update).await?;
    let before = locked.remove(&id).transpose().map_err(PostgresError::Corrupt)?.unwrap_or_default();
    let (after, amended) = decide(&before, amendment, now);
    if amended == Amended::Changed {
        match (&after.settled, &after.pending) {
            (Some(settled), _) => end(&transaction, settled, numbers).await?,
            (None, Some(pending)) => make_due(&transaction, pending, numbers).await?,
            (None, None) => {}
        }
    }
    commit(transaction).await?;
    Ok(amended)
}

async fn make_due(transaction: &Tx<'_>, pending: &Pending, numbers: RowNumbers) -> Result<(), PostgresError> {
    let due = pending.due.millis();
    let statement = transaction.prepare_cached("UPDATE pending SET due = $2 WHERE id = $1").await?;
    transaction.execute(&statement, &[&Uuid::from(pending.facts.id), &due]).await?;
    let statement = transaction.prepare_cached("UPDATE queue SET next_at = least(next_at, $2) WHERE id = $1").await?;
    transaction.execute(&statement, &[&numbers.queue, &due]).await?;
    Ok(())
}

/// What it ends is counted with the store, because it belongs to no instance's batch.
async fn end(transaction: &Tx<'_>, settled: &Settled, numbers: RowNumbers) -> Result<(), PostgresError> {
    let id = Uuid::from(settled.facts.id);
    let mut table = SettledTable::new();
    table.push(settled, numbers);
    table.replace(transaction).await?;
    let statement = transaction.prepare_cached("DELETE FROM pending WHERE id = $1").await?;
    transaction.execute(&statement, &[&id]).await?;
    let sql = "DELETE FROM body WHERE id = $1 RETURNING octet_length(bytes)::bigint";
    let statement = transaction.prepare_cached(sql).await?;
    let freed: i64 = match transaction.query_opt(&statement, &[&id]).await? {
        Some(row) => row.try_get(0)?,
        None => 0,
    };
    let sql = "UPDATE queue SET parked_bytes = greatest(0, parked_bytes - $2) WHERE id = $1";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &[&numbers.queue, &freed]).await?;
    let statement = transaction.prepare_cached("UPDATE store SET abandoned = abandoned + 1").await?;
    transaction.execute(&statement, &[]).await?;
    Ok(())
}
