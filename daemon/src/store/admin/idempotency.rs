//! The `idempotency_key` table: the object that a request with an `Idempotency-Key` created, for a day. The answer
//! itself is not kept, because it may hold the value of a key, which must not be in the store unencrypted.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::sql::Sql;

/// How long a repeated request finds the object that it created.
pub(in crate::store) const KEPT: Duration = Duration::from_secs(86_400);

/// An `Idempotency-Key` with the fingerprint of the request that carried it.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    pub key: String,
    pub fingerprint: [u8; 32],
}

/// The result of a request to create something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    Done,
    /// The object exists already.
    Exists,
    /// The same request made this object before.
    Repeated(String),
    /// The same key was used with another request before.
    Mismatch,
}

/// The object that the same request of this caller created before, if there is one.
pub(super) fn find(
    sql: &mut dyn Sql,
    caller: &str,
    once: &IdempotencyKey,
    now: Timestamp,
) -> Result<Option<Made>, StoreError> {
    let statement = "SELECT fingerprint, object FROM idempotency_key WHERE caller = $1 AND key = $2 AND at >= $3";
    let rows = sql.query(statement, &[caller.into(), (&once.key).into(), now.minus(KEPT).into()])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let same = row.hash(0)? == once.fingerprint;
    Ok(Some(if same { Made::Repeated(row.text(1)?) } else { Made::Mismatch }))
}

/// Records the object that the request created, and deletes old records.
pub(super) fn keep(
    sql: &mut dyn Sql,
    caller: &str,
    once: &IdempotencyKey,
    object: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql.execute("DELETE FROM idempotency_key WHERE at < $1", &[now.minus(KEPT).into()])?;
    sql.execute(
        "INSERT INTO idempotency_key (caller, key, fingerprint, object, at) VALUES ($1, $2, $3, $4, $5)",
        &[caller.into(), (&once.key).into(), once.fingerprint[..].into(), object.into(), now.into()],
    )?;
    Ok(())
}
