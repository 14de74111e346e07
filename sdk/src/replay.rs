//! A guard against replays: somebody records a request and sends it again.
//!
//! The guard remembers a handled callback for as long as a recorded request would still verify, which is the signed
//! time plus the tolerance. It does **not** make sure that a callback is handled only once: the platform retries for 24
//! hours, each time with a new signed time, and a process that restarts forgets what it remembered. Only a claim of
//! `webhook-id` in the handler's own database transaction prevents double handling.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::{Arc, Mutex, PoisonError};

use crate::request::TOLERANCE;
use crate::verifier::now;
use crate::{Credential, Mode, Verified};

/// How many seconds a callback is remembered after its signature stops verifying. Clocks can jump, and a thread can
/// wait between verifying and claiming.
const MARGIN: u64 = 60;

/// The result of a claim.
#[derive(Debug)]
pub enum Claim<T> {
    /// The callback is new. Handle it, then call [`done`](Token::done). Dropping the token releases the claim.
    Fresh(T),
    /// The callback is being handled now. Answer 503 with `retry-after`.
    InFlight,
    /// The callback was handled. Answer 2xx, and do nothing.
    Done,
    /// The guard is full, and it forgets no callback early. Answer 503 with `retry-after`.
    Full,
}

/// The right to handle one callback.
pub trait Token: Send {
    /// Records that the callback was handled. From now on, repeats get [`Claim::Done`].
    fn done(self);
}

/// Remembers which callbacks were handled. Claim only after verification, so that forged requests can't fill the guard.
pub trait ReplayGuard: Send + Sync {
    /// The right to handle one callback. Dropping it releases the claim.
    type Token: Token;

    /// Claims a callback that `credential` accepted, as if the clock showed `now`, in unix seconds.
    fn claim_at(&self, credential: &Credential, verified: &Verified<'_>, now: u64) -> Claim<Self::Token>;

    /// Claims a callback at the current time. `credential` is the one that accepted it:
    /// [`Verifier::credential`](crate::Verifier::credential).
    fn claim(&self, credential: &Credential, verified: &Verified<'_>) -> Claim<Self::Token> {
        self.claim_at(credential, verified, now())
    }
}

/// A guard in the memory of this process. It is bounded, and it forgets everything when the process ends.
#[derive(Debug, Clone)]
pub struct MemoryGuard {
    inner: Arc<Mutex<Inner>>,
    capacity: usize,
    lease: u64,
}

/// Identifies a callback of one credential. The name and mode identify the credential, so that its keys can rotate.
type Key = Arc<str>;

fn key(name: &str, mode: Mode, id: &str) -> Key {
    // An id holds no white space, so two different callbacks never get the same key.
    [mode.name(), " ", id, " ", name].concat().into()
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// The keys by the second after which they may be forgotten. Each key occurs once.
    ends: BTreeMap<u64, Vec<Key>>,
    /// The serial number of the newest claim.
    serial: u64,
}

#[derive(Debug)]
struct Entry {
    /// The serial number of the claim in progress and the end of its lease. `None` once the callback was handled.
    claim: Option<(u64, u64)>,
    /// The last second in which this entry must be remembered.
    end: u64,
}

impl MemoryGuard {
    /// Makes a guard that remembers at most `capacity` callbacks at a time. Choose a little more than the number of
    /// callbacks that arrive in ten minutes. If a token is neither done nor dropped, its claim ends after
    /// `lease_seconds`.
    #[must_use]
    pub fn new(capacity: usize, lease_seconds: u64) -> Self {
        Self { inner: Arc::default(), capacity, lease: lease_seconds }
    }

    /// How many callbacks the guard holds, including those that it may already forget.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether the guard holds no callback.
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

/// Removes a key from the list of `end`, if it is there.
fn forget_end(key: &Key, end: u64, ends: &mut BTreeMap<u64, Vec<Key>>) {
    if let Some(keys) = ends.get_mut(&end) {
        // Search from the end, because a key that was added recently is the most likely one.
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
    /// Until when the callback is remembered after it was handled.
    until: u64,
}

impl Token for MemoryToken {
    fn done(mut self) {
        let Some(key) = self.key.take() else { return };
        // The callback was handled, even if this lease ran out and another claim took over, or even released it.
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
        if own {
            if let Some(entry) = entries.remove(&key) {
                forget_end(&key, entry.end, ends);
            }
        }
    }
}
