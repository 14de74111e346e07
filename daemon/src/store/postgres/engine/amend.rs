//! An operator's change of one callback. Its rows are read before the transaction for the numbers that they need, and again
//! under locks.

use bytes::Bytes;
use deadpool_postgres::Object;

use super::super::cells::Uuid;
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::transaction::Tx;
use super::kept::{self, KeptChanges};
use super::rows::{self, Locking, PendingTable, QueuesRead, RowNumbers, SettledTable};
use crate::base::clock::Timestamp;
use crate::model::amendment::{Amended, Amendment, amend as decide};
use crate::model::callback::CallbackId;
use crate::model::endpoint::QueueKey;
use crate::model::lease::Facts;
use crate::model::settlement::{Pending, Rows};

pub(super) async fn amend(
    store: &PostgresStore,
    client: &mut Object,
    id: CallbackId,
    amendment: &Amendment,
    now: Timestamp,
) -> Result<Amended, PostgresError> {
    let seen = rows::load_one(client, &store.numbers, id).await?;
    let settled = seen.settled.as_ref().map(|row| &row.facts);
    let Some(facts) = settled.or(seen.pending.as_ref().map(|row| &row.facts)) else {
        return Ok(decide(&seen, amendment, now).1);
    };
    let numbers = Numbers::of(store, client, facts, &seen, amendment, now).await?;
    let transaction = client.transaction().await?;
    // Queues come before their rows, as everywhere.
    let lock = transaction.prepare_cached("SELECT id FROM queue WHERE id = ANY($1) ORDER BY id FOR UPDATE").await?;
    transaction.query(&lock, &[&numbers.queues()]).await?;
    let mut locked =
        rows::load(&transaction, &store.numbers, &[id.into()], Locking::Update, &mut QueuesRead::new()).await?;
    let before = locked.remove(&id).transpose().map_err(PostgresError::Corrupt)?.unwrap_or_default();
    let (after, amended) = decide(&before, amendment, now);
    if amended != Amended::Changed {
        return Ok(amended);
    }
    let body = match amendment {
        Amendment::Resend(resend) => resend.body.clone(),
        Amendment::RetryNow => Bytes::new(),
        Amendment::Cancel => kept::body(&transaction, id).await?.unwrap_or_default(),
    };
    write(&transaction, &numbers, (&before, &after), &body).await?;
    let mut kept = KeptChanges::default();
    kept.follow(store.keeping, id, (&before, &after), &body);
    if before.settled.is_none() && after.settled.is_some() {
        // It is counted with the store, because it belongs to no instance's batch.
        let statement = transaction.prepare_cached("UPDATE store SET abandoned = abandoned + 1").await?;
        transaction.execute(&statement, &[]).await?;
    }
    kept.write(&transaction, store.keeping).await?;
    store.commit(transaction).await?;
    Ok(amended)
}

/// The numbers that the rows need.
struct Numbers {
    partition: i64,
    /// The queues of the rows as they were seen, and that of a round.
    known: Vec<(QueueKey, i64)>,
}

impl Numbers {
    async fn of(
        store: &PostgresStore,
        client: &Object,
        facts: &Facts,
        seen: &Rows,
        amendment: &Amendment,
        now: Timestamp,
    ) -> Result<Self, PostgresError> {
        let partition = store.numbers.partition(client, &facts.record.partition).await?;
        let partition = partition.ok_or(PostgresError::Corrupt("a row names a partition that is not there"))?;
        let mut keys = vec![facts.queue.clone()];
        keys.extend(seen.pending.as_ref().map(|row| row.facts.queue.clone()));
        if let Amendment::Resend(resend) = amendment {
            keys.push(resend.queue.clone());
        }
        let mut known = Vec::with_capacity(keys.len());
        for key in keys {
            let number = store.numbers.queue(client, &key, now).await?;
            known.push((key, number));
        }
        Ok(Self { partition, known })
    }

    fn queues(&self) -> Vec<i64> {
        self.known.iter().map(|(_, number)| *number).collect()
    }

    /// Rows that changed meanwhile may have another queue; then nothing happens, and it can be asked for again.
    fn of_row(&self, facts: &Facts) -> Result<RowNumbers, PostgresError> {
        let queue = self.known.iter().find(|(key, _)| *key == facts.queue).map(|(_, number)| *number);
        let queue = queue.ok_or_else(|| PostgresError::Refused("the callback changed meanwhile".to_owned()))?;
        Ok(RowNumbers { partition: self.partition, queue })
    }
}

async fn write(
    transaction: &Tx<'_>,
    numbers: &Numbers,
    (before, after): (&Rows, &Rows),
    body: &Bytes,
) -> Result<(), PostgresError> {
    if let Some(settled) = after.settled.as_ref().filter(|row| Some(*row) != before.settled.as_ref()) {
        let mut table = SettledTable::new();
        table.push(settled, numbers.of_row(&settled.facts)?);
        table.replace(transaction).await?;
    }
    // A void row makes way for the row of a round, with its body.
    let live = before.live();
    if let Some(gone) = before.pending.as_ref().filter(|_| live.is_none() || after.pending.is_none()) {
        delete(transaction, gone, numbers.of_row(&gone.facts)?).await?;
    }
    match &after.pending {
        Some(pending) => {
            put(transaction, pending, numbers.of_row(&pending.facts)?, live.is_none().then_some(body)).await
        }
        None => Ok(()),
    }
}

async fn delete(transaction: &Tx<'_>, pending: &Pending, numbers: RowNumbers) -> Result<(), PostgresError> {
    let id = Uuid::from(pending.facts.id);
    let statement = transaction.prepare_cached("DELETE FROM pending WHERE id = $1").await?;
    transaction.execute(&statement, &[&id]).await?;
    let sql = "DELETE FROM body WHERE id = $1 RETURNING octet_length(bytes)::bigint";
    let statement = transaction.prepare_cached(sql).await?;
    if let Some(row) = transaction.query_opt(&statement, &[&id]).await? {
        add_bytes(transaction, numbers.queue, row.try_get::<_, i64>(0)?.saturating_neg()).await?;
    }
    Ok(())
}

/// Writes a row that is due, with its body if it is new.
async fn put(
    transaction: &Tx<'_>,
    pending: &Pending,
    numbers: RowNumbers,
    body: Option<&Bytes>,
) -> Result<(), PostgresError> {
    let mut table = PendingTable::new();
    table.push(pending, numbers);
    table.replace(transaction).await?;
    if let Some(body) = body {
        let statement = transaction.prepare_cached("INSERT INTO body (id, bytes) VALUES ($1, $2)").await?;
        transaction.execute(&statement, &[&Uuid::from(pending.facts.id), &&body[..]]).await?;
        add_bytes(transaction, numbers.queue, i64::try_from(body.len()).unwrap_or(i64::MAX)).await?;
    }
    let statement = transaction.prepare_cached("UPDATE queue SET next_at = least(next_at, $2) WHERE id = $1").await?;
    transaction.execute(&statement, &[&numbers.queue, &pending.due.millis()]).await?;
    Ok(())
}

async fn add_bytes(transaction: &Tx<'_>, queue: i64, bytes: i64) -> Result<(), PostgresError> {
    let sql = "UPDATE queue SET parked_bytes = greatest(0, parked_bytes + $2) WHERE id = $1";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &[&queue, &bytes]).await?;
    Ok(())
}
