//! The reads for people, on PostgreSQL: lists by id, newest event first, single rows, and counts. Every read runs on a
//! connection of its own kind and within a bounded time, so that no question holds delivery up.

mod dead_letters;
mod failed_between;
mod queues;
mod scan;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::cells::Uuid;
use super::connection::PostgresStore;
use super::engine::rows::{NumbersRead, id_of, opt_small, small};
use super::engine::{attempts, kept, partition_offsets, rows};
use super::error::PostgresError;
use super::presence::LIVING;
use super::transaction::begin_read;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::event::PartitionKey;
use crate::model::settlement::{NumberedAttempt, Rows};
use crate::store::Answer;
use crate::store::failed_between::walks;
use crate::store::reads::{
    BuriedLetter, CallbackFilter, Counts, DeadLetterFilter, Found, InstanceEnd, InstanceRow, LastAttempt, Page,
    PartitionOffsets, QueueAsk, QueueRow, Reads, Totals,
};

impl Reads for PostgresStore {
    fn rows(&self, id: CallbackId) -> Answer<'_, Rows> {
        Box::pin(async move { Ok(rows::load_one(&self.people_reader().await?, &self.numbers, id).await?) })
    }

    fn attempts(&self, id: CallbackId) -> Answer<'_, Vec<NumberedAttempt>> {
        Box::pin(async move { Ok(attempts::of(&self.people_reader().await?, id).await?) })
    }

    fn last_attempts(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<LastAttempt>>> {
        Box::pin(async move { Ok(last_attempts(&self.people_reader().await?, &ids).await?) })
    }

    fn body(&self, id: CallbackId) -> Answer<'_, Option<Bytes>> {
        Box::pin(async move { Ok(kept::body(&self.people_reader().await?, id).await?) })
    }

    fn bodies(&self, ids: Vec<CallbackId>, at_most: usize) -> Answer<'_, Vec<Option<Bytes>>> {
        Box::pin(async move { Ok(kept::bodies(&self.people_reader().await?, &ids, at_most).await?) })
    }

    fn callback_ids(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<CallbackId>> {
        Box::pin(async move { Ok(find(&self.people_reader().await?, &filter, &page).await?) })
    }

    fn untried_rounds(&self, team: Option<&str>, at_most: usize) -> Answer<'_, usize> {
        let team = team.map(str::to_owned);
        Box::pin(async move {
            let client = self.people_reader().await?;
            let of_team = if team.is_some() { "team = $2 AND" } else { "$2::text IS NULL AND" };
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM pending WHERE {of_team} round > 0 AND tries = 0 LIMIT $1) AS untried"
            );
            let statement = client.prepare_cached(&sql).await.map_err(PostgresError::from)?;
            let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
            let row = client.query_one(&statement, &[&at_most, &team]).await.map_err(PostgresError::from)?;
            let count: i64 = row.try_get(0).map_err(PostgresError::from)?;
            Ok(usize::try_from(count).unwrap_or(0))
        })
    }

    fn callbacks(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<(CallbackId, Rows)>> {
        Box::pin(async move { Ok(callbacks(self, &filter, &page).await?) })
    }

    fn dead_letters(&self, filter: DeadLetterFilter, page: Page) -> Answer<'_, Found<BuriedLetter>> {
        Box::pin(async move {
            let client = self.people_reader().await?;
            Ok(dead_letters::page(&client, &self.numbers, &filter, &page).await?)
        })
    }

    fn nameless_dead_letters(&self, at_most: usize) -> Answer<'_, usize> {
        Box::pin(async move { Ok(dead_letters::nameless(&self.people_reader().await?, at_most).await?) })
    }

    fn dead_letter(&self, id: CallbackId) -> Answer<'_, Option<BuriedLetter>> {
        Box::pin(async move { Ok(dead_letters::one(&self.people_reader().await?, &self.numbers, id).await?) })
    }

    fn offsets(&self) -> Answer<'_, Vec<PartitionOffsets>> {
        Box::pin(async move { Ok(offsets(&self.people_reader().await?).await?) })
    }

    fn queues(&self, ask: QueueAsk) -> Answer<'_, Vec<QueueRow>> {
        Box::pin(async move { Ok(queues::list(&self.people_reader().await?, &ask).await?) })
    }

    fn instances(&self, at_most: usize) -> Answer<'_, Vec<InstanceRow>> {
        Box::pin(async move { Ok(instances(&self.people_reader().await?, at_most).await?) })
    }

    fn backlog(&self) -> Answer<'_, (u64, Option<Timestamp>)> {
        Box::pin(async move { Ok(backlog(&self.people_reader().await?).await?) })
    }

    fn counts(&self) -> Answer<'_, (Counts, Timestamp)> {
        Box::pin(async move { Ok(counts(&self.people_reader().await?).await?) })
    }

    fn totals(&self) -> Answer<'_, Totals> {
        Box::pin(async move {
            let mut client = self.people_reader().await?;
            let transaction = begin_read(&mut client).await?;
            Ok(totals(&transaction).await?)
        })
    }
}

/// The ids of callbacks that match, by the index that fits the filter best.
async fn find(
    client: &impl GenericClient,
    filter: &CallbackFilter,
    page: &Page,
) -> Result<Found<CallbackId>, PostgresError> {
    let queues = match &filter.queues {
        Some(queues) => Some(scan::queue_numbers(client, queues).await?),
        None => None,
    };
    match walks(filter, queues.as_ref(), page.before) {
        Some(walks) => failed_between::scan(client, filter, queues.as_ref(), page, &walks).await,
        None => scan::scan(client, filter, queues.as_ref(), page).await,
    }
}

async fn callbacks(
    store: &PostgresStore,
    filter: &CallbackFilter,
    page: &Page,
) -> Result<Found<(CallbackId, Rows)>, PostgresError> {
    let client = store.people_reader().await?;
    let found = find(&client, filter, page).await?;
    let ids: Vec<Uuid> = found.docs.iter().copied().map(Uuid::from).collect();
    let mut rows = rows::load(&client, &store.numbers, &ids, &mut NumbersRead::default()).await?;
    let mut docs = Vec::with_capacity(found.docs.len());
    for id in found.docs {
        match rows.remove(&id) {
            Some(Ok(rows)) => docs.push((id, rows)),
            Some(Err(what)) => tracing::error!(callback = %id, what, "a row can't be read; the others are listed"),
            // It was deleted meanwhile.
            None => {}
        }
    }
    Ok(Found { docs, next: found.next })
}

async fn last_attempts(
    client: &impl GenericClient,
    ids: &[CallbackId],
) -> Result<Vec<Option<LastAttempt>>, PostgresError> {
    let asked: Vec<Uuid> = ids.iter().copied().map(Uuid::from).collect();
    let sql = "SELECT DISTINCT ON (id) id, status, begun_at, ms FROM attempt
               WHERE id = ANY($1) AND id >= $2 AND id <= $3 ORDER BY id, n DESC";
    let (Some(first), Some(last)) = (asked.iter().min(), asked.iter().max()) else { return Ok(Vec::new()) };
    let statement = client.prepare_cached(sql).await?;
    let mut found = HashMap::new();
    for row in client.query(&statement, &[&asked, first, last]).await? {
        let took = Duration::from_millis(row.try_get::<_, i64>(3)?.try_into().unwrap_or(0));
        let begun_at = Timestamp::from_millis(row.try_get(2)?);
        found.insert(id_of(&row)?, LastAttempt { status: opt_small(&row, 1)?, ended_at: begun_at.plus(took) });
    }
    Ok(ids.iter().map(|id| found.get(id).copied()).collect())
}

async fn instances(client: &impl GenericClient, at_most: usize) -> Result<Vec<InstanceRow>, PostgresError> {
    let sql = format!(
        "SELECT id, coalesce(run, id::text), name, host, version,
                (SELECT count(*) FROM partition_offsets WHERE owner = instance.id)::integer, started_at,
                greatest(heartbeat, (SELECT at FROM instance_pulse WHERE instance_pulse.instance = instance.id)),
                clean, id IN ({LIVING})
         FROM instance ORDER BY id IN ({LIVING}) DESC, started_at DESC, run DESC NULLS LAST LIMIT $1"
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&i64::try_from(at_most).unwrap_or(i64::MAX)]).await?;
    let read = |row: &Row| {
        Ok(InstanceRow {
            id: row.try_get(0)?,
            run: row.try_get(1)?,
            name: row.try_get(2)?,
            host: row.try_get(3)?,
            version: row.try_get(4)?,
            partitions: small(row, 5)?,
            started_at: Timestamp::from_millis(row.try_get(6)?),
            seen_at: Timestamp::from_millis(row.try_get(7)?),
            end: match (row.try_get::<_, i64>(8)?, row.try_get::<_, bool>(9)?) {
                (1, _) => Some(InstanceEnd::Clean),
                (_, true) => None,
                (_, false) => Some(InstanceEnd::Died),
            },
        })
    };
    rows.iter().map(read).collect()
}

async fn counts(client: &impl GenericClient) -> Result<(Counts, Timestamp), PostgresError> {
    let read = |row: &Row| -> Result<Counts, PostgresError> {
        let count = |at| -> Result<u64, PostgresError> { Ok(row.try_get::<_, i64>(at)?.try_into().unwrap_or(0)) };
        Ok(Counts { delivered: count(0)?, exhausted: count(1)?, abandoned: count(2)?, dead_letters: count(3)? })
    };
    let sql = "SELECT coalesce(sum(delivered), 0)::bigint, coalesce(sum(exhausted), 0)::bigint,
                      coalesce(sum(abandoned), 0)::bigint, coalesce(sum(dead_letters), 0)::bigint FROM instance";
    let statement = client.prepare_cached(sql).await?;
    let of_instances = read(&client.query_one(&statement, &[]).await?)?;
    let sql = "SELECT delivered, exhausted, abandoned, dead_letters, counted_since FROM store";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_one(&statement, &[]).await?;
    Ok((of_instances.and(read(&row)?), Timestamp::from_millis(row.try_get(4)?)))
}

async fn totals(client: &impl GenericClient) -> Result<Totals, PostgresError> {
    let (pending, oldest_due) = backlog(client).await?;
    let sql = "SELECT state, reason, count(*) FROM settled GROUP BY state, reason
               ORDER BY state COLLATE \"C\", reason COLLATE \"C\" NULLS FIRST";
    let rows = client.query(sql, &[]).await?;
    let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, i64>(2)?.try_into().unwrap_or(0)));
    let settled = rows.iter().map(read).collect::<Result<_, PostgresError>>()?;
    Ok(Totals { pending, oldest_due, settled, dead_letters: dead_letters::counts(client).await? })
}

async fn offsets(client: &impl GenericClient) -> Result<Vec<PartitionOffsets>, PostgresError> {
    let sql = "SELECT cluster, topic, partition, epoch, owner, moved_at, watermark, seen_upto, last_off, last_hash
               FROM partition_offsets ORDER BY cluster COLLATE \"C\", topic COLLATE \"C\", partition";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[]).await?;
    let read = |row: &Row| {
        let (cluster, topic): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        Ok(PartitionOffsets {
            partition: PartitionKey { cluster: cluster.into(), topic: topic.into(), number: row.try_get(2)? },
            epoch: row.try_get(3)?,
            owner: row.try_get(4)?,
            moved_at: Timestamp::from_millis(row.try_get(5)?),
            watermark: partition_offsets::watermark(row, 6)?,
        })
    };
    rows.iter().map(read).collect()
}

async fn backlog(client: &impl GenericClient) -> Result<(u64, Option<Timestamp>), PostgresError> {
    let statement =
        client.prepare_cached("SELECT count(*), min(due) FILTER (WHERE token IS NULL) FROM pending").await?;
    let row = client.query_one(&statement, &[]).await?;
    let pending: i64 = row.try_get(0)?;
    let oldest: Option<i64> = row.try_get(1)?;
    Ok((u64::try_from(pending).unwrap_or(0), oldest.map(Timestamp::from_millis)))
}
