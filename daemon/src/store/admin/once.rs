//! The `once` table: what a request with an `Idempotency-Key` made, for a day.

use rusqlite::{Connection, OptionalExtension, params};

use super::{IdempotencyKey, Made};
use crate::base::clock::Timestamp;
use crate::store::sqlite::Failure;

const KEPT: std::time::Duration = std::time::Duration::from_secs(86_400);

pub(super) fn find(
    connection: &Connection,
    caller: &str,
    once: &IdempotencyKey,
    now: Timestamp,
) -> Result<Option<Made>, Failure> {
    connection.prepare_cached("DELETE FROM idempotency_key WHERE at < ?1")?.execute([now.minus(KEPT).millis()])?;
    let kept: Option<([u8; 32], String)> = connection
        .prepare_cached("SELECT fingerprint, object FROM idempotency_key WHERE caller = ?1 AND key = ?2")?
        .query_row(params![caller, once.key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(kept.map(
        |(fingerprint, object)| {
            if fingerprint == once.fingerprint { Made::Repeated(object) } else { Made::Mismatch }
        },
    ))
}

pub(super) fn keep(
    connection: &Connection,
    caller: &str,
    once: &IdempotencyKey,
    object: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO idempotency_key (caller, key, fingerprint, object, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![caller, once.key, once.fingerprint, object, now.millis()])?;
    Ok(())
}
