//! Whether a server is one that a store may stand on.

use tokio_postgres::Client;

use super::error::told;

/// The oldest version, as `server_version_num` writes it.
const OLDEST: i64 = 150_000;

const ASKED: &str = "SELECT current_setting('server_version_num')::bigint, pg_is_in_recovery(),
        current_setting('transaction_read_only') = 'on', current_setting('fsync') = 'on',
        current_setting('full_page_writes') = 'on', current_setting('server_encoding')";

/// # Errors
/// A sentence about the first thing that makes the server unfit.
pub(super) async fn check(client: &Client) -> Result<(), String> {
    let row = client.query_one(ASKED, &[]).await.map_err(|error| told(&error))?;
    let (version, is_standby, is_read_only): (i64, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let (fsync, full_page_writes, encoding): (bool, bool, String) = (row.get(3), row.get(4), row.get(5));
    if version < OLDEST {
        return Err(format!("the server is PostgreSQL {}; callbackd needs 15 or newer", version / 10_000));
    }
    if is_standby {
        return Err("the server is a standby; name the primary, or add target_session_attrs=read-write".to_owned());
    }
    if is_read_only {
        return Err("the database is read-only".to_owned());
    }
    if !fsync {
        return Err("the server runs with fsync = off, so a power cut would lose callbacks; set fsync = on".to_owned());
    }
    if !full_page_writes {
        return Err(
            "the server runs with full_page_writes = off, so a power cut could destroy the store; set it to on"
                .to_owned(),
        );
    }
    if encoding != "UTF8" {
        return Err(format!("the database's encoding is {encoding}; create one with ENCODING 'UTF8'"));
    }
    Ok(())
}
