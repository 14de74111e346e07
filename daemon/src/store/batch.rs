//! Group commit, the part above the trait: it numbers batches, writes a batch again whose fate is uncertain, waits
//! while the store is unavailable, and splits a batch that the store refuses until the bad change is alone.
//!
//! There is no timer: the next batch gathers while this one commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Applied, Batch, EngineStore, InstanceId, PartitionWatermark, StoreError};
use crate::base::clock::Timestamp;
use crate::base::metrics::Metrics;
use crate::base::pace::Pace;
use crate::faults::{self, Fault};
use crate::model::event::PartitionKey;
use crate::model::settlement::{Change, Rows, Verdict, apply};

/// A write that takes longer shows that the store does not answer.
const NO_ANSWER: Duration = Duration::from_secs(10);

/// Whether the store answers. No attempt begins while it is known to be down. It is up when the last write, the last
/// claim and the last pulse succeeded. The claim alone is not enough: on a full disk a claim that finds no row still succeeds.
pub struct StoreUp {
    writes: AtomicBool,
    claims: AtomicBool,
    pulses: AtomicBool,
    is_up: watch::Sender<bool>,
}

impl StoreUp {
    pub fn new() -> Self {
        let up = || AtomicBool::new(true);
        Self { writes: up(), claims: up(), pulses: up(), is_up: watch::channel(true).0 }
    }

    pub fn watch(&self) -> watch::Receiver<bool> {
        self.is_up.subscribe()
    }

    /// Records the result of the last write.
    pub fn writes(&self, error: Option<&StoreError>) {
        self.writes.store(error.is_none(), Ordering::SeqCst);
        self.tell(error);
    }

    /// Records the result of the last claim.
    pub fn claims(&self, error: Option<&StoreError>) {
        self.claims.store(error.is_none(), Ordering::SeqCst);
        self.tell(error);
    }

    /// Records the result of the last pulse. One that is late is noticed while a write or a claim hangs.
    pub fn pulses(&self, error: Option<&StoreError>) {
        self.pulses.store(error.is_none(), Ordering::SeqCst);
        self.tell(error);
    }

    fn tell(&self, error: Option<&StoreError>) {
        let up = [&self.writes, &self.claims, &self.pulses].iter().all(|up| up.load(Ordering::SeqCst));
        let was = self.is_up.send_replace(up);
        match error {
            Some(error) if was => {
                tracing::error!(%error, "the store does not answer: no new attempt begins until it does")
            }
            None if up && !was => tracing::info!("the store answers again"),
            _ => {}
        }
    }
}

impl Default for StoreUp {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes batches in order; only it makes the batch numbers of its instance.
pub struct BatchWriter {
    store: Arc<dyn EngineStore>,
    instance: InstanceId,
    /// The number of the last batch that is applied.
    number: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    up: Arc<StoreUp>,
    longest_commit: Duration,
}

/// A batch that was written: its changes, each with its verdict.
#[derive(Debug, Default)]
pub struct Written {
    pub changes: Vec<(Change, Verdict)>,
    pub watermarks: Vec<PartitionWatermark>,
    pub lost: Vec<(Arc<PartitionKey>, i64)>,
    pub now: Timestamp,
}

impl BatchWriter {
    pub fn new(store: Arc<dyn EngineStore>, instance: InstanceId, metrics: Arc<Metrics>, up: Arc<StoreUp>) -> Self {
        Self { store, instance, number: Arc::default(), metrics, up, longest_commit: Duration::ZERO }
    }

    /// The number of the last batch that is applied, as it rises.
    pub fn applied(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.number)
    }

    /// Makes `changes` durable together with `watermarks`. Returns only when they are durable or the store is broken.
    pub async fn write(
        &mut self,
        changes: Vec<Change>,
        watermarks: Vec<PartitionWatermark>,
    ) -> Result<Written, StoreError> {
        let batch = self.numbered(changes, watermarks);
        match self.until_certain(&batch).await {
            Ok(applied) => Ok(written(batch, applied)),
            Err(StoreError::Refused(why)) => {
                let Batch { changes, watermarks, .. } = Arc::unwrap_or_clone(batch);
                self.write_split(changes, watermarks, why).await
            }
            Err(other) => Err(other),
        }
    }

    /// The next batch. Its number counts only when it is applied: that of a batch which the store refused is used again.
    fn numbered(&self, changes: Vec<Change>, watermarks: Vec<PartitionWatermark>) -> Arc<Batch> {
        let number = self.number.load(Ordering::SeqCst).saturating_add(1);
        Arc::new(Batch { instance: self.instance, number, changes, watermarks })
    }

    async fn write_part(
        &mut self,
        changes: Vec<Change>,
        watermarks: Vec<PartitionWatermark>,
    ) -> Result<Written, StoreError> {
        let batch = self.numbered(changes, watermarks);
        let applied = self.until_certain(&batch).await?;
        Ok(written(batch, applied))
    }

    async fn until_certain(&mut self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let mut pace = Pace::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let begun = Instant::now();
            let mut answer = self.answer(batch).await;
            if faults::is_on(Fault::BatchTwice) && answer.is_ok() {
                answer = self.store.write(Arc::clone(batch)).await.and(answer);
            }
            let took = begun.elapsed();
            self.metrics.store_commit_seconds.observe(took.as_secs_f64());
            match answer {
                Ok(applied) => {
                    self.number.store(batch.number, Ordering::SeqCst);
                    self.longest_commit = self.longest_commit.max(took);
                    self.metrics.store_longest_commit_seconds.set(self.longest_commit.as_secs_f64());
                    self.metrics.store_batch_changes.observe(batch.changes.len() as f64);
                    self.up.writes(None);
                    return Ok(applied);
                }
                Err(error @ (StoreError::Unavailable(_) | StoreError::Uncertain(_))) => {
                    self.up.writes(Some(&error));
                    tokio::time::sleep(pace.next_wait()).await;
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// The answer to one write. One that does not come for long is told: on PostgreSQL, a commit waits without end for a synchronous
    /// standby that is gone.
    async fn answer(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let mut writing = std::pin::pin!(self.store.write(Arc::clone(batch)));
        tokio::select! {
            answer = &mut writing => answer,
            () = tokio::time::sleep(NO_ANSWER) => {
                let why = format!(
                    "a write has waited for {} s; a synchronous standby that is gone makes commits wait without end",
                    NO_ANSWER.as_secs()
                );
                self.up.writes(Some(&StoreError::Unavailable(why)));
                writing.await
            }
        }
    }

    /// Halves the batch until the bad change is alone. The watermarks come last, once all rows are durable.
    async fn write_split(
        &mut self,
        changes: Vec<Change>,
        watermarks: Vec<PartitionWatermark>,
        why: String,
    ) -> Result<Written, StoreError> {
        let mut parts = vec![changes];
        let mut written = Written::default();
        while let Some(mut part) = parts.pop() {
            match self.write_part(part.clone(), Vec::new()).await {
                Ok(more) => {
                    written.changes.extend(more.changes);
                    written.lost.extend(more.lost);
                }
                Err(StoreError::Refused(_)) if part.len() > 1 => {
                    let second = part.split_off(part.len().div_ceil(2));
                    parts.push(second);
                    parts.push(part);
                }
                Err(StoreError::Refused(why)) => {
                    let Some(change) = part.pop() else {
                        return Err(StoreError::Broken(format!("it refuses even an empty batch: {why}")));
                    };
                    let more = self.write_rejected(change, &why).await?;
                    written.changes.extend(more.changes);
                    written.lost.extend(more.lost);
                }
                Err(other) => return Err(other),
            }
        }
        tracing::error!(reason = %why, "the store refused the data of a row; the row was replaced, and the other rows were written");
        let last = self.write_part(Vec::new(), watermarks).await?;
        written.lost.extend(last.lost);
        written.watermarks = last.watermarks;
        written.now = last.now;
        Ok(written)
    }

    /// Writes the replacement of a change that the store refused.
    async fn write_rejected(&mut self, change: Change, why: &str) -> Result<Written, StoreError> {
        match self.write_part(vec![change.rejected_by_store()], Vec::new()).await {
            Err(StoreError::Refused(again)) => {
                Err(StoreError::Broken(format!("it refuses even a row without content: {why}; {again}")))
            }
            answer => answer,
        }
    }
}

fn written(batch: Arc<Batch>, applied: Applied) -> Written {
    let Batch { changes, watermarks, .. } = Arc::unwrap_or_clone(batch);
    let known = applied.verdicts.len() == changes.len();
    let mut verdicts = applied.verdicts.into_iter();
    let with_verdict = |change: Change| {
        // The batch was applied by an earlier write whose answer was lost, on a store that one instance uses. Nothing else
        // wrote these rows meanwhile, so its verdicts are those for callbacks without rows.
        let verdict = if known { verdicts.next() } else { None };
        let verdict = verdict.unwrap_or_else(|| apply(&Rows::default(), &change, true).verdict);
        (change, verdict)
    };
    Written {
        changes: changes.into_iter().map(with_verdict).collect(),
        watermarks,
        lost: applied.lost,
        now: applied.now,
    }
}

#[cfg(test)]
mod tests;
