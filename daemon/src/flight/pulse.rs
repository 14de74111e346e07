//! The pulse of this instance: once a second it tells the store that it lives, takes over the time of the store's clock, and
//! gives up partitions that another instance wants.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Inflight;
use super::settle::Settler;
use crate::base::clock::Clock;
use crate::base::stop::Stop;
use crate::store::{EngineStore, InstanceId, Pulse, StoreError};

const EVERY: Duration = Duration::from_secs(1);
/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The other instances of this store that this one has heard of.
#[derive(Debug, Clone)]
pub struct Others {
    pub runs: HashSet<String>,
    /// When they were asked for last.
    pub at: Instant,
}

pub struct PulseTask {
    pub(super) store: Arc<dyn EngineStore>,
    pub(super) instance: InstanceId,
    /// The number of the last batch that the store has acknowledged.
    pub(super) applied: Arc<AtomicU64>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) inflight: Arc<Inflight>,
    pub(super) settler: Settler,
    pub(super) others: watch::Sender<Others>,
}

impl PulseTask {
    /// Runs until `stop`, or until the store does not know this instance any more.
    pub async fn run(self, mut stop: Stop) {
        loop {
            let applied = self.applied.load(Ordering::SeqCst);
            match tokio::time::timeout(PATIENCE, self.store.pulse(self.instance, applied)).await {
                Ok(Ok(pulse)) => self.heard(pulse),
                Ok(Err(error @ (StoreError::Broken(_) | StoreError::Superseded(_)))) => {
                    self.settler.break_off(error).await;
                    stop.stopped().await;
                    return;
                }
                Ok(Err(error)) => tracing::debug!(%error, "the store does not answer the pulse"),
                Err(_) => tracing::debug!("the store does not answer the pulse in time"),
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.stopped() => return,
            }
        }
    }

    fn heard(&self, pulse: Pulse) {
        if let Some(now) = pulse.now {
            self.clock.anchor(now);
        }
        for partition in pulse.wanted {
            if self.inflight.epoch(&partition).is_some() {
                tracing::warn!(%partition, "another instance wants this partition: it is given up");
                self.inflight.take_partition_again(&partition);
            }
        }
        self.others.send_modify(|others| {
            others.runs.extend(pulse.others);
            others.at = Instant::now();
        });
    }
}
