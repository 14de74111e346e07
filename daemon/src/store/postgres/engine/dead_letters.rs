//! Dead letters are written and pruned here, with the bytes of their values counted by topic, so that a budget can bound
//! them.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::GenericClient;

use super::super::cells::{Table, Uuid, rows_of};
use super::super::error::PostgresError;
use super::rows::id_of;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, ValueBudget, ValueBytes};
use crate::store::letters::written;

/// Row 32. Each letter comes with its place in the batch and with the number of its partition. Returns the places of those for
/// whose values the budget had no room.
pub(super) async fn bury(
    client: &impl GenericClient,
    letters: &[(usize, &DeadLetter, i64)],
    values: ValueBudget,
    now: Timestamp,
) -> Result<Vec<usize>, PostgresError> {
    if letters.is_empty() {
        return Ok(Vec::new());
    }
    let mut there = existing(client, letters).await?;
    let mut kept = kept(client).await?;
    let mut added: BTreeMap<&str, i64> = BTreeMap::new();
    let mut without_value = Vec::new();
    let headers: HashMap<usize, Option<String>> =
        letters.iter().map(|(at, letter, _)| (*at, letter.headers.as_ref().map(written))).collect();
    let mut table = Table::<14>::new();
    for (at, letter, partition) in letters {
        // A dead letter that was there already keeps what it has.
        if !there.insert(letter.id) {
            continue;
        }
        let topic = &*letter.record.partition.topic;
        let in_all = kept.values().sum();
        let sums = ValueBytes { of_topic: kept.get(topic).copied().unwrap_or(0), in_all };
        let keeps_value = values.has_room(sums, letter.value.len());
        let value = if keeps_value { &letter.value[..] } else { b"" };
        if !keeps_value {
            without_value.push(*at);
        }
        *kept.entry(topic.to_owned()).or_default() += value.len() as u64;
        *added.entry(topic).or_default() += i64::try_from(value.len()).unwrap_or(i64::MAX);
        table.push([
            letter.id.into(),
            (*partition).into(),
            letter.record.offset.into(),
            letter.record.timestamp.into(),
            now.millis().into(),
            i64::try_from(letter.value_len).unwrap_or(i64::MAX).into(),
            letter.reason.name().into(),
            letter.detail.as_bytes().into(),
            letter.team.as_ref().map(|id| id.as_bytes()).into(),
            letter.task_id.as_ref().map(|id| id.as_bytes()).into(),
            letter.event_id.as_ref().map(|id| id.as_bytes()).into(),
            value.into(),
            letter.value_hash.as_ref().map(|hash| &hash[..]).into(),
            headers[at].as_deref().map(str::as_bytes).into(),
        ]);
    }
    if !table.is_empty() {
        let rows = rows_of(
            "id uuid, partition_id bigint, off bigint, record_at bigint, buried_at bigint, value_len bigint, reason text,
             detail bytea, team bytea, task bytea, event_id bytea, value bytea, value_hash bytea,
             headers bytea",
        );
        let sql = format!(
            "INSERT INTO dead_letter (id, partition_id, off, record_at, buried_at, value_len, reason, detail, team, task,
                                      event_id, value, value_hash, headers) {rows} ORDER BY id ON CONFLICT DO NOTHING"
        );
        let statement = client.prepare_cached(&sql).await?;
        client.execute(&statement, &table.values()).await?;
    }
    add_bytes(client, &added).await?;
    Ok(without_value)
}

async fn existing(
    client: &impl GenericClient,
    letters: &[(usize, &DeadLetter, i64)],
) -> Result<HashSet<CallbackId>, PostgresError> {
    let ids: Vec<Uuid> = letters.iter().map(|(_, letter, _)| letter.id.into()).collect();
    let statement = client.prepare_cached("SELECT id FROM dead_letter WHERE id = ANY($1)").await?;
    client.query(&statement, &[&ids]).await?.iter().map(id_of).collect()
}

/// The bytes that are kept, by topic.
async fn kept(client: &impl GenericClient) -> Result<BTreeMap<String, u64>, PostgresError> {
    let statement = client.prepare_cached("SELECT topic, bytes FROM dead_letter_bytes").await?;
    let rows = client.query(&statement, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.try_into().unwrap_or(0)))).collect()
}

/// Adds to the bytes of topics, or takes off from them.
async fn add_bytes(client: &impl GenericClient, added: &BTreeMap<&str, i64>) -> Result<(), PostgresError> {
    let mut table = Table::<2>::new();
    for (topic, bytes) in added.iter().filter(|(_, bytes)| **bytes != 0) {
        table.push([(*topic).into(), (*bytes).into()]);
    }
    if table.is_empty() {
        return Ok(());
    }
    let rows = rows_of("topic text, bytes bigint");
    let sql = format!(
        "INSERT INTO dead_letter_bytes (topic, bytes) {rows} ORDER BY topic
         ON CONFLICT (topic) DO UPDATE SET bytes = greatest(0, dead_letter_bytes.bytes + excluded.bytes)"
    );
    let statement = client.prepare_cached(&sql).await?;
    client.execute(&statement, &table.values()).await?;
    Ok(())
}

/// Deletes the oldest dead letters that were buried before this time, and gives their bytes back.
pub(super) async fn prune(
    client: &impl GenericClient,
    before: Timestamp,
    at_most: i64,
) -> Result<usize, PostgresError> {
    let sql = "WITH old AS (
                   DELETE FROM dead_letter
                   WHERE id IN (SELECT id FROM dead_letter WHERE buried_at < $1 ORDER BY buried_at LIMIT $2)
                   RETURNING partition_id, octet_length(value) AS bytes
               )
               SELECT topic, count(*), sum(bytes)::bigint
               FROM old JOIN partition_offsets ON partition_offsets.id = partition_id GROUP BY topic";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&before.millis(), &at_most]).await?;
    let mut freed = BTreeMap::new();
    let mut pruned = 0;
    for row in &rows {
        freed.insert(row.try_get::<_, &str>(0)?, row.try_get::<_, i64>(2)?.saturating_neg());
        pruned += usize::try_from(row.try_get::<_, i64>(1)?).unwrap_or(0);
    }
    add_bytes(client, &freed).await?;
    Ok(pruned)
}
