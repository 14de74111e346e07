//! The `endpoint` table: how endpoints have answered lately.

use rusqlite::{Connection, Row, params};

use super::super::error::SqliteError;
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::endpoint::Origin;
use crate::model::endpoint_history::{EndpointHistory, RecentOutcomes};
use crate::store::endpoint_histories::MERGE;

/// How many rows are kept. A flood of one-time hosts pushes the oldest out.
const ROWS: i64 = 50_000;

pub(super) fn note(connection: &Connection, histories: &[EndpointHistory]) -> Result<(), SqliteError> {
    let mut statement = connection.prepare_cached(&format!(
        "INSERT INTO endpoint (team, origin, outcomes, failures, failing_since, last_at, last_success_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) {}",
        *MERGE
    ))?;
    for EndpointHistory { team, origin, recent } in histories {
        let outcomes: Vec<_> = recent.outcomes().map(Outcome::name).collect();
        statement.execute(params![
            &**team,
            origin.to_string(),
            outcomes.join(" "),
            recent.failures,
            recent.failing_since.map(Timestamp::millis),
            recent.last_at.unwrap_or_default().millis(),
            recent.last_success_at.map(Timestamp::millis),
        ])?;
    }
    Ok(())
}

pub(super) fn newest(connection: &Connection, at_most: usize) -> Result<Vec<EndpointHistory>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT team, origin, outcomes, failures, failing_since, last_at, last_success_at
         FROM endpoint ORDER BY last_at DESC LIMIT ?1",
    )?;
    let rows = statement.query_map([at_most], |row| Ok(read(row)))?;
    // A row that can't be read is left out: it is history, and nothing depends on it.
    rows.filter_map(|row| row.map_err(SqliteError::from).and_then(|row| row).transpose()).collect()
}

fn read(row: &Row<'_>) -> Result<Option<EndpointHistory>, SqliteError> {
    let time = |index: usize| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp::from_millis))
    };
    let (team, origin, outcomes): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let Some(origin) = Origin::parse(&origin) else { return Ok(None) };
    let mut recent = RecentOutcomes::of(outcomes.split(' ').filter_map(Outcome::parse));
    recent.failures = row.get(3)?;
    recent.failing_since = time(4)?;
    recent.last_at = time(5)?;
    recent.last_success_at = time(6)?;
    Ok(Some(EndpointHistory { team: team.into(), origin, recent }))
}

/// Deletes the histories of endpoints that were used last before this time, and the oldest of too many.
pub(super) fn prune(connection: &Connection, before: Timestamp) -> Result<(), SqliteError> {
    connection.prepare_cached("DELETE FROM endpoint WHERE last_at < ?1")?.execute([before.millis()])?;
    connection
        .prepare_cached(
            "DELETE FROM endpoint WHERE last_at <= (SELECT last_at FROM endpoint ORDER BY last_at DESC LIMIT 1 OFFSET ?1)",
        )?
        .execute([ROWS])?;
    Ok(())
}
