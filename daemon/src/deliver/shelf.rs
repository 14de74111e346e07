//! Claimed rows without a body. They wait here until their bodies are read from Kafka again, and then go to their lanes like all
//! others. A row that waits here counts in the room of its lane, so that no more are claimed than can be sent soon.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::claimed::{ClaimedRow, Offering};
use crate::base::labels::BodyRead;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::model::endpoint::QueueKey;
use crate::model::lease::Facts;
use crate::model::no_body::NoBody;

/// Rows that may wait for their bodies. Lanes have room for fewer.
const ROWS: usize = 1_024;
/// Bodies that are asked for at once.
const AT_ONCE: usize = 256;

/// Reads the bodies of callbacks from Kafka again, in the order in which they were asked for.
pub type ReadBodies = Arc<dyn Fn(Vec<Arc<Facts>>) -> BoxFuture<'static, Vec<Result<Bytes, NoBody>>> + Send + Sync>;

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
    metrics: Arc<Metrics>,
}

pub(super) fn build(offering: Offering, metrics: Arc<Metrics>) -> (Shelf, ShelfTask) {
    let (sender, rows) = mpsc::channel(ROWS);
    let waiting = Arc::<Mutex<Waiting>>::default();
    (Shelf { rows: sender, waiting: Arc::clone(&waiting) }, ShelfTask { rows, waiting, offering, metrics })
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

    /// How many rows wait in all.
    pub(super) fn len(&self) -> usize {
        lock(&self.waiting).all
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
        Err(NoBody::Gone) => BodyRead::Gone,
        Err(NoBody::Changed) => BodyRead::Changed,
        Err(NoBody::Unreadable) => BodyRead::Unreadable,
        Err(NoBody::Silent | NoBody::Newer) => BodyRead::Silent,
    }
}

impl ShelfTask {
    /// Reads bodies until `stop`. What waits then is given back.
    pub(super) async fn run(mut self, read: ReadBodies, mut stop: Stop) {
        let mut rows = Vec::with_capacity(AT_ONCE);
        loop {
            let room = AT_ONCE - rows.len();
            tokio::select! {
                // What was not read last time is read first.
                () = std::future::ready(()), if !rows.is_empty() => while rows.len() < AT_ONCE {
                    let Ok(row) = self.rows.try_recv() else { break };
                    rows.push(row);
                },
                count = self.rows.recv_many(&mut rows, room), if rows.is_empty() => if count == 0 {
                    return;
                },
                () = stop.stopped() => break,
            }
            let wanted = rows.iter().map(|row: &ClaimedRow| Arc::clone(&row.pending.facts)).collect();
            let answers = tokio::select! {
                answers = read(wanted) => answers,
                () = stop.stopped() => break,
            };
            rows = self.answered(rows, answers).await;
        }
        self.rows.close();
        while let Ok(row) = self.rows.try_recv() {
            rows.push(row);
        }
        for row in rows {
            self.offering.give_back(row).await;
        }
    }

    /// What became of these rows. Returns those that are asked for again: some of their neighbours were read, so Kafka answers.
    async fn answered(&self, rows: Vec<ClaimedRow>, answers: Vec<Result<Bytes, NoBody>>) -> Vec<ClaimedRow> {
        let is_silent = |answer: &Result<Bytes, NoBody>| result(answer) == BodyRead::Silent;
        let brought_some = answers.iter().any(|answer| !is_silent(answer));
        let mut again = Vec::new();
        for (row, answer) in rows.into_iter().zip(answers) {
            if is_silent(&answer) && brought_some {
                again.push(row);
                continue;
            }
            self.metrics.body_reads_total.with_label_values(&[result(&answer).name()]).inc();
            let queue = row.pending.facts.queue.clone();
            if is_silent(&answer) {
                self.offering.give_back(row).await;
            } else {
                self.offering.offer(row, answer).await;
            }
            // It counts here until it counts in its lane.
            lock(&self.waiting).remove(&queue);
        }
        again
    }
}
