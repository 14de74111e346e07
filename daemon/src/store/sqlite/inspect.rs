//! A look into the store's files without changing them, under the lock: for people, while no daemon runs.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Config, MIGRATIONS, OpenError, lock};
use crate::base::clock::Timestamp;

/// What a store is and holds.
#[derive(Debug, Clone)]
pub struct Info {
    pub store_id: String,
    pub created_at: Timestamp,
    pub schema: String,
    pub file_bytes: u64,
    pub pending: u64,
    pub settled: u64,
    pub attempts: u64,
    pub dead_letters: u64,
    pub teams: u64,
}

/// Every migration that this program knows, and whether it is applied; none is where there is no store yet.
///
/// # Errors
/// [`OpenError`], a sentence for a person.
pub fn migrations(config: &Config) -> Result<Vec<(&'static str, bool)>, OpenError> {
    let applied = if config.directory.join(super::FILE).exists() {
        let _lock = lock(&config.directory)?;
        schema(&open(config)?).map_err(|error| unusable(config, &error))?
    } else {
        0
    };
    if applied > MIGRATIONS.len() {
        return Err(OpenError::Newer { path: config.directory.clone(), found: applied, known: MIGRATIONS.len() });
    }
    Ok(MIGRATIONS.iter().enumerate().map(|(at, (name, _))| (*name, at < applied)).collect())
}

/// What the store is and holds.
///
/// # Errors
/// [`OpenError`], a sentence for a person.
pub fn info(config: &Config) -> Result<Info, OpenError> {
    let (_lock, connection) = whole(config)?;
    let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    let look = || -> rusqlite::Result<Info> {
        let (store_id, created_at) =
            connection.query_row("SELECT id, created_at FROM store", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let applied = schema(&connection)?;
        Ok(Info {
            store_id,
            created_at: Timestamp::from_millis(created_at),
            schema: MIGRATIONS[applied.clamp(1, MIGRATIONS.len()) - 1].0.to_owned(),
            file_bytes: bytes(&config.directory),
            pending: count("pending")?,
            settled: count("settled")?,
            attempts: count("attempt")?,
            dead_letters: count("dead_letter")?,
            teams: count("team")?,
        })
    };
    look().map_err(|error| unusable(config, &error))
}

/// Rows that must fit together, each as a count of those that do not.
const FIT: [(&str, &str); 5] = [
    (
        "pending callbacks without a body",
        "SELECT count(*) FROM pending WHERE NOT EXISTS (SELECT 1 FROM body WHERE body.id = pending.id)",
    ),
    (
        "bodies without a pending callback",
        "SELECT count(*) FROM body WHERE NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = body.id)",
    ),
    (
        "rows of an unknown queue",
        "SELECT (SELECT count(*) FROM pending WHERE queue NOT IN (SELECT id FROM queue))
              + (SELECT count(*) FROM settled WHERE queue NOT IN (SELECT id FROM queue))",
    ),
    (
        "rows of an unknown partition",
        "SELECT (SELECT count(*) FROM pending WHERE partition NOT IN (SELECT id FROM partition_offsets))
              + (SELECT count(*) FROM settled WHERE partition NOT IN (SELECT id FROM partition_offsets))",
    ),
    (
        "attempts of an unknown callback",
        "SELECT count(*) FROM attempt WHERE NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = attempt.id)
             AND NOT EXISTS (SELECT 1 FROM settled WHERE settled.id = attempt.id)",
    ),
];

/// Reads every page and every row: a sentence for each thing that is wrong.
///
/// # Errors
/// [`OpenError`], a sentence for a person.
pub fn verify(config: &Config) -> Result<Vec<String>, OpenError> {
    let (_lock, connection) = whole(config)?;
    let look = || -> rusqlite::Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut pages = connection.prepare("PRAGMA integrity_check(20)")?;
        let mut rows = pages.query([])?;
        while let Some(row) = rows.next()? {
            let sentence: String = row.get(0)?;
            if sentence != "ok" {
                wrong.push(sentence);
            }
        }
        for (what, sql) in FIT {
            let count: u64 = connection.query_row(sql, [], |row| row.get(0))?;
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        Ok(wrong)
    };
    look().map_err(|error| unusable(config, &error))
}

/// The store of this program's schema.
fn whole(config: &Config) -> Result<(std::fs::File, Connection), OpenError> {
    let lock = lock(&config.directory)?;
    let connection = open(config)?;
    let found = schema(&connection).map_err(|error| unusable(config, &error))?;
    if found != MIGRATIONS.len() {
        let reason =
            format!("its schema is {found}, this program's is {}; see: callbackd migrate --status", MIGRATIONS.len());
        return Err(OpenError::Unusable { path: config.directory.clone(), reason });
    }
    Ok((lock, connection))
}

fn open(config: &Config) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(config.directory.join(super::FILE), flags).map_err(|error| unusable(config, &error))
}

fn schema(connection: &Connection) -> rusqlite::Result<usize> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}

fn unusable(config: &Config, error: &rusqlite::Error) -> OpenError {
    OpenError::Unusable { path: config.directory.join(super::FILE), reason: error.to_string() }
}
