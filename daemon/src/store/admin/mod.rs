//! Teams, their keys, and the audit of every change: SQL once, in the dialect that both stores share.
//!
//! Every change raises a version and writes an audit row in the same transaction.

mod keys;
mod once;
mod teams;
mod tokens;

use std::sync::Arc;

use rusqlite::{Connection, params};

pub use tokens::TokenRow;

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
    pub created_at: Timestamp,
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
    pub caller: String,
    pub origin: String,
    pub action: &'static str,
    pub object: String,
    pub change: String,
}

#[derive(Debug, Clone)]
pub struct AuditRow {
    pub id: i64,
    pub at: Timestamp,
    pub caller: String,
    pub origin: String,
    pub action: String,
    pub object: String,
    pub change: String,
}

/// An `Idempotency-Key` with the fingerprint of the request that carried it.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    pub key: String,
    pub fingerprint: [u8; 32],
}

/// What a making found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    Done,
    /// Someone was faster.
    Exists,
    /// The same request made this object before.
    Repeated(String),
    /// The key came with another request before.
    Mismatch,
}

/// Which audit rows; every given field must match.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub object: Option<String>,
    pub caller: Option<String>,
}

#[derive(Clone)]
pub struct Admin(Arc<SqliteStore>);

impl Admin {
    pub fn new(store: Arc<SqliteStore>) -> Self {
        Self(store)
    }

    /// Rises with every change.
    pub fn version(&self) -> Answer<'_, i64> {
        self.0.read(|connection| {
            Ok(connection.prepare_cached("SELECT version FROM admin_version")?.query_row([], |row| row.get(0))?)
        })
    }

    pub fn team(&self, id: &str) -> Answer<'_, Option<Team>> {
        let id = id.to_owned();
        self.0.ask(move |connection| teams::load(connection, &id))
    }

    /// Teams in the order of their ids, after `after`.
    pub fn teams(&self, after: Option<String>, limit: usize) -> Answer<'_, Vec<Team>> {
        self.0.ask(move |connection| teams::list(connection, after.as_deref(), limit))
    }

    /// A team with its keys, as delivery needs it.
    pub fn team_with_keys(&self, id: &str) -> Answer<'_, Option<(Team, Vec<KeyRow>)>> {
        let id = id.to_owned();
        self.0.read(move |connection| {
            let Some(team) = teams::load(connection, &id)? else { return Ok(None) };
            Ok(Some((team, keys::list(connection, &id)?)))
        })
    }

    pub fn create_team(
        &self,
        team: Team,
        keys: Vec<KeyRow>,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
    ) -> Answer<'_, Made> {
        self.make(team.id.to_string(), once, audit, move |connection, now| {
            if !teams::insert(connection, &team, now)? {
                return Ok(false);
            }
            for key in &keys {
                keys::insert(connection, key)?;
            }
            Ok(true)
        })
    }

    /// Makes one object in one transaction, with its audit row; what the same request made before, it finds again.
    fn make(
        &self,
        object: String,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
        job: impl FnOnce(&Connection, Timestamp) -> Result<bool, Failure> + Send + 'static,
    ) -> Answer<'_, Made> {
        self.0.in_transaction(move |transaction, _, now| {
            if let Some(once) = &once
                && let Some(found) = once::find(transaction, &audit.caller, once, now)?
            {
                return Ok(found);
            }
            if !job(transaction, now)? {
                return Ok(Made::Exists);
            }
            if let Some(once) = &once {
                once::keep(transaction, &audit.caller, once, &object, now)?;
            }
            note(transaction, &audit, now)?;
            Ok(Made::Done)
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
        self.0.ask(move |connection| keys::list(connection, &team))
    }

    /// Adds a key, unless `refuse` says why not, decided on all keys of its team as they stand in the transaction.
    pub fn create_key<E: Send + 'static>(
        &self,
        key: KeyRow,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
        refuse: impl FnOnce(Vec<KeyRow>) -> Option<E> + Send + 'static,
    ) -> Answer<'_, Result<Made, E>> {
        self.0.in_transaction(move |transaction, _, now| {
            if let Some(once) = &once
                && let Some(found) = once::find(transaction, &audit.caller, once, now)?
            {
                return Ok(Ok(found));
            }
            if let Some(refusal) = refuse(keys::list(transaction, &key.team)?) {
                return Ok(Err(refusal));
            }
            keys::insert(transaction, &key)?;
            if let Some(once) = &once {
                once::keep(transaction, &audit.caller, once, &key.id, now)?;
            }
            note(transaction, &audit, now)?;
            Ok(Ok(Made::Done))
        })
    }

    /// Changes one key, decided on all keys of its team as they stand in the transaction.
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
            keys::update(transaction, &key)?;
            note(transaction, &audit, now)?;
            Ok(Ok(key))
        })
    }

    /// The keys of a few teams: enough to see whether a keyring opens them.
    pub fn some_keys(&self) -> Answer<'_, Vec<KeyRow>> {
        self.0.read(some_keys)
    }

    /// All tokens, revoked and expired ones included, newest first; a bounded number.
    pub fn tokens(&self) -> Answer<'_, Vec<TokenRow>> {
        self.0.read(tokens::list)
    }

    /// `Exists`: there are as many tokens as there may be.
    pub fn create_token(&self, token: TokenRow, once: Option<IdempotencyKey>, audit: AuditEntry) -> Answer<'_, Made> {
        self.make(token.id.clone(), once, audit, move |connection, now| tokens::insert(connection, &token, now))
    }

    /// Revokes a token; the row after it, or `None` where there is none.
    pub fn revoke_token(&self, id: &str, audit: AuditEntry) -> Answer<'_, Option<TokenRow>> {
        let id = id.to_owned();
        self.0.in_transaction(move |transaction, _, now| {
            let Some(row) = tokens::revoke(transaction, &id, now)? else { return Ok(None) };
            note(transaction, &audit, now)?;
            Ok(Some(row))
        })
    }

    /// Writes an audit row alone: for what reads a secret.
    pub fn note(&self, audit: AuditEntry) -> Answer<'_, ()> {
        self.0.in_transaction(move |transaction, _, now| note(transaction, &audit, now))
    }

    /// The newest audit rows below `before`.
    pub fn audit(&self, filter: AuditFilter, before: Option<i64>, limit: usize) -> Answer<'_, Vec<AuditRow>> {
        self.0.ask(move |connection| {
            let by_object = filter.object.is_some();
            let (index, object) =
                if by_object { ("INDEXED BY audit_object", "object = ?3") } else { ("", "?3 IS NULL") };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, at, caller, origin, action, object, change FROM audit {index}
                 WHERE {object} AND id < ?1 AND (?4 IS NULL OR caller = ?4) ORDER BY id DESC LIMIT ?2"
            ))?;
            let rows = statement.query_map(
                params![before.unwrap_or(i64::MAX), limit, filter.object, filter.caller],
                |row| {
                    Ok(AuditRow {
                        id: row.get(0)?,
                        at: Timestamp::from_millis(row.get(1)?),
                        caller: row.get(2)?,
                        origin: row.get(3)?,
                        action: row.get(4)?,
                        object: row.get(5)?,
                        change: row.get(6)?,
                    })
                },
            )?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }
}

/// The keys of a few teams: enough to see whether a keyring opens them.
pub(crate) fn some_keys(connection: &Connection) -> Result<Vec<KeyRow>, Failure> {
    let mut found = Vec::new();
    for team in teams::list(connection, None, 10)? {
        found.extend(keys::list(connection, &team.id)?);
    }
    Ok(found)
}

/// Raises the version, and writes who did what.
fn note(connection: &Connection, audit: &AuditEntry, now: Timestamp) -> Result<(), Failure> {
    connection.execute("UPDATE admin_version SET version = version + 1", [])?;
    connection
        .prepare_cached(
            "INSERT INTO audit (at, caller, origin, action, object, change) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![now.millis(), audit.caller, audit.origin, audit.action, audit.object, audit.change])?;
    Ok(())
}

fn corrupt<T>(value: Option<T>, what: &'static str) -> Result<T, Failure> {
    value.ok_or(Failure::Corrupt(what))
}
