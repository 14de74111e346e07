//! The way to the store: changes go in as tickets, and are written in batches.
//!
//! The queue is bounded. An attempt holds its permit until its settle is durable, so permits bound what waits here.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{BodyRoom, Composed, Durable, Inflight};
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::faults::{self, Fault};
use crate::model::attempt::Outcome;
use crate::model::dead_letter::DeadLetter;
use crate::model::settlement::{Change, Ended, Settle, Verdict};
use crate::schedule::{ClaimWaker, Permit};
use crate::store::StoreError;
use crate::store::batch::BatchWriter;

/// Changes in one transaction.
const BATCH: usize = 512;
/// Tickets that wait for the writer; permits bound them further.
const QUEUE: usize = 1_024;

/// What a subscriber (the demo's screen, or a test) receives after it became durable.
#[derive(Debug)]
pub enum Notice {
    Attempt { settle: Box<Settle>, verdict: Verdict },
    Buried(Box<DeadLetter>),
}

enum Ticket {
    /// A change to make durable. Its permit is given back when it is durable.
    Change { change: Change, permit: Option<Permit> },
    /// Answered when everything submitted before is durable.
    Flush(oneshot::Sender<()>),
    /// Another task found that nothing can be recorded any more.
    Broken(StoreError),
}

/// Submits changes. Cheap to clone.
#[derive(Clone)]
pub struct Settler {
    tickets: mpsc::Sender<Ticket>,
}

/// Receives the tickets, composes batches and writes them, one after the other.
pub struct SettleTask {
    tickets: mpsc::Receiver<Ticket>,
    writer: BatchWriter,
    inflight: Arc<Inflight>,
    metrics: Arc<Metrics>,
    body_room: Arc<BodyRoom>,
    waker: ClaimWaker,
    notices: Option<mpsc::Sender<Notice>>,
}

/// What the task needs besides its tickets.
pub(super) struct SettleDeps {
    pub(super) writer: BatchWriter,
    pub(super) inflight: Arc<Inflight>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) body_room: Arc<BodyRoom>,
    pub(super) waker: ClaimWaker,
    pub(super) notices: Option<mpsc::Sender<Notice>>,
}

pub(super) fn build(deps: SettleDeps) -> (Settler, SettleTask) {
    let (sender, tickets) = mpsc::channel(QUEUE);
    let SettleDeps { writer, inflight, metrics, body_room, waker, notices } = deps;
    (Settler { tickets: sender }, SettleTask { tickets, writer, inflight, metrics, body_room, waker, notices })
}

impl Settler {
    /// Submits a settle. Its permit is given back when it is durable.
    pub async fn settle(&self, settle: Settle, permit: Permit) {
        self.send(Ticket::Change { change: Change::Settle(Box::new(settle)), permit: Some(permit) }).await;
    }

    /// Submits any other change. Nobody waits for it.
    pub async fn submit(&self, change: Change) {
        self.send(Ticket::Change { change, permit: None }).await;
    }

    /// Waits until everything submitted before is durable. False if the store broke first.
    pub async fn flushed(&self) -> bool {
        let (durable, is_durable) = oneshot::channel();
        self.send(Ticket::Flush(durable)).await;
        is_durable.await.is_ok()
    }

    /// The store is broken, or does not know this instance any more: settling ends, and then the instance.
    pub async fn break_off(&self, error: StoreError) {
        self.send(Ticket::Broken(error)).await;
    }

    async fn send(&self, ticket: Ticket) {
        // The task ends only with the process, when nothing can be settled any more.
        self.tickets.send(ticket).await.ok();
    }
}

impl SettleTask {
    /// Writes batches until every settler is dropped, or the store breaks.
    ///
    /// # Errors
    /// The store is broken: the process must end.
    pub async fn run(mut self, mut stop: Stop) -> Result<(), StoreError> {
        faults::end_if_named("settling");
        let mut tickets = Vec::with_capacity(BATCH);
        loop {
            let inflight = Arc::clone(&self.inflight);
            tokio::select! {
                count = self.tickets.recv_many(&mut tickets, BATCH) => if count == 0 {
                    return Ok(());
                },
                () = inflight.moved.notified() => {}
                // The last batch: no settler is left that could still send.
                () = stop.stopped(), if tickets.is_empty() && self.tickets.is_empty() => {
                    return self.write(&mut tickets).await;
                }
            }
            if tickets.is_empty()
                && let Ok(ticket) = self.tickets.try_recv()
            {
                tickets.push(ticket);
            }
            self.write(&mut tickets).await?;
        }
    }

    async fn write(&mut self, tickets: &mut Vec<Ticket>) -> Result<(), StoreError> {
        collapse(tickets);
        let mut changes = Vec::with_capacity(tickets.len());
        let mut permits = Vec::with_capacity(tickets.len());
        let mut waiting = Vec::new();
        for ticket in tickets.drain(..) {
            match ticket {
                Ticket::Change { mut change, permit } => {
                    if self.body_room.fit(&mut change) {
                        self.metrics.stored_without_body_total.inc();
                    }
                    changes.push(change);
                    permits.push(permit);
                }
                Ticket::Flush(durable) => waiting.push(durable),
                Ticket::Broken(error) => return Err(error),
            }
        }
        let batch = self.inflight.compose(changes);
        let batch = self.watermarks_first(batch).await?;
        if !batch.is_empty() {
            let durable = batch.write(&mut self.writer).await?;
            self.body_room.landed();
            self.landed(durable, permits);
        }
        for durable in waiting {
            // The waiting task may have given up, and then nobody reads the answer.
            durable.send(()).ok();
        }
        Ok(())
    }

    /// The batch is durable: gives its permits back, counts its changes and notifies subscribers.
    fn landed(&self, batch: Durable, permits: Vec<Option<Permit>>) {
        let fenced = self.inflight.confirm(&batch);
        self.metrics.partitions_fenced_total.inc_by(fenced as u64);
        for ((change, verdict), permit) in batch.into_changes().into_iter().zip(permits) {
            drop(permit);
            self.tell(change, verdict);
        }
    }

    /// A fault switch of the tests writes the watermarks alone, before the batch, and too high. Otherwise returns the
    /// batch as it is.
    async fn watermarks_first(&mut self, batch: Composed) -> Result<Composed, StoreError> {
        if faults::is_on(Fault::WatermarkFirst) {
            self.writer.write(Vec::new(), self.inflight.received_watermarks()).await?;
            return Ok(batch.without_watermarks());
        }
        Ok(batch)
    }

    fn tell(&self, change: Change, verdict: Verdict) {
        match verdict {
            Verdict::Ended(ended) => {
                self.metrics.callbacks_total.with_label_values(&[ended.name()]).inc();
                if let Some(reason) = ended.reason() {
                    self.metrics.abandoned_total.with_label_values(&[reason.name()]).inc();
                }
            }
            Verdict::DeliveredInRound => {
                self.metrics.callbacks_total.with_label_values(&[Ended::Delivered.name()]).inc();
            }
            Verdict::Due(due) => self.waker.wake_for(due),
            Verdict::Late => self.metrics.late_settles_total.inc(),
            Verdict::Parked => self.waker.wake(),
            // A released row waits for the attempt that still holds it here, so it wakes nobody.
            Verdict::RoundEnded | Verdict::Released | Verdict::Buried | Verdict::Nothing => {}
            Verdict::BuriedWithoutValue => self.metrics.dead_letters_without_value_total.inc(),
        }
        let notice = match change {
            Change::Settle(settle) => {
                if verdict == Verdict::Ended(Ended::Delivered) {
                    observe_delivery(&self.metrics, &settle);
                }
                Notice::Attempt { settle, verdict }
            }
            // Whoever has its partition now buries it, and counts it.
            Change::Bury(..) if verdict == Verdict::Nothing => return,
            Change::Bury(letter, _) => {
                self.metrics.dead_letters_total.with_label_values(&[letter.reason.name()]).inc();
                Notice::Buried(letter)
            }
            Change::Park(_) | Change::Release { .. } => return,
        };
        if let Some(notices) = &self.notices {
            // Delivery does not wait for a slow subscriber, which misses notices instead.
            notices.try_send(notice).ok();
        }
    }
}

fn observe_delivery(metrics: &Metrics, settle: &Settle) {
    if let Some(made) = settle.facts.record.time() {
        let took = settle.attempt.ended_at().since(made);
        metrics.end_to_end_seconds.observe(took.as_secs_f64());
    }
}

/// If a batch has a park and a settle of one callback, the park is dropped, unless the attempt was cut off.
fn collapse(tickets: &mut Vec<Ticket>) {
    let change = |ticket: &Ticket| match ticket {
        Ticket::Change { change: Change::Park(park), .. } => (Some(park.facts.id), None),
        Ticket::Change { change: Change::Settle(settle), .. }
            if settle.attempt.outcome != Outcome::Interrupted && settle.epoch.is_some() =>
        {
            (None, Some(settle.facts.id))
        }
        _ => (None, None),
    };
    if !tickets.iter().any(|ticket| change(ticket).0.is_some()) {
        return;
    }
    let settled: HashSet<_> = tickets.iter().filter_map(|ticket| change(ticket).1).collect();
    tickets.retain(|ticket| change(ticket).0.is_none_or(|id| !settled.contains(&id)));
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
