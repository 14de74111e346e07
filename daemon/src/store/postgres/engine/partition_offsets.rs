//! The `partition_offsets` table: the epochs and watermarks of partitions.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;

use super::super::cells::{Table, rows_of};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::rows::small;
use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;
use crate::model::offsets::Watermark;
use crate::store::{InstanceId, Taken};

/// Where a partition starts that is read as a new log.
pub(super) struct NewLog {
    pub(super) start: i64,
    pub(super) log_end: i64,
    pub(super) accepted: Option<String>,
}

/// Locks these partitions in order, and returns their epochs.
pub(super) async fn lock(client: &impl GenericClient, numbers: &[i64]) -> Result<HashMap<i64, i64>, PostgresError> {
    if numbers.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "SELECT id, epoch FROM partition_offsets WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&numbers]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Rows 34 and 37: gives the partition to this instance, in the next epoch.
pub(super) async fn take(
    store: &PostgresStore,
    client: &mut Object,
    instance: InstanceId,
    key: &PartitionKey,
    new_log: Option<NewLog>,
    now: Timestamp,
) -> Result<Taken, PostgresError> {
    let transaction = client.transaction().await?;
    let sql = "INSERT INTO partition_offsets (cluster, topic, partition, watermark, seen_upto, epoch, moved_at)
               VALUES ($1, $2, $3, 0, 0, 0, $4) ON CONFLICT DO NOTHING";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &[&&*key.cluster, &&*key.topic, &key.number, &now.millis()]).await?;
    let sql = "UPDATE partition_offsets SET epoch = epoch + 1, owner = $4, taken_upto = watermark
               WHERE cluster = $1 AND topic = $2 AND partition = $3 RETURNING id";
    let statement = transaction.prepare_cached(sql).await?;
    let row = transaction.query_one(&statement, &[&&*key.cluster, &&*key.topic, &key.number, &instance.0]).await?;
    let number: i64 = row.try_get(0)?;
    if let Some(log) = new_log {
        let sql = "UPDATE partition_offsets SET watermark = $2, seen_upto = $3, last_off = NULL, last_hash = NULL,
                       accepted = coalesce($4, accepted), moved_at = $5, taken_upto = $2, deaths = 0 WHERE id = $1";
        let statement = transaction.prepare_cached(sql).await?;
        let values = (log.start, log.log_end, log.accepted, now.millis());
        transaction.execute(&statement, &[&number, &values.0, &values.1, &values.2, &values.3]).await?;
    }
    let sql = "SELECT epoch, watermark, seen_upto, last_off, last_hash, accepted, deaths FROM partition_offsets
               WHERE id = $1";
    let statement = transaction.prepare_cached(sql).await?;
    let row = transaction.query_one(&statement, &[&number]).await?;
    let (watermark, accepted) = (watermark(&row, 1)?, row.try_get::<_, Option<String>>(5)?);
    let fresh = watermark.upto == 0 && watermark.seen_upto == 0 && accepted.is_none();
    let taken = Taken { epoch: row.try_get(0)?, watermark, fresh, accepted, deaths: small(&row, 6)? };
    store.commit(transaction).await?;
    Ok(taken)
}

/// A watermark from four columns: watermark, seen_upto, last_off, last_hash, the first at `first`.
pub(in super::super) fn watermark(row: &Row, first: usize) -> Result<Watermark, PostgresError> {
    let last_off: Option<i64> = row.try_get(first + 2)?;
    let last_hash: Option<[u8; 32]> = match row.try_get::<_, Option<&[u8]>>(first + 3)? {
        Some(hash) => Some(hash.try_into().map_err(|_| PostgresError::Corrupt("the hash of a record"))?),
        None => None,
    };
    let (upto, seen_upto) = (row.try_get(first)?, row.try_get(first + 1)?);
    Ok(Watermark { upto, seen_upto, last: last_off.zip(last_hash) })
}

/// Raises watermarks, never lowers them.
pub(super) async fn raise(
    client: &impl GenericClient,
    raised: &BTreeMap<i64, Watermark>,
    now: Timestamp,
) -> Result<(), PostgresError> {
    if raised.is_empty() {
        return Ok(());
    }
    let mut table = Table::<6>::new();
    for (number, watermark) in raised {
        table.push([
            (*number).into(),
            watermark.upto.into(),
            watermark.seen_upto.into(),
            watermark.last.map(|(offset, _)| offset).into(),
            watermark.last.as_ref().map(|(_, hash)| &hash[..]).into(),
            now.millis().into(),
        ]);
    }
    let rows = rows_of("id bigint, upto bigint, seen bigint, last_off bigint, last_hash bytea, now bigint");
    let sql = format!(
        "UPDATE partition_offsets SET watermark = new.upto, seen_upto = greatest(seen_upto, new.seen),
                                      last_off = new.last_off, last_hash = new.last_hash, moved_at = new.now
         FROM ({rows}) AS new WHERE partition_offsets.id = new.id AND watermark <= new.upto"
    );
    let statement = client.prepare_cached(&sql).await?;
    client.execute(&statement, &table.values()).await?;
    Ok(())
}
