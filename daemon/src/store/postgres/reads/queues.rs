//! Reads of the `queue` table with what waits in each queue.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::error::PostgresError;
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::store::reads::{QueueAsk, QueueRow, Queues};

/// Queues whose rows say that a callback of theirs waits or is under way.
pub(super) async fn list(client: &impl GenericClient, ask: &QueueAsk) -> Result<Vec<QueueRow>, PostgresError> {
    let count = i64::try_from(ask.count_upto).unwrap_or(i64::MAX);
    match &ask.which {
        Queues::From { team, at_most } => {
            let from = team.as_deref().unwrap_or_default();
            let at_most = i64::try_from(*at_most).unwrap_or(i64::MAX);
            read(client, "queue.team >= $2 ORDER BY queue.team, target LIMIT $3", &[&count, &from, &at_most]).await
        }
        Queues::Of(team) => read(client, "queue.team = $2 ORDER BY target LIMIT 20000", &[&count, team]).await,
        Queues::These(queues) => {
            let mut found = Vec::new();
            for (team, target) in queues {
                found.extend(read(client, "queue.team = $2 AND target = $3", &[&count, team, target]).await?);
            }
            Ok(found)
        }
    }
}

async fn read(
    client: &impl GenericClient,
    condition: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<QueueRow>, PostgresError> {
    let sql = format!(
        "SELECT queue.team, target, parked_bytes,
                (SELECT count(*) FROM (
                     SELECT 1 FROM pending WHERE pending.queue = queue.id AND token IS NULL LIMIT $1) AS few),
                first.due, first.last_outcome, first.tries
         FROM queue LEFT JOIN LATERAL (
             SELECT due, last_outcome, tries FROM pending
             WHERE pending.queue = queue.id AND token IS NULL ORDER BY due LIMIT 1
         ) AS first ON true
         WHERE (next_at IS NOT NULL OR parked_bytes > 0) AND {condition}"
    );
    let statement = client.prepare_cached(&sql).await?;
    client.query(&statement, values).await?.iter().map(row).collect()
}

fn row(row: &Row) -> Result<QueueRow, PostgresError> {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(QueueRow {
        team: row.try_get(0)?,
        target: row.try_get(1)?,
        parked_bytes: count(row.try_get(2)?),
        pending: count(row.try_get(3)?),
        oldest_due: row.try_get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
        last_outcome: row.try_get::<_, Option<&str>>(5)?.and_then(Outcome::parse),
        tries: row.try_get::<_, Option<i32>>(6)?.map_or(0, |tries| u32::try_from(tries).unwrap_or(0)),
    })
}
