//! Claimed rows without a body. They wait here until their bodies are read from Kafka again, and then go to their lanes like all
//! others. A row that waits here counts in the room of its lane, so that no more are claimed than can be sent soon. A row whose
//! lease has little time left is given back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::claimed::{ClaimedRow, Offering};
use super::suspect::Suspects;
use crate::base::body_budget::Share;
use crate::base::labels::BodyRead;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::model::callback::CallbackId;
use crate::model::endpoint::QueueKey;
use crate::model::event::PartitionKey;
use crate::model::lease::Facts;
use crate::model::no_body::NoBody;

/// Rows that may wait for their bodies, and as many on their way here.
const ROWS: usize = 512;
/// Bodies that are asked for at once.
const AT_ONCE: usize = 256;
/// Bytes of bodies that are asked for at once, if the budget of bodies in memory has so many free.
const BYTES: usize = 8 << 20;
/// A partition that did not answer, or that Kafka does not know now, is left alone for this long, so that others get their turns.
const REST: Duration = Duration::from_secs(15);
/// How often a record that ends its reader is asked for again: memory may have been short.
const TRIES: u32 = 3;
/// Such records that are remembered.
const UNREADABLE: usize = 10_000;
/// The time between two looks while rows wait and none can be asked for.
const LOOK: Duration = Duration::from_millis(250);

/// Reads the bodies of callbacks from Kafka again, until together they have so many bytes. `None` for those that it had no time or
/// room to ask for.
pub type ReadBodies =
    Arc<dyn Fn(Vec<Arc<Facts>>, usize) -> BoxFuture<'static, Vec<Option<Result<Bytes, NoBody>>>> + Send + Sync>;

/// The way onto the shelf.
#[derive(Clone)]
pub(super) struct Shelf {
    rows: mpsc::Sender<ClaimedRow>,
    waiting: Arc<Mutex<Waiting>>,
}

/// How many rows wait, of each queue and in all.
#[derive(Default)]
struct Waiting {
    of: HashMap<QueueKey, u32>,
    all: usize,
}

/// Takes rows from the shelf once their bodies are there.
pub(super) struct ShelfTask {
    rows: mpsc::Receiver<ClaimedRow>,
    waiting: Arc<Mutex<Waiting>>,
    offering: Offering,
    suspects: Suspects,
    metrics: Arc<Metrics>,
    on_shelf: Vec<ClaimedRow>,
    /// Partitions that gave nothing, and until when they are left alone.
    silent: HashMap<Arc<PartitionKey>, Instant>,
    /// How often the records of these callbacks could not be read.
    unreadable: HashMap<CallbackId, u32>,
}

pub(super) fn build(offering: Offering, suspects: Suspects, metrics: Arc<Metrics>) -> (Shelf, ShelfTask) {
    let (sender, rows) = mpsc::channel(ROWS);
    let waiting = Arc::<Mutex<Waiting>>::default();
    let shelf = Shelf { rows: sender, waiting: Arc::clone(&waiting) };
    let (on_shelf, silent, unreadable) = (Vec::new(), HashMap::new(), HashMap::new());
    (shelf, ShelfTask { rows, waiting, offering, suspects, metrics, on_shelf, silent, unreadable })
}

impl Shelf {
    /// Puts a row on the shelf, or hands it back if there is no place.
    pub(super) fn put(&self, row: ClaimedRow) -> Option<ClaimedRow> {
        let queue = row.pending.facts.queue.clone();
        // It is counted first: the task may take it at once.
        lock(&self.waiting).add(queue.clone());
        let refused = self.rows.try_send(row).err()?;
        lock(&self.waiting).remove(&queue);
        Some(refused.into_inner())
    }

    /// What is left of this room for all rows. A quarter of it stays for rows with bodies.
    pub(super) fn leaves_of(&self, free: usize) -> usize {
        free - lock(&self.waiting).all.min(free - free / 4)
    }

    /// Takes what waits here from the room that its queues have.
    pub(super) fn take_from(&self, room: &mut HashMap<QueueKey, u32>, usual: u32) {
        for (queue, count) in &lock(&self.waiting).of {
            let room = room.entry(queue.clone()).or_insert(usual);
            *room = room.saturating_sub(*count);
        }
    }
}

impl Waiting {
    fn add(&mut self, queue: QueueKey) {
        *self.of.entry(queue).or_default() += 1;
        self.all += 1;
    }

    fn remove(&mut self, queue: &QueueKey) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.of.get_mut(queue) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of.remove(queue);
            }
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn result(answer: &Result<Bytes, NoBody>) -> BodyRead {
    match answer {
        Ok(_) => BodyRead::Ok,
        Err(NoBody::Gone | NoBody::TopicGone) => BodyRead::Gone,
        Err(NoBody::Changed) => BodyRead::Changed,
        Err(NoBody::Unreadable) => BodyRead::Unreadable,
        Err(NoBody::Absent) => BodyRead::Absent,
        Err(NoBody::Silent | NoBody::Newer) => BodyRead::Silent,
    }
}

impl ShelfTask {
    /// Reads bodies until `stop`. What waits then is given back.
    pub(super) async fn run(mut self, read: ReadBodies, mut stop: Stop) {
        loop {
            self.take_in();
            self.give_back_old().await;
            let bytes = self.offering.bodies.free(Share::Due).min(BYTES);
            let wanted = if bytes == 0 { Vec::new() } else { self.choose() };
            if wanted.is_empty() {
                tokio::select! {
                    row = self.rows.recv(), if self.on_shelf.len() < ROWS => match row {
                        Some(row) => self.on_shelf.push(row),
                        None => return,
                    },
                    () = tokio::time::sleep(LOOK), if !self.on_shelf.is_empty() => {}
                    () = stop.stopped() => break,
                }
                continue;
            }
            let facts = wanted.iter().map(|row| Arc::clone(&row.pending.facts)).collect();
            tokio::select! {
                answers = read(facts, bytes) => self.answered(wanted, answers).await,
                () = stop.stopped() => {
                    self.on_shelf.extend(wanted);
                    break;
                }
            }
        }
        self.rows.close();
        while let Ok(row) = self.rows.try_recv() {
            self.on_shelf.push(row);
        }
        for row in std::mem::take(&mut self.on_shelf) {
            self.offering.give_back(row).await;
        }
    }

    fn take_in(&mut self) {
        while self.on_shelf.len() < ROWS
            && let Ok(row) = self.rows.try_recv()
        {
            self.on_shelf.push(row);
        }
    }

    /// A row that could not begin its attempt in time is claimed again later.
    async fn give_back_old(&mut self) {
        let rows = std::mem::take(&mut self.on_shelf).into_iter();
        let (old, young): (Vec<_>, Vec<_>) = rows.partition(|row| self.offering.is_late(row));
        self.on_shelf = young;
        for row in old {
            lock(&self.waiting).remove(&row.pending.facts.queue);
            self.offering.give_back(row).await;
        }
    }

    /// Takes rows from the shelf whose partitions may answer.
    fn choose(&mut self) -> Vec<ClaimedRow> {
        let now = Instant::now();
        self.silent.retain(|_, until| *until > now);
        let mut chosen = Vec::new();
        let mut left = Vec::with_capacity(self.on_shelf.len());
        for row in std::mem::take(&mut self.on_shelf) {
            if chosen.len() < AT_ONCE && !self.silent.contains_key(&row.pending.facts.record.partition) {
                chosen.push(row);
            } else {
                left.push(row);
            }
        }
        self.on_shelf = left;
        chosen
    }

    /// What became of these rows. Those that were not asked for, or got no answer, go back to the shelf.
    async fn answered(&mut self, rows: Vec<ClaimedRow>, answers: Vec<Option<Result<Bytes, NoBody>>>) {
        let mut answers = answers.into_iter();
        for row in rows {
            let Some(answer) = answers.next().flatten() else {
                self.on_shelf.push(row);
                continue;
            };
            self.metrics.body_reads_total.with_label_values(&[result(&answer).name()]).inc();
            if self.is_asked_again(&row.pending.facts, &answer) {
                self.silent.insert(Arc::clone(&row.pending.facts.record.partition), Instant::now() + REST);
                self.on_shelf.push(row);
                continue;
            }
            let queue = row.pending.facts.queue.clone();
            // A row that was given back is claimed again later.
            self.suspects.offer(row, answer).await;
            // It counts here until it counts in its lane.
            lock(&self.waiting).remove(&queue);
        }
    }

    fn is_asked_again(&mut self, facts: &Facts, answer: &Result<Bytes, NoBody>) -> bool {
        match result(answer) {
            BodyRead::Absent | BodyRead::Silent => true,
            BodyRead::Unreadable => {
                if self.unreadable.len() >= UNREADABLE {
                    self.unreadable.clear();
                }
                let times = self.unreadable.entry(facts.id).or_default();
                *times += 1;
                if *times < TRIES {
                    return true;
                }
                self.unreadable.remove(&facts.id);
                false
            }
            BodyRead::Ok | BodyRead::Gone | BodyRead::Changed => {
                self.unreadable.remove(&facts.id);
                false
            }
        }
    }
}
