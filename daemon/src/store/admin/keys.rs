//! The `team_key` table: keys of teams, sealed.

use crate::base::clock::Timestamp;
use crate::model::team::{KeyKind, KeyState, Mode, parse_mode};
use crate::store::StoreError;
use crate::store::sql::{Row, Sql, readable};

/// A key as it is stored: sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub id: String,
    pub team: String,
    pub kind: KeyKind,
    pub mode: Mode,
    pub state: KeyState,
    pub keyring: String,
    pub sealed: Vec<u8>,
    pub last4: String,
    pub created_at: Timestamp,
    /// From this time on a created key is used, without a further request.
    pub promote_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// When it last signed a callback, as far as that was recorded.
    pub used_at: Option<Timestamp>,
}

impl KeyRow {
    /// Whether it is sent, or verified with, now.
    pub fn is_used(&self, now: Timestamp) -> bool {
        match self.state {
            KeyState::Active => true,
            KeyState::Created => self.promote_at.is_some_and(|at| at <= now),
            KeyState::Revoked => false,
        }
    }
}

pub(super) fn list(sql: &mut dyn Sql, team: &str) -> Result<Vec<KeyRow>, StoreError> {
    let statement = "SELECT id, team, kind, mode, state, keyring, sealed, last4, created_at, promote_at, revoked_at,
             used_at FROM team_key WHERE team = $1 ORDER BY created_at, mode, kind, id";
    sql.query(statement, &[team.into()])?.iter().map(read).collect()
}

/// Revokes the keys of a team that are not revoked.
pub(super) fn revoke_all(sql: &mut dyn Sql, team: &str, now: Timestamp) -> Result<(), StoreError> {
    let statement = "UPDATE team_key SET state = $3, revoked_at = $2 WHERE team = $1 AND state <> $3";
    sql.execute(statement, &[team.into(), now.into(), KeyState::Revoked.name().into()]).map(|_| ())
}

pub(super) fn insert(sql: &mut dyn Sql, key: &KeyRow) -> Result<(), StoreError> {
    sql.execute(
        "INSERT INTO team_key (id, team, kind, mode, state, keyring, sealed, last4, created_at, promote_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            (&key.id).into(),
            (&key.team).into(),
            key.kind.name().into(),
            key.mode.name().into(),
            key.state.name().into(),
            (&key.keyring).into(),
            key.sealed[..].into(),
            (&key.last4).into(),
            key.created_at.into(),
            key.promote_at.into(),
            key.revoked_at.into(),
        ],
    )?;
    Ok(())
}

/// Writes those columns of a key that may change: its state and times.
pub(super) fn update(sql: &mut dyn Sql, key: &KeyRow) -> Result<(), StoreError> {
    sql.execute(
        "UPDATE team_key SET state = $2, promote_at = $3, revoked_at = $4 WHERE id = $1",
        &[(&key.id).into(), key.state.name().into(), key.promote_at.into(), key.revoked_at.into()],
    )?;
    Ok(())
}

fn read(row: &Row) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        id: row.text(0)?,
        team: row.text(1)?,
        kind: readable(KeyKind::parse(&row.text(2)?), "a key's kind")?,
        mode: readable(parse_mode(&row.text(3)?), "a key's mode")?,
        state: readable(KeyState::parse(&row.text(4)?), "a key's state")?,
        keyring: row.text(5)?,
        sealed: row.bytes(6)?,
        last4: row.text(7)?,
        created_at: row.time(8)?,
        promote_at: row.opt_time(9)?,
        revoked_at: row.opt_time(10)?,
        used_at: row.opt_time(11)?,
    })
}
