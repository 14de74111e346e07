//! What a database says of its schema.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use crate::store::versions::Schema;

/// Both numbers, also where the column of the second one is still missing.
pub(super) const SELECT: &str =
    "SELECT version, (to_jsonb(schema_version) ->> 'oldest_writer')::bigint FROM schema_version";

/// A row of [`SELECT`].
pub(super) fn of(row: &Row) -> Schema {
    let number = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    Schema::new(number(row.get(0)), row.get::<_, Option<i64>>(1).map(number))
}

pub(super) async fn read(client: &impl GenericClient) -> Result<Schema, tokio_postgres::Error> {
    let is_there = client.query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[]).await?;
    let row = if is_there.get(0) { client.query_opt(SELECT, &[]).await? } else { None };
    Ok(row.map_or(Schema::new(0, None), |row| of(&row)))
}
