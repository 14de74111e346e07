//! Callbacks that got a row while their first attempt was under way. The settle of this attempt must read the row, and nothing in it says
//! so. A batch that does not know it is written twice, so what is remembered here saves time, and nothing depends on it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::callback::CallbackId;
use crate::model::settlement::Change;

/// So many are remembered. Only as many as are under way come at once.
const LIMIT: usize = 100_000;

#[derive(Default)]
pub(super) struct Parked(Mutex<HashSet<CallbackId>>);

impl Parked {
    fn ids(&self) -> MutexGuard<'_, HashSet<CallbackId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that these changes are about.
    pub(super) fn among(&self, changes: &[Change]) -> HashSet<CallbackId> {
        let parked = self.ids();
        let ids = changes.iter().filter_map(Change::facts).map(|facts| facts.id);
        ids.filter(|id| parked.contains(id)).collect()
    }

    /// These changes were written.
    pub(super) fn follow(&self, changes: &[Change]) {
        let mut parked = self.ids();
        for change in changes {
            match change {
                Change::Park(park) if park.lease_until.is_some() => {
                    if parked.len() >= LIMIT {
                        parked.clear();
                    }
                    parked.insert(park.facts.id);
                }
                Change::Settle(settle) => {
                    parked.remove(&settle.facts.id);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::model::attempt::{Attempt, Outcome};
    use crate::model::endpoint::{QueueKey, QueueTarget};
    use crate::model::event::{PartitionKey, RecordRef};
    use crate::model::lease::{Facts, Token};
    use crate::model::retry::Next;
    use crate::model::settlement::{Park, Settle};
    use crate::model::team::Mode;

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn facts(n: u8) -> Arc<Facts> {
        let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
        Arc::new(Facts {
            id: CallbackId::from_bytes([n; 16]),
            record: RecordRef { partition, offset: n.into(), timestamp: NOW.millis() },
            team: "team_a".into(),
            task_id: "task".into(),
            event_id: None,
            event_type: "task.completed".into(),
            queue: QueueKey { team: "team_a".into(), target: QueueTarget::Default(Mode::Live) },
            mode: Mode::Live,
            content_hash: [n; 32],
            builder: 1,
        })
    }

    fn park(n: u8, lease_until: Option<Timestamp>) -> Change {
        let (facts, body) = (facts(n), Bytes::new());
        Change::Park(Box::new(Park { facts, epoch: 1, url: None, body, due: NOW, token: Token(7), lease_until }))
    }

    fn settle(n: u8) -> Change {
        let attempt = Attempt {
            outcome: Outcome::Ok,
            sent: true,
            status: Some(200),
            begun_at: NOW,
            took: Duration::ZERO,
            peer: None,
            redialed: false,
            sent_with: None,
            snippet: Bytes::new(),
        };
        Change::Settle(Box::new(Settle {
            facts: facts(n),
            token: Token(7),
            epoch: Some(1),
            url: None,
            body: Bytes::new(),
            number: 1,
            attempt,
            next: Next::Delivered,
        }))
    }

    #[test]
    fn what_was_parked_under_way_is_known_until_its_settle() {
        let parked = Parked::default();
        parked.follow(&[park(1, Some(NOW)), park(2, None), settle(3)]);
        let batch = [settle(1), settle(2), settle(3)];
        assert_eq!(parked.among(&batch), HashSet::from([facts(1).id]), "its attempt has begun");
        parked.follow(&batch);
        assert!(parked.among(&batch).is_empty());
    }
}
