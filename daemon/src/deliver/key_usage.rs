//! When the teams' keys were last used. An attempt only sets a number in memory; the store learns of it from time to time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::base::clock::Timestamp;
use crate::store::admin::Used;

/// Keys whose use is not recorded yet, at most. Beyond this the record of some uses is lost.
const UNRECORDED: usize = 100_000;
/// Keys that are recorded in one transaction, so that no batch of delivery waits long for it.
const IN_ONE_WRITE: usize = 500;
/// They were not used since the last collection.
const UNUSED: i64 = i64::MIN;

/// The keys with which one signer signs, by their ids.
pub(super) struct SigningKeys {
    ids: Vec<String>,
    used_at: AtomicI64,
}

impl SigningKeys {
    pub(super) fn new(ids: Vec<String>) -> Self {
        Self { ids, used_at: AtomicI64::new(UNUSED) }
    }

    pub(super) fn note(&self, now: Timestamp) {
        self.used_at.fetch_max(now.millis(), Ordering::Relaxed);
    }
}

/// Uses that the store does not know yet.
#[derive(Default)]
pub(super) struct KeyUsage(Mutex<HashMap<String, Timestamp>>);

impl KeyUsage {
    /// Takes over what was noted since the last collection.
    pub(super) fn collect<'k>(&self, keys: impl Iterator<Item = &'k SigningKeys>) {
        let mut unrecorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for keys in keys {
            let used_at = keys.used_at.swap(UNUSED, Ordering::Relaxed);
            if used_at == UNUSED {
                continue;
            }
            let used_at = Timestamp::from_millis(used_at);
            for id in &keys.ids {
                if let Some(known) = unrecorded.get_mut(id) {
                    *known = (*known).max(used_at);
                } else if unrecorded.len() < UNRECORDED {
                    unrecorded.insert(id.clone(), used_at);
                }
            }
        }
    }

    /// What is to be recorded, in pieces of one transaction each.
    pub(super) fn take(&self) -> Vec<Vec<(Used, Timestamp)>> {
        let unrecorded = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let used: Vec<_> = unrecorded.into_iter().map(|(id, at)| (Used::Key(id), at)).collect();
        used.chunks(IN_ONE_WRITE).map(<[_]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn each_key_is_recorded_once_with_its_last_use() {
        let usage = KeyUsage::default();
        let (live, test) = (SigningKeys::new(vec!["a".into(), "b".into()]), SigningKeys::new(vec!["b".into()]));
        for millis in [5, 9, 7] {
            live.note(at(millis));
        }
        test.note(at(6));
        usage.collect([&live, &test].into_iter());
        usage.collect([&live, &test].into_iter());
        let mut taken = usage.take().concat();
        taken.sort_by_key(|(_, at)| *at);
        taken.sort_by_key(|(used, _)| format!("{used:?}"));
        assert_eq!(taken, [(Used::Key("a".into()), at(9)), (Used::Key("b".into()), at(9))]);
        assert!(usage.take().is_empty(), "what is unchanged is not written again");
    }

    #[test]
    fn what_waits_for_the_store_is_bounded() {
        let usage = KeyUsage::default();
        let keys: Vec<_> = (0..UNRECORDED + 10).map(|n| SigningKeys::new(vec![n.to_string()])).collect();
        keys.iter().for_each(|keys| keys.note(at(1)));
        usage.collect(keys.iter());
        let pieces = usage.take();
        assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), UNRECORDED);
        assert!(pieces.iter().all(|piece| piece.len() <= IN_ONE_WRITE));
    }
}
