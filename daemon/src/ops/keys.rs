//! Keys of teams: create (not used yet), promote (sent from now on, or from a date), revoke (used no more).

use std::time::Duration;

use base64::engine::{Engine as _, general_purpose::STANDARD};
use scale_callback_auth::{CallbackAuthKey, HmacKey, KeyError, SigningSecret};
use scale_callback_serve::text::hex;
use zeroize::Zeroizing;

use super::{Caller, Creation, Ops, OpsError, created, random};
use crate::base::clock::Timestamp;
use crate::keyring::{Place, Sealed};
use crate::model::team::{KeyKind, KeyState, Mode};
use crate::store::admin::{AuditEntry, IdempotencyKey, KeyRow};

/// Keys of one kind and mode that are not revoked.
const MOST: usize = 8;

/// What was asked of a new key.
pub struct NewKey {
    pub kind: KeyKind,
    pub mode: Mode,
    /// Taken over instead of made.
    pub given: Option<Zeroizing<String>>,
}

impl Ops {
    /// A team's keys, oldest first; never their values.
    ///
    /// # Errors
    /// `not_found`, or the store's.
    pub async fn keys(&self, team: &str) -> Result<Vec<KeyRow>, OpsError> {
        self.team(team).await?;
        Ok(self.admin.keys(team).await?)
    }

    /// Makes a key that is not used yet; `given` takes over one that the platform has already handed out. Answers with
    /// the key's value, which is shown this once.
    ///
    /// # Errors
    /// `not_found`, `invalid_request`, `key_state`, `idempotency_mismatch`, or the store's.
    pub async fn create_key(
        &self,
        caller: &Caller,
        team: &str,
        new: NewKey,
        once: Option<IdempotencyKey>,
    ) -> Result<Creation<(KeyRow, Option<Zeroizing<String>>)>, OpsError> {
        self.team(team).await?;
        let NewKey { kind, mode, given } = new;
        let how = if given.is_some() { "taken over" } else { "made" };
        let value = given.unwrap_or_else(|| mint(kind, mode));
        check(kind, mode, &value).map_err(|error| OpsError::InvalidRequest(error.to_string()))?;
        let row = self.sealed(team, kind, mode, KeyState::Created, &value);
        let audit = caller.entry("key.create", team, format!("{} {} {} {how}", row.id, kind.name(), mode.name()));
        let refuse = move |keys: Vec<KeyRow>| {
            let open = keys.iter().filter(|key| is_alike(key, kind, mode) && key.state != KeyState::Revoked);
            let full = open.count() >= MOST;
            full.then(|| OpsError::KeyState(format!("there are {MOST} such keys already; revoke one first")))
        };
        let made = self.admin.create_key(row.clone(), once, audit, refuse).await??;
        match created(made, || "there is such a key already".to_owned())? {
            None => Ok(Creation::New((row, Some(value)))),
            Some(id) => Ok(Creation::Repeated((self.key(team, &id).await?, None))),
        }
    }

    /// Uses a key from now on, or from `at`.
    ///
    /// # Errors
    /// `not_found`, `key_state`, or the store's.
    pub async fn promote_key(
        &self,
        caller: &Caller,
        team: &str,
        id: &str,
        at: Option<Timestamp>,
    ) -> Result<KeyRow, OpsError> {
        let when = at.map_or_else(|| "now".to_owned(), |at| at.to_string());
        let audit = caller.entry("key.promote", team, format!("{id} from {when}"));
        let wanted = id.to_owned();
        self.change_key(team, audit, move |keys, now| {
            let mut key = find(&keys, &wanted)?;
            if key.state != KeyState::Created || key.is_used(now) {
                return Err(OpsError::KeyState(format!(
                    "{wanted} was promoted or revoked; only a created key is promoted"
                )));
            }
            match at.filter(|at| *at > now) {
                Some(later) => key.promote_at = Some(later),
                None => {
                    // The key promoted last is the one that is sent, whatever the clock did meanwhile.
                    let alike = keys.iter().filter(|other| is_alike(other, key.kind, key.mode) && other.is_used(now));
                    let last = alike.filter_map(|other| other.promote_at).max();
                    let behind = last.map_or(now, |last| last.plus(Duration::from_millis(1)));
                    key.promote_at = Some(now.max(behind));
                    key.state = KeyState::Active;
                }
            }
            Ok(key)
        })
        .await
    }

    /// Uses a key no more. The last usable one of its kind and mode only by `force`: callbacks then wait for another.
    ///
    /// # Errors
    /// `not_found`, `key_state`, or the store's.
    pub async fn revoke_key(&self, caller: &Caller, team: &str, id: &str, force: bool) -> Result<KeyRow, OpsError> {
        let audit = caller.entry("key.revoke", team, format!("{id} forced={force}"));
        let wanted = id.to_owned();
        self.change_key(team, audit, move |keys, now| {
            let mut key = find(&keys, &wanted)?;
            if key.state == KeyState::Revoked {
                return Err(OpsError::KeyState(format!("{wanted} is revoked already")));
            }
            let others = keys.iter().filter(|other| is_alike(other, key.kind, key.mode) && other.id != key.id);
            let another = others.into_iter().any(|other| other.is_used(now));
            if key.is_used(now) && !another && !force {
                return Err(OpsError::KeyState(format!(
                    "{wanted} is the last active {} key for {} callbacks; promote another first, or force it",
                    key.kind.name(),
                    key.mode.name()
                )));
            }
            key.state = KeyState::Revoked;
            key.revoked_at = Some(now);
            Ok(key)
        })
        .await
    }

    /// A key's value. Audited.
    ///
    /// # Errors
    /// `not_found`, `key_state` when it can't be opened, or the store's.
    pub async fn reveal_key(&self, caller: &Caller, team: &str, id: &str) -> Result<Zeroizing<String>, OpsError> {
        let key = self.key(team, id).await?;
        let sealed = Sealed { keyring_id: key.keyring.clone(), bytes: key.sealed.clone() };
        let place = Place { team, kind: key.kind, mode: key.mode, key_id: &key.id };
        let value = self.keyring.open(&sealed, &place).map_err(|error| OpsError::KeyState(error.to_string()))?;
        self.admin.note(caller.entry("key.reveal", team, id)).await?;
        Ok(value)
    }

    /// The keys a new team begins with: one of each kind and mode, promoted.
    pub(super) fn first_keys(&self, team: &str) -> Vec<KeyRow> {
        let mut keys = Vec::new();
        for mode in [Mode::Live, Mode::Test] {
            for kind in KeyKind::ALL {
                keys.push(self.sealed(team, kind, mode, KeyState::Active, &mint(kind, mode)));
            }
        }
        // One time for all: they are listed by kind and mode.
        let now = self.clock.now();
        for key in &mut keys {
            key.created_at = now;
            key.promote_at = Some(now);
        }
        keys
    }

    fn sealed(&self, team: &str, kind: KeyKind, mode: Mode, state: KeyState, value: &str) -> KeyRow {
        let id = format!("key_{}", hex(&random::<8>()));
        let sealed = self.keyring.seal(value, &Place { team, kind, mode, key_id: &id });
        let now = self.clock.now();
        KeyRow {
            id,
            team: team.to_owned(),
            kind,
            mode,
            state,
            keyring: sealed.keyring_id,
            sealed: sealed.bytes,
            last4: value[value.len().saturating_sub(4)..].to_owned(),
            created_at: now,
            promote_at: (state == KeyState::Active).then_some(now),
            revoked_at: None,
        }
    }

    async fn key(&self, team: &str, id: &str) -> Result<KeyRow, OpsError> {
        find(&self.keys(team).await?, id)
    }

    async fn change_key(
        &self,
        team: &str,
        audit: AuditEntry,
        decide: impl FnOnce(Vec<KeyRow>, Timestamp) -> Result<KeyRow, OpsError> + Send + 'static,
    ) -> Result<KeyRow, OpsError> {
        self.team(team).await?;
        let key = self.admin.change_key(team, audit, decide).await??;
        self.directory.refresh();
        Ok(key)
    }
}

fn is_alike(key: &KeyRow, kind: KeyKind, mode: Mode) -> bool {
    key.kind == kind && key.mode == mode
}

fn find(keys: &[KeyRow], id: &str) -> Result<KeyRow, OpsError> {
    let found = keys.iter().find(|key| key.id == id).cloned();
    found.ok_or_else(|| OpsError::NotFound(format!("the team has no key {id}")))
}

fn mint(kind: KeyKind, mode: Mode) -> Zeroizing<String> {
    let mode = mode.name();
    Zeroizing::new(match kind {
        KeyKind::CallbackAuth => format!("{mode}_auth_{}", hex(&random::<16>())),
        KeyKind::Hmac => format!("{mode}_hmac_{}", hex(&random::<32>())),
        KeyKind::Signing => format!("whsec_{}", STANDARD.encode(random::<32>())),
    })
}

fn check(kind: KeyKind, mode: Mode, value: &str) -> Result<(), KeyError> {
    let own = match kind {
        KeyKind::CallbackAuth => CallbackAuthKey::parse(value)?.mode(),
        KeyKind::Hmac => HmacKey::parse(value)?.mode(),
        KeyKind::Signing => SigningSecret::parse(value).map(|_| mode)?,
    };
    if own == mode { Ok(()) } else { Err(KeyError::Prefix) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_keys_have_the_platforms_forms() {
        for mode in [Mode::Live, Mode::Test] {
            for kind in KeyKind::ALL {
                let value = mint(kind, mode);
                assert_eq!(check(kind, mode, &value), Ok(()), "{kind:?} {mode:?}");
                assert_ne!(*value, *mint(kind, mode));
            }
        }
        assert_eq!(
            check(KeyKind::CallbackAuth, Mode::Live, &mint(KeyKind::CallbackAuth, Mode::Test)),
            Err(KeyError::Prefix)
        );
    }
}
