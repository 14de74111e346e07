//! The `attempt` table.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::super::cells::{Table, Uuid, param, rows_of};
use super::super::error::PostgresError;
use super::super::pipeline::Pipeline;
use super::rows::{names, opt_small, outcome, small};
use crate::base::clock::Timestamp;
use crate::model::attempt::{Attempt, SentWithId};
use crate::model::callback::CallbackId;
use crate::model::settlement::NumberedAttempt;

/// The last column is written from texts that are made here.
const ATTEMPT_COLUMNS: &str =
    "id uuid, n integer, round integer, status integer, begun_at bigint, ms bigint, sent boolean,
    redialed boolean, outcome text, snippet bytea, sent_with bigint, peer text";

static INSERT_ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    let (columns, rows) = (names(ATTEMPT_COLUMNS), rows_of(ATTEMPT_COLUMNS));
    format!("INSERT INTO attempt ({columns}) {rows} ORDER BY id, n ON CONFLICT DO NOTHING")
});

pub(super) fn insert<'v>(last: &mut Pipeline<'v>, attempts: &'v [(CallbackId, NumberedAttempt)]) {
    if attempts.is_empty() {
        return;
    }
    let mut table = Table::<11>::new();
    let mut peers = Vec::with_capacity(attempts.len());
    for (id, row) in attempts {
        let attempt = &row.attempt;
        table.push([
            (*id).into(),
            row.n.into(),
            row.round.into(),
            attempt.status.into(),
            attempt.begun_at.millis().into(),
            i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX).into(),
            attempt.sent.into(),
            attempt.redialed.into(),
            attempt.outcome.name().into(),
            (&attempt.snippet[..]).into(),
            attempt.sent_with.map(|settings| settings.0).into(),
        ]);
        peers.push(attempt.peer.map(|peer| peer.to_string()));
    }
    let mut params = table.into_params();
    params.push(param(peers));
    last.push(INSERT_ATTEMPTS.as_str(), params);
}

pub(in super::super) async fn of(
    client: &impl GenericClient,
    id: CallbackId,
) -> Result<Vec<NumberedAttempt>, PostgresError> {
    let sql = "SELECT n, round, status, begun_at, ms, sent, redialed, outcome, peer, snippet, sent_with FROM attempt
               WHERE id = $1 ORDER BY n";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&Uuid::from(id)]).await?;
    let read = |row: &Row| {
        Ok(NumberedAttempt {
            n: small(row, 0)?,
            round: small(row, 1)?,
            attempt: Attempt {
                status: opt_small(row, 2)?,
                begun_at: Timestamp::from_millis(row.try_get(3)?),
                took: Duration::from_millis(row.try_get::<_, i64>(4)?.try_into().unwrap_or(0)),
                sent: row.try_get(5)?,
                redialed: row.try_get(6)?,
                outcome: outcome(row.try_get(7)?)?,
                peer: row.try_get::<_, Option<&str>>(8)?.and_then(|peer| peer.parse().ok()),
                snippet: Bytes::copy_from_slice(row.try_get(9)?),
                sent_with: row.try_get::<_, Option<i64>>(10)?.map(SentWithId),
            },
        })
    };
    rows.iter().map(read).collect()
}
