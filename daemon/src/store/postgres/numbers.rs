//! The numbers of partitions and queues: a callback's row names both by number, and every row would look them up.
//!
//! Numbers are learned only from rows that are committed, so a number that is cached stays right: partitions are never
//! deleted, and queues only when nobody has used them for longer than a use is noted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::GenericClient;

use super::error::PostgresError;
use crate::base::clock::Timestamp;
use crate::model::endpoint::{QueueKey, QueueTarget};
use crate::model::event::PartitionKey;

/// The use of a queue is noted in its row at most this often.
pub(super) const USE_NOTED: Duration = Duration::from_secs(3_600);
/// How many queue numbers are cached. A cache that has reached this many is emptied.
const QUEUE_LIMIT: usize = 100_000;

#[derive(Default)]
pub(super) struct Numbers(Mutex<Cache>);

#[derive(Default)]
struct Cache {
    partitions: HashMap<PartitionKey, i64>,
    partition_keys: HashMap<i64, Arc<PartitionKey>>,
    /// Each with the time at which its use was noted last.
    queues: HashMap<QueueKey, (i64, Timestamp)>,
    queue_names: HashMap<i64, QueueKey>,
}

impl Numbers {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a partition, or `None` if it has no row. The connection must not be in a transaction.
    pub(super) async fn partition(
        &self,
        client: &impl GenericClient,
        key: &PartitionKey,
    ) -> Result<Option<i64>, PostgresError> {
        if let Some(number) = self.cache().partitions.get(key) {
            return Ok(Some(*number));
        }
        let sql = "SELECT id FROM partition_offsets WHERE cluster = $1 AND topic = $2 AND partition = $3";
        let statement = client.prepare_cached(sql).await?;
        let row = client.query_opt(&statement, &[&&*key.cluster, &&*key.topic, &key.number]).await?;
        let number = row.map(|row| row.try_get(0)).transpose()?;
        if let Some(number) = number {
            self.cache().partitions.insert(key.clone(), number);
        }
        Ok(number)
    }

    pub(super) async fn partition_key(
        &self,
        client: &impl GenericClient,
        number: i64,
    ) -> Result<Arc<PartitionKey>, PostgresError> {
        if let Some(key) = self.cache().partition_keys.get(&number) {
            return Ok(Arc::clone(key));
        }
        let sql = "SELECT cluster, topic, partition FROM partition_offsets WHERE id = $1";
        let statement = client.prepare_cached(sql).await?;
        let row = client.query_opt(&statement, &[&number]).await?;
        let row = row.ok_or(PostgresError::Corrupt("a row names a partition that is not there"))?;
        let (cluster, topic): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let key = Arc::new(PartitionKey { cluster: cluster.into(), topic: topic.into(), number: row.try_get(2)? });
        self.cache().partition_keys.insert(number, Arc::clone(&key));
        Ok(key)
    }

    /// The number of a queue, which gets a row where it is new. Its use is noted, so that queues which nobody uses any more
    /// can go. The connection must not be in a transaction.
    pub(super) async fn queue(
        &self,
        client: &impl GenericClient,
        key: &QueueKey,
        now: Timestamp,
    ) -> Result<i64, PostgresError> {
        if let Some((number, noted_at)) = self.cache().queues.get(key)
            && now.since(*noted_at) < USE_NOTED
        {
            return Ok(*number);
        }
        let sql = "INSERT INTO queue (team, target, used_at) VALUES ($1, $2, $3)
                   ON CONFLICT (team, target) DO UPDATE SET used_at = greatest(queue.used_at, excluded.used_at)
                   RETURNING id";
        let statement = client.prepare_cached(sql).await?;
        let target = key.target.name();
        let row = client.query_one(&statement, &[&&*key.team, &target.to_string(), &now.millis()]).await?;
        let number = row.try_get(0)?;
        let mut cache = self.cache();
        if cache.queues.len() >= QUEUE_LIMIT {
            cache.queues.clear();
        }
        cache.queues.insert(key.clone(), (number, now));
        Ok(number)
    }

    /// Reads the names of queues that are not known yet, all at once. Whatever can't be read is told when it is asked for.
    pub(super) async fn learn_queues(
        &self,
        client: &impl GenericClient,
        numbers: &BTreeSet<i64>,
    ) -> Result<(), PostgresError> {
        let unknown: Vec<i64> = {
            let cache = self.cache();
            numbers.iter().copied().filter(|number| !cache.queue_names.contains_key(number)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let statement = client.prepare_cached("SELECT id, team, target FROM queue WHERE id = ANY($1)").await?;
        for row in client.query(&statement, &[&unknown]).await? {
            let (number, team, target): (i64, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if let Some(target) = QueueTarget::parse(target) {
                self.learned(number, QueueKey { team: team.into(), target });
            }
        }
        Ok(())
    }

    fn learned(&self, number: i64, key: QueueKey) {
        let mut cache = self.cache();
        if cache.queue_names.len() >= QUEUE_LIMIT {
            cache.queue_names.clear();
        }
        cache.queue_names.insert(number, key);
    }

    pub(super) async fn queue_key(&self, client: &impl GenericClient, number: i64) -> Result<QueueKey, PostgresError> {
        if let Some(key) = self.cache().queue_names.get(&number) {
            return Ok(key.clone());
        }
        let statement = client.prepare_cached("SELECT team, target FROM queue WHERE id = $1").await?;
        let row = client.query_opt(&statement, &[&number]).await?;
        let row = row.ok_or(PostgresError::Corrupt("a row names a queue that is not there"))?;
        let (team, target): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let target = QueueTarget::parse(target).ok_or(PostgresError::Corrupt("a queue's target"))?;
        let key = QueueKey { team: team.into(), target };
        self.learned(number, key.clone());
        Ok(key)
    }

    /// Nothing that was read counts any more.
    pub(super) fn forget(&self) {
        *self.cache() = Cache::default();
    }

    /// Rows of queues were deleted.
    pub(super) fn forget_queues(&self) {
        let mut cache = self.cache();
        cache.queues.clear();
        cache.queue_names.clear();
    }
}
