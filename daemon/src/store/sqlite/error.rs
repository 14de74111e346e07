//! Why a job on a SQLite connection failed, and which kind of failure that is for the rest of the store.

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE};

use crate::store::StoreError;

#[derive(Debug)]
pub(super) enum SqliteError {
    Sql(rusqlite::Error),
    /// A row that this program could not have written.
    Corrupt(&'static str),
    Refused(String),
    /// The disk or a quota is full, although SQLite reported another error.
    NoRoom,
    /// An error of a job over the shared SQL, which has its kind already.
    Store(StoreError),
}

impl From<rusqlite::Error> for SqliteError {
    /// A value that does not fit into the type as which it is read is a fault of its row, and not of the database.
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::Utf8Error(..) => Self::Corrupt("a value outside of its range"),
            other => Self::Sql(other),
        }
    }
}

impl From<StoreError> for SqliteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SqliteError> for StoreError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Corrupt(what) => Self::Broken(format!("a row can't be read: {what}")),
            SqliteError::Refused(why) => Self::Refused(why),
            SqliteError::NoRoom => Self::Unavailable(FULL.to_owned()),
            SqliteError::Store(error) => error,
            SqliteError::Sql(error) => of_sql(&error),
        }
    }
}

const FULL: &str = "the disk is full";

fn of_sql(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable("another program holds its lock".to_owned())
        }
        Some(ErrorCode::DiskFull) => StoreError::Unavailable(FULL.to_owned()),
        // The index of the write-ahead log could not grow, or a file could not be opened: resources, not data.
        Some(ErrorCode::CannotOpen) => StoreError::Unavailable("its files can't be opened now".to_owned()),
        Some(ErrorCode::SystemIoFailure) if is_shared_memory(error) => StoreError::Unavailable(FULL.to_owned()),
        Some(ErrorCode::OperationInterrupted) => StoreError::Unavailable("the read took too long".to_owned()),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            StoreError::Refused(error.to_string())
        }
        _ => StoreError::Broken(error.to_string()),
    }
}

fn is_shared_memory(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code.is_some_and(|code| [SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE].contains(&code))
}
