//! Inspects the store's files without changing them, under the lock, while no daemon runs.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;

use super::super::connection::{FILE, lock, open_to_read};
use super::super::engine::rows::load;
use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::super::migrations::{KNOWN, named, schema, sealed};
use crate::base::clock::Timestamp;
use crate::model::callback::{CallbackId, newest_builder};
use crate::store::OpenError;
use crate::store::report::{Info, NEWER_BUILDER, unreadable_rows, unreadable_settled};

pub(in crate::store) fn migrations(directory: &Path) -> Result<Vec<(&'static str, bool)>, OpenError> {
    let applied = if directory.join(FILE).exists() {
        let _lock = lock(directory)?;
        let connection = open(directory)?;
        sealed(&connection, directory)?;
        let found = schema(&connection).map_err(|error| unusable(directory, &error))?;
        found.admits(KNOWN.len(), named(directory))?;
        found.applied
    } else {
        0
    };
    Ok(KNOWN.iter().enumerate().map(|(at, migration)| (migration.name, at < applied)).collect())
}

pub(in crate::store) fn info(directory: &Path) -> Result<Info, OpenError> {
    let (_lock, connection) = whole(directory)?;
    let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    let look = || -> rusqlite::Result<Info> {
        let (store_id, created_at) =
            connection.query_row("SELECT id, created_at FROM store", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let schema = schema(&connection)?;
        Ok(Info {
            store_id,
            created_at: Timestamp::from_millis(created_at),
            schema: schema.name(&KNOWN),
            oldest_writer: schema.oldest_writer,
            file_bytes: bytes(directory),
            pending: count("pending")?,
            settled: count("settled")?,
            attempts: count("attempt")?,
            dead_letters: count("dead_letter")?,
            teams: count("team")?,
        })
    };
    look().map_err(|error| unusable(directory, &error))
}

/// Rows that must fit together, each as a count of those that do not.
const FIT: [(&str, &str); 8] = [
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
        "SELECT (SELECT count(*) FROM pending WHERE partition_id NOT IN (SELECT id FROM partition_offsets))
              + (SELECT count(*) FROM settled WHERE partition_id NOT IN (SELECT id FROM partition_offsets))",
    ),
    (
        "kept bodies of a callback that has not ended",
        "SELECT count(*) FROM kept_body WHERE NOT EXISTS (SELECT 1 FROM settled WHERE settled.id = kept_body.id)
             OR EXISTS (SELECT 1 FROM pending WHERE pending.id = kept_body.id)",
    ),
    (
        "wrong sums of the kept bodies' bytes",
        "SELECT count(*) FROM store WHERE kept_bytes <> (SELECT coalesce(sum(length(bytes)), 0) FROM kept_body)",
    ),
    ("keys of an unknown team", "SELECT count(*) FROM team_key WHERE team NOT IN (SELECT id FROM team)"),
    (
        "attempts of an unknown callback",
        "SELECT count(*) FROM attempt WHERE NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = attempt.id)
             AND NOT EXISTS (SELECT 1 FROM settled WHERE settled.id = attempt.id)",
    ),
];

/// Reads every page and every row: a sentence for each thing that is wrong.
pub(in crate::store) fn verify(directory: &Path) -> Result<Vec<String>, OpenError> {
    let (_lock, connection) = whole(directory)?;
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
        wrong.extend(misfits(&connection)?);
        wrong.extend(unreadable(&connection)?);
        Ok(wrong)
    };
    look().map_err(|error| unusable(directory, &error))
}

/// The rows that do not fit together, as sentences.
pub(super) fn misfits(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (what, sql) in FIT {
        let count: u64 = connection.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            wrong.push(format!("{count} {what}"));
        }
    }
    Ok(wrong)
}

/// The rows that this program can't read, as sentences: a newer one may have written them.
fn unreadable(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let (mut pending, mut ids) = (0_u64, IdCache::default());
    let mut found = connection.prepare("SELECT id FROM pending")?;
    let mut rows = found.query([])?;
    while let Some(row) = rows.next()? {
        let id: Vec<u8> = row.get(0)?;
        let read = <[u8; 16]>::try_from(id).ok().map(|id| load(connection, &mut ids, CallbackId::from_bytes(id)));
        match read {
            Some(Err(SqliteError::Sql(error))) => return Err(error),
            None | Some(Err(_)) => pending += 1,
            Some(Ok(_)) => {}
        }
    }
    let settled = connection.query_row(&unreadable_settled(), [], |row| row.get(0))?;
    let newer = connection.query_row(NEWER_BUILDER, [newest_builder()], |row| row.get(0))?;
    Ok(unreadable_rows(pending, settled, newer))
}

/// The store, with its lock, where its schema is one that this program may read.
fn whole(directory: &Path) -> Result<(File, Connection), OpenError> {
    let lock = lock(directory)?;
    let connection = open(directory)?;
    sealed(&connection, directory)?;
    let found = schema(&connection).map_err(|error| unusable(directory, &error))?;
    found.admits(KNOWN.len(), named(directory))?;
    if found.missing(KNOWN.len()) > 0 {
        let (found, known) = (found.applied, KNOWN.len());
        let reason = format!("its schema is {found}, this program's is {known}; see: callbackd migrate --status");
        return Err(OpenError::Unusable { path: directory.to_owned(), reason });
    }
    Ok((lock, connection))
}

fn open(directory: &Path) -> Result<Connection, OpenError> {
    open_to_read(&directory.join(FILE)).map_err(|error| unusable(directory, &error))
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

fn unusable(directory: &Path, error: &rusqlite::Error) -> OpenError {
    OpenError::Unusable { path: directory.join(FILE), reason: error.to_string() }
}
