//! Collects records in batches for admission, within the byte budget of bodies. It drops a record only if admission has
//! ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Config, Incoming};

/// How long intake waits for room before it pauses its partitions.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same after they are paused. It is short, because rebalances must be served.
const BRIEFLY: Duration = Duration::from_millis(20);
/// Records in one batch for admission.
const BATCH: usize = 256;

pub(super) struct Gather {
    batch: Vec<Incoming>,
    /// Records that found no room in the byte budget, in order.
    held: VecDeque<Incoming>,
    /// True if there is no room and the partitions should be paused.
    full: bool,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    batches: mpsc::Sender<Vec<Incoming>>,
    runtime: Handle,
}

impl Gather {
    pub(super) fn new(
        config: &Config,
        budget: Arc<Semaphore>,
        batches: mpsc::Sender<Vec<Incoming>>,
        runtime: Handle,
    ) -> Self {
        let (batch, held) = (Vec::with_capacity(BATCH), VecDeque::new());
        Self { batch, held, full: false, budget, budget_bytes: config.body_budget, batches, runtime }
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether a batch waits for more records.
    pub(super) fn has_begun(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Whether all records were handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.held.is_empty()
    }

    /// Bytes of bodies in memory.
    pub(super) fn body_bytes(&self) -> usize {
        self.budget_bytes.saturating_sub(self.budget.available_permits())
    }

    /// Puts the record into the batch, or after the records that wait for room.
    pub(super) fn take(&mut self, incoming: Incoming) {
        if self.held.is_empty() && self.budget.available_permits() > 0 {
            self.add(incoming);
        } else {
            self.held.push_back(incoming);
        }
    }

    /// Waits a while for room for the records that wait. If there is none, the partitions must be paused, while polling
    /// goes on.
    pub(super) fn make_room(&mut self) {
        let has_room = self.place_held();
        self.full = !has_room;
    }

    fn place_held(&mut self) -> bool {
        while let Some(held) = self.held.pop_front() {
            let wanted = self.bytes_of(&held);
            if self.budget.available_permits() < wanted {
                self.flush();
                let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
                let (patience, budget) = (self.patience(), &self.budget);
                let room = async { tokio::time::timeout(patience, budget.acquire_many(permits)).await.is_ok() };
                if !self.runtime.block_on(room) {
                    self.held.push_front(held);
                    return false;
                }
            }
            self.add(held);
            self.flush_if_large();
        }
        true
    }

    pub(super) fn flush_if_large(&mut self) {
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands the batch over. Waits for admission for a limited time; after it, the partitions are paused.
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let (patience, batches) = (self.patience(), &self.batches);
        let reserved = self.runtime.block_on(async { tokio::time::timeout(patience, batches.reserve()).await });
        match reserved {
            Ok(Ok(place)) => place.send(std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH))),
            // Admission has ended, and this thread will end too. No watermark passes these records: they are read
            // again.
            Ok(Err(_)) => self.batch.clear(),
            Err(_) => self.full = true,
        }
    }

    fn patience(&self) -> Duration {
        if self.full { BRIEFLY } else { PATIENCE }
    }

    fn bytes_of(&self, incoming: &Incoming) -> usize {
        incoming.decoded.as_ref().map_or(0, |event| event.body.len()).min(self.budget_bytes)
    }

    /// The body counts against the budget for as long as any copy of it lives.
    fn add(&mut self, mut incoming: Incoming) {
        let wanted = u32::try_from(self.bytes_of(&incoming)).unwrap_or(u32::MAX);
        if let Ok(event) = &mut incoming.decoded {
            match Arc::clone(&self.budget).try_acquire_many_owned(wanted) {
                Ok(permit) => event.body = Bytes::from_owner(Budgeted { body: event.body.clone(), _permit: permit }),
                Err(_) => {
                    self.held.push_front(incoming);
                    return;
                }
            }
        }
        self.batch.push(incoming);
    }
}

/// A body with its place in the budget.
struct Budgeted {
    body: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::runtime::Runtime;

    use super::*;
    use crate::intake::Tombstones;
    use crate::model::event::{PartitionKey, RecordRef, TaskEvent};
    use crate::model::team::Mode;

    const BUDGET: usize = 100;

    struct Fixture {
        gather: Gather,
        batches: mpsc::Receiver<Vec<Incoming>>,
        // Neither the consumer's thread nor the test's is a thread of the runtime.
        _runtime: Runtime,
    }

    impl Fixture {
        fn new() -> Self {
            let runtime = Runtime::new().unwrap();
            let config = Config {
                brokers: String::new(),
                group: String::new(),
                topics: Vec::new(),
                properties: BTreeMap::new(),
                max_event_bytes: BUDGET,
                body_budget: BUDGET,
                window: 1,
                tombstones: Tombstones::Skip,
                rebalance_grace: Duration::ZERO,
            };
            let (sender, batches) = mpsc::channel(1);
            let budget = Arc::new(Semaphore::new(BUDGET));
            let gather = Gather::new(&config, budget, sender, runtime.handle().clone());
            Self { gather, batches, _runtime: runtime }
        }

        fn take(&mut self, offset: i64, bytes: usize) {
            self.gather.take(incoming(offset, bytes));
        }

        fn next_batch(&mut self) -> Vec<Incoming> {
            self.batches.try_recv().expect("a batch was handed over")
        }
    }

    fn incoming(offset: i64, bytes: usize) -> Incoming {
        let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
        let event = TaskEvent {
            record: RecordRef { partition: Arc::clone(&partition), offset, timestamp: 0 },
            team: "t".into(),
            task_id: "t".into(),
            event_id: None,
            event_type: "t".into(),
            mode: Mode::Live,
            callback_url: None,
            content_hash: [0; 32],
            body: vec![0; bytes].into(),
        };
        Incoming { partition, epoch: 1, below_seen: false, decoded: Ok(event) }
    }

    fn offsets(batch: &[Incoming]) -> Vec<i64> {
        batch.iter().map(|incoming| incoming.decoded.as_ref().unwrap().record.offset).collect()
    }

    #[test]
    fn bodies_stay_within_their_budget_and_in_order() {
        let mut fixture = Fixture::new();
        fixture.take(0, 60);
        fixture.take(1, 60);
        fixture.take(2, 10);
        assert_eq!(fixture.gather.body_bytes(), 60);
        fixture.gather.make_room();
        assert!(fixture.gather.is_full() && !fixture.gather.is_empty(), "record 1 finds no room");
        let first = fixture.next_batch();
        assert_eq!(offsets(&first), [0], "what has room goes on meanwhile");
        drop(first);
        fixture.gather.make_room();
        assert!(!fixture.gather.is_full());
        fixture.gather.flush();
        assert_eq!(offsets(&fixture.next_batch()), [1, 2]);
        assert_eq!(fixture.gather.body_bytes(), 0);
        assert!(fixture.gather.is_empty());
    }

    #[test]
    fn a_body_larger_than_the_budget_goes_alone() {
        let mut fixture = Fixture::new();
        fixture.take(0, 1);
        fixture.take(1, 10 * BUDGET);
        fixture.gather.flush();
        drop(fixture.next_batch());
        fixture.gather.make_room();
        fixture.gather.flush();
        assert_eq!(offsets(&fixture.next_batch()), [1]);
    }

    #[test]
    fn admission_that_is_behind_holds_the_next_batch() {
        let mut fixture = Fixture::new();
        fixture.take(0, 1);
        fixture.gather.flush();
        fixture.take(1, 1);
        fixture.gather.flush();
        assert!(fixture.gather.is_full() && fixture.gather.has_begun());
        assert_eq!(offsets(&fixture.next_batch()), [0]);
        fixture.gather.flush();
        assert_eq!(offsets(&fixture.next_batch()), [1]);
        assert!(fixture.gather.is_empty());
    }
}
