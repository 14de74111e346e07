//! The settings that callbacks are sent with, on their way to the store. An attempt only takes an id from memory; the store
//! learns of new settings soon after.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::model::attempt::SentWithId;
use crate::model::sent_with::SentWith;

/// Settings that are not recorded yet, at most. Beyond this the record of some is lost, until they are used again.
const UNRECORDED: usize = 100_000;
/// Settings that are recorded in one transaction.
const IN_ONE_WRITE: usize = 500;

/// The ids of what one signer of a team sends with: to the team's default URL, and to tasks' own URLs.
#[derive(Default)]
pub(super) struct KnownIds {
    to_default: OnceLock<SentWithId>,
    to_own: OnceLock<SentWithId>,
}

impl KnownIds {
    /// The id. What has none yet is made by `settings`, and is to be recorded.
    pub(super) fn id(
        &self,
        follows_default: bool,
        unrecorded: &Unrecorded,
        settings: impl FnOnce() -> SentWith,
    ) -> SentWithId {
        let known = if follows_default { &self.to_default } else { &self.to_own };
        *known.get_or_init(|| {
            let settings = settings();
            let id = settings.id();
            unrecorded.add([settings]);
            id
        })
    }
}

/// Settings that the store does not know yet.
#[derive(Default)]
pub(super) struct Unrecorded(Mutex<HashMap<SentWithId, SentWith>>);

impl Unrecorded {
    pub(super) fn add(&self, settings: impl IntoIterator<Item = SentWith>) {
        let mut unrecorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for settings in settings {
            if unrecorded.len() < UNRECORDED {
                unrecorded.insert(settings.id(), settings);
            }
        }
    }

    /// What is to be recorded, in pieces of one transaction each.
    pub(super) fn take(&self) -> Vec<Vec<SentWith>> {
        let unrecorded = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut settings: Vec<_> = unrecorded.into_iter().collect();
        // Two instances write them in the same order, so that neither waits for the other.
        settings.sort_unstable_by_key(|(id, _)| *id);
        let settings: Vec<_> = settings.into_iter().map(|(_, settings)| settings).collect();
        settings.chunks(IN_ONE_WRITE).map(<[_]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::team::{AuthForm, Mode};

    fn settings(team: usize) -> SentWith {
        SentWith {
            team: team.to_string().into(),
            mode: Mode::Live,
            url: None,
            form: AuthForm::Key,
            signing_keys: Vec::new(),
            auth_keys: Vec::new(),
        }
    }

    #[test]
    fn settings_are_recorded_once_and_each_way_has_its_own() {
        let (known, unrecorded) = (KnownIds::default(), Unrecorded::default());
        let own = known.id(false, &unrecorded, || settings(1));
        let default = known.id(true, &unrecorded, || settings(2));
        assert_ne!(own, default);
        assert_eq!(known.id(false, &unrecorded, || unreachable!("it is known")), own);
        assert_eq!(unrecorded.take().concat().len(), 2);
        assert!(unrecorded.take().is_empty());
    }

    #[test]
    fn what_waits_for_the_store_is_bounded() {
        let unrecorded = Unrecorded::default();
        unrecorded.add((0..UNRECORDED + 10).map(settings));
        let pieces = unrecorded.take();
        assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), UNRECORDED);
        assert!(pieces.iter().all(|piece| piece.len() <= IN_ONE_WRITE));
    }
}
