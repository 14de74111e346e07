//! Teams, their keys, and the audit of every change: SQL once, in the dialect that both stores share.
//!
//! Every change raises a version and writes an audit row in the same transaction.

mod keys;
mod teams;

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::Answer;
use super::sqlite::{Failure, SqliteStore};
use crate::base::clock::Timestamp;
use crate::model::team::{KeyKind, KeyState, Mode, Team};

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
    pub made_at: Timestamp,
    /// A created key is used from then on without another word.
    pub promote_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
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

/// Who changed what, and from where. `change` holds no secret.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub actor: String,
    pub origin: String,
    pub action: &'static str,
    pub object: String,
    pub change: String,
}

#[derive(Debug, Clone)]
pub struct AuditRow {
    pub id: i64,
    pub at: Timestamp,
    pub actor: String,
    pub origin: String,
    pub action: String,
    pub object: String,
    pub change: String,
}

/// What a change found: someone may have been faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    Done,
    Exists,
}

#[derive(Clone)]
pub struct People(Arc<SqliteStore>);

impl People {
    pub fn new(store: Arc<SqliteStore>) -> Self {
        Self(store)
    }

    /// Rises with every change.
    pub fn version(&self) -> Answer<'_, i64> {
        self.0.read(|connection| {
            Ok(connection.prepare_cached("SELECT version FROM people_version")?.query_row([], |row| row.get(0))?)
        })
    }

    pub fn team(&self, id: &str) -> Answer<'_, Option<Team>> {
        let id = id.to_owned();
        self.0.read(move |connection| teams::load(connection, &id))
    }

    /// Teams in the order of their ids, after `after`.
    pub fn teams(&self, after: Option<String>, limit: usize) -> Answer<'_, Vec<Team>> {
        self.0.read(move |connection| teams::list(connection, after.as_deref(), limit))
    }

    /// A team with its keys, as delivery needs it.
    pub fn team_with_keys(&self, id: &str) -> Answer<'_, Option<(Team, Vec<KeyRow>)>> {
        let id = id.to_owned();
        self.0.read(move |connection| {
            let Some(team) = teams::load(connection, &id)? else { return Ok(None) };
            Ok(Some((team, keys::list(connection, &id)?)))
        })
    }

    pub fn create_team(&self, team: Team, keys: Vec<KeyRow>, audit: AuditEntry) -> Answer<'_, Saved> {
        self.change(audit, move |connection, now| {
            if !teams::insert(connection, &team, now)? {
                return Ok(Saved::Exists);
            }
            for key in &keys {
                keys::insert(connection, key)?;
            }
            Ok(Saved::Done)
        })
    }

    /// Changes a team as it stands in the transaction. `decide` gives the team after, and what the audit says of it.
    pub fn update_team<E: Send + 'static>(
        &self,
        id: &str,
        audit: AuditEntry,
        decide: impl FnOnce(Team) -> Result<(Team, String), E> + Send + 'static,
    ) -> Answer<'_, Option<Result<Team, E>>> {
        let id = id.to_owned();
        self.0.in_transaction(move |transaction, _, now| {
            let Some(before) = teams::load(transaction, &id)? else { return Ok(None) };
            let (after, change) = match decide(before) {
                Ok(decided) => decided,
                Err(refusal) => return Ok(Some(Err(refusal))),
            };
            teams::update(transaction, &after, now)?;
            note(transaction, &AuditEntry { change, ..audit }, now)?;
            Ok(Some(Ok(after)))
        })
    }

    pub fn keys(&self, team: &str) -> Answer<'_, Vec<KeyRow>> {
        let team = team.to_owned();
        self.0.read(move |connection| keys::list(connection, &team))
    }

    /// Changes or adds one key, decided on all keys of its team as they stand in the transaction.
    pub fn change_key<E: Send + 'static>(
        &self,
        team: &str,
        audit: AuditEntry,
        decide: impl FnOnce(Vec<KeyRow>, Timestamp) -> Result<KeyRow, E> + Send + 'static,
    ) -> Answer<'_, Result<KeyRow, E>> {
        let team = team.to_owned();
        self.0.in_transaction(move |transaction, _, now| {
            let key = match decide(keys::list(transaction, &team)?, now) {
                Ok(key) => key,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if !keys::update(transaction, &key)? {
                keys::insert(transaction, &key)?;
            }
            note(transaction, &audit, now)?;
            Ok(Ok(key))
        })
    }

    /// Writes an audit row alone: for what reads a secret.
    pub fn note(&self, audit: AuditEntry) -> Answer<'_, Saved> {
        self.change(audit, |_, _| Ok(Saved::Done))
    }

    /// The newest audit rows below `before`.
    pub fn audit(&self, before: Option<i64>, limit: usize) -> Answer<'_, Vec<AuditRow>> {
        self.0.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, at, actor, origin, action, object, change FROM audit
                 WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![before, limit], |row| {
                Ok(AuditRow {
                    id: row.get(0)?,
                    at: Timestamp::from_millis(row.get(1)?),
                    actor: row.get(2)?,
                    origin: row.get(3)?,
                    action: row.get(4)?,
                    object: row.get(5)?,
                    change: row.get(6)?,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn change(
        &self,
        audit: AuditEntry,
        job: impl FnOnce(&Connection, Timestamp) -> Result<Saved, Failure> + Send + 'static,
    ) -> Answer<'_, Saved> {
        self.0.in_transaction(move |transaction, _, now| {
            let saved = job(transaction, now)?;
            if saved == Saved::Done {
                note(transaction, &audit, now)?;
            }
            Ok(saved)
        })
    }
}

/// Raises the version, and writes who did what.
fn note(connection: &Connection, audit: &AuditEntry, now: Timestamp) -> Result<(), Failure> {
    connection.execute("UPDATE people_version SET version = version + 1", [])?;
    connection
        .prepare_cached(
            "INSERT INTO audit (at, actor, origin, action, object, change) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![now.millis(), audit.actor, audit.origin, audit.action, audit.object, audit.change])?;
    Ok(())
}

fn corrupt<T>(value: Option<T>, what: &'static str) -> Result<T, Failure> {
    value.ok_or(Failure::Corrupt(what))
}
