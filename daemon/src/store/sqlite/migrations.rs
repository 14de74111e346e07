//! The migrations of the SQLite store, applied in order, each in a transaction with the schema's new number.
//!
//! One process at a time has the store, so no older program lives while a migration is applied. But an older one may come back.

use std::path::Path;
use std::sync::LazyLock;

use rusqlite::{Connection, TransactionBehavior};

use crate::base::clock::{Clock, Timestamp};
use crate::store::versions::{self, Migration, Schema};
use crate::store::{Migrate, OpenError};

/// Older programs refuse a store with any of the first fourteen: they do not know that a migration may be additive.
const MIGRATIONS: [Migration; 17] = [
    Migration::raising("0001_engine", include_str!("../../../migrations/sqlite/0001_engine.sql"), 1),
    Migration::raising("0002_people", include_str!("../../../migrations/sqlite/0002_people.sql"), 2),
    Migration::raising("0003_surface", include_str!("../../../migrations/sqlite/0003_surface.sql"), 3),
    Migration::raising("0004_words", include_str!("../../../migrations/sqlite/0004_words.sql"), 4),
    Migration::raising("0005_foreign_keys", include_str!("../../../migrations/sqlite/0005_foreign_keys.sql"), 5),
    Migration::raising(
        "0006_limits_and_last_use",
        include_str!("../../../migrations/sqlite/0006_limits_and_last_use.sql"),
        6,
    ),
    Migration::raising("0007_bounds", include_str!("../../../migrations/sqlite/0007_bounds.sql"), 7),
    Migration::raising("0008_endpoints", include_str!("../../../migrations/sqlite/0008_endpoints.sql"), 8),
    Migration::raising("0009_deaths_and_runs", include_str!("../../../migrations/sqlite/0009_deaths_and_runs.sql"), 9),
    Migration::raising("0010_rounds", include_str!("../../../migrations/sqlite/0010_rounds.sql"), 10),
    Migration::raising("0011_processes", include_str!("../../../migrations/sqlite/0011_processes.sql"), 11),
    Migration::raising("0012_resends", include_str!("../../../migrations/sqlite/0012_resends.sql"), 12),
    Migration::raising("0013_pauses", include_str!("../../../migrations/sqlite/0013_pauses.sql"), 13),
    Migration::raising("0014_outbox", include_str!("../../../migrations/sqlite/0014_outbox.sql"), 14),
    Migration::additive("0015_oldest_writer", include_str!("../../../migrations/sqlite/0015_oldest_writer.sql")),
    Migration::additive("0016_sent_with", include_str!("../../../migrations/sqlite/0016_sent_with.sql")),
    Migration::additive("0017_failed_attempts", include_str!("../../../migrations/sqlite/0017_failed_attempts.sql")),
];
/// From this schema on, a store records its oldest writer.
const RECORDED: usize = 15;

/// The migrations that this program knows.
pub(super) static KNOWN: LazyLock<Vec<Migration>> =
    LazyLock::new(|| MIGRATIONS.into_iter().chain(versions::pretended(MIGRATIONS.len())).collect());

/// Brings the schema to that of this program.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    who: Migrate,
    clock: &dyn Clock,
) -> Result<(), OpenError> {
    let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
    sealed(connection, path.parent().unwrap_or(path))?;
    let found = schema(connection).map_err(|error| unusable(error.to_string()))?;
    found.admits(KNOWN.len(), named(path))?;
    let missing = found.missing(KNOWN.len());
    if missing > 0 && who == Migrate::Manual {
        return Err(OpenError::Unmigrated { at: path.display().to_string(), missing });
    }
    for (index, migration) in KNOWN.iter().enumerate().skip(found.applied) {
        apply(connection, index, clock).map_err(|error| unusable(format!("migration {}: {error}", migration.name)))?;
    }
    Ok(())
}

/// The schema's number of a store that was copied to another database. It is higher than any other, so that an earlier version does not
/// open the store either.
pub(super) const SEALED: usize = 1 << 30;

/// Refuses a store that was copied to another database, because every callback that pends in it pends there, too.
pub(super) fn sealed(connection: &Connection, directory: &Path) -> Result<(), OpenError> {
    let look = || -> rusqlite::Result<Option<(String, i64)>> {
        if schema(connection)?.applied != SEALED {
            return Ok(None);
        }
        connection.query_row("SELECT target, sealed_at FROM store_copy", [], |row| Ok(Some((row.get(0)?, row.get(1)?))))
    };
    let path = directory.to_owned();
    match look() {
        Ok(None) => Ok(()),
        Ok(Some((to, at))) => Err(OpenError::Sealed { path, to, at: Timestamp::from_millis(at) }),
        Err(error) => Err(OpenError::Unusable { path, reason: error.to_string() }),
    }
}

/// The store at this path, as a refusal names it.
pub(super) fn named(path: &Path) -> String {
    format!("store.path: {}", path.display())
}

/// What the store says of its schema.
pub(super) fn schema(connection: &Connection) -> rusqlite::Result<Schema> {
    let applied = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let oldest_writer = if connection.table_exists(None, "schema_version")? {
        Some(connection.query_row("SELECT oldest_writer FROM schema_version", [], |row| row.get(0))?)
    } else {
        None
    };
    Ok(Schema::new(applied, oldest_writer))
}

fn apply(connection: &mut Connection, index: usize, clock: &dyn Clock) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (migration, schema) = (KNOWN[index], index + 1);
    transaction.execute_batch(migration.sql)?;
    if index == 0 {
        name_store(&transaction, clock)?;
    }
    if let Some(oldest) = migration.oldest_writer.filter(|_| schema > RECORDED) {
        transaction.execute("UPDATE schema_version SET oldest_writer = max(oldest_writer, ?1)", [oldest])?;
    }
    transaction.pragma_update(None, "user_version", schema)?;
    transaction.commit()
}

/// Gives a new store its id. The column of its time has the name that the first migration gives it; a later migration
/// renames it.
fn name_store(connection: &Connection, clock: &dyn Clock) -> rusqlite::Result<()> {
    let mut random = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    let id = format!("st_{}", scale_callback_serve::text::hex(&random));
    connection.execute(
        "INSERT INTO store (one, id, generation, made_at) VALUES (1, ?1, 1, ?2)",
        (id, clock.now().millis()),
    )?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    /// An empty store in memory, at this program's schema.
    pub(in crate::store::sqlite) fn empty() -> Connection {
        at_schema(Connection::open_in_memory().unwrap(), KNOWN.len())
    }

    /// An empty store at an earlier schema.
    pub(in crate::store::sqlite) fn at_schema(mut connection: Connection, schema: usize) -> Connection {
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        for index in 0..schema {
            apply(&mut connection, index, &SystemClock).unwrap();
        }
        connection
    }

    #[test]
    fn teams_and_keys_of_an_earlier_schema_are_carried_over() {
        let mut connection = at_schema(Connection::open_in_memory().unwrap(), 3);
        connection
            .execute_batch(
                "INSERT INTO team (id, name, allowed_origins, auth_form, origin_forms, made_at, changed_at)
                 VALUES ('team_a', 'A', '', 'key', '', 1, 1);
                 INSERT INTO team_key (id, team, kind, mode, state, keyring, sealed, last4, made_at, promote_at)
                 VALUES ('key_1', 'team_a', 'hmac', 'live', 'active', 'ring', x'0102', '1234', 7, 8),
                        ('key_2', 'team_gone', 'hmac', 'live', 'active', 'ring', x'0102', '1234', 7, 8);",
            )
            .unwrap();
        migrate(&mut connection, Path::new("memory"), Migrate::Auto, &SystemClock).unwrap();
        assert_eq!(schema(&connection).unwrap(), Schema { applied: KNOWN.len(), oldest_writer: 14 });
        let key: (String, Vec<u8>, i64, Option<i64>, Option<i64>) = connection
            .query_row("SELECT team, sealed, created_at, promote_at, revoked_at FROM team_key", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })
            .unwrap();
        assert_eq!(key, ("team_a".to_owned(), vec![1, 2], 7, Some(8), None));
        let keys: i64 = connection.query_row("SELECT count(*) FROM team_key", [], |row| row.get(0)).unwrap();
        assert_eq!(keys, 1, "a key of no team is left out");
        let index: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'team_key_team'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(index, 1, "the index of the table that was built again");
        let orphan = connection.execute("UPDATE team_key SET team = 'nobody'", []);
        assert!(orphan.is_err(), "a key belongs to a team that exists");
    }

    #[test]
    fn the_oldest_writer_is_that_of_the_last_migration_that_raises_it() {
        for (index, migration) in KNOWN.iter().enumerate() {
            assert!(migration.oldest_writer.is_none_or(|oldest| oldest <= index + 1), "{}", migration.name);
        }
        let last = KNOWN.iter().rev().find_map(|migration| migration.oldest_writer).unwrap();
        let found = schema(&empty()).unwrap();
        assert_eq!((found.applied, found.oldest_writer), (KNOWN.len(), last));
    }

    #[test]
    fn a_newer_schema_is_opened_if_this_program_may_write_to_it() {
        let mut connection = empty();
        connection.pragma_update(None, "user_version", 99).unwrap();
        migrate(&mut connection, Path::new("memory"), Migrate::Manual, &SystemClock).unwrap();
        assert_eq!(schema(&connection).unwrap().applied, 99, "it stays as it is");
        connection.execute("UPDATE schema_version SET oldest_writer = 98", []).unwrap();
        let error = migrate(&mut connection, Path::new("memory"), Migrate::Auto, &SystemClock).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, needed: 98, .. }) && !error.may_pass(), "{error}");
    }
}
