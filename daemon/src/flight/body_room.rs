//! Which bodies of pending callbacks find room in the store. Above the budget, a callback is stored *thin*: without its body, which
//! is read from Kafka again before each attempt. That is done only where Kafka keeps the record for longer than the callback is
//! tried; any other body is stored all the same, and above the budget intake pauses.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Timestamp;
use crate::model::endpoint::QueueKey;
use crate::model::lease::Facts;
use crate::model::retry::Next;
use crate::model::settlement::Change;
use crate::store::Space;

/// How much longer than a callback's horizon Kafka must keep its record.
const MARGIN: Duration = Duration::from_secs(60 * 60);

/// Counts the bodies that go to the store since it was last asked how many it has.
pub struct BodyRoom {
    budget: u64,
    /// How long a callback that was not tried yet will be tried.
    horizon: Duration,
    /// Bytes of bodies that the store had when it was asked last.
    stored: AtomicU64,
    /// Bytes that went to the store since the start; those of them that are durable; and those that were when it was asked.
    added: AtomicU64,
    durable: AtomicU64,
    added_before: AtomicU64,
    thin: AtomicU64,
    /// Queues that have used up their own budget.
    full: RwLock<HashSet<QueueKey>>,
    /// How long each topic keeps its records at least, where that is known.
    keeps: RwLock<HashMap<Arc<str>, Duration>>,
}

impl BodyRoom {
    /// Bodies become thin at 95 percent of the budget, so that those which must be stored all the same do not let intake pause.
    pub fn new(budget: u64, horizon: Duration) -> Self {
        Self {
            budget: budget - budget / 20,
            horizon,
            stored: AtomicU64::new(0),
            added: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            added_before: AtomicU64::new(0),
            thin: AtomicU64::new(0),
            full: RwLock::default(),
            keeps: RwLock::default(),
        }
    }

    /// The mark that the next answer of the store is given with: it is taken before the question.
    pub fn mark(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// Everything that was added is durable.
    pub(super) fn landed(&self) {
        self.durable.store(self.added.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// The store has so much now.
    pub fn look(&self, space: &Space, mark: u64) {
        self.stored.store(space.parked_bytes, Ordering::SeqCst);
        self.added_before.store(mark, Ordering::SeqCst);
        let mut full = self.full.write().unwrap_or_else(PoisonError::into_inner);
        if !(full.is_empty() && space.full_queues.is_empty()) {
            *full = space.full_queues.iter().cloned().collect();
        }
    }

    /// This topic keeps its records for so long at least; `None` if that is not known. Whether that is news.
    pub fn topic_keeps(&self, topic: &Arc<str>, keeps: Option<Duration>) -> bool {
        let mut known = self.keeps.write().unwrap_or_else(PoisonError::into_inner);
        let before = match keeps {
            Some(keeps) => known.insert(Arc::clone(topic), keeps),
            None => known.remove(topic),
        };
        before != keeps
    }

    /// How many callbacks were made thin since the start.
    pub fn thinned(&self) -> u64 {
        self.thin.load(Ordering::Relaxed)
    }

    /// Takes the body from a change that would store it, if it has no room and Kafka keeps it. Whether it did.
    pub(super) fn fit(&self, change: &mut Change) -> bool {
        let (facts, until, body) = match change {
            Change::Park(park) => (&park.facts, park.due.plus(self.horizon), &mut park.body),
            Change::Settle(settle) => match settle.next {
                Next::Retry { horizon, .. } if settle.epoch.is_some() => (&settle.facts, horizon, &mut settle.body),
                _ => return false,
            },
            Change::Release { .. } | Change::Bury(..) => return false,
        };
        let bytes = body.len() as u64;
        if bytes == 0 || self.has_room(&facts.queue, bytes) || !self.is_kept(facts, until) {
            self.added.fetch_add(bytes, Ordering::SeqCst);
            return false;
        }
        *body = Bytes::new();
        self.thin.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn has_room(&self, queue: &QueueKey, bytes: u64) -> bool {
        let since = self.added.load(Ordering::SeqCst).saturating_sub(self.added_before.load(Ordering::SeqCst));
        let all = self.stored.load(Ordering::SeqCst).saturating_add(since).saturating_add(bytes);
        all <= self.budget && !self.full.read().unwrap_or_else(PoisonError::into_inner).contains(queue)
    }

    /// Whether Kafka keeps the record of a callback for longer than until then.
    fn is_kept(&self, facts: &Facts, until: Timestamp) -> bool {
        let known = self.keeps.read().unwrap_or_else(PoisonError::into_inner);
        let keeps = known.get(&facts.record.partition.topic);
        let time = facts.record.time();
        time.zip(keeps).is_some_and(|(time, keeps)| time.plus(*keeps) >= until.plus(MARGIN))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{lease, partition};
    use super::*;
    use crate::model::settlement::Park;

    const HOUR: Duration = Duration::from_secs(3_600);
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// The park of a body of 10 bytes, whose record was written at this time.
    fn park(written: Timestamp) -> Change {
        let lease = lease(1, (&partition(0), 0), Some(1), 1);
        let mut facts = (*lease.facts).clone();
        facts.record.timestamp = written.millis();
        Change::Park(Box::new(Park {
            facts: Arc::new(facts),
            epoch: 1,
            url: None,
            body: Bytes::from_static(b"0123456789"),
            due: NOW,
            token: lease.token,
            lease_until: None,
        }))
    }

    fn thin(room: &BodyRoom, mut change: Change) -> bool {
        let is_thin = room.fit(&mut change);
        let Change::Park(park) = change else { unreachable!("it is a park") };
        assert_eq!(park.body.is_empty(), is_thin);
        is_thin
    }

    fn topic() -> Arc<str> {
        let Change::Park(park) = park(NOW) else { unreachable!("it is a park") };
        Arc::clone(&park.facts.record.partition.topic)
    }

    #[test]
    fn bodies_are_stored_up_to_their_budget_and_those_that_kafka_keeps_are_not_stored_above_it() {
        let room = BodyRoom::new(40, HOUR * 24);
        room.topic_keeps(&topic(), Some(HOUR * 26));
        assert!((0..3).all(|_| !thin(&room, park(NOW))), "30 of 38 bytes");
        assert!(thin(&room, park(NOW)));
        assert!(!thin(&room, park(NOW.minus(HOUR * 2))), "Kafka keeps it for 24 h more, and the horizon is as far");
        room.topic_keeps(&topic(), None);
        assert!(!thin(&room, park(NOW)), "it is not known how long Kafka keeps it");
        assert_eq!(room.thinned(), 1);
    }

    #[test]
    fn what_ended_makes_room_and_what_went_to_the_store_meanwhile_counts() {
        let room = BodyRoom::new(40, HOUR);
        room.topic_keeps(&topic(), Some(HOUR * 26));
        assert!((0..3).all(|_| !thin(&room, park(NOW))));
        room.landed();
        let mark = room.mark();
        assert!(thin(&room, park(NOW)));
        room.look(&Space { parked_bytes: 20, ..Space::default() }, mark);
        assert!(!thin(&room, park(NOW)) && thin(&room, park(NOW)), "20 were there, and one more fits");
    }

    #[test]
    fn a_queue_that_used_up_its_own_budget_leaves_room_to_the_others() {
        let room = BodyRoom::new(1_000, HOUR);
        room.topic_keeps(&topic(), Some(HOUR * 26));
        let Change::Park(one) = park(NOW) else { unreachable!("it is a park") };
        let full_queues = vec![one.facts.queue.clone()];
        room.look(&Space { full_queues, ..Space::default() }, 0);
        assert!(thin(&room, park(NOW)));
        room.look(&Space::default(), 0);
        assert!(!thin(&room, park(NOW)));
    }
}
