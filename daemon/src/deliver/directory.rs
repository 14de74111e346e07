//! The teams as delivery needs them: policy and signers. Their keys are opened once and kept until something changes.
//!
//! Each change of a team or key raises a version in the store, and within half a second this cache is dropped. A team
//! that is missing here is read from the store before it is called unknown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, HmacKey, SigningSecret};
use zeroize::Zeroizing;

use crate::base::clock::{Clock, Timestamp};
use crate::base::stop::Stop;
use crate::keyring::{Keyring, Place, Sealed};
use crate::model::retry::RetryPolicy;
use crate::model::team::{AuthForm, KeyKind, KeyState, Mode, Team};
use crate::store::StoreError;
use crate::store::admin::{AdminStore, KeyRow};

/// How often the version is looked at.
const REFRESH: Duration = Duration::from_millis(500);
/// Teams kept open.
const CACHE_LIMIT: usize = 50_000;

pub struct Directory {
    admin: Arc<dyn AdminStore>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    retry: RwLock<RetryPolicy>,
    cache: RwLock<HashMap<Arc<str>, Arc<TeamEntry>>>,
    /// Rises with every refresh. An entry that was read before a refresh is not kept after it.
    generation: AtomicU64,
}

pub struct TeamEntry {
    pub team: Team,
    pub retry: RetryPolicy,
    live: Signers,
    test: Signers,
    /// A created key takes effect then.
    until: Option<Timestamp>,
}

/// A mode's signers by the form of the auth header.
#[derive(Default)]
struct Signers {
    key: Option<Signer>,
    hmac: Option<Signer>,
}

impl TeamEntry {
    /// The signer for this mode and form; `None` without usable keys.
    pub fn signer(&self, mode: Mode, form: AuthForm) -> Option<&Signer> {
        let signers = if mode == Mode::Test { &self.test } else { &self.live };
        match form {
            AuthForm::Key => signers.key.as_ref(),
            AuthForm::Hmac => signers.hmac.as_ref(),
        }
    }
}

impl Directory {
    pub fn new(admin: Arc<dyn AdminStore>, keyring: Arc<Keyring>, clock: Arc<dyn Clock>, retry: RetryPolicy) -> Self {
        let retry = RwLock::new(retry);
        Self { admin, keyring, clock, retry, cache: RwLock::default(), generation: AtomicU64::new(0) }
    }

    /// The team, if there is one.
    ///
    /// # Errors
    /// The store's, if the team is not in the cache.
    pub async fn team(&self, id: &str) -> Result<Option<Arc<TeamEntry>>, StoreError> {
        let now = self.clock.now();
        let kept = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(entry) = kept.filter(|entry| entry.until.is_none_or(|until| now < until)) {
            return Ok(Some(entry));
        }
        let generation = self.generation.load(Ordering::SeqCst);
        let Some((team, keys)) = self.admin.team_with_keys(id).await? else { return Ok(None) };
        let entry = Arc::new(self.open(team, &keys, now));
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if self.generation.load(Ordering::SeqCst) != generation {
            return Ok(Some(entry));
        }
        if cache.len() >= CACHE_LIMIT {
            cache.clear();
        }
        cache.insert(Arc::clone(&entry.team.id), Arc::clone(&entry));
        Ok(Some(entry))
    }

    /// The installation's retry policy, for a team that has none of its own or can't be found.
    pub fn retry(&self) -> RetryPolicy {
        *self.retry.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_retry(&self, retry: RetryPolicy) {
        *self.retry.write().unwrap_or_else(PoisonError::into_inner) = retry;
        self.refresh();
    }

    /// Empties the cache: the next lookup reads the store.
    pub fn refresh(&self) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        self.generation.fetch_add(1, Ordering::SeqCst);
        cache.clear();
    }

    /// Watches the version until `stop`.
    pub async fn run(&self, mut stop: Stop) {
        let mut known = None;
        loop {
            // While the store is down, the cache stays in use.
            if let Ok(version) = self.admin.version().await {
                if known.is_some_and(|known| known != version) {
                    self.refresh();
                }
                known = Some(version);
            }
            tokio::select! {
                () = tokio::time::sleep(REFRESH) => {}
                () = stop.stopped() => return,
            }
        }
    }

    fn open(&self, team: Team, keys: &[KeyRow], now: Timestamp) -> TeamEntry {
        let until = keys
            .iter()
            .filter(|key| key.state == KeyState::Created)
            .filter_map(|key| key.promote_at.filter(|at| *at > now))
            .min();
        let retry = team.retry.over(&self.retry());
        let live = self.signers(&team, keys, Mode::Live, now);
        let test = self.signers(&team, keys, Mode::Test, now);
        TeamEntry { team, retry, live, test, until }
    }

    fn signers(&self, team: &Team, keys: &[KeyRow], mode: Mode, now: Timestamp) -> Signers {
        // The `key` form sends one value: that of the key promoted last.
        let usable = |kind: KeyKind| {
            let alike = keys.iter().filter(|key| key.kind == kind && key.mode == mode && key.is_used(now));
            let mut alike: Vec<_> = alike.collect();
            alike.sort_by_key(|key| std::cmp::Reverse(key.promote_at));
            alike.into_iter()
        };
        let open = |key: &KeyRow| self.open_key(team, key);
        let secrets: Vec<_> = usable(KeyKind::Signing)
            .filter_map(|key| open(key).and_then(|text| SigningSecret::parse(&text).ok()))
            .collect();
        if secrets.is_empty() {
            return Signers::default();
        }
        let key = usable(KeyKind::CallbackAuth)
            .find_map(|key| open(key).and_then(|text| CallbackAuthKey::parse(&text).ok()))
            .map(|key| Signer::new(secrets.clone(), AuthHeader::Key(key)));
        let mut hmac_keys =
            usable(KeyKind::Hmac).filter_map(|key| open(key).and_then(|text| HmacKey::parse(&text).ok()));
        let hmac = hmac_keys.next().map(|newest| {
            let older = hmac_keys.next();
            Signer::new(secrets.clone(), AuthHeader::Hmac(newest, older))
        });
        Signers { key, hmac }
    }

    fn open_key(&self, team: &Team, key: &KeyRow) -> Option<Zeroizing<String>> {
        let sealed = Sealed { keyring_id: key.keyring.clone(), bytes: key.sealed.clone() };
        let place = Place { team: &team.id, kind: key.kind, mode: key.mode, key_id: &key.id };
        match self.keyring.open(&sealed, &place) {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::error!(team = &*team.id, key = key.id, %error, "a key can't be opened");
                None
            }
        }
    }
}
