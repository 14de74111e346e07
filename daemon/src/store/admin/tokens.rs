//! The `token` table: bearer tokens of the API, as SHA-256.

use crate::base::clock::Timestamp;
use crate::model::permission::{Rights, TeamLimit};
use crate::store::StoreError;
use crate::store::sql::{Row, Sql, readable};

/// How many tokens may be valid at one time. The same number of invalid ones is kept as well.
pub(in crate::store) const MOST: usize = 1_000;

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
    /// The teams that it is limited to.
    pub teams: TeamLimit,
    /// When it was last used, as far as that was recorded.
    pub used_at: Option<Timestamp>,
}

impl TokenRow {
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

const COLUMNS: &str = "id, name, scope, hash, last4, created_at, expires_at, revoked_at, teams, used_at";
/// Which tokens are valid at $1, and which are not.
const VALID: &str = "revoked_at IS NULL AND expires_at > $1";
const INVALID: &str = "(revoked_at IS NOT NULL OR expires_at <= $1)";

pub(super) fn list(sql: &mut dyn Sql) -> Result<Vec<TokenRow>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM token ORDER BY created_at DESC, id LIMIT $1");
    sql.query(&statement, &[(MOST * 2).into()])?.iter().map(read).collect()
}

/// False if there are too many valid tokens already. The oldest invalid ones are deleted to make room.
pub(in crate::store) fn insert(sql: &mut dyn Sql, token: &TokenRow, now: Timestamp) -> Result<bool, StoreError> {
    if count(sql, VALID, now)? >= MOST {
        return Ok(false);
    }
    if count(sql, INVALID, now)? >= MOST {
        let oldest = format!("SELECT id FROM token WHERE {INVALID} ORDER BY created_at LIMIT 100");
        sql.execute(&format!("DELETE FROM token WHERE id IN ({oldest})"), &[now.into()])?;
    }
    let statement = format!("INSERT INTO token ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
    let written = sql.execute(
        &statement,
        &[
            (&token.id).into(),
            (&token.name).into(),
            token.scope.name().into(),
            token.hash[..].into(),
            (&token.last4).into(),
            token.created_at.into(),
            token.expires_at.into(),
            token.revoked_at.into(),
            written(&token.teams).into(),
            token.used_at.into(),
        ],
    )?;
    Ok(written == 1)
}

fn count(sql: &mut dyn Sql, which: &str, now: Timestamp) -> Result<usize, StoreError> {
    let rows = sql.query(&format!("SELECT count(*) FROM token WHERE {which}"), &[now.into()])?;
    readable(rows.first(), "a count")?.integer(0)
}

/// The first revocation counts.
pub(super) fn revoke(sql: &mut dyn Sql, id: &str, now: Timestamp) -> Result<Option<TokenRow>, StoreError> {
    sql.execute("UPDATE token SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", &[id.into(), now.into()])?;
    sql.query(&format!("SELECT {COLUMNS} FROM token WHERE id = $1"), &[id.into()])?.first().map(read).transpose()
}

fn read(row: &Row) -> Result<TokenRow, StoreError> {
    Ok(TokenRow {
        id: row.text(0)?,
        name: row.text(1)?,
        scope: readable(Rights::parse(&row.text(2)?), "a token's scope")?,
        hash: row.hash(3)?,
        last4: row.text(4)?,
        created_at: row.time(5)?,
        expires_at: row.time(6)?,
        revoked_at: row.opt_time(7)?,
        teams: row.opt_text(8)?.map_or(TeamLimit::All, |teams| limit(&teams)),
        used_at: row.opt_time(9)?,
    })
}

/// The ids of the teams, one a line; no id has white space. Nothing without a limit.
fn written(teams: &TeamLimit) -> Option<String> {
    teams.names().map(|names| names.iter().map(String::as_str).collect::<Vec<_>>().join("\n"))
}

/// A text without a line limits the token to a team whose id is empty, which is none.
fn limit(written: &str) -> TeamLimit {
    TeamLimit::of(written.split('\n').map(str::to_owned))
}
