//! The migrations of the PostgreSQL store, applied in order, each in a transaction with the schema's new number.

use deadpool_postgres::{GenericClient, Object};

use super::error::PostgresError;
use super::turns::{self, Turn};
use super::url::PostgresUrl;
use crate::base::clock::Timestamp;
use crate::store::{Migrate, OpenError};

pub(super) const MIGRATIONS: [(&str, &str); 8] = [
    ("0001_store", include_str!("../../../migrations/postgres/0001_store.sql")),
    ("0002_rounds", include_str!("../../../migrations/postgres/0002_rounds.sql")),
    ("0003_processes", include_str!("../../../migrations/postgres/0003_processes.sql")),
    ("0004_resends", include_str!("../../../migrations/postgres/0004_resends.sql")),
    ("0005_pauses", include_str!("../../../migrations/postgres/0005_pauses.sql")),
    ("0006_outbox", include_str!("../../../migrations/postgres/0006_outbox.sql")),
    ("0007_days", include_str!("../../../migrations/postgres/0007_days.sql")),
    ("0008_sent_with", include_str!("../../../migrations/postgres/0008_sent_with.sql")),
];

/// Brings the schema to that of this program.
pub(super) async fn migrate(
    client: &mut Object,
    url: &PostgresUrl,
    who: Migrate,
    now: Timestamp,
) -> Result<(), OpenError> {
    let found = schema(&*client).await.map_err(|error| PostgresError::from(error).at_open(url))?;
    let known = MIGRATIONS.len();
    if found > known {
        return Err(OpenError::Database { url: url.to_string(), reason: newer(found) });
    }
    if found < known && who == Migrate::Manual {
        return Err(OpenError::Unmigrated { at: url.to_string(), missing: known - found });
    }
    for (index, (name, _)) in MIGRATIONS.iter().enumerate().skip(found) {
        apply(client, index, now).await.map_err(|error| match error.at_open(url) {
            OpenError::Database { url, reason } => {
                OpenError::Database { url, reason: format!("migration {name}: {reason}") }
            }
            other => other,
        })?;
    }
    Ok(())
}

pub(super) fn newer(found: usize) -> String {
    format!("it was written by a newer callbackd (schema {found}, this one knows {})", MIGRATIONS.len())
}

/// How many migrations are applied.
pub(super) async fn schema(client: &impl GenericClient) -> Result<usize, tokio_postgres::Error> {
    let is_there = client.query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[]).await?;
    if !is_there.get::<_, bool>(0) {
        return Ok(0);
    }
    let row = client.query_opt("SELECT version FROM schema_version", &[]).await?;
    Ok(row.map_or(0, |row| usize::try_from(row.get::<_, i64>(0)).unwrap_or(usize::MAX)))
}

/// A database with an unfinished copy is no store.
pub(super) async fn refuse_unfinished(client: &impl GenericClient, url: &PostgresUrl) -> Result<(), OpenError> {
    let copy = client.query_one("SELECT to_regclass('store_copy') IS NOT NULL", &[]).await;
    let is_there: bool =
        copy.and_then(|row| row.try_get(0)).map_err(|error| PostgresError::from(error).at_open(url))?;
    if is_there { Err(OpenError::Unfinished { url: url.to_string() }) } else { Ok(()) }
}

/// Applies a migration, unless another process has done so meanwhile.
async fn apply(client: &mut Object, index: usize, now: Timestamp) -> Result<(), PostgresError> {
    let transaction = client.transaction().await?;
    // An index over a large table takes its time, and whoever waits for it waits as long.
    transaction.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    turns::wait(&transaction, Turn::Migration).await?;
    if schema(&transaction).await? > index {
        return Ok(());
    }
    transaction.batch_execute(MIGRATIONS[index].1).await?;
    let version = i64::try_from(index + 1).unwrap_or(i64::MAX);
    if index == 0 {
        transaction.batch_execute("CREATE TABLE schema_version (version bigint NOT NULL)").await?;
        transaction.execute("INSERT INTO schema_version (version) VALUES ($1)", &[&version]).await?;
        name_store(&transaction, now).await?;
    } else {
        transaction.execute("UPDATE schema_version SET version = $1", &[&version]).await?;
    }
    super::transaction::commit(transaction).await
}

/// Gives a new store its id.
async fn name_store(transaction: &super::transaction::Tx<'_>, now: Timestamp) -> Result<(), PostgresError> {
    let mut random = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    let id = format!("st_{}", scale_callback_serve::text::hex(&random));
    let sql = "INSERT INTO store (one, id, generation, created_at, counted_since) VALUES (1, $1, 1, $2, $2)";
    transaction.execute(sql, &[&id, &now.millis()]).await?;
    Ok(())
}
