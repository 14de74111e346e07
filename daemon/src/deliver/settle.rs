//! The way to the store: tickets in, batches out. Bounded; a permit is given back when its settle is durable.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::inflight::Inflight;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::faults::{self, Fault};
use crate::model::attempt::Outcome;
use crate::model::dead_letter::DeadLetter;
use crate::model::settlement::{Change, Ended, Settle, Verdict};
use crate::schedule::{ClaimWaker, Permit};
use crate::store::batch::BatchWriter;
use crate::store::{PartitionWatermark, StoreError};

/// Changes in one transaction.
const BATCH: usize = 512;
/// Tickets that wait for the writer; permits bound them further.
const QUEUE: usize = 1_024;

/// What a person or a test may watch, once it is durable.
#[derive(Debug)]
pub enum Notice {
    Attempt { settle: Box<Settle>, verdict: Verdict },
    Buried(Box<DeadLetter>),
}

struct Ticket {
    /// `None` only asks that all before it be durable.
    change: Option<Change>,
    /// Held until the change is durable.
    permit: Option<Permit>,
    durable: Option<oneshot::Sender<()>>,
    /// Others found the store broken: the process must end.
    broken: Option<StoreError>,
}

/// Takes changes; cheap to clone.
#[derive(Clone)]
pub struct Settler {
    tickets: mpsc::Sender<Ticket>,
}

/// The other end: composes batches and writes them, one after the other.
pub struct SettleTask {
    tickets: mpsc::Receiver<Ticket>,
    writer: BatchWriter,
    inflight: Arc<Inflight>,
    metrics: Arc<Metrics>,
    waker: ClaimWaker,
    notices: Option<mpsc::Sender<Notice>>,
}

/// What the task needs besides its tickets.
pub struct SettleDeps {
    pub writer: BatchWriter,
    pub inflight: Arc<Inflight>,
    pub metrics: Arc<Metrics>,
    pub waker: ClaimWaker,
    pub notices: Option<mpsc::Sender<Notice>>,
}

pub fn build(deps: SettleDeps) -> (Settler, SettleTask) {
    let (sender, tickets) = mpsc::channel(QUEUE);
    let SettleDeps { writer, inflight, metrics, waker, notices } = deps;
    (Settler { tickets: sender }, SettleTask { tickets, writer, inflight, metrics, waker, notices })
}

impl Settler {
    /// Hands a settle over, with the permit that it gives back when durable.
    pub async fn settle(&self, settle: Settle, permit: Permit) {
        self.send(Some(Change::Settle(Box::new(settle))), Some(permit), None).await;
    }

    /// Hands any other change over; nobody waits for it.
    pub async fn submit(&self, change: Change) {
        self.send(Some(change), None, None).await;
    }

    /// Waits until everything handed over before is durable. False: the store broke first.
    pub async fn flushed(&self) -> bool {
        let (durable, is_durable) = oneshot::channel();
        self.send(None, None, Some(durable)).await;
        is_durable.await.is_ok()
    }

    /// The store was found broken: settling ends, and the process with it.
    pub async fn break_off(&self, error: StoreError) {
        let _ = self.tickets.send(Ticket { change: None, permit: None, durable: None, broken: Some(error) }).await;
    }

    async fn send(&self, change: Option<Change>, permit: Option<Permit>, durable: Option<oneshot::Sender<()>>) {
        // The task ends only with the process, when nothing can be settled any more.
        let _ = self.tickets.send(Ticket { change, permit, durable, broken: None }).await;
    }
}

impl SettleTask {
    /// Writes batches until every settler is gone, or the store breaks.
    ///
    /// # Errors
    /// The store is broken: the process must end.
    pub async fn run(mut self, mut stop: Stop) -> Result<(), StoreError> {
        let mut tickets = Vec::with_capacity(BATCH);
        loop {
            let inflight = Arc::clone(&self.inflight);
            tokio::select! {
                count = self.tickets.recv_many(&mut tickets, BATCH) => if count == 0 {
                    return Ok(());
                },
                () = inflight.news.notified() => {}
                // The last word: no settler is left that could still send.
                () = stop.stopped(), if tickets.is_empty() && self.tickets.is_empty() => {
                    self.write(&mut tickets).await?;
                    return Ok(());
                }
            }
            if tickets.is_empty() {
                let _ = self.tickets.try_recv().map(|ticket| tickets.push(ticket));
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
            if let Some(error) = ticket.broken {
                return Err(error);
            }
            if let Some(change) = ticket.change {
                changes.push(change);
                permits.push(ticket.permit);
            }
            waiting.extend(ticket.durable);
        }
        let watermarks = self.inflight.compose(&changes);
        let watermarks = self.marks_first(watermarks).await?;
        if !changes.is_empty() || !watermarks.is_empty() {
            let written = self.writer.write(changes, watermarks).await?;
            self.inflight.durable_upto(&written.watermarks);
            for ((change, verdict), permit) in written.changes.into_iter().zip(permits) {
                self.inflight.durable(&change, verdict);
                drop(permit);
                self.tell(change, verdict);
            }
            for (partition, epoch) in written.lost {
                if self.inflight.fenced(&partition, epoch) {
                    self.metrics.partitions_fenced_total.inc();
                }
            }
        }
        for durable in waiting {
            let _ = durable.send(());
        }
        Ok(())
    }

    /// The marks to write with a batch; a broken build writes them alone, and too high.
    async fn marks_first(
        &mut self,
        watermarks: Vec<PartitionWatermark>,
    ) -> Result<Vec<PartitionWatermark>, StoreError> {
        if faults::is_on(Fault::WatermarkFirst) {
            self.writer.write(Vec::new(), self.inflight.received_marks()).await?;
            return Ok(Vec::new());
        }
        Ok(watermarks)
    }

    fn tell(&self, change: Change, verdict: Verdict) {
        match verdict {
            Verdict::Ended(ended) => {
                self.metrics.callbacks_total.with_label_values(&[ended.name()]).inc();
                if let Some(reason) = ended.reason() {
                    self.metrics.abandoned_total.with_label_values(&[reason.name()]).inc();
                }
            }
            Verdict::Due(due) => self.waker.wake_for(due),
            Verdict::Late => self.metrics.late_settles_total.inc(),
            Verdict::Parked => self.waker.wake(),
            // Not for a release: the row waits for what still holds it here.
            Verdict::Released | Verdict::Buried | Verdict::Nothing => {}
        }
        let notice = match change {
            Change::Settle(settle) => {
                if verdict == Verdict::Ended(Ended::Delivered) {
                    observe_delivery(&self.metrics, &settle);
                }
                Notice::Attempt { settle, verdict }
            }
            Change::Bury(letter, _) => {
                self.metrics.dead_letters_total.with_label_values(&[letter.reason.name()]).inc();
                Notice::Buried(letter)
            }
            Change::Park(_) | Change::Release { .. } => return,
        };
        if let Some(notices) = &self.notices {
            // A watcher that is slow misses lines; delivery does not wait for it.
            let _ = notices.try_send(notice);
        }
    }
}

fn observe_delivery(metrics: &Metrics, settle: &Settle) {
    let made = settle.facts.record.timestamp;
    if made > 0 {
        let took = settle.attempt.ended_at().since(crate::base::clock::Timestamp::from_millis(made));
        metrics.end_to_end_seconds.observe(took.as_secs_f64());
    }
}

/// A park and a settle of one callback in one batch collapse to the settle, unless that was cut off.
fn collapse(tickets: &mut Vec<Ticket>) {
    let parked = tickets.iter().any(|ticket| matches!(ticket.change, Some(Change::Park(_))));
    if !parked {
        return;
    }
    let settled: std::collections::HashSet<_> = tickets
        .iter()
        .filter_map(|ticket| match &ticket.change {
            Some(Change::Settle(settle))
                if settle.attempt.outcome != Outcome::Interrupted && settle.epoch.is_some() =>
            {
                Some(settle.facts.id)
            }
            _ => None,
        })
        .collect();
    tickets.retain(|ticket| match &ticket.change {
        Some(Change::Park(park)) => !settled.contains(&park.facts.id),
        _ => true,
    });
}
