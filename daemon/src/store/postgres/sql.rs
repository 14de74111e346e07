//! [`Sql`] on a PostgreSQL connection. A job runs on a thread that may block, and waits there for each answer.

use deadpool_postgres::Object;
use tokio::runtime::Handle;
use tokio_postgres::types::{ToSql, Type};

use super::cells::Cell;
use super::connection::PostgresStore;
use super::error::PostgresError;
use super::session::Warnings;
use super::transaction::{Tx, begin_read, commit, commit_watched};
use crate::base::clock::Timestamp;
use crate::store::sql::{Database, End, Reader, Row, Sql, Value};
use crate::store::{Answer, StoreError};

/// A transaction for the time of one job.
struct PostgresSql<'t> {
    transaction: &'t Tx<'t>,
    runtime: &'t Handle,
}

impl Sql for PostgresSql<'_> {
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let found = self.runtime.block_on(async {
            let statement = self.transaction.prepare_cached(sql).await?;
            let rows = self.transaction.query(&statement, &params(&cells(values))).await?;
            rows.iter().map(row).collect::<Result<_, PostgresError>>()
        });
        Ok(found?)
    }

    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<usize, StoreError> {
        let changed: Result<u64, PostgresError> = self.runtime.block_on(async {
            let statement = self.transaction.prepare_cached(sql).await?;
            Ok(self.transaction.execute(&statement, &params(&cells(values))).await?)
        });
        Ok(usize::try_from(changed?).unwrap_or(usize::MAX))
    }
}

impl Database for PostgresStore {
    fn transaction<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Sql, Timestamp) -> Result<End<T>, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let client = self.writer().await?;
            let (now, warnings) = (self.clock.now(), self.warnings.clone());
            apart(move |runtime| transact(client, &runtime, (now, &warnings), job)).await
        })
    }

    fn read<T: Send + 'static>(
        &self,
        reader: Reader,
        job: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let mut client = match reader {
                Reader::Delivery => self.delivery_reader().await?,
                Reader::People => self.people_reader().await?,
            };
            apart(move |runtime| {
                let transaction = runtime.block_on(begin_read(&mut client))?;
                let value = job(&mut PostgresSql { transaction: &transaction, runtime: &runtime })?;
                runtime.block_on(commit(transaction))?;
                Ok(value)
            })
            .await
        })
    }
}

/// Runs `job` on a thread that may block.
async fn apart<T: Send + 'static>(
    job: impl FnOnce(Handle) -> Result<T, PostgresError> + Send + 'static,
) -> Result<T, StoreError> {
    let runtime = Handle::current();
    let ended = |_| StoreError::Unavailable("the call was given up".to_owned());
    Ok(tokio::task::spawn_blocking(move || job(runtime)).await.map_err(ended)??)
}

fn transact<T>(
    mut client: Object,
    runtime: &Handle,
    (now, warnings): (Timestamp, &Warnings),
    job: impl FnOnce(&mut dyn Sql, Timestamp) -> Result<End<T>, StoreError>,
) -> Result<T, PostgresError> {
    let transaction = runtime.block_on(client.transaction())?;
    match job(&mut PostgresSql { transaction: &transaction, runtime }, now)? {
        End::Commit(value) => runtime.block_on(commit_watched(transaction, warnings)).map(|()| value),
        End::RollBack(value) => Ok(runtime.block_on(transaction.rollback()).map(|()| value)?),
    }
}

fn cells(values: &[Value]) -> Vec<Cell<'_>> {
    let cell = |value| match value {
        &Value::Null => Cell::Null,
        &Value::Integer(number) => Cell::Integer(number),
        Value::Text(text) => Cell::Text(text),
        Value::Bytes(bytes) => Cell::Bytes(bytes),
    };
    values.iter().map(cell).collect()
}

fn params<'c>(cells: &'c [Cell<'c>]) -> Vec<&'c (dyn ToSql + Sync)> {
    cells.iter().map(|cell| cell as &(dyn ToSql + Sync)).collect()
}

fn row(row: &tokio_postgres::Row) -> Result<Row, PostgresError> {
    let columns = row.columns().iter().enumerate().map(|(at, column)| {
        Ok(match *column.type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(at)?.map_or(Value::Null, Value::Integer),
            Type::TEXT => row.try_get::<_, Option<String>>(at)?.map_or(Value::Null, Value::Text),
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(at)?.map_or(Value::Null, Value::Bytes),
            _ => return Err(PostgresError::Corrupt("a column of a type that no admin table has")),
        })
    });
    Ok(Row::new(columns.collect::<Result<_, PostgresError>>()?))
}
