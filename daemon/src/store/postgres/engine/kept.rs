//! Bodies of callbacks that have ended. Where they have no room, the oldest go. The sum of their bytes is the last thing that a
//! transaction writes, because every transaction with such a body writes it.

use std::collections::HashMap;

use bytes::Bytes;
use deadpool_postgres::GenericClient;

use super::super::cells::{Table, Uuid, rows_of};
use super::super::error::PostgresError;
use super::rows::id_of;
use crate::model::callback::CallbackId;
use crate::model::keeping::Keeping;
use crate::model::settlement::Rows;
use crate::store::packed::{pack, unpack};

/// How many go at once, for each one that comes. Where the budget was lowered, a transaction stays short, and the bodies that come
/// later bring the others down to it.
const PIECE: i64 = 64;
const COLUMNS: &str = "id uuid, size bigint, bytes bytea";

/// What changes of the kept bodies in one transaction.
#[derive(Default)]
pub(super) struct KeptChanges {
    new: Vec<(CallbackId, usize, Vec<u8>)>,
    gone: Vec<Uuid>,
}

impl KeptChanges {
    /// Keeps a body, or drops it, as the callback's rows before and after a change say.
    pub(super) fn follow(&mut self, keeping: Keeping, id: CallbackId, (before, after): (&Rows, &Rows), body: &Bytes) {
        match (keeping.keeps(before), keeping.keeps(after)) {
            (false, true) if !body.is_empty() => {
                let packed = pack(body);
                if packed.len() as u64 <= keeping.bytes {
                    self.gone.push(id.into());
                    self.new.push((id, body.len(), packed));
                }
            }
            (_, false) if before.settled.is_some() && before != after => self.gone.push(id.into()),
            _ => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty()
    }

    pub(super) async fn write(self, client: &impl GenericClient, keeping: Keeping) -> Result<(), PostgresError> {
        let mut bytes = forget(client, &self.gone).await?.saturating_neg();
        if !self.new.is_empty() {
            let mut table = Table::<3>::new();
            for (id, size, packed) in &self.new {
                let size = i64::try_from(*size).unwrap_or(i64::MAX);
                table.push([(*id).into(), size.into(), (&packed[..]).into()]);
                bytes = bytes.saturating_add(i64::try_from(packed.len()).unwrap_or(i64::MAX));
            }
            let sql = format!("INSERT INTO kept_body (id, size, bytes) {} ORDER BY id", rows_of(COLUMNS));
            let statement = client.prepare_cached(&sql).await?;
            client.execute(&statement, &table.values()).await?;
        }
        if bytes == 0 {
            return Ok(());
        }
        let mut kept = count(client, bytes).await?;
        for _ in 0..self.new.len().saturating_add(1) {
            if kept <= keeping.bytes {
                break;
            }
            let freed = drop_oldest(client).await?;
            kept = count(client, freed.saturating_neg()).await?;
        }
        Ok(())
    }
}

/// Deletes the bodies of these callbacks, and gives their bytes.
pub(super) async fn forget(client: &impl GenericClient, ids: &[Uuid]) -> Result<i64, PostgresError> {
    if ids.is_empty() {
        return Ok(0);
    }
    let sql = "WITH gone AS (DELETE FROM kept_body WHERE id = ANY($1) RETURNING octet_length(bytes) AS bytes)
               SELECT coalesce(sum(bytes), 0)::bigint FROM gone";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_one(&statement, &[&ids]).await?.try_get(0)?)
}

/// A row that another transaction has locked is passed over: that one waits for this one's sum.
async fn drop_oldest(client: &impl GenericClient) -> Result<i64, PostgresError> {
    let sql = "WITH gone AS (
                   DELETE FROM kept_body WHERE id IN (
                       SELECT id FROM kept_body ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
                   RETURNING octet_length(bytes) AS bytes)
               SELECT coalesce(sum(bytes), 0)::bigint FROM gone";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_one(&statement, &[&PIECE]).await?.try_get(0)?)
}

/// Adds to the bytes of all kept bodies, and gives their sum.
pub(super) async fn count(client: &impl GenericClient, bytes: i64) -> Result<u64, PostgresError> {
    let sql = "UPDATE store SET kept_bytes = greatest(0, kept_bytes + $1) RETURNING kept_bytes";
    let statement = client.prepare_cached(sql).await?;
    let sum: i64 = client.query_one(&statement, &[&bytes]).await?.try_get(0)?;
    Ok(u64::try_from(sum).unwrap_or(0))
}

/// The body of a callback, pending or ended.
pub(in super::super) async fn body(
    client: &impl GenericClient,
    id: CallbackId,
) -> Result<Option<Bytes>, PostgresError> {
    let bodies = bodies(client, &[id], 0).await?;
    Ok(bodies.into_iter().next().flatten())
}

/// The bodies of the first of these callbacks: as many as have together at most so many bytes, and at least one.
pub(in super::super) async fn bodies(
    client: &impl GenericClient,
    ids: &[CallbackId],
    at_most: usize,
) -> Result<Vec<Option<Bytes>>, PostgresError> {
    let asked: Vec<Uuid> = ids.iter().copied().map(Uuid::from).collect();
    let sql = "SELECT asked.id, coalesce(nullif(octet_length(body.bytes), 0), kept_body.size)::bigint
               FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, place)
               LEFT JOIN body ON body.id = asked.id LEFT JOIN kept_body ON kept_body.id = asked.id
               ORDER BY asked.place";
    let statement = client.prepare_cached(sql).await?;
    let (mut few, mut sum) = (Vec::<Uuid>::new(), 0_usize);
    for row in client.query(&statement, &[&asked]).await? {
        let size = row.try_get::<_, Option<i64>>(1)?.unwrap_or(0);
        sum = sum.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        if sum > at_most && !few.is_empty() {
            break;
        }
        few.push(row.try_get(0)?);
    }
    // The body of a pending callback comes first, if there are both.
    let sql = "SELECT id, bytes, NULL::bigint FROM body WHERE id = ANY($1) AND octet_length(bytes) > 0
               UNION ALL SELECT id, bytes, size FROM kept_body WHERE id = ANY($1)";
    let statement = client.prepare_cached(sql).await?;
    let mut found: HashMap<CallbackId, Bytes> = HashMap::new();
    for row in client.query(&statement, &[&few]).await? {
        let (bytes, size): (&[u8], Option<i64>) = (row.try_get(1)?, row.try_get(2)?);
        let id = id_of(&row)?;
        let body = match size {
            None => Some(bytes.to_vec()),
            Some(size) => unpack(bytes, usize::try_from(size).unwrap_or(0)),
        };
        match body {
            Some(body) => drop(found.entry(id).or_insert(body.into())),
            None => tracing::error!(callback = %id, "a kept body can't be read; Kafka may still have it"),
        }
    }
    Ok(few.into_iter().map(|id| found.remove(&id.into())).collect())
}
