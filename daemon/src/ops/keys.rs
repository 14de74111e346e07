//! Keys of teams. A created key is not used yet. A promoted key is used from then on. A revoked key is not used any
//! more.

use std::time::Duration;

use base64::engine::{Engine as _, general_purpose::STANDARD};
use scale_callback_auth::{CallbackAuthKey, HmacKey, KeyError, SigningSecret};
use scale_callback_serve::text::hex;
use zeroize::Zeroizing;

use super::policy::Operation;
use super::teams::check_not_deleted;
use super::{Creation, Inner, OpsError, Session, created, random};
use crate::base::clock::Timestamp;
use crate::keyring::{Place, Sealed};
use crate::model::team::{KeyKind, KeyState, Mode};
use crate::store::admin::{AuditEntry, IdempotencyKey, KeyRow};

/// The most keys of one kind and mode that a team may have, revoked ones aside.
const MOST: usize = 8;

/// The request for a new key.
pub struct NewKey {
    pub kind: KeyKind,
    pub mode: Mode,
    /// The value of a key that the customer has already; a new one is made without it.
    pub given: Option<Zeroizing<String>>,
}

impl Session {
    /// A team's keys, oldest first, without their values.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, or the store's.
    pub async fn keys(&self, team: &str) -> Result<Vec<KeyRow>, OpsError> {
        self.allow_team(Operation::Keys, team)?;
        self.inner.keys(team).await
    }

    /// Creates a key that is not used yet, or takes over a key that the customer has already. Answers with the key's
    /// value, which is shown only here: a caller who may create a key may see its value.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid_request`, `key_state`, `idempotency_mismatch`, or the store's.
    pub async fn create_key(
        &self,
        team: &str,
        new: NewKey,
        once: Option<IdempotencyKey>,
    ) -> Result<Creation<(KeyRow, Option<Zeroizing<String>>)>, OpsError> {
        self.allow_team(Operation::CreateKey, team)?;
        check_not_deleted(&self.inner.team(team).await?)?;
        let NewKey { kind, mode, given } = new;
        let how = if given.is_some() { "taken over" } else { "made" };
        let value = given.unwrap_or_else(|| mint(kind, mode));
        check(kind, mode, &value).map_err(|error| OpsError::InvalidRequest(error.to_string()))?;
        let row = self.inner.sealed(team, kind, mode, KeyState::Created, &value);
        let change = format!("{} {} {} {how}", row.id, kind.name(), mode.name());
        let audit = self.caller.entry(Operation::CreateKey, team, change);
        let refuse = move |keys: Vec<KeyRow>| {
            let open = keys.iter().filter(|key| is_alike(key, kind, mode) && key.state != KeyState::Revoked);
            let full = open.count() >= MOST;
            full.then(|| OpsError::KeyState(format!("there are {MOST} such keys already; revoke one first")))
        };
        let made = self.parts().admin.create_key(row.clone(), once, audit, refuse).await??;
        match created(made, || "there is such a key already".to_owned())? {
            None => Ok(Creation::New((row, Some(value)))),
            Some(id) => Ok(Creation::Repeated((self.inner.key(team, &id).await?, None))),
        }
    }

    /// Uses a key from now on, or from `at`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `key_state`, or the store's.
    pub async fn promote_key(&self, team: &str, id: &str, at: Option<Timestamp>) -> Result<KeyRow, OpsError> {
        self.allow_team(Operation::PromoteKey, team)?;
        let when = at.map_or_else(|| "now".to_owned(), |at| at.to_string());
        let audit = self.caller.entry(Operation::PromoteKey, team, format!("{id} from {when}"));
        let wanted = id.to_owned();
        self.inner
            .change_key(team, audit, move |keys, now| {
                let mut key = find(&keys, &wanted)?;
                if key.state != KeyState::Created || key.is_used(now) {
                    return Err(OpsError::KeyState(format!(
                        "{wanted} was promoted or revoked; only a created key is promoted"
                    )));
                }
                match at.filter(|at| *at > now) {
                    Some(later) => key.promote_at = Some(later),
                    None => {
                        // The key that was promoted last is the one that is sent, even if the clock was set back.
                        let alike =
                            keys.iter().filter(|other| is_alike(other, key.kind, key.mode) && other.is_used(now));
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

    /// Stops the use of a key. The last active key of its kind and mode is revoked only with `force`, since callbacks
    /// must wait until there is another one.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `key_state`, or the store's.
    pub async fn revoke_key(&self, team: &str, id: &str, force: bool) -> Result<KeyRow, OpsError> {
        self.allow_team(Operation::RevokeKey, team)?;
        let audit = self.caller.entry(Operation::RevokeKey, team, format!("{id} forced={force}"));
        let wanted = id.to_owned();
        self.inner
            .change_key(team, audit, move |keys, now| {
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

    /// A key's value. Each time it is shown, an audit row is written.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `key_state` when the keyring does not open it, or the store's.
    pub async fn reveal_key(&self, team: &str, id: &str) -> Result<Zeroizing<String>, OpsError> {
        self.allow_team(Operation::RevealKey, team)?;
        let key = self.inner.key(team, id).await?;
        let sealed = Sealed { keyring_id: key.keyring.clone(), bytes: key.sealed.clone() };
        let place = Place { team, kind: key.kind, mode: key.mode, key_id: &key.id };
        let value = self.parts().keyring.open(&sealed, &place);
        let value = value.map_err(|error| OpsError::KeyState(error.to_string()))?;
        self.parts().admin.note(self.caller.entry(Operation::RevealKey, team, id)).await?;
        Ok(value)
    }
}

impl Inner {
    async fn keys(&self, team: &str) -> Result<Vec<KeyRow>, OpsError> {
        self.team(team).await?;
        Ok(self.parts.admin.keys(team).await?)
    }

    /// The keys a new team begins with: one of each kind and mode, promoted.
    pub(super) fn first_keys(&self, team: &str) -> Vec<KeyRow> {
        let mut keys = Vec::new();
        for mode in [Mode::Live, Mode::Test] {
            for &kind in KeyKind::ALL {
                keys.push(self.sealed(team, kind, mode, KeyState::Active, &mint(kind, mode)));
            }
        }
        // All get the same time, so that lists order them by kind and mode.
        let now = self.parts.clock.now();
        for key in &mut keys {
            key.created_at = now;
            key.promote_at = Some(now);
        }
        keys
    }

    fn sealed(&self, team: &str, kind: KeyKind, mode: Mode, state: KeyState, value: &str) -> KeyRow {
        let id = format!("key_{}", hex(&random::<8>()));
        let sealed = self.parts.keyring.seal(value, &Place { team, kind, mode, key_id: &id });
        let now = self.parts.clock.now();
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
            used_at: None,
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
        let key = self.parts.admin.change_key(team, audit, decide).await??;
        self.parts.directory.refresh();
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
            for &kind in KeyKind::ALL {
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
