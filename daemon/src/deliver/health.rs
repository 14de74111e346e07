//! How the endpoints have answered lately: remembered over restarts, told when one begins or ends to fail.
//!
//! It is written to the store now and then, and at the end, but not with each attempt: what a crash loses is the news of a
//! few seconds. The store puts it together with what other processes have noted, which is read at the start alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::stop::Stop;
use crate::model::attempt::Outcome;
use crate::model::endpoint::Origin;
use crate::model::endpoint_history::{EndpointHistory, RecentOutcomes, Turn};
use crate::store::{EngineStore, StoreError};

/// How many endpoints are remembered. When there are more, those that were used longest ago are forgotten.
pub const REMEMBERED: usize = 20_000;
/// How many are forgotten at once.
const FORGOTTEN: usize = REMEMBERED / 10;
/// The time between two writes, and the endpoints of one write.
const WRITE: Duration = Duration::from_secs(5);
const WRITTEN_AT_ONCE: usize = 500;

type Key = (Arc<str>, Origin);

#[derive(Default)]
pub struct Health(Mutex<HashMap<Key, Remembered>>);

struct Remembered {
    recent: RecentOutcomes,
    /// It is not in the store as it is.
    is_changed: bool,
}

impl Health {
    fn endpoints(&self) -> MutexGuard<'_, HashMap<Key, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what earlier instances have stored.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(&self, store: &dyn EngineStore) -> Result<(), StoreError> {
        let stored = store.endpoint_histories(REMEMBERED).await?;
        let remembered = stored
            .into_iter()
            .map(|EndpointHistory { team, origin, recent }| ((team, origin), Remembered { recent, is_changed: false }));
        self.endpoints().extend(remembered);
        Ok(())
    }

    /// Notes the outcome of an attempt. Returns whether the endpoint was failing before.
    pub fn note(&self, team: &Arc<str>, origin: &Origin, outcome: Outcome, at: Timestamp) -> bool {
        let mut endpoints = self.endpoints();
        if endpoints.len() >= REMEMBERED {
            forget_oldest(&mut endpoints);
        }
        let key = (Arc::clone(team), origin.clone());
        let remembered =
            endpoints.entry(key).or_insert_with(|| Remembered { recent: RecentOutcomes::default(), is_changed: false });
        remembered.is_changed = true;
        let was_failing = remembered.recent.is_failing();
        let turn = remembered.recent.note(outcome, at);
        drop(endpoints);
        match turn {
            Some(Turn::Failing) => {
                tracing::warn!(%team, endpoint = %origin, outcome = outcome.name(), "endpoint.failing");
            }
            Some(Turn::Recovered { after }) => {
                tracing::info!(%team, endpoint = %origin, seconds = after.as_secs(), "endpoint.recovered");
            }
            None => {}
        }
        was_failing
    }

    /// What is remembered of an endpoint.
    pub fn of(&self, team: &Arc<str>, origin: &Origin) -> Option<RecentOutcomes> {
        self.endpoints().get(&(Arc::clone(team), origin.clone())).map(|remembered| remembered.recent.clone())
    }

    /// The endpoints with failures in a row, those that fail for the longest time first.
    pub fn worst(&self, at_most: usize) -> Vec<EndpointHistory> {
        let mut worst: Vec<_> = self
            .endpoints()
            .iter()
            .filter(|(_, remembered)| remembered.recent.failures > 0)
            .map(|((team, origin), remembered)| EndpointHistory {
                team: Arc::clone(team),
                origin: origin.clone(),
                recent: remembered.recent.clone(),
            })
            .collect();
        let rank = |history: &EndpointHistory| {
            (!history.recent.is_failing(), history.recent.failing_since, std::cmp::Reverse(history.recent.failures))
        };
        worst.sort_by_key(rank);
        worst.truncate(at_most);
        worst
    }

    /// How many endpoints fail.
    pub fn failing(&self) -> usize {
        self.endpoints().values().filter(|remembered| remembered.recent.is_failing()).count()
    }

    /// Writes what has changed, now and then, until `stop`.
    pub(super) async fn run(self: Arc<Self>, store: Arc<dyn EngineStore>, mut stop: Stop) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(WRITE) => {}
                () = stop.stopped() => return,
            }
            if let Err(error) = self.write(&*store).await {
                tracing::debug!(%error, "the history of endpoints can't be written now; the next round tries again");
            }
        }
    }

    /// Writes what has changed since the last write.
    ///
    /// # Errors
    /// The store's. What was not written is written by the next call.
    pub async fn write(&self, store: &dyn EngineStore) -> Result<(), StoreError> {
        loop {
            let changed = self.take_changed();
            if changed.is_empty() {
                return Ok(());
            }
            if let Err(error) = store.note_endpoints(changed.clone()).await {
                let mut endpoints = self.endpoints();
                for EndpointHistory { team, origin, .. } in changed {
                    if let Some(remembered) = endpoints.get_mut(&(team, origin)) {
                        remembered.is_changed = true;
                    }
                }
                return Err(error);
            }
        }
    }

    fn take_changed(&self) -> Vec<EndpointHistory> {
        let mut endpoints = self.endpoints();
        let changed = endpoints.iter_mut().filter(|(_, remembered)| remembered.is_changed).take(WRITTEN_AT_ONCE);
        let taken = changed.map(|((team, origin), remembered)| {
            remembered.is_changed = false;
            EndpointHistory { team: Arc::clone(team), origin: origin.clone(), recent: remembered.recent.clone() }
        });
        taken.collect()
    }
}

/// Forgets those that were used longest ago. What of them was not written is lost.
fn forget_oldest(endpoints: &mut HashMap<Key, Remembered>) {
    let mut times: Vec<_> = endpoints.values().map(|remembered| remembered.recent.last_at).collect();
    let (_, newest_forgotten, _) = times.select_nth_unstable(FORGOTTEN.min(endpoints.len() - 1));
    let newest_forgotten = *newest_forgotten;
    endpoints.retain(|_, remembered| remembered.recent.last_at > newest_forgotten);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::store::Options;
    use crate::store::memory::MemoryStore;

    fn origin(n: usize) -> Origin {
        Origin::parse(&format!("https://host-{n}.example")).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[tokio::test]
    async fn a_restart_remembers_who_fails() {
        let store = MemoryStore::new(Options::default(), Arc::new(ManualClock::new(at(0))));
        let team: Arc<str> = "team_a".into();
        let health = Health::default();
        for second in 0..7 {
            health.note(&team, &origin(1), Outcome::ServerError, at(second * 20));
        }
        health.note(&team, &origin(2), Outcome::Ok, at(1));
        health.note(&team, &origin(3), Outcome::HeadReset, at(2));
        assert_eq!(health.failing(), 1);
        health.write(&store).await.unwrap();
        let restarted = Health::default();
        restarted.load(&store).await.unwrap();
        assert_eq!(restarted.failing(), 1);
        for n in 1..=3 {
            assert_eq!(restarted.of(&team, &origin(n)), health.of(&team, &origin(n)), "{n}");
        }
        let worst: Vec<_> = restarted.worst(9).into_iter().map(|history| history.origin).collect();
        assert_eq!(worst, [origin(1), origin(3)], "the failing one first");
        assert!(restarted.take_changed().is_empty(), "it is in the store as it is");
    }

    #[test]
    fn only_so_many_are_remembered_and_the_newest_stay() {
        let team: Arc<str> = "team_a".into();
        let health = Health::default();
        for n in 0..=REMEMBERED {
            health.note(&team, &origin(n), Outcome::Ok, at(i64::try_from(n).unwrap()));
        }
        let count = health.endpoints().len();
        assert!((REMEMBERED - FORGOTTEN - 1..=REMEMBERED).contains(&count), "{count}");
        assert!(health.of(&team, &origin(0)).is_none() && health.of(&team, &origin(REMEMBERED)).is_some());
    }
}
