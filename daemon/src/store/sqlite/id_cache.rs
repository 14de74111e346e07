//! The numbers of partitions and queues: a callback's row names both by number, and every row would look them up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::SqliteError;
use crate::base::clock::Timestamp;
use crate::model::endpoint::{QueueKey, QueueTarget};
use crate::model::event::PartitionKey;

/// Numbers read from the tables, and what they mean. Numbers from a transaction that is rolled back may be wrong, so
/// the cache is emptied after a rollback.
#[derive(Default)]
pub(super) struct IdCache {
    partitions: HashMap<PartitionKey, i64>,
    partition_keys: HashMap<i64, Arc<PartitionKey>>,
    /// Each with the time at which its use was noted last.
    queues: HashMap<QueueKey, (i64, Timestamp)>,
    queue_names: HashMap<i64, QueueKey>,
}

/// The use of a queue is noted in its row at most this often.
pub(super) const USE_NOTED: Duration = Duration::from_secs(3_600);
/// How many queue numbers are cached. A cache that has reached this many is emptied.
const QUEUE_LIMIT: usize = 100_000;

impl IdCache {
    pub(super) fn partition_number(
        &mut self,
        connection: &Connection,
        key: &PartitionKey,
    ) -> Result<Option<i64>, SqliteError> {
        if let Some(number) = self.partitions.get(key) {
            return Ok(Some(*number));
        }
        let number: Option<i64> = connection
            .prepare_cached("SELECT id FROM partition_offsets WHERE cluster = ?1 AND topic = ?2 AND partition = ?3")?
            .query_row(params![&*key.cluster, &*key.topic, key.number], |row| row.get(0))
            .optional()?;
        if let Some(number) = number {
            self.partitions.insert(key.clone(), number);
        }
        Ok(number)
    }

    pub(super) fn partition_key(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> Result<Arc<PartitionKey>, SqliteError> {
        if let Some(name) = self.partition_keys.get(&number) {
            return Ok(Arc::clone(name));
        }
        let name = connection
            .prepare_cached("SELECT cluster, topic, partition FROM partition_offsets WHERE id = ?1")?
            .query_row([number], |row| {
                let (cluster, topic): (String, String) = (row.get(0)?, row.get(1)?);
                Ok(Arc::new(PartitionKey { cluster: cluster.into(), topic: topic.into(), number: row.get(2)? }))
            })
            .optional()?
            .ok_or(SqliteError::Corrupt("a row names a partition that is not there"))?;
        self.partition_keys.insert(number, Arc::clone(&name));
        Ok(name)
    }

    /// The number of a queue, which gets a row where it is new. Its use is noted, so that queues which nobody uses any
    /// more can go.
    pub(super) fn queue_number(
        &mut self,
        connection: &Connection,
        key: &QueueKey,
        now: Timestamp,
    ) -> Result<i64, SqliteError> {
        if let Some((number, noted_at)) = self.queues.get(key)
            && now.since(*noted_at) < USE_NOTED
        {
            return Ok(*number);
        }
        let number: i64 = connection
            .prepare_cached(
                "INSERT INTO queue (team, target, used_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (team, target) DO UPDATE SET used_at = max(used_at, excluded.used_at) RETURNING id",
            )?
            .query_row(params![&*key.team, key.target.name(), now.millis()], |row| row.get(0))?;
        if self.queues.len() >= QUEUE_LIMIT {
            self.queues.clear();
        }
        self.queues.insert(key.clone(), (number, now));
        Ok(number)
    }

    /// Rows of queues were deleted.
    pub(super) fn forget_queues(&mut self) {
        self.queues.clear();
        self.queue_names.clear();
    }

    pub(super) fn queue_name(&mut self, connection: &Connection, number: i64) -> Result<QueueKey, SqliteError> {
        if let Some(key) = self.queue_names.get(&number) {
            return Ok(key.clone());
        }
        let (team, target): (String, String) = connection
            .prepare_cached("SELECT team, target FROM queue WHERE id = ?1")?
            .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
            .ok_or(SqliteError::Corrupt("a row names a queue that is not there"))?;
        let target = QueueTarget::parse(&target).ok_or(SqliteError::Corrupt("a queue's target"))?;
        let key = QueueKey { team: team.into(), target };
        if self.queue_names.len() >= QUEUE_LIMIT {
            self.queue_names.clear();
        }
        self.queue_names.insert(number, key.clone());
        Ok(key)
    }
}
