//! Why a call to PostgreSQL failed, and which kind of failure that is for the rest of the store.

use std::error::Error as _;

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

use super::url::PostgresUrl;
use crate::store::{OpenError, StoreError};

#[derive(Debug)]
pub(super) enum PostgresError {
    /// A statement failed, so the transaction did nothing.
    Sql(tokio_postgres::Error),
    /// COMMIT was not acknowledged.
    Commit(tokio_postgres::Error),
    /// COMMIT was acknowledged with a warning.
    CommitInDoubt,
    /// Another process wrote the same rows meanwhile. Nothing happened, and it works at once.
    Met,
    /// There was no connection.
    Pool(PoolError),
    /// A row that this program could not have written.
    Corrupt(&'static str),
    Refused(String),
    /// An error of a job over the shared SQL, which has its kind already.
    Store(StoreError),
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<PoolError> for PostgresError {
    fn from(error: PoolError) -> Self {
        Self::Pool(error)
    }
}

impl From<StoreError> for PostgresError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PostgresError> for StoreError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Corrupt(what) => Self::Broken(format!("a row can't be read: {what}")),
            PostgresError::Refused(why) => Self::Refused(why),
            PostgresError::Store(error) => error,
            PostgresError::Met => Self::Unavailable("other processes write the same rows all the time".to_owned()),
            PostgresError::Pool(PoolError::Backend(error)) => Self::Unavailable(told(&error)),
            PostgresError::Pool(PoolError::Timeout(_)) => {
                Self::Unavailable("no connection to the database became free in time".to_owned())
            }
            PostgresError::Pool(other) => Self::Unavailable(other.to_string()),
            // Also with an error code: a server that shuts down may say so after it has committed.
            PostgresError::Commit(error) => Self::Uncertain(told(&error)),
            PostgresError::CommitInDoubt => {
                Self::Uncertain("the database acknowledged it with a warning; see the log".to_owned())
            }
            PostgresError::Sql(error) => of_sql(&error),
        }
    }
}

impl PostgresError {
    /// Two processes met at the same rows, and this one gave way.
    pub(super) fn is_meeting(&self) -> bool {
        let gave_way = [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];
        match self {
            Self::Met => true,
            Self::Sql(error) => error.code().is_some_and(|code| gave_way.contains(code)),
            _ => false,
        }
    }

    /// What it means where the store at this URL is opened.
    pub(super) fn at_open(self, url: &PostgresUrl) -> OpenError {
        let url = url.to_string();
        match StoreError::from(self) {
            StoreError::Unavailable(reason) | StoreError::Uncertain(reason) => OpenError::DatabaseAway { url, reason },
            other => OpenError::Database { url, reason: other.to_string() },
        }
    }
}

/// What the server or the library said, with its cause, on one line. No value of a row is in it: the detail of an error may
/// quote one, so it is left out.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message().replace('\n', " "), server.code().code()),
        None => match error.source() {
            Some(cause) => format!("{error}: {cause}").replace('\n', " "),
            None => error.to_string(),
        },
    }
}

fn of_sql(error: &tokio_postgres::Error) -> StoreError {
    let Some(code) = error.code() else {
        return if error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()) {
            StoreError::Unavailable(told(error))
        } else if error.source().is_some() {
            // A value could not be written as its column's type.
            StoreError::Refused(told(error))
        } else {
            StoreError::Unavailable(told(error))
        };
    };
    if is_temporary(code) {
        return StoreError::Unavailable(told(error));
    }
    match &code.code()[..2] {
        // A value that does not fit its type, or breaks a rule of the table; a statement that is too large.
        "22" | "23" | "54" => StoreError::Refused(told(error)),
        _ => StoreError::Broken(told(error)),
    }
}

/// Connections, resources and locks: it may work later.
pub(super) fn is_temporary(code: &SqlState) -> bool {
    let classes = ["08", "40", "53", "57", "58"];
    let others = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        // An earlier statement of the transaction failed. What that was decides, and if it got lost, another try tells.
        SqlState::IN_FAILED_SQL_TRANSACTION,
    ];
    classes.contains(&&code.code()[..2]) || others.contains(code)
}
