//! The `once` table: what a request with an `Idempotency-Key` made, for a day.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Made, Once};
use crate::base::clock::Timestamp;
use crate::store::sqlite::Failure;

const KEPT: std::time::Duration = std::time::Duration::from_secs(86_400);

pub(super) fn find(connection: &Connection, actor: &str, once: &Once, now: Timestamp) -> Result<Option<Made>, Failure> {
    connection.prepare_cached("DELETE FROM once WHERE at < ?1")?.execute([now.minus(KEPT).millis()])?;
    let kept: Option<([u8; 32], String)> = connection
        .prepare_cached("SELECT fingerprint, object FROM once WHERE actor = ?1 AND key = ?2")?
        .query_row(params![actor, once.key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(kept.map(
        |(fingerprint, object)| {
            if fingerprint == once.fingerprint { Made::Repeated(object) } else { Made::Mismatch }
        },
    ))
}

pub(super) fn keep(
    connection: &Connection,
    actor: &str,
    once: &Once,
    object: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    connection
        .prepare_cached("INSERT INTO once (actor, key, fingerprint, object, at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![actor, once.key, once.fingerprint, object, now.millis()])?;
    Ok(())
}
