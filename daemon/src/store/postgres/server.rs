//! Whether a server is one that a store may stand on.

use std::error::Error as _;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::error::{is_temporary, told};

/// The oldest version, as `server_version_num` writes it.
const OLDEST: i64 = 150_000;

const ASKED: &str = "SELECT current_setting('server_version_num')::bigint, pg_is_in_recovery(),
        current_setting('transaction_read_only') = 'on', current_setting('fsync') = 'on',
        current_setting('full_page_writes') = 'on', current_setting('server_encoding'),
        CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END";

/// Why a session can't be used.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) reason: String,
    /// It may pass without a change of the settings: the server is away, full, or a standby.
    pub(super) passes: bool,
}

impl Unfit {
    pub(super) fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), passes: false }
    }

    pub(super) fn for_now(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), passes: true }
    }
}

/// What is said of a pooler that gives each transaction another session of the server.
pub(super) const POOLED: &str = "a pooler in transaction mode stands before the server, and there no lock lasts; set pool_mode = \
                                 session for this database, or name the server itself";

impl From<&Error> for Unfit {
    fn from(error: &Error) -> Self {
        // A statement that was just prepared is not there, or another client's is: it is another session now.
        let of_another = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
        if error.code().is_some_and(|code| of_another.contains(code)) {
            return Self::for_good(POOLED);
        }
        let passes = match error.as_db_error() {
            Some(server) if *server.code() == SqlState::PROTOCOL_VIOLATION => !is_of_pooler(server.message()),
            Some(server) => is_temporary(server.code()),
            None => is_of_connection(error),
        };
        Self { reason: told(error), passes }
    }
}

/// A pooler has one code for everything that it has to say, also that its server is away.
fn is_of_pooler(message: &str) -> bool {
    ["no such database", "no such user", "startup parameter", "not supported"].iter().any(|what| message.contains(what))
}

/// Whether there was no connection, or it broke. A certificate that is refused today is refused tomorrow, and a password that is
/// missing stays missing.
fn is_of_connection(error: &Error) -> bool {
    let io = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let is_of_tls = |io: &std::io::Error| io.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
    error.is_closed() || error.to_string().starts_with("timeout") || io.is_some_and(|io| !is_of_tls(io))
}

/// The timeline of a server that is fit.
///
/// # Errors
/// The first thing that makes the server unfit.
pub(super) async fn check(client: &Client) -> Result<String, Unfit> {
    let row = client.query_one(ASKED, &[]).await.map_err(|error| Unfit::from(&error))?;
    let (version, is_standby, is_read_only): (i64, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let (fsync, full_page_writes, encoding): (bool, bool, String) = (row.get(3), row.get(4), row.get(5));
    if version < OLDEST {
        return Err(Unfit::for_good(format!(
            "the server is PostgreSQL {}; callbackd needs 15 or newer",
            version / 10_000
        )));
    }
    if is_standby {
        return Err(Unfit::for_now(
            "the server is a standby; name the primary, or several hosts and target_session_attrs=read-write",
        ));
    }
    if is_read_only {
        return Err(Unfit::for_now("the database is read-only"));
    }
    if !fsync {
        let reason = "the server runs with fsync = off, so a power cut would lose callbacks; set fsync = on";
        return Err(Unfit::for_good(reason));
    }
    if !full_page_writes {
        return Err(Unfit::for_good(
            "the server runs with full_page_writes = off, so a power cut could destroy the store; set it to on",
        ));
    }
    if encoding != "UTF8" {
        let reason = format!("the database's encoding is {encoding}; create one with ENCODING 'UTF8'");
        return Err(Unfit::for_good(reason));
    }
    Ok(row.get(6))
}
