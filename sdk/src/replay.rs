//! A guard against replays: a request that was captured and is sent again.
//!
//! It remembers who was handled for as long as a captured request would still verify (its signed time and the
//! tolerance). It does **not** make handling exactly once: the platform retries over 24 hours, each time with a new
//! signed time, and a process that restarts forgets. Only a claim of `webhook-id` in the handler's own transaction
//! stops double handling; this guard keeps the rest away from it.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::{Arc, Mutex, PoisonError};

use crate::verify::{TOLERANCE, now};
use crate::{Credential, Mode, Verified};

/// How much longer than it verifies a callback is remembered: clocks step, and threads wait.
const MARGIN: u64 = 60;

/// How a claim came out.
#[derive(Debug)]
pub enum Claim<T> {
    /// Nobody has it: handle it, then say [`done`](Token::done). Dropping the token releases the claim.
    Fresh(T),
    /// It is being handled now. Answer 503 with `retry-after`.
    InFlight,
    /// It was handled. Answer 2xx, and do nothing.
    Done,
    /// The guard remembers as many as it may, and forgets none early. Answer 503 with `retry-after`.
    Full,
}

/// The right to handle one callback.
pub trait Token: Send {
    /// It was handled: repeats are [`Claim::Done`] from now on.
    fn done(self);
}

/// Remembers what was handled. Claim after verification, never before: a forger must not fill it.
pub trait ReplayGuard: Send + Sync {
    /// The right to handle one callback; dropping it releases the claim.
    type Token: Token;

    /// Claims a callback, as if the clock showed `now`, in unix seconds.
    fn claim_at(&self, credential: &Credential, verified: &Verified<'_>, now: u64) -> Claim<Self::Token>;

    /// Claims a callback that `credential` accepted ([`Verifier::credential`](crate::Verifier::credential)).
    fn claim(&self, credential: &Credential, verified: &Verified<'_>) -> Claim<Self::Token> {
        self.claim_at(credential, verified, now())
    }
}

/// A guard in memory: of this process, bounded, forgotten at its end.
#[derive(Debug, Clone)]
pub struct MemoryGuard {
    inner: Arc<Mutex<Inner>>,
    capacity: usize,
    lease: u64,
}

/// A callback of one credential. A credential is told by its name and mode, so that keys can rotate beneath it.
type Key = Arc<str>;

fn key(name: &str, mode: Mode, id: &str) -> Key {
    // An id has no white space, so that no two can be spelled alike.
    [mode.name(), " ", id, " ", name].concat().into()
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// Keys by when they may be forgotten, each once.
    ends: BTreeMap<u64, Vec<Key>>,
    serial: u64,
}

#[derive(Debug)]
struct Entry {
    /// The claim that handles it, and until when it is believed to; `None` once it was handled.
    claim: Option<(u64, u64)>,
    end: u64,
}

impl MemoryGuard {
    /// A guard that remembers at most `capacity` callbacks at a time: what comes in within ten minutes, and some. A
    /// claim whose token is neither done nor dropped is believed for `lease_seconds`.
    #[must_use]
    pub fn new(capacity: usize, lease_seconds: u64) -> Self {
        Self { inner: Arc::default(), capacity, lease: lease_seconds }
    }

    /// How many it remembers, those that it may forget included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, now: u64) {
        while let Some(first) = self.ends.first_entry().filter(|first| *first.key() < now) {
            for key in first.remove() {
                if self.entries.get(&key).is_some_and(|entry| entry.end < now) {
                    self.entries.remove(&key);
                }
            }
        }
    }
}

impl Entry {
    fn keep_until(&mut self, key: &Key, end: u64, ends: &mut BTreeMap<u64, Vec<Key>>) {
        if self.end < end {
            forget_end(key, self.end, ends);
            self.end = end;
            ends.entry(end).or_default().push(Arc::clone(key));
        }
    }
}

/// Takes a key from where it stands, if it does.
fn forget_end(key: &Key, end: u64, ends: &mut BTreeMap<u64, Vec<Key>>) {
    if let Some(keys) = ends.get_mut(&end) {
        // It was most likely the last to come.
        if let Some(place) = keys.iter().rposition(|known| known == key) {
            keys.swap_remove(place);
        }
        if keys.is_empty() {
            ends.remove(&end);
        }
    }
}

impl ReplayGuard for MemoryGuard {
    type Token = MemoryToken;

    fn claim_at(&self, credential: &Credential, verified: &Verified<'_>, now: u64) -> Claim<MemoryToken> {
        let key = key(credential.name(), verified.mode(), verified.id());
        let signed_until = verified.timestamp().saturating_add(TOLERANCE).saturating_add(MARGIN);
        let leased_until = now.saturating_add(self.lease);
        let mut inner = self.lock();
        inner.forget(now);
        let is_full = inner.entries.len() >= self.capacity;
        let Inner { entries, ends, serial } = &mut *inner;
        let entry = match entries.entry(Arc::clone(&key)) {
            hash_map::Entry::Vacant(_) if is_full => return Claim::Full,
            hash_map::Entry::Vacant(place) => place.insert(Entry { claim: None, end: 0 }),
            hash_map::Entry::Occupied(known) => {
                let entry = known.into_mut();
                match entry.claim {
                    None => {
                        entry.keep_until(&key, signed_until, ends);
                        return Claim::Done;
                    }
                    Some((_, until)) if now <= until => {
                        entry.keep_until(&key, signed_until, ends);
                        return Claim::InFlight;
                    }
                    Some(_) => entry,
                }
            }
        };
        *serial = serial.wrapping_add(1);
        let serial = *serial;
        entry.claim = Some((serial, leased_until));
        entry.keep_until(&key, signed_until.max(leased_until), ends);
        drop(inner);
        Claim::Fresh(MemoryToken { guard: self.clone(), key: Some(key), serial, until: signed_until })
    }
}

/// A claim on a [`MemoryGuard`].
#[derive(Debug)]
pub struct MemoryToken {
    guard: MemoryGuard,
    key: Option<Key>,
    serial: u64,
    /// Until when it is remembered once it was handled.
    until: u64,
}

impl Token for MemoryToken {
    fn done(mut self) {
        let Some(key) = self.key.take() else { return };
        // Handled is handled, even where its lease had run out and another took it on, and even where that one let go.
        let mut inner = self.guard.lock();
        let Inner { entries, ends, .. } = &mut *inner;
        let entry = entries.entry(Arc::clone(&key)).or_insert(Entry { claim: None, end: 0 });
        entry.claim = None;
        entry.keep_until(&key, self.until, ends);
    }
}

impl Drop for MemoryToken {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut inner = self.guard.lock();
        let Inner { entries, ends, .. } = &mut *inner;
        let own = entries.get(&key).and_then(|entry| entry.claim).is_some_and(|(serial, _)| serial == self.serial);
        if own && let Some(entry) = entries.remove(&key) {
            forget_end(&key, entry.end, ends);
        }
    }
}
