//! The `token` table: bearer tokens of the API, as SHA-256.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::corrupt;
use crate::base::clock::Timestamp;
use crate::model::permission::Rights;
use crate::store::sqlite::Failure;

/// Tokens that may be valid at one time.
pub(super) const MOST: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub id: String,
    pub name: String,
    pub scope: Rights,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    pub last4: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

impl TokenRow {
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

const COLUMNS: &str = "id, name, scope, hash, last4, created_at, expires_at, revoked_at";

pub(super) fn list(connection: &Connection) -> Result<Vec<TokenRow>, Failure> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM token ORDER BY created_at DESC, id LIMIT ?1"))?;
    let mut rows = statement.query([MOST * 2])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(read(row)?);
    }
    Ok(tokens)
}

/// Dead tokens are kept for the record until their number is reached; `false` where all of that many are valid.
pub(super) fn insert(connection: &Connection, token: &TokenRow, now: Timestamp) -> Result<bool, Failure> {
    let dead = "revoked_at IS NOT NULL OR expires_at <= ?1";
    let count = |which: &str| -> rusqlite::Result<usize> {
        connection.query_row(&format!("SELECT count(*) FROM token WHERE {which}"), [now.millis()], |row| row.get(0))
    };
    if count(&format!("NOT ({dead})"))? >= MOST {
        return Ok(false);
    }
    if count(dead)? >= MOST {
        connection.execute(
            &format!("DELETE FROM token WHERE id IN (SELECT id FROM token WHERE {dead} ORDER BY created_at LIMIT 100)"),
            [now.millis()],
        )?;
    }
    connection
        .prepare_cached(&format!("INSERT INTO token ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"))?
        .execute(params![
            token.id,
            token.name,
            token.scope.name(),
            token.hash,
            token.last4,
            token.created_at.millis(),
            token.expires_at.millis(),
            token.revoked_at.map(Timestamp::millis),
        ])?;
    Ok(true)
}

/// The first revocation counts.
pub(super) fn revoke(connection: &Connection, id: &str, now: Timestamp) -> Result<Option<TokenRow>, Failure> {
    connection
        .prepare_cached("UPDATE token SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL")?
        .execute(params![id, now.millis()])?;
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM token WHERE id = ?1"))?
        .query_row([id], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

fn read(row: &Row<'_>) -> Result<TokenRow, Failure> {
    let scope: String = row.get(2)?;
    Ok(TokenRow {
        id: row.get(0)?,
        name: row.get(1)?,
        scope: corrupt(Rights::parse(&scope), "a token's scope")?,
        hash: row.get(3)?,
        last4: row.get(4)?,
        created_at: Timestamp::from_millis(row.get(5)?),
        expires_at: Timestamp::from_millis(row.get(6)?),
        revoked_at: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis),
    })
}
