//! The `dedupe` table: event ids without a time, each with the callback that it belongs to.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Object;

use super::super::cells::{Table, Uuid, rows_of};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::store::EventClaim;

/// Inserts the claims of event ids that nobody has claimed, and reads back whom each event id belongs to.
pub(super) async fn claim(
    store: &PostgresStore,
    client: &mut Object,
    claims: &[EventClaim],
    now: Timestamp,
) -> Result<Vec<CallbackId>, PostgresError> {
    let transaction = client.transaction().await?;
    let mut table = Table::<3>::new();
    let mut seen = HashSet::new();
    for claim in claims.iter().filter(|claim| seen.insert(claim.hash)) {
        table.push([(&claim.hash[..]).into(), claim.id.into(), now.millis().into()]);
    }
    let rows = rows_of("hash bytea, id uuid, at bigint");
    let sql = format!("INSERT INTO dedupe (hash, id, at) {rows} ORDER BY hash ON CONFLICT DO NOTHING");
    let statement = transaction.prepare_cached(&sql).await?;
    transaction.execute(&statement, &table.values()).await?;
    // A statement of its own: it sees what others committed while the insert waited for them.
    let statement = transaction.prepare_cached("SELECT hash, id FROM dedupe WHERE hash = ANY($1)").await?;
    let hashes: Vec<&[u8]> = claims.iter().map(|claim| &claim.hash[..]).collect();
    let mut winners: HashMap<Vec<u8>, CallbackId> = HashMap::new();
    for row in transaction.query(&statement, &[&hashes]).await? {
        winners.insert(row.try_get(0)?, row.try_get::<_, Uuid>(1)?.into());
    }
    // One that was there when ours was inserted, and is not any more, was pruned in between: then nobody has claimed the event id.
    let winner = |claim: &EventClaim| winners.get(&claim.hash[..]).copied().ok_or(PostgresError::Met);
    let winners = claims.iter().map(winner).collect::<Result<_, PostgresError>>()?;
    store.commit(transaction).await?;
    Ok(winners)
}
