//! The maps of the model's admin side.

use std::collections::BTreeMap;

use crate::base::clock::Timestamp;
use crate::model::attempt::SentWithId;
use crate::model::pause::Pause;
use crate::model::sent_with::SentWith;
use crate::model::team::Team;
use crate::store::admin::{AuditEntry, AuditRow, IdempotencyKey, KeyRow, Made, TokenRow, idempotency, resends, tokens};
use crate::store::resends::ResendRow;
use crate::store::{InstanceId, StoreError};

#[derive(Clone)]
pub(super) struct AdminState {
    pub(super) version: i64,
    pub(super) teams: BTreeMap<String, Team>,
    pub(super) keys: BTreeMap<String, KeyRow>,
    pub(super) tokens: BTreeMap<String, TokenRow>,
    /// With the instance that holds each, and until when.
    pub(super) resends: BTreeMap<String, (ResendRow, Option<(InstanceId, Timestamp)>)>,
    /// By caller and key: the fingerprint, the object that was made, and when.
    pub(super) idempotency_keys: BTreeMap<(String, String), ([u8; 32], String, Timestamp)>,
    pub(super) pauses: Vec<Pause>,
    /// With their last use.
    pub(super) sent_with: BTreeMap<SentWithId, (SentWith, Timestamp)>,
    pub(super) audit: Vec<AuditRow>,
}

impl Default for AdminState {
    fn default() -> Self {
        Self {
            version: 1,
            teams: BTreeMap::new(),
            keys: BTreeMap::new(),
            tokens: BTreeMap::new(),
            resends: BTreeMap::new(),
            idempotency_keys: BTreeMap::new(),
            pauses: Vec::new(),
            sent_with: BTreeMap::new(),
            audit: Vec::new(),
        }
    }
}

impl AdminState {
    pub(super) fn keys_of(&self, team: &str) -> Vec<KeyRow> {
        let mut keys: Vec<_> = self.keys.values().filter(|key| key.team == team).cloned().collect();
        keys.sort_by_key(|key| (key.created_at, key.mode.name(), key.kind.name(), key.id.clone()));
        keys
    }

    pub(super) fn insert_key(&mut self, key: KeyRow) -> Result<(), StoreError> {
        if !self.teams.contains_key(&key.team) || self.keys.contains_key(&key.id) {
            return Err(StoreError::Refused("a key of an unknown team, or one that is there already".to_owned()));
        }
        self.keys.insert(key.id.clone(), key);
        Ok(())
    }

    pub(super) fn insert_token(&mut self, token: TokenRow, now: Timestamp) -> bool {
        let (valid, mut invalid): (Vec<_>, Vec<_>) = self.tokens.values().partition(|token| token.is_valid(now));
        if valid.len() >= tokens::MOST {
            return false;
        }
        if invalid.len() >= tokens::MOST {
            invalid.sort_by_key(|token| token.created_at);
            let oldest: Vec<_> = invalid.into_iter().take(100).map(|token| token.id.clone()).collect();
            oldest.iter().for_each(|id| drop(self.tokens.remove(id)));
        }
        self.tokens.insert(token.id.clone(), token);
        true
    }

    pub(super) fn insert_resend(&mut self, row: ResendRow) -> bool {
        let (ended, open): (Vec<_>, Vec<_>) = self.resends.values().partition(|(row, _)| row.state.has_ended());
        if open.len() >= resends::MOST {
            return false;
        }
        if ended.len() >= resends::MOST {
            let oldest: Vec<_> = ended.into_iter().take(10).map(|(row, _)| row.id.clone()).collect();
            oldest.iter().for_each(|id| drop(self.resends.remove(id)));
        }
        self.resends.insert(row.id.clone(), (row, None));
        true
    }

    pub(super) fn made_before(&self, caller: &str, once: &IdempotencyKey, now: Timestamp) -> Option<Made> {
        let (fingerprint, object, at) = self.idempotency_keys.get(&(caller.to_owned(), once.key.clone()))?;
        if *at < now.minus(idempotency::KEPT) {
            return None;
        }
        Some(if *fingerprint == once.fingerprint { Made::Repeated(object.clone()) } else { Made::Mismatch })
    }

    pub(super) fn note(&mut self, entry: AuditEntry, at: Timestamp) {
        let AuditEntry { caller, address, action, object, change } = entry;
        let id = self.audit.last().map_or(1, |last| last.id + 1);
        self.audit.push(AuditRow { id, at, caller, address, action: action.to_owned(), object, change });
    }
}
