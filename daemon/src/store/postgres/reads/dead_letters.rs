//! Reads of the `dead_letter` table.

use std::time::Instant;

use bytes::Bytes;
use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::cells::Uuid;
use super::super::engine::rows::id_of;
use super::super::error::PostgresError;
use super::super::numbers::Numbers;
use super::scan::bounds;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Fate, LetterState, Unreadable};
use crate::model::event::RecordRef;
use crate::model::hash::Hash;
use crate::store::letters;
use crate::store::reads::{BuriedLetter, DeadLetterFilter, Found, LISTED_BYTES, Page};
use crate::store::search::{BUDGET, Range, STRIDE, ranges};

const COLUMNS: &str =
    "id, partition_id, off, record_at, reason, detail, team, task, event_id, value_len, buried_at, value_hash,
     fate, callback";

pub(super) async fn one(
    client: &impl GenericClient,
    numbers: &Numbers,
    id: CallbackId,
) -> Result<Option<BuriedLetter>, PostgresError> {
    let sql = format!("SELECT {COLUMNS}, headers, value FROM dead_letter WHERE id = $1");
    let statement = client.prepare_cached(&sql).await?;
    match client.query_opt(&statement, &[&Uuid::from(id)]).await? {
        Some(row) => Ok(Some(read(client, numbers, &row).await?)),
        None => Ok(None),
    }
}

pub(super) async fn nameless(client: &impl GenericClient, at_most: usize) -> Result<usize, PostgresError> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM dead_letter WHERE task IS NULL LIMIT $1) AS few";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_one(&statement, &[&i64::try_from(at_most).unwrap_or(i64::MAX)]).await?;
    Ok(usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
}

/// Dead letters by reason.
pub(super) async fn counts(client: &impl GenericClient) -> Result<Vec<(Unreadable, u64)>, PostgresError> {
    let sql = "SELECT reason, count(*) FROM dead_letter GROUP BY reason ORDER BY reason COLLATE \"C\"";
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((reason(row.try_get(0)?)?, row.try_get::<_, i64>(1)?.try_into().unwrap_or(0)))).collect()
}

/// A page of dead letters. What no index answers is decided row by row, within the time of a page.
pub(super) async fn page(
    client: &impl GenericClient,
    numbers: &Numbers,
    filter: &DeadLetterFilter,
    page: &Page,
) -> Result<Found<BuriedLetter>, PostgresError> {
    let deadline = Instant::now() + BUDGET;
    let mut matching: Vec<CallbackId> = Vec::new();
    let mut next = None;
    // The second range, if there is one, lies below the first.
    'ranges: for range in ranges(filter.since, filter.until, page.before) {
        let mut left = bounds(&range);
        while let Some((floor, last)) = left {
            let rows = piece(client, filter, &range, (floor, last)).await?;
            for row in &rows {
                let id = id_of(row)?;
                if matches(filter, row)? {
                    if matching.len() == page.limit {
                        next = matching.last().copied();
                        break 'ranges;
                    }
                    matching.push(id);
                }
            }
            let oldest = rows.last().filter(|_| rows.len() == STRIDE).map(id_of).transpose()?;
            if let Some(oldest) = oldest.filter(|_| Instant::now() >= deadline) {
                next = Some(oldest);
                break 'ranges;
            }
            let below = oldest.and_then(|oldest| u128::from_be_bytes(*oldest.as_bytes()).checked_sub(1));
            left = below.map(|below| (floor, Uuid(below.to_be_bytes())));
        }
    }
    Ok(Found { docs: listed(client, numbers, &matching).await?, next })
}

/// Rows of a range of ids, the newest first, with what a filter decides on.
async fn piece(
    client: &impl GenericClient,
    filter: &DeadLetterFilter,
    range: &Range,
    (floor, last): (Uuid, Uuid),
) -> Result<Vec<Row>, PostgresError> {
    let limit = i64::try_from(STRIDE).unwrap_or(i64::MAX);
    let mut sql = "SELECT id, team, reason, fate FROM dead_letter WHERE id >= $1 AND id <= $2".to_owned();
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&floor, &last, &limit];
    let times = range.read_at.map(|(since, until)| (since.millis(), until.millis()));
    if let Some((since, until)) = &times {
        sql += " AND buried_at >= $4 AND buried_at < $5";
        values.extend([since as &(dyn ToSql + Sync), until]);
    }
    let task = filter.task.as_ref().map(|task| task.as_bytes());
    if let Some(task) = &task {
        values.push(task);
        sql += &format!(" AND task = ${}", values.len());
    }
    sql += " ORDER BY id DESC LIMIT $3";
    let statement = client.prepare_cached(&sql).await?;
    Ok(client.query(&statement, &values).await?)
}

fn matches(filter: &DeadLetterFilter, row: &Row) -> Result<bool, PostgresError> {
    let (team, reason): (Option<&[u8]>, &str) = (row.try_get(1)?, row.try_get(2)?);
    let is_of = |own: &String| team == Some(own.as_bytes());
    let fate = row.try_get::<_, Option<&str>>(3)?.unwrap_or(LetterState::Open.name());
    Ok(filter.team.as_ref().is_none_or(is_of)
        && filter.teams.as_ref().is_none_or(|teams| teams.iter().any(is_of))
        && filter.state.is_none_or(|wanted| wanted.name() == fate)
        && filter.reason.is_none_or(|wanted| wanted.name() == reason))
}

/// The letters with the first [`LISTED_BYTES`] of their values: a page of whole values would be megabytes.
async fn listed(
    client: &impl GenericClient,
    numbers: &Numbers,
    ids: &[CallbackId],
) -> Result<Vec<BuriedLetter>, PostgresError> {
    let asked: Vec<Uuid> = ids.iter().copied().map(Uuid::from).collect();
    let sql = format!(
        "SELECT {COLUMNS}, NULL::bytea, substring(value FROM 1 FOR {LISTED_BYTES}) FROM dead_letter WHERE id = ANY($1) ORDER BY id DESC"
    );
    let statement = client.prepare_cached(&sql).await?;
    let mut letters = Vec::with_capacity(ids.len());
    for row in client.query(&statement, &[&asked]).await? {
        match read(client, numbers, &row).await {
            Ok(letter) => letters.push(letter),
            Err(PostgresError::Corrupt(what)) => {
                let letter = id_of(&row)?.to_dead_letter_id();
                tracing::error!(%letter, what, "a dead letter can't be read; the others are listed");
            }
            Err(other) => return Err(other),
        }
    }
    Ok(letters)
}

async fn read(client: &impl GenericClient, numbers: &Numbers, row: &Row) -> Result<BuriedLetter, PostgresError> {
    let text = |at| -> Result<Option<Box<str>>, PostgresError> {
        let bytes: Option<&[u8]> = row.try_get(at)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned().into_boxed_str()))
    };
    let hash: Option<&[u8]> = row.try_get(11)?;
    let value_hash: Option<Hash> =
        hash.map(|hash| hash.try_into().map_err(|_| PostgresError::Corrupt("a value's hash"))).transpose()?;
    let headers: Option<&[u8]> = row.try_get(14)?;
    let letter = DeadLetter {
        id: id_of(row)?,
        record: RecordRef {
            partition: numbers.partition_key(client, row.try_get(1)?).await?,
            offset: row.try_get(2)?,
            timestamp: row.try_get(3)?,
        },
        reason: reason(row.try_get(4)?)?,
        detail: String::from_utf8_lossy(row.try_get(5)?).into_owned(),
        team: text(6)?,
        task_id: text(7)?,
        event_id: text(8)?,
        value: Bytes::copy_from_slice(row.try_get(15)?),
        value_len: u64::try_from(row.try_get::<_, i64>(9)?).unwrap_or(0),
        value_hash,
        headers: headers.and_then(|text| letters::read(std::str::from_utf8(text).ok()?)),
    };
    let fate = Fate::read(row.try_get(12)?, row.try_get::<_, Option<Uuid>>(13)?.map(CallbackId::from));
    let fate = fate.ok_or(PostgresError::Corrupt("what became of a dead letter"))?;
    Ok(BuriedLetter { letter, buried_at: Timestamp::from_millis(row.try_get(10)?), fate })
}

fn reason(name: &str) -> Result<Unreadable, PostgresError> {
    Unreadable::parse(name).ok_or(PostgresError::Corrupt("a dead letter's reason"))
}
