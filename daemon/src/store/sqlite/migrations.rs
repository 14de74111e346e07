//! The migrations of the SQLite store, applied in order, each in a transaction with the schema's new number.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::base::clock::{Clock, Timestamp};
use crate::store::{Migrate, OpenError};

pub(super) const MIGRATIONS: [(&str, &str); 15] = [
    ("0001_engine", include_str!("../../../migrations/sqlite/0001_engine.sql")),
    ("0002_people", include_str!("../../../migrations/sqlite/0002_people.sql")),
    ("0003_surface", include_str!("../../../migrations/sqlite/0003_surface.sql")),
    ("0004_words", include_str!("../../../migrations/sqlite/0004_words.sql")),
    ("0005_foreign_keys", include_str!("../../../migrations/sqlite/0005_foreign_keys.sql")),
    ("0006_limits_and_last_use", include_str!("../../../migrations/sqlite/0006_limits_and_last_use.sql")),
    ("0007_bounds", include_str!("../../../migrations/sqlite/0007_bounds.sql")),
    ("0008_endpoints", include_str!("../../../migrations/sqlite/0008_endpoints.sql")),
    ("0009_deaths_and_runs", include_str!("../../../migrations/sqlite/0009_deaths_and_runs.sql")),
    ("0010_rounds", include_str!("../../../migrations/sqlite/0010_rounds.sql")),
    ("0011_processes", include_str!("../../../migrations/sqlite/0011_processes.sql")),
    ("0012_resends", include_str!("../../../migrations/sqlite/0012_resends.sql")),
    ("0013_pauses", include_str!("../../../migrations/sqlite/0013_pauses.sql")),
    ("0014_outbox", include_str!("../../../migrations/sqlite/0014_outbox.sql")),
    ("0015_sent_with", include_str!("../../../migrations/sqlite/0015_sent_with.sql")),
];

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
    let known = MIGRATIONS.len();
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    if found < known && who == Migrate::Manual {
        return Err(OpenError::Unmigrated { at: path.display().to_string(), missing: known - found });
    }
    for (index, (name, _)) in MIGRATIONS.iter().enumerate().skip(found) {
        apply(connection, index, clock).map_err(|error| unusable(format!("migration {name}: {error}")))?;
    }
    Ok(())
}

/// The schema's number of a store that was copied to another database. It is higher than any other, so that an earlier version does not
/// open the store either.
pub(super) const SEALED: usize = 1 << 30;

/// Refuses a store that was copied to another database, because every callback that pends in it pends there, too.
pub(super) fn sealed(connection: &Connection, directory: &Path) -> Result<(), OpenError> {
    let look = || -> rusqlite::Result<Option<(String, i64)>> {
        if schema(connection)? != SEALED {
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

/// How many migrations are applied.
pub(super) fn schema(connection: &Connection) -> rusqlite::Result<usize> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn apply(connection: &mut Connection, index: usize, clock: &dyn Clock) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(MIGRATIONS[index].1)?;
    if index == 0 {
        name_store(&transaction, clock)?;
    }
    transaction.pragma_update(None, "user_version", index + 1)?;
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
        at_schema(Connection::open_in_memory().unwrap(), MIGRATIONS.len())
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
        assert_eq!(schema(&connection).unwrap(), MIGRATIONS.len());
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
    fn a_newer_schema_is_left_alone() {
        let mut connection = empty();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection, Path::new("memory"), Migrate::Auto, &SystemClock).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    }
}
