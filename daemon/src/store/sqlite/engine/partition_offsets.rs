//! The `partition_offsets` table: the epochs and watermarks of partitions.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;
use crate::model::offsets::Watermark;
use crate::store::{InstanceId, NewLog, PartitionWatermark, Taken};

/// Who owns a partition, and its epoch.
pub(super) fn owned(
    connection: &Connection,
    key: &PartitionKey,
) -> Result<Option<(Option<InstanceId>, i64)>, SqliteError> {
    Ok(connection
        .prepare_cached(
            "SELECT owner, epoch FROM partition_offsets WHERE cluster = ?1 AND topic = ?2 AND partition = ?3",
        )?
        .query_row(params![&*key.cluster, &*key.topic, key.number], |row| {
            Ok((row.get::<_, Option<i64>>(0)?.map(InstanceId), row.get(1)?))
        })
        .optional()?)
}

/// Rows 34 and 37: gives the partition to this instance, in the next epoch.
pub(super) fn take(
    connection: &Connection,
    ids: &mut IdCache,
    (instance, new_log): (InstanceId, Option<&NewLog>),
    key: &PartitionKey,
    now: Timestamp,
) -> Result<Taken, SqliteError> {
    connection
        .prepare_cached(
            "INSERT INTO partition_offsets (cluster, topic, partition, watermark, seen_upto, epoch, moved_at)
             VALUES (?1, ?2, ?3, 0, 0, 0, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute(params![&*key.cluster, &*key.topic, key.number, now.millis()])?;
    let number =
        ids.partition_number(connection, key)?.ok_or(SqliteError::Corrupt("a partition that was just made"))?;
    connection
        .prepare_cached(
            "UPDATE partition_offsets SET epoch = epoch + 1, owner = ?2, taken_upto = watermark WHERE id = ?1",
        )?
        .execute(params![number, instance.0])?;
    if let Some(log) = new_log {
        connection
            .prepare_cached(
                "UPDATE partition_offsets SET watermark = ?2, seen_upto = ?3, last_off = NULL, last_hash = NULL,
                                   accepted = coalesce(?4, accepted), moved_at = ?5, taken_upto = ?2, deaths = 0
                 WHERE id = ?1",
            )?
            .execute(params![number, log.start, log.log_end, log.accepted, now.millis()])?;
    }
    let taken = connection
        .prepare_cached(
            "SELECT epoch, watermark, seen_upto, last_off, last_hash, accepted, deaths,
                 EXISTS (SELECT 1 FROM partition_offsets AS known WHERE known.cluster = partition_offsets.cluster
                         AND (known.watermark > 0 OR known.accepted IS NOT NULL))
             FROM partition_offsets WHERE id = ?1",
        )?
        .query_row([number], |row| {
            let (watermark, accepted) = (watermark(row, 1)?, row.get::<_, Option<String>>(5)?);
            let fresh = watermark.upto == 0 && watermark.seen_upto == 0 && accepted.is_none();
            Ok(Taken {
                epoch: row.get(0)?,
                watermark,
                fresh,
                knows_cluster: row.get(7)?,
                accepted,
                deaths: row.get(6)?,
            })
        })?;
    Ok(taken)
}

/// Row 34: gives partitions back, each as it was taken in this epoch.
pub(super) fn release(
    connection: &Connection,
    instance: InstanceId,
    partitions: &[(Arc<PartitionKey>, i64)],
) -> Result<(), SqliteError> {
    let mut release = connection.prepare_cached(
        "UPDATE partition_offsets SET owner = NULL, deaths = 0
         WHERE cluster = ?1 AND topic = ?2 AND partition = ?3 AND owner = ?4 AND epoch = ?5",
    )?;
    for (key, epoch) in partitions {
        release.execute(params![&*key.cluster, &*key.topic, key.number, instance.0, epoch])?;
    }
    Ok(())
}

/// A watermark from four columns: watermark, seen_upto, last_off, last_hash, the first at `first`.
pub(in crate::store::sqlite) fn watermark(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Watermark> {
    let last_off: Option<i64> = row.get(first + 2)?;
    let last_hash: Option<[u8; 32]> = row.get(first + 3)?;
    Ok(Watermark { upto: row.get(first)?, seen_upto: row.get(first + 1)?, last: last_off.zip(last_hash) })
}

/// Raises a watermark, never lowers it.
pub(super) fn raise(
    connection: &Connection,
    ids: &mut IdCache,
    raised: &PartitionWatermark,
    now: Timestamp,
) -> Result<(), SqliteError> {
    let number = ids
        .partition_number(connection, &raised.partition)?
        .ok_or(SqliteError::Corrupt("a partition that had an epoch"))?;
    connection
        .prepare_cached(
            "UPDATE partition_offsets SET watermark = ?2, seen_upto = max(seen_upto, ?3), last_off = ?4, last_hash = ?5,
                               moved_at = ?6
             WHERE id = ?1 AND watermark <= ?2",
        )?
        .execute(params![
            number,
            raised.watermark.upto,
            raised.watermark.seen_upto,
            raised.watermark.last.map(|(offset, _)| offset),
            raised.watermark.last.map(|(_, hash)| hash),
            now.millis(),
        ])?;
    Ok(())
}
