//! Records on their way to admission: gathered in batches, within the budget of bytes that bodies may take. It never
//! drops a record, but for those that admission can't take any more because it has ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Config, Incoming};

/// How long intake waits for room before it pauses its partitions.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same once they are paused: rebalances are served meanwhile.
const BRIEFLY: Duration = Duration::from_millis(20);
/// Records in one batch for admission.
const BATCH: usize = 256;

pub(super) struct Gather {
    batch: Vec<Incoming>,
    /// Records that found no room in the byte budget, in order.
    held: VecDeque<Incoming>,
    /// There is no room: the partitions should be paused.
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

    /// Whether everything that came was handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.held.is_empty()
    }

    /// Bytes of bodies in memory.
    pub(super) fn body_bytes(&self) -> usize {
        self.budget_bytes.saturating_sub(self.budget.available_permits())
    }

    /// Puts the record into the batch, or behind those that wait for room.
    pub(super) fn take(&mut self, incoming: Incoming) {
        if self.held.is_empty() && self.budget.available_permits() > 0 {
            self.add(incoming);
        } else {
            self.held.push_back(incoming);
        }
    }

    /// Waits a while for room for what is held. Without room the partitions are to be paused, and polled on.
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
                let room = tokio::time::timeout(self.patience(), self.budget.acquire_many(permits));
                if !self.runtime.block_on(async { room.await.is_ok() }) {
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

    /// Hands the batch over. Admission that is behind holds us, within a bound; then the partitions are paused.
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let (patience, batches) = (self.patience(), &self.batches);
        let reserved = self.runtime.block_on(async { tokio::time::timeout(patience, batches.reserve()).await });
        match reserved {
            Ok(Ok(place)) => place.send(std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH))),
            // Admission has ended, and this thread is about to. No watermark passes these records: they are read again.
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
