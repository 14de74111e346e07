//! The keys in force while a process runs: the source is looked at every second and on request. Keys that cannot be used
//! never replace those in force.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use scale_callback_auth::Verifier;

use super::error::KeysError;
use super::source::{KeySource, Variables};

/// How often the source is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The verifier in force. It follows the changes of its source.
#[derive(Clone)]
pub struct LiveKeys {
    source: KeySource,
    current: Arc<RwLock<Arc<Verifier>>>,
    state: Arc<Mutex<State>>,
}

struct State {
    in_force: Variables,
    /// Why the last look could not be used, if that was reported.
    refused: Option<KeysError>,
}

/// What a look at the source changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing changed.
    None,
    /// Other keys are in force now.
    Taken,
    /// There is something new that cannot be used. The old keys stay in force.
    Refused(KeysError),
}

impl LiveKeys {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`KeysError`] says what is wrong and where.
    pub fn load(source: KeySource) -> Result<Self, KeysError> {
        let in_force = source.look()?;
        let verifier = source.verifier(&in_force)?;
        Ok(Self {
            source,
            current: Arc::new(RwLock::new(Arc::new(verifier))),
            state: Arc::new(Mutex::new(State { in_force, refused: None })),
        })
    }

    /// The verifier in force.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks now, because a person asked for it, and takes what changed if all of it can be used.
    pub fn reload(&self) -> Change {
        self.state().refused = None;
        self.take(self.source.look())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, fresh: Result<Variables, KeysError>) -> Change {
        let mut state = self.state();
        let refused = match fresh {
            Ok(variables) if variables == state.in_force => {
                state.refused = None;
                return Change::None;
            }
            Ok(variables) => match self.source.verifier(&variables) {
                Ok(verifier) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier);
                    *state = State { in_force: variables, refused: None };
                    return Change::Taken;
                }
                Err(why) => why,
            },
            Err(why) => why,
        };
        // The same refusal is reported once, however often the source is looked at.
        if state.refused.as_ref() == Some(&refused) {
            return Change::None;
        }
        state.refused = Some(refused.clone());
        Change::Refused(refused)
    }

    /// Looks every second and reports each change. A change counts once two looks agree on it, because a file that is being
    /// written may hold only half of its keys.
    pub async fn follow(self, report: impl Fn(Change) + Send) {
        let mut before = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let source = self.source.clone();
            // Files may lie on a disk that hangs.
            let Ok(seen) = tokio::task::spawn_blocking(move || source.look()).await else { continue };
            let settled = before.as_ref() == Some(&seen);
            before = Some(seen.clone());
            if settled {
                match self.take(seen) {
                    Change::None => {}
                    change => report(change),
                }
            }
        }
    }
}
