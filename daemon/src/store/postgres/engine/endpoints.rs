//! The `endpoint` table: how endpoints have answered lately.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::super::cells::{Table, rows_of};
use super::super::error::PostgresError;
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::endpoint::Origin;
use crate::model::endpoint_history::{EndpointHistory, RecentOutcomes};
use crate::store::endpoint_histories::MERGE;

/// How many rows are kept. A flood of one-time hosts pushes the oldest out.
const ROWS: i64 = 50_000;

pub(super) async fn note(client: &impl GenericClient, histories: &[EndpointHistory]) -> Result<(), PostgresError> {
    let texts: Vec<(String, String)> = histories
        .iter()
        .map(|history| {
            let outcomes: Vec<_> = history.recent.outcomes().map(Outcome::name).collect();
            (history.origin.to_string(), outcomes.join(" "))
        })
        .collect();
    let mut table = Table::<7>::new();
    for (EndpointHistory { team, recent, .. }, (origin, outcomes)) in histories.iter().zip(&texts) {
        table.push([
            (&**team).into(),
            origin.as_str().into(),
            outcomes.as_str().into(),
            i64::from(recent.failures).into(),
            recent.failing_since.map(Timestamp::millis).into(),
            recent.last_at.unwrap_or_default().millis().into(),
            recent.last_success_at.map(Timestamp::millis).into(),
        ]);
    }
    let rows = rows_of(
        "team text, origin text, outcomes text, failures bigint, failing_since bigint, last_at bigint,
         last_success_at bigint",
    );
    let sql = format!(
        "INSERT INTO endpoint (team, origin, outcomes, failures, failing_since, last_at, last_success_at)
         SELECT DISTINCT ON (team, origin) * FROM ({rows}) AS new ORDER BY team, origin, last_at DESC
         {}",
        *MERGE
    );
    let statement = client.prepare_cached(&sql).await?;
    client.execute(&statement, &table.values()).await?;
    Ok(())
}

pub(super) async fn newest(client: &impl GenericClient, at_most: usize) -> Result<Vec<EndpointHistory>, PostgresError> {
    let sql = "SELECT team, origin, outcomes, failures, failing_since, last_at, last_success_at
               FROM endpoint ORDER BY last_at DESC LIMIT $1";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&i64::try_from(at_most).unwrap_or(i64::MAX)]).await?;
    // A row that can't be read is left out: it is history, and nothing depends on it.
    rows.iter().filter_map(|row| read(row).transpose()).collect()
}

fn read(row: &Row) -> Result<Option<EndpointHistory>, PostgresError> {
    let time = |at| -> Result<_, PostgresError> { Ok(row.try_get::<_, Option<i64>>(at)?.map(Timestamp::from_millis)) };
    let (team, origin, outcomes): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let Some(origin) = Origin::parse(origin) else { return Ok(None) };
    let mut recent = RecentOutcomes::of(outcomes.split(' ').filter_map(Outcome::parse));
    recent.failures =
        row.try_get::<_, i64>(3)?.try_into().map_err(|_| PostgresError::Corrupt("a count of failures"))?;
    recent.failing_since = time(4)?;
    recent.last_at = time(5)?;
    recent.last_success_at = time(6)?;
    Ok(Some(EndpointHistory { team: team.into(), origin, recent }))
}

/// Deletes the histories of endpoints that were used last before this time, and the oldest of too many.
pub(super) async fn prune(client: &impl GenericClient, before: Timestamp) -> Result<(), PostgresError> {
    let statement = client.prepare_cached("DELETE FROM endpoint WHERE last_at < $1").await?;
    client.execute(&statement, &[&before.millis()]).await?;
    let sql =
        "DELETE FROM endpoint WHERE last_at <= (SELECT last_at FROM endpoint ORDER BY last_at DESC LIMIT 1 OFFSET $1)";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&ROWS]).await?;
    Ok(())
}
