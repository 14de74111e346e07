//! The `team_key` table.

use rusqlite::{Connection, Row, params};

use super::{KeyRow, corrupt};
use crate::base::clock::Timestamp;
use crate::model::team::{KeyKind, KeyState, parse_mode};
use crate::store::sqlite::Failure;

pub(super) fn list(connection: &Connection, team: &str) -> Result<Vec<KeyRow>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT id, team, kind, mode, state, keyring, sealed, last4, created_at, promote_at, revoked_at
         FROM team_key WHERE team = ?1 ORDER BY created_at, mode, kind, id",
    )?;
    let mut rows = statement.query([team])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read(row)?);
    }
    Ok(keys)
}

pub(super) fn insert(connection: &Connection, key: &KeyRow) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO team_key (id, team, kind, mode, state, keyring, sealed, last4, created_at, promote_at, revoked_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            key.id,
            key.team,
            key.kind.name(),
            key.mode.name(),
            key.state.name(),
            key.keyring,
            key.sealed,
            key.last4,
            key.created_at.millis(),
            key.promote_at.map(Timestamp::millis),
            key.revoked_at.map(Timestamp::millis),
        ])?;
    Ok(())
}

pub(super) fn update(connection: &Connection, key: &KeyRow) -> Result<bool, Failure> {
    let written = connection
        .prepare_cached("UPDATE team_key SET state = ?2, promote_at = ?3, revoked_at = ?4 WHERE id = ?1")?
        .execute(params![
            key.id,
            key.state.name(),
            key.promote_at.map(Timestamp::millis),
            key.revoked_at.map(Timestamp::millis),
        ])?;
    Ok(written == 1)
}

fn read(row: &Row<'_>) -> Result<KeyRow, Failure> {
    let (kind, mode, state): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
    let time = |index: usize| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp::from_millis))
    };
    Ok(KeyRow {
        id: row.get(0)?,
        team: row.get(1)?,
        kind: corrupt(KeyKind::parse(&kind), "a key's kind")?,
        mode: corrupt(parse_mode(&mode), "a key's mode")?,
        state: corrupt(KeyState::parse(&state), "a key's state")?,
        keyring: row.get(5)?,
        sealed: row.get(6)?,
        last4: row.get(7)?,
        created_at: Timestamp::from_millis(row.get(8)?),
        promote_at: time(9)?,
        revoked_at: time(10)?,
    })
}
