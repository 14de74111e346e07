//! The teams as delivery needs them: policy and signers. Their keys are opened once and kept until something changes.
//!
//! Each change of a team or key raises a version in the store, and within half a second this cache is dropped. A team
//! that is missing here is read from the store before it is called unknown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, HmacKey, SigningSecret};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::key_usage::{KeyUsage, SigningKeys};
use super::sent_with::{KnownIds, Unrecorded};
use crate::base::clock::{Clock, Timestamp};
use crate::base::stop::Stop;
use crate::keyring::{Keyring, Place, Sealed};
use crate::model::attempt::SentWithId;
use crate::model::pause::Pauses;
use crate::model::retry::RetryPolicy;
use crate::model::sent_with::SentWith;
use crate::model::team::{AuthForm, KeyKind, KeyState, Mode, Team};
use crate::net::target::without_userinfo;
use crate::store::StoreError;
use crate::store::admin::{AdminStore, KeyRow};

/// How often the version is looked at.
const REFRESH: Duration = Duration::from_millis(500);
/// How often the use of keys is recorded, so that each key causes at most one write in this time.
const RECORD_USAGE: Duration = Duration::from_secs(60);
/// An open team is read again after this time, so that what it is sent with counts as used.
const REOPEN: Duration = Duration::from_secs(24 * 60 * 60);
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
    usage: KeyUsage,
    unrecorded: Arc<Unrecorded>,
    pauses: watch::Sender<Arc<Pauses>>,
}

pub struct TeamEntry {
    pub team: Team,
    pub retry: RetryPolicy,
    live: Signers,
    test: Signers,
    unrecorded: Arc<Unrecorded>,
    /// It is read again then, at the latest when a created key takes effect.
    until: Timestamp,
}

/// A mode's signers by the form of the auth header.
#[derive(Default)]
struct Signers {
    key: Option<Signing>,
    hmac: Option<Signing>,
}

/// A signer, with the keys that it signs with.
struct Signing {
    signer: Signer,
    signing_keys: Vec<String>,
    auth_keys: Vec<String>,
    keys: SigningKeys,
    known_ids: KnownIds,
}

impl Signing {
    fn new(signer: Signer, signing_keys: &[String], auth_keys: Vec<String>) -> Self {
        let signing_keys = signing_keys.to_vec();
        let keys = SigningKeys::new([signing_keys.clone(), auth_keys.clone()].concat());
        Self { signer, signing_keys, auth_keys, keys, known_ids: KnownIds::default() }
    }
}

impl TeamEntry {
    /// The signer for this mode and form; `None` without usable keys.
    pub fn signer(&self, mode: Mode, form: AuthForm) -> Option<&Signer> {
        self.signing(mode, form).map(|signing| &signing.signer)
    }

    /// Notes that the keys of this mode and form sign a callback now.
    pub fn note_use(&self, mode: Mode, form: AuthForm, now: Timestamp) {
        if let Some(signing) = self.signing(mode, form) {
            signing.keys.note(now);
        }
    }

    /// Names what a callback of this mode is sent with in this form, to the default URL or to its own. `None` without usable keys.
    pub fn sent_with(&self, mode: Mode, form: AuthForm, follows_default: bool) -> Option<SentWithId> {
        let signing = self.signing(mode, form)?;
        let settings = || SentWith {
            team: Arc::clone(&self.team.id),
            mode,
            url: self.team.default_url(mode).filter(|_| follows_default).map(without_userinfo),
            form,
            signing_keys: signing.signing_keys.clone(),
            auth_keys: signing.auth_keys.clone(),
        };
        Some(signing.known_ids.id(follows_default, &self.unrecorded, settings))
    }

    fn signing(&self, mode: Mode, form: AuthForm) -> Option<&Signing> {
        let signers = if mode == Mode::Test { &self.test } else { &self.live };
        match form {
            AuthForm::Key => signers.key.as_ref(),
            AuthForm::Hmac => signers.hmac.as_ref(),
        }
    }

    /// All the keys that sign callbacks of this team.
    fn signing_keys(&self) -> impl Iterator<Item = &SigningKeys> {
        let all = [&self.live.key, &self.live.hmac, &self.test.key, &self.test.hmac];
        all.into_iter().flatten().map(|signing| &signing.keys)
    }
}

impl Directory {
    pub fn new(admin: Arc<dyn AdminStore>, keyring: Arc<Keyring>, clock: Arc<dyn Clock>, retry: RetryPolicy) -> Self {
        let retry = RwLock::new(retry);
        let (cache, generation, usage) = (RwLock::default(), AtomicU64::new(0), KeyUsage::default());
        let pauses = watch::channel(Arc::default()).0;
        let unrecorded = Arc::default();
        Self { admin, keyring, clock, retry, cache, generation, usage, unrecorded, pauses }
    }

    /// The team, if there is one.
    ///
    /// # Errors
    /// The store's, if the team is not in the cache.
    pub async fn team(&self, id: &str) -> Result<Option<Arc<TeamEntry>>, StoreError> {
        let now = self.clock.now();
        let kept = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(entry) = kept.filter(|entry| now < entry.until) {
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
            self.collect_usage(&cache);
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
        self.collect_usage(&cache);
        cache.clear();
    }

    /// What is paused, as it was read last.
    pub fn pauses(&self) -> Arc<Pauses> {
        Arc::clone(&self.pauses.borrow())
    }

    pub(super) fn watch_pauses(&self) -> watch::Receiver<Arc<Pauses>> {
        self.pauses.subscribe()
    }

    /// Reads what is paused. It is read before the first attempt, and at each change.
    ///
    /// # Errors
    /// The store's; then what was read before stays.
    pub async fn read_pauses(&self) -> Result<(), StoreError> {
        let pauses = Pauses::new(self.admin.pauses().await?);
        self.pauses.send_if_modified(|known| {
            let is_new = known.list() != pauses.list();
            if is_new {
                *known = Arc::new(pauses);
            }
            is_new
        });
        Ok(())
    }

    fn collect_usage(&self, cache: &HashMap<Arc<str>, Arc<TeamEntry>>) {
        self.usage.collect(cache.values().flat_map(|entry| entry.signing_keys()));
    }

    /// Writes when keys were last used. What the store does not take is lost: the next use is recorded again.
    async fn record_usage(&self) {
        self.collect_usage(&self.cache.read().unwrap_or_else(PoisonError::into_inner));
        for used in self.usage.take() {
            if let Err(error) = self.admin.mark_used(used).await {
                tracing::debug!(%error, "the use of keys can't be recorded now");
                return;
            }
        }
    }

    /// Writes what callbacks are sent with. What the store does not take now is written later.
    async fn record_sent_with(&self) {
        for settings in self.unrecorded.take() {
            if let Err(error) = self.admin.note_sent_with(settings.clone()).await {
                tracing::debug!(%error, "the settings that callbacks are sent with can't be recorded now");
                self.unrecorded.add(settings);
            }
        }
    }

    /// Watches the version, and records the use of keys and settings, until `stop`.
    pub async fn run(&self, mut stop: Stop) {
        let mut known = None;
        let mut recorded = Instant::now();
        loop {
            // While the store is down, the cache stays in use.
            if let Ok(version) = self.admin.version().await {
                let is_new = known != Some(version);
                if is_new && known.is_some() {
                    self.refresh();
                }
                if !is_new || self.read_pauses().await.is_ok() {
                    known = Some(version);
                }
            }
            self.record_sent_with().await;
            if recorded.elapsed() >= RECORD_USAGE {
                recorded = Instant::now();
                self.record_usage().await;
            }
            tokio::select! {
                () = tokio::time::sleep(REFRESH) => {}
                () = stop.stopped() => break,
            }
        }
        // At a stop the store still answers.
        self.record_sent_with().await;
        self.record_usage().await;
    }

    fn open(&self, team: Team, keys: &[KeyRow], now: Timestamp) -> TeamEntry {
        let until = keys
            .iter()
            .filter(|key| key.state == KeyState::Created)
            .filter_map(|key| key.promote_at.filter(|at| *at > now))
            .fold(now.plus(REOPEN), Ord::min);
        let retry = team.retry.over(&self.retry());
        let live = self.signers(&team, keys, Mode::Live, now);
        let test = self.signers(&team, keys, Mode::Test, now);
        TeamEntry { team, retry, live, test, unrecorded: Arc::clone(&self.unrecorded), until }
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
        let (ids, secrets): (Vec<_>, Vec<_>) = usable(KeyKind::Signing)
            .filter_map(|key| Some((key.id.clone(), SigningSecret::parse(&open(key)?).ok()?)))
            .unzip();
        if secrets.is_empty() {
            return Signers::default();
        }
        let key = usable(KeyKind::CallbackAuth)
            .find_map(|key| Some((key.id.clone(), CallbackAuthKey::parse(&open(key)?).ok()?)))
            .map(|(id, key)| Signing::new(Signer::new(secrets.clone(), AuthHeader::Key(key)), &ids, vec![id]));
        let mut hmac_keys =
            usable(KeyKind::Hmac).filter_map(|key| Some((key.id.clone(), HmacKey::parse(&open(key)?).ok()?)));
        let hmac = hmac_keys.next().map(|(newest_id, newest)| {
            let (older_id, older) = hmac_keys.next().unzip();
            let signer = Signer::new(secrets.clone(), AuthHeader::Hmac(newest, older));
            Signing::new(signer, &ids, [Some(newest_id), older_id].into_iter().flatten().collect())
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
