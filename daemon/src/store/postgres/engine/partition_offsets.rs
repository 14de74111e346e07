//! The `partition_offsets` table: the epochs and watermarks of partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::super::cells::{Table, param, rows_of};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::pipeline::{Pipeline, Place};
use super::super::presence::LIVING;
use super::super::transaction::{Tx, commit};
use super::rows::small;
use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;
use crate::model::offsets::Watermark;
use crate::store::{InstanceId, NewLog, Take, TakeAsk, Taken};

/// Locks these partitions in order: those whose watermark stays, too, so that a batch which only brings rows is fenced as well. Either it
/// sees a take, or the take waits for it. One process writes under an epoch, and one batch at a time, so nobody could share these locks.
pub(super) fn lock(first: &mut Pipeline<'_>, numbers: Vec<i64>) -> Option<Place> {
    if numbers.is_empty() {
        return None;
    }
    let sql = "SELECT id, epoch, owner FROM partition_offsets WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    Some(first.push(sql, vec![param(numbers)]))
}

/// The epochs of those locked partitions that this instance owns, by number.
pub(super) fn held(locked: &[Row], instance: InstanceId) -> Result<HashMap<i64, i64>, PostgresError> {
    let mut epochs = HashMap::new();
    for row in locked {
        if row.try_get::<_, Option<i64>>(2)? == Some(instance.0) {
            epochs.insert(row.try_get(0)?, row.try_get(1)?);
        }
    }
    Ok(epochs)
}

/// The row of a partition, locked, as far as it decides who may take it.
struct Owned {
    number: i64,
    epoch: i64,
    owner: Option<i64>,
    /// Its owner's process is there, or may come back in a moment.
    owner_lives: bool,
    wanted_at: Option<i64>,
}

/// So long after the server has started, or has become the primary, an instance without its lock may come back.
const RETURN: Duration = Duration::from_secs(15);

/// Whether an instance lives. When the server has just started or was just promoted (`$2`), living ones may not have their locks again
/// yet.
static OWNER_LIVES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT $1::bigint IN ({LIVING}) OR (
             ($2 OR pg_postmaster_start_time() > clock_timestamp() - interval '{} seconds')
             AND EXISTS (SELECT 1 FROM instance WHERE id = $1 AND clean = 0))",
        RETURN.as_secs()
    )
});

async fn owned(
    store: &PostgresStore,
    transaction: &Tx<'_>,
    key: &PartitionKey,
    now: Timestamp,
) -> Result<Owned, PostgresError> {
    let sql = "INSERT INTO partition_offsets (cluster, topic, partition, watermark, seen_upto, epoch, moved_at)
               VALUES ($1, $2, $3, 0, 0, 0, $4) ON CONFLICT DO NOTHING";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &[&&*key.cluster, &&*key.topic, &key.number, &now.millis()]).await?;
    let sql = "SELECT id, epoch, owner, wanted_at FROM partition_offsets
               WHERE cluster = $1 AND topic = $2 AND partition = $3 FOR UPDATE";
    let statement = transaction.prepare_cached(sql).await?;
    let row = transaction.query_one(&statement, &[&&*key.cluster, &&*key.topic, &key.number]).await?;
    let owner: Option<i64> = row.try_get(2)?;
    // The locks are looked at after the row is ours: an owner may have died while we waited.
    let owner_lives = match owner {
        None => false,
        Some(owner) => {
            let statement = transaction.prepare_cached(&OWNER_LIVES).await?;
            let is_promoted = store.timeline.changed_within(RETURN);
            transaction.query_one(&statement, &[&owner, &is_promoted]).await?.try_get(0)?
        }
    };
    Ok(Owned { number: row.try_get(0)?, epoch: row.try_get(1)?, owner, owner_lives, wanted_at: row.try_get(3)? })
}

/// Row 34: gives the partition to this instance, in the next epoch. An owner that lives is told first, and has its time.
pub(super) async fn take(
    store: &PostgresStore,
    client: &mut Object,
    ask: &TakeAsk,
    now: Timestamp,
) -> Result<Take, PostgresError> {
    let transaction = client.transaction().await?;
    let owned = owned(store, &transaction, &ask.partition, now).await?;
    let other = owned.owner.filter(|owner| *owner != ask.instance.0);
    if let Some(other) = other.filter(|_| owned.owner_lives) {
        let since = owned.wanted_at.unwrap_or(now.millis());
        if owned.wanted_at.is_none() || now.since(Timestamp::from_millis(since)) < ask.patience {
            let sql = "UPDATE partition_offsets SET wanted_at = $2 WHERE id = $1 AND wanted_at IS NULL";
            transaction.execute(sql, &[&owned.number, &since]).await?;
            commit(transaction).await?;
            return Ok(Take::Held { owner: InstanceId(other) });
        }
    }
    // A watermark that moved since the owner took the partition says that it did not die of the record above it.
    let sql = "UPDATE partition_offsets SET epoch = epoch + 1, owner = $2, taken_upto = watermark, wanted_at = NULL,
                   deaths = CASE WHEN NOT $3 THEN deaths WHEN taken_upto = watermark THEN deaths + 1 ELSE 1 END
               WHERE id = $1";
    let statement = transaction.prepare_cached(sql).await?;
    let has_died = other.is_some() && !owned.owner_lives;
    transaction.execute(&statement, &[&owned.number, &ask.instance.0, &has_died]).await?;
    let taken = taken(&transaction, owned.number).await?;
    store.commit(transaction).await?;
    Ok(Take::Taken(taken))
}

/// Row 37: gives the partition to this instance as a new log, if nobody has taken it since that epoch.
pub(super) async fn start_over(
    store: &PostgresStore,
    client: &mut Object,
    (instance, epoch): (InstanceId, i64),
    (key, log): (&PartitionKey, &NewLog),
    now: Timestamp,
) -> Result<Option<Taken>, PostgresError> {
    let transaction = client.transaction().await?;
    let owned = owned(store, &transaction, key, now).await?;
    if owned.epoch != epoch {
        return Ok(None);
    }
    let sql =
        "UPDATE partition_offsets SET epoch = epoch + 1, owner = $2, watermark = $3, seen_upto = $4, last_off = NULL,
                   last_hash = NULL, accepted = coalesce($5, accepted), moved_at = $6, taken_upto = $3, deaths = 0,
                   wanted_at = NULL WHERE id = $1";
    let statement = transaction.prepare_cached(sql).await?;
    transaction
        .execute(&statement, &[&owned.number, &instance.0, &log.start, &log.log_end, &log.accepted, &now.millis()])
        .await?;
    let taken = taken(&transaction, owned.number).await?;
    store.commit(transaction).await?;
    Ok(Some(taken))
}

async fn taken(transaction: &Tx<'_>, number: i64) -> Result<Taken, PostgresError> {
    let sql = "SELECT epoch, watermark, seen_upto, last_off, last_hash, accepted, deaths,
                   EXISTS (SELECT 1 FROM partition_offsets AS known WHERE known.cluster = partition_offsets.cluster
                           AND (known.watermark > 0 OR known.accepted IS NOT NULL))
               FROM partition_offsets WHERE id = $1";
    let statement = transaction.prepare_cached(sql).await?;
    let row = transaction.query_one(&statement, &[&number]).await?;
    let (watermark, accepted) = (watermark(&row, 1)?, row.try_get::<_, Option<String>>(5)?);
    let fresh = watermark.upto == 0 && watermark.seen_upto == 0 && accepted.is_none();
    Ok(Taken {
        epoch: row.try_get(0)?,
        watermark,
        fresh,
        knows_cluster: row.try_get(7)?,
        accepted,
        deaths: small(&row, 6)?,
    })
}

/// Row 34: gives partitions back, each as it was taken in this epoch, so that the next one begins at once.
pub(super) async fn release(
    store: &PostgresStore,
    client: &mut Object,
    instance: InstanceId,
    partitions: &[(Arc<PartitionKey>, i64)],
) -> Result<(), PostgresError> {
    let mut released = Vec::new();
    for (key, epoch) in partitions {
        if let Some(number) = store.numbers.partition(&*client, key).await? {
            released.push((number, *epoch));
        }
    }
    let numbers: Vec<i64> = released.iter().map(|(number, _)| *number).collect();
    let mut table = Table::<2>::new();
    for (number, epoch) in released {
        table.push([number.into(), epoch.into()]);
    }
    if table.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE partition_offsets SET owner = NULL, deaths = 0, wanted_at = NULL
         FROM ({}) AS new WHERE partition_offsets.id = new.id AND partition_offsets.epoch = new.epoch AND owner = $3",
        rows_of("id bigint, epoch bigint"),
    );
    let mut values = table.values();
    values.push(&instance.0);
    let transaction = client.transaction().await?;
    transaction
        .query("SELECT id FROM partition_offsets WHERE id = ANY($1) ORDER BY id FOR UPDATE", &[&numbers])
        .await?;
    transaction.execute(&sql, &values).await?;
    store.commit(transaction).await
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
pub(super) fn raise<'v>(last: &mut Pipeline<'v>, raised: &'v BTreeMap<i64, Watermark>, now: Timestamp) {
    if raised.is_empty() {
        return;
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
    last.push(sql, table.into_params());
}
