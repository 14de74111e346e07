//! The outbox on PostgreSQL. A row belongs to the instance that wrote it, and after a while to any that lives.

use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::super::cells::{Uuid, param};
use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::pipeline::Pipeline;
use super::rows::{self, NumbersRead};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::notice::Notice;
use crate::model::settlement::Settled;
use crate::store::outbox::{HELD, Outbox, OutboxRow, pack, unpack};
use crate::store::{Answer, InstanceId};

/// Writes what a transaction has to tell. Without an instance, anyone may publish it at once.
pub(super) fn insert(last: &mut Pipeline<'_>, notices: &[Notice], holder: Option<InstanceId>, now: Timestamp) {
    if notices.is_empty() {
        return;
    }
    let sql = "INSERT INTO outbox (notices, entries, holder, held_until) VALUES ($1, $2, $3, $4)";
    let count = i64::try_from(notices.len()).unwrap_or(i64::MAX);
    let until = if holder.is_some() { now.plus(HELD).millis() } else { 0 };
    let holder = holder.map(|instance| instance.0);
    last.push(sql, vec![param(count), param(pack(notices)), param(holder), param(until)]);
}

/// The rows of an instance. Those that it does not hold for much longer, and those that nobody holds, it takes until later.
async fn rows_of(
    client: &Object,
    instance: InstanceId,
    at_most: usize,
    now: Timestamp,
) -> Result<Vec<Row>, PostgresError> {
    let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
    let take = "UPDATE outbox SET holder = $1, held_until = $2 WHERE id IN (
                    SELECT id FROM outbox WHERE held_until <= $3 OR (holder = $1 AND held_until <= $4)
                    ORDER BY id LIMIT $5 FOR UPDATE SKIP LOCKED)";
    let (until, soon) = (now.plus(HELD).millis(), now.plus(HELD / 2).millis());
    let statement = client.prepare_cached(take).await?;
    client.execute(&statement, &[&instance.0, &until, &now.millis(), &soon, &at_most]).await?;
    let own = "SELECT id, entries FROM outbox WHERE holder = $1 AND held_until > $2 ORDER BY id LIMIT $3";
    let statement = client.prepare_cached(own).await?;
    Ok(client.query(&statement, &[&instance.0, &soon, &at_most]).await?)
}

impl Outbox for PostgresStore {
    fn outbox(&self, instance: InstanceId, at_most: usize) -> Answer<'_, Vec<OutboxRow>> {
        Box::pin(async move {
            let now = self.clock.now();
            let client = self.writer().await?;
            let found = rows_of(&client, instance, at_most, now).await?;
            let read = |row: &Row| {
                let id = row.try_get(0).map_err(PostgresError::from)?;
                let entries: &[u8] = row.try_get(1).map_err(PostgresError::from)?;
                Ok(OutboxRow { id, notices: unpack(entries)? })
            };
            found.iter().map(read).collect()
        })
    }

    fn published(&self, rows: Vec<i64>) -> Answer<'_, ()> {
        Box::pin(async move {
            let client = self.writer().await?;
            let statement =
                client.prepare_cached("DELETE FROM outbox WHERE id = ANY($1)").await.map_err(PostgresError::from)?;
            client.execute(&statement, &[&rows]).await.map_err(PostgresError::from)?;
            Ok(())
        })
    }

    fn endings(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Settled>>> {
        Box::pin(async move {
            let client = self.delivery_reader().await?;
            let mut asked: Vec<Uuid> = ids.iter().map(|id| (*id).into()).collect();
            asked.sort_unstable();
            asked.dedup();
            let found = rows::load(&client, &self.numbers, &asked, &mut NumbersRead::default()).await?;
            let ending = |id: &CallbackId| match found.get(id) {
                Some(Ok(rows)) => rows.settled.clone(),
                Some(Err(what)) => {
                    tracing::error!(callback = %id, what, "a row can't be read; its ending is not published");
                    None
                }
                None => None,
            };
            Ok(ids.iter().map(ending).collect())
        })
    }
}
