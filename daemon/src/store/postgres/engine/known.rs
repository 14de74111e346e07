//! Which callbacks have a row already.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;

use super::super::cells::Uuid;
use super::super::error::PostgresError;
use super::rows::id_of;
use crate::model::callback::CallbackId;
use crate::store::Known;

pub(super) async fn known(
    client: &impl GenericClient,
    ids: &[CallbackId],
) -> Result<Vec<Option<Known>>, PostgresError> {
    let sql = "SELECT id, content_hash FROM pending WHERE id = ANY($1)
               UNION ALL SELECT id, content_hash FROM settled WHERE id = ANY($1) AND id >= $2 AND id <= $3";
    let asked: Vec<Uuid> = ids.iter().copied().map(Uuid::from).collect();
    let (Some(first), Some(last)) = (asked.iter().min(), asked.iter().max()) else { return Ok(Vec::new()) };
    let statement = client.prepare_cached(sql).await?;
    let mut found = HashMap::new();
    for row in client.query(&statement, &[&asked, first, last]).await? {
        let hash: &[u8] = row.try_get(1)?;
        let content_hash = hash.try_into().map_err(|_| PostgresError::Corrupt("a content hash"))?;
        found.insert(id_of(&row)?, Known { content_hash });
    }
    Ok(ids.iter().map(|id| found.get(id).copied()).collect())
}
