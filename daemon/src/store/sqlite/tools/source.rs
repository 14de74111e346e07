//! A store that is being copied to another database, as the place to read from.
//!
//! A daemon may work on it meanwhile, so triggers log what changes, and each read is short. The log is emptied as the changes are
//! copied, in pieces. At the end the store is sealed: no daemon opens it any more.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, ToSql, Transaction, TransactionBehavior, params};

use super::super::connection::{FILE, lock, open_to_read};
use super::super::engine::close_earlier;
use super::super::error::SqliteError;
use super::super::migrations::{KNOWN, SEALED, schema, sealed};
use super::super::sql::value;
use super::inspect;
use crate::base::clock::Timestamp;
use crate::store::copied::{BYTES, Changed, CopiedTable, Kind, LARGE, Piece, ROWS};
use crate::store::sql::Value;
use crate::store::{OpenError, StoreError};

/// How long a change waits for the daemon's transactions.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is logged, with the row that tells which one it was.
const EVENTS: [(&str, &str); 3] = [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")];

pub(in crate::store) struct Source {
    directory: PathBuf,
    reader: Connection,
    writer: Connection,
    lock: Option<File>,
}

/// The copy that was begun last.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Begun {
    pub(in crate::store) copy: String,
    pub(in crate::store) to: String,
    pub(in crate::store) is_sealed: bool,
}

/// The oldest changes that were not copied yet.
#[derive(Debug)]
pub(in crate::store) struct Changes {
    /// The number of the last of them in the log.
    pub(in crate::store) upto: i64,
    pub(in crate::store) of: Vec<Changed>,
    /// More follow.
    pub(in crate::store) is_full: bool,
}

impl Source {
    /// Opens the store, also while a daemon works on it.
    pub(in crate::store) fn open(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(FILE);
        let unusable = |reason: String| OpenError::Unusable { path: path.clone(), reason };
        if !path.exists() {
            return Err(unusable(
                "there is no store; name the configuration of the daemon whose store is copied".to_owned(),
            ));
        }
        let failed = |error: rusqlite::Error| unusable(error.to_string());
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let writer = Connection::open_with_flags(&path, flags).map_err(failed)?;
        writer.busy_timeout(PATIENCE).map_err(failed)?;
        writer.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        let reader = open_to_read(&path).map_err(failed)?;
        reader.busy_timeout(PATIENCE).map_err(failed)?;
        let (found, known) = (schema(&reader).map_err(failed)?.applied, KNOWN.len());
        if found < known {
            return Err(unusable(format!(
                "its schema is {found}, this program's is {known}; run first: callbackd migrate"
            )));
        }
        // A column that this program does not know would not be copied.
        if found > known && found != SEALED {
            return Err(unusable(format!(
                "its schema is {found}, this program knows {known}; copy it with the newer callbackd"
            )));
        }
        Ok(Self { directory: directory.to_owned(), reader, writer, lock: None })
    }

    pub(in crate::store) fn store_id(&self) -> Result<String, StoreError> {
        Ok(self.reader.query_row("SELECT id FROM store", [], |row| row.get(0)).map_err(SqliteError::from)?)
    }

    /// The copy that was begun last, if one was.
    pub(in crate::store) fn begun(&self) -> Result<Option<Begun>, StoreError> {
        let look = || -> Result<_, SqliteError> {
            if !self.reader.table_exists(None, "store_copy")? {
                return Ok(None);
            }
            let sql = "SELECT copy, target, sealed_at IS NOT NULL,
                              (SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'store_copy_%') FROM store_copy";
            let begun = |row: &rusqlite::Row<'_>| {
                let begun = Begun { copy: row.get(0)?, to: row.get(1)?, is_sealed: row.get(2)? };
                // A migration that makes a table anew loses its triggers, and then changes are missing in the log.
                let is_whole = begun.is_sealed || row.get::<_, usize>(3)? == EVENTS.len() * LARGE.len();
                Ok(is_whole.then_some(begun))
            };
            Ok(self.reader.query_row(sql, [], begun).optional()?.flatten())
        };
        Ok(look()?)
    }

    /// From now on, every change is logged. An earlier copy that did not end can't go on any more.
    pub(in crate::store) fn begin(&mut self, copy: &str, to: &str, now: Timestamp) -> Result<(), StoreError> {
        let transaction = self.write()?;
        let begin = || -> rusqlite::Result<()> {
            transaction.execute_batch(&forget())?;
            transaction.execute_batch(
                "CREATE TABLE store_copy (copy TEXT NOT NULL, target TEXT NOT NULL, begun_at INTEGER NOT NULL,
                                          sealed_at INTEGER) STRICT;
                 CREATE TABLE store_copy_log (seq INTEGER PRIMARY KEY, tab INTEGER NOT NULL, id BLOB NOT NULL) STRICT;",
            )?;
            for (number, table) in LARGE.iter().enumerate() {
                transaction.execute_batch(&triggers(number, table))?;
            }
            let sql = "INSERT INTO store_copy (copy, target, begun_at) VALUES (?1, ?2, ?3)";
            transaction.execute(sql, params![copy, to, now.millis()]).map(drop)
        };
        begin().map_err(SqliteError::from)?;
        Ok(transaction.commit().map_err(SqliteError::from)?)
    }

    /// Gives a copy up: nothing is logged any more.
    pub(in crate::store) fn cancel(&mut self) -> Result<(), StoreError> {
        let transaction = self.write()?;
        transaction.execute_batch(&forget()).map_err(SqliteError::from)?;
        Ok(transaction.commit().map_err(SqliteError::from)?)
    }

    pub(in crate::store) fn count(&self, table: &CopiedTable) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM {}", table.name);
        Ok(self.reader.query_row(&sql, [], |row| row.get(0)).map_err(SqliteError::from)?)
    }

    /// The rows behind a key, in the order of their keys.
    pub(in crate::store) fn after(&self, table: &CopiedTable, key: Option<&[Value]>) -> Result<Piece, StoreError> {
        let (names, keys) = (table.names().join(", "), table.names()[..table.key].join(", "));
        let behind = key.map_or_else(String::new, |key| {
            let marks: Vec<_> = (1..=key.len()).map(|number| format!("?{number}")).collect();
            format!("WHERE ({keys}) > ({})", marks.join(", "))
        });
        let sql = format!("SELECT {names} FROM {} {behind} ORDER BY {keys}", table.name);
        let read = || -> Result<Piece, SqliteError> {
            let mut statement = self.reader.prepare_cached(&sql)?;
            let bound = key.unwrap_or_default().iter().map(Bound);
            let mut rows = statement.query(rusqlite::params_from_iter(bound))?;
            let (mut piece, mut bytes) = (Piece::default(), 0);
            while piece.rows.len() < ROWS && bytes < BYTES {
                let Some(row) = rows.next()? else {
                    piece.is_end = true;
                    break;
                };
                let row = values(row, table)?;
                bytes += size(&row);
                piece.rows.push(row);
            }
            piece.last = piece.rows.last().map(|row| row[..table.key].to_vec());
            Ok(piece)
        };
        Ok(read()?)
    }

    /// The oldest changes that were not copied yet, with the rows that are there now. One moment of the store.
    pub(in crate::store) fn changes(&self) -> Result<Changes, StoreError> {
        let read = || -> Result<Changes, SqliteError> {
            let moment = self.reader.unchecked_transaction()?;
            let mut log = moment.prepare_cached("SELECT seq, tab, id FROM store_copy_log ORDER BY seq")?;
            let mut entries = log.query([])?;
            let (mut seen, mut bytes) = (HashSet::new(), 0);
            let mut changes = Changes { upto: 0, of: Vec::new(), is_full: false };
            changes.of.extend(LARGE.iter().map(|table| Changed { table, ids: Vec::new(), rows: Vec::new() }));
            while let Some(entry) = entries.next()? {
                if seen.len() >= ROWS || bytes >= BYTES {
                    changes.is_full = true;
                    break;
                }
                changes.upto = entry.get(0)?;
                let (table, id): (usize, Vec<u8>) = (entry.get(1)?, entry.get(2)?);
                if seen.insert((table, id.clone())) {
                    let changed = changes.of.get_mut(table).ok_or(SqliteError::Corrupt("the log of a copy"))?;
                    bytes += now_there(&moment, changed, &id)?;
                    changed.ids.push(id);
                }
            }
            Ok(changes)
        };
        Ok(read()?)
    }

    /// These changes are copied. What has changed since has later numbers.
    pub(in crate::store) fn forget(&mut self, upto: i64) -> Result<(), StoreError> {
        let transaction = self.write()?;
        transaction.execute("DELETE FROM store_copy_log WHERE seq <= ?1", [upto]).map_err(SqliteError::from)?;
        Ok(transaction.commit().map_err(SqliteError::from)?)
    }

    /// Takes the store's lock. False while a daemon has it.
    pub(in crate::store) fn take_lock(&mut self) -> Result<bool, OpenError> {
        if self.lock.is_none() {
            self.lock = match lock(&self.directory) {
                Ok(lock) => Some(lock),
                Err(OpenError::InUse { .. }) => return Ok(false),
                Err(error) => return Err(error),
            };
        }
        Ok(true)
    }

    /// Does what the next start would do: leases and partitions of instances that died are free.
    pub(in crate::store) fn close_earlier(&mut self) -> Result<(), StoreError> {
        let transaction = self.write()?;
        close_earlier(&transaction)?;
        Ok(transaction.commit().map_err(SqliteError::from)?)
    }

    /// What does not fit together, as `store verify` finds it.
    pub(in crate::store) fn misfits(&self) -> Result<Vec<String>, StoreError> {
        Ok(inspect::misfits(&self.reader).map_err(SqliteError::from)?)
    }

    /// No daemon opens the store any more, not even one of an earlier version.
    pub(in crate::store) fn seal(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let transaction = self.write()?;
        let seal = || -> rusqlite::Result<()> {
            transaction.execute("UPDATE store_copy SET sealed_at = ?1", [now.millis()])?;
            transaction.execute_batch(&drop_triggers())?;
            transaction.execute_batch("DROP TABLE store_copy_log")?;
            transaction.execute("UPDATE schema_version SET oldest_writer = ?1", [SEALED])?;
            transaction.pragma_update(None, "user_version", SEALED)
        };
        seal().map_err(SqliteError::from)?;
        Ok(transaction.commit().map_err(SqliteError::from)?)
    }

    /// The sentence for a store that is sealed.
    pub(in crate::store) fn sealed(&self) -> Result<(), OpenError> {
        sealed(&self.reader, &self.directory)
    }

    fn write(&mut self) -> Result<Transaction<'_>, StoreError> {
        let begun = self.writer.transaction_with_behavior(TransactionBehavior::Immediate);
        Ok(begun.map_err(SqliteError::from)?)
    }
}

/// The number of rows of a table and the sums of its columns, as PostgreSQL computes them, too. It reads the whole table.
pub(in crate::store) fn sums(directory: &Path, table: &CopiedTable) -> Result<Vec<i64>, StoreError> {
    let sum = |(name, kind): (&&str, &Kind)| match kind {
        // The rest keeps the sum of many times within its bounds.
        Kind::Integer => format!("coalesce(sum({name} % 1000003), 0)"),
        Kind::Truth => format!("coalesce(sum({name}), 0)"),
        Kind::Id | Kind::Text | Kind::Bytes => format!("coalesce(sum(length(CAST({name} AS BLOB))), 0)"),
    };
    let sums: Vec<_> = table.names().iter().zip(&table.kinds()).map(sum).collect();
    let sql = format!("SELECT count(*), {} FROM {}", sums.join(", "), table.name);
    let read = || -> rusqlite::Result<Vec<i64>> {
        let connection = open_to_read(&directory.join(FILE))?;
        connection.query_row(&sql, [], |row| (0..=sums.len()).map(|at| row.get(at)).collect())
    };
    Ok(read().map_err(SqliteError::from)?)
}

/// Adds the rows with this first column. Returns their size.
fn now_there(moment: &Connection, changed: &mut Changed, id: &[u8]) -> Result<usize, SqliteError> {
    let table = changed.table;
    let sql = format!("SELECT {} FROM {} WHERE {} = ?1", table.names().join(", "), table.name, table.first().0);
    let mut statement = moment.prepare_cached(&sql)?;
    let mut rows = statement.query([id])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let row = values(row, table)?;
        bytes += size(&row);
        changed.rows.push(row);
    }
    Ok(bytes)
}

fn values(row: &rusqlite::Row<'_>, table: &CopiedTable) -> Result<Vec<Value>, SqliteError> {
    (0..table.names().len()).map(|column| value(row.get_ref(column)?)).collect()
}

fn size(row: &[Value]) -> usize {
    let bytes = |value: &Value| match value {
        Value::Null | Value::Integer(_) => 8,
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
    };
    row.iter().map(bytes).sum()
}

fn triggers(number: usize, table: &CopiedTable) -> String {
    let (name, id) = (table.name, table.first().0);
    let one = |(event, row): (&str, &str)| {
        format!(
            "CREATE TRIGGER {} AFTER {event} ON {name} BEGIN
                 INSERT INTO store_copy_log (tab, id) VALUES ({number}, {row}.{id}); END;",
            trigger(name, event),
        )
    };
    EVENTS.map(one).concat()
}

fn trigger(table: &str, event: &str) -> String {
    format!("store_copy_{table}_{event}")
}

fn drop_triggers() -> String {
    let of = |table: &CopiedTable| {
        let drop = |event| format!("DROP TRIGGER IF EXISTS {};", trigger(table.name, event));
        EVENTS.map(|(event, _)| drop(event)).concat()
    };
    LARGE.iter().map(of).collect()
}

fn forget() -> String {
    format!("{} DROP TABLE IF EXISTS store_copy_log; DROP TABLE IF EXISTS store_copy;", drop_triggers())
}

/// A value as SQLite takes it.
struct Bound<'v>(&'v Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self.0 {
            Value::Null => rusqlite::types::Null.to_sql(),
            Value::Integer(number) => number.to_sql(),
            Value::Text(text) => text.to_sql(),
            Value::Bytes(bytes) => bytes.to_sql(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::migrations::tests::empty;
    use super::*;
    use crate::store::copied::LAST;

    #[test]
    fn every_table_is_copied_with_all_its_columns() {
        let connection = empty();
        let names = |sql: &str| -> BTreeSet<String> {
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let tables = names("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
        let copied: Vec<_> = LARGE.iter().chain(&LAST).collect();
        // Each database says of its own schema.
        let tables: BTreeSet<String> = tables.into_iter().filter(|table| table != "schema_version").collect();
        assert_eq!(tables, copied.iter().map(|table| table.name.to_owned()).collect());
        for table in copied {
            let columns = names(&format!("SELECT name FROM pragma_table_info('{}')", table.name));
            assert_eq!(columns, table.names().into_iter().map(str::to_owned).collect(), "{}", table.name);
            let sql = format!("SELECT name FROM pragma_table_info('{}') WHERE pk > 0", table.name);
            assert_eq!(names(&sql), table.names()[..table.key].iter().map(|key| (*key).to_owned()).collect());
        }
    }
}
