//! Collects records in batches for admission, within the byte budget of bodies. It drops a record only if admission has
//! ended.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Incoming;
use crate::base::body_budget::{BodyBudget, Share};

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
    budget: BodyBudget,
    batches: mpsc::Sender<Vec<Incoming>>,
    runtime: Handle,
}

impl Gather {
    pub(super) fn new(budget: BodyBudget, batches: mpsc::Sender<Vec<Incoming>>, runtime: Handle) -> Self {
        Self { batch: Vec::with_capacity(BATCH), held: VecDeque::new(), full: false, budget, batches, runtime }
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

    /// Puts the record into the batch, or after the records that wait for room.
    pub(super) fn take(&mut self, incoming: Incoming) {
        let late = if self.held.is_empty() { self.add(incoming) } else { Some(incoming) };
        self.held.extend(late);
    }

    /// Waits a while for room for the records that wait. If there is none, the partitions must be paused, while polling
    /// goes on.
    pub(super) fn make_room(&mut self) {
        let has_room = self.place_held();
        self.full = !has_room;
    }

    fn place_held(&mut self) -> bool {
        while let Some(held) = self.held.pop_front() {
            if let Some(held) = self.add(held) {
                self.flush();
                let (patience, bytes) = (self.patience(), bytes_of(&held));
                self.held.push_front(held);
                let freed = async { tokio::time::timeout(patience, self.budget.freed(Share::Fresh, bytes)).await };
                if self.runtime.block_on(freed).is_err() {
                    return false;
                }
            }
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

    /// Puts the record into the batch, with room in the budget. Returns it if there is none.
    fn add(&mut self, mut incoming: Incoming) -> Option<Incoming> {
        let Some(mut room) = self.budget.try_take(Share::Fresh, bytes_of(&incoming)) else { return Some(incoming) };
        match &mut incoming.decoded {
            Ok(event) => {
                event.value = room.split(event.value.len()).hold(std::mem::take(&mut event.value));
                event.body = room.hold(std::mem::take(&mut event.body));
            }
            Err(letter) => letter.value = room.hold(std::mem::take(&mut letter.value)),
        }
        self.batch.push(incoming);
        None
    }
}

/// The bytes that a record keeps in memory.
fn bytes_of(incoming: &Incoming) -> usize {
    match &incoming.decoded {
        Ok(event) => event.value.len().saturating_add(event.body.len()),
        Err(letter) => letter.value.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::Runtime;

    use super::*;
    use crate::intake::decode::tombstone;
    use crate::model::event::{PartitionKey, RecordRef, TaskEvent};
    use crate::model::team::Mode;

    /// Fresh records may use three quarters of it.
    const BUDGET: usize = 160;
    /// The bytes of a record's value beside its body.
    const VALUE: usize = 10;

    struct Fixture {
        gather: Gather,
        batches: mpsc::Receiver<Vec<Incoming>>,
        // Neither the consumer's thread nor the test's is a thread of the runtime.
        _runtime: Runtime,
    }

    impl Fixture {
        fn new() -> Self {
            let runtime = Runtime::new().unwrap();
            let (sender, batches) = mpsc::channel(1);
            let gather = Gather::new(BodyBudget::new(BUDGET), sender, runtime.handle().clone());
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
            value: vec![0; VALUE].into(),
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
        assert_eq!(fixture.gather.budget.used(), 70);
        fixture.gather.make_room();
        assert!(fixture.gather.is_full() && !fixture.gather.is_empty(), "record 1 finds no room");
        let first = fixture.next_batch();
        assert_eq!(offsets(&first), [0], "what has room goes on meanwhile");
        drop(first);
        fixture.gather.make_room();
        assert!(!fixture.gather.is_full());
        fixture.gather.flush();
        assert_eq!(offsets(&fixture.next_batch()), [1, 2]);
        assert_eq!(fixture.gather.budget.used(), 0);
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
    fn dead_letters_count_and_a_value_only_until_it_is_dropped() {
        let mut fixture = Fixture::new();
        let mut buried = incoming(0, 0);
        let mut letter = tombstone(&buried.decoded.as_ref().unwrap().record);
        letter.value = vec![0; 40].into();
        buried.decoded = Err(letter);
        fixture.gather.take(buried);
        assert_eq!(fixture.gather.budget.used(), 40);
        fixture.take(1, 60);
        assert_eq!(fixture.gather.budget.used(), 110);
        fixture.gather.flush();
        let mut batch = fixture.next_batch();
        batch[1].decoded.as_mut().unwrap().value.clear();
        assert_eq!(fixture.gather.budget.used(), 100);
        drop(batch);
        assert_eq!(fixture.gather.budget.used(), 0);
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
