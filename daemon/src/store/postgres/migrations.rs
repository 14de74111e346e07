//! The migrations of the PostgreSQL store, applied in order, each in a transaction with the schema's new number.
//!
//! Processes of older versions may work on the database meanwhile. They go on if the migration is additive. Another one waits until
//! they are gone, and none of them can begin while it looks for them: it holds the turn in which instances begin.

use std::sync::LazyLock;

use deadpool_postgres::{GenericClient, Object};

use super::error::PostgresError;
use super::presence::LIVING;
use super::schema;
use super::transaction::Tx;
use super::turns::{self, Turn};
use super::url::PostgresUrl;
use crate::base::clock::Timestamp;
use crate::store::versions::{self, Migration};
use crate::store::{Migrate, OpenError};

/// Older programs refuse a store with any of the first seven: they do not know that a migration may be additive.
const MIGRATIONS: [Migration; 10] = [
    Migration::raising("0001_store", include_str!("../../../migrations/postgres/0001_store.sql"), 1),
    Migration::raising("0002_rounds", include_str!("../../../migrations/postgres/0002_rounds.sql"), 2),
    Migration::raising("0003_processes", include_str!("../../../migrations/postgres/0003_processes.sql"), 3),
    Migration::raising("0004_resends", include_str!("../../../migrations/postgres/0004_resends.sql"), 4),
    Migration::raising("0005_pauses", include_str!("../../../migrations/postgres/0005_pauses.sql"), 5),
    Migration::raising("0006_outbox", include_str!("../../../migrations/postgres/0006_outbox.sql"), 6),
    Migration::raising("0007_days", include_str!("../../../migrations/postgres/0007_days.sql"), 7),
    Migration::additive("0008_oldest_writer", include_str!("../../../migrations/postgres/0008_oldest_writer.sql")),
    Migration::additive("0009_sent_with", include_str!("../../../migrations/postgres/0009_sent_with.sql")),
    Migration::additive("0010_failed_attempts", include_str!("../../../migrations/postgres/0010_failed_attempts.sql")),
];
/// From this schema on, a store records its oldest writer, and what the programs of its instances know.
const RECORDED: usize = 8;

/// The migrations that this program knows.
pub(super) static KNOWN: LazyLock<Vec<Migration>> =
    LazyLock::new(|| MIGRATIONS.into_iter().chain(versions::pretended(MIGRATIONS.len())).collect());

/// Brings the schema to that of this program.
pub(super) async fn migrate(
    client: &mut Object,
    url: &PostgresUrl,
    who: Migrate,
    now: Timestamp,
) -> Result<(), OpenError> {
    let of = |error: PostgresError| error.at_open(url);
    let found = schema::read(&*client).await.map_err(|error| of(error.into()))?;
    found.admits(KNOWN.len(), named(url))?;
    let missing = found.missing(KNOWN.len());
    if missing > 0 && who == Migrate::Manual {
        return Err(OpenError::Unmigrated { at: url.to_string(), missing });
    }
    for (index, migration) in KNOWN.iter().enumerate().skip(found.applied) {
        let name = migration.name;
        let older = apply(client, index, now).await.map_err(|error| match of(error) {
            OpenError::Database { url, reason } => {
                OpenError::Database { url, reason: format!("migration {name}: {reason}") }
            }
            other => other,
        })?;
        if !older.is_empty() {
            return Err(OpenError::OlderLive { at: named(url), migration: name, older: older.join(", ") });
        }
    }
    Ok(())
}

/// The store at this URL, as a refusal names it.
pub(super) fn named(url: &PostgresUrl) -> String {
    format!("store.url: {url}")
}

/// A database with an unfinished copy is no store.
pub(super) async fn refuse_unfinished(client: &impl GenericClient, url: &PostgresUrl) -> Result<(), OpenError> {
    let copy = client.query_one("SELECT to_regclass('store_copy') IS NOT NULL", &[]).await;
    let is_there: bool =
        copy.and_then(|row| row.try_get(0)).map_err(|error| PostgresError::from(error).at_open(url))?;
    if is_there { Err(OpenError::Unfinished { url: url.to_string() }) } else { Ok(()) }
}

/// Applies a migration, unless another process has done so meanwhile. Returns the instances that keep it from being applied.
async fn apply(client: &mut Object, index: usize, now: Timestamp) -> Result<Vec<String>, PostgresError> {
    let (migration, number) = (KNOWN[index], index + 1);
    let transaction = client.transaction().await?;
    // An index over a large table takes its time, and whoever waits for it waits as long.
    transaction.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    turns::wait(&transaction, Turn::Migration).await?;
    if schema::read(&transaction).await?.applied > index {
        return Ok(Vec::new());
    }
    let version = i64::try_from(number).unwrap_or(i64::MAX);
    let oldest = migration.oldest_writer.filter(|_| number > RECORDED);
    let oldest = oldest.map(|oldest| i64::try_from(oldest).unwrap_or(i64::MAX));
    if let Some(oldest) = oldest {
        turns::wait(&transaction, Turn::Begin).await?;
        let older = older_living(&transaction, oldest).await?;
        if !older.is_empty() {
            return Ok(older);
        }
    }
    transaction.batch_execute(migration.sql).await?;
    if index == 0 {
        transaction.batch_execute("CREATE TABLE schema_version (version bigint NOT NULL)").await?;
        transaction.execute("INSERT INTO schema_version (version) VALUES ($1)", &[&version]).await?;
        name_store(&transaction, now).await?;
    } else {
        transaction.execute("UPDATE schema_version SET version = $1", &[&version]).await?;
    }
    if let Some(oldest) = oldest {
        let sql = "UPDATE schema_version SET oldest_writer = greatest(oldest_writer, $1)";
        transaction.execute(sql, &[&oldest]).await?;
    }
    super::transaction::commit(transaction).await?;
    Ok(Vec::new())
}

/// The living instances whose programs do not know this schema, each in words.
async fn older_living(transaction: &Tx<'_>, schema: i64) -> Result<Vec<String>, PostgresError> {
    let sql = format!(
        "SELECT name, host, version, schema FROM instance WHERE id IN ({LIVING}) AND coalesce(schema, 0) < $1
         ORDER BY started_at, id"
    );
    let rows = transaction.query(&sql, &[&schema]).await?;
    let words = |row: &tokio_postgres::Row| {
        let [name, host, version] = [0, 1, 2].map(|at| row.get::<_, Option<String>>(at));
        let name = name.map(|name| format!("\"{name}\" ")).unwrap_or_default();
        let schema = row.get::<_, Option<i64>>(3).map(|schema| format!(", schema {schema}")).unwrap_or_default();
        format!("{name}on {} (version {}{schema})", host.as_deref().unwrap_or("?"), version.as_deref().unwrap_or("?"))
    };
    Ok(rows.iter().map(words).collect())
}

/// Gives a new store its id.
async fn name_store(transaction: &Tx<'_>, now: Timestamp) -> Result<(), PostgresError> {
    let mut random = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    let id = format!("st_{}", scale_callback_serve::text::hex(&random));
    let sql = "INSERT INTO store (one, id, generation, created_at, counted_since) VALUES (1, $1, 1, $2, $2)";
    transaction.execute(sql, &[&id, &now.millis()]).await?;
    Ok(())
}
