//! The pulse of this instance: once a second it tells the store that it lives, takes over the time of the store's clock, gives up
//! partitions that another instance wants or has taken, and hears which versions of the program work on the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Inflight;
use super::settle::Settler;
use crate::base::clock::{Clock, Moment};
use crate::base::stop::Stop;
use crate::model::callback::newest_builder;
use crate::store::batch::StoreUp;
use crate::store::{EngineStore, InstanceId, Programs, Pulse, StoreError};

const EVERY: Duration = Duration::from_secs(1);
/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The other instances of this store that this one has heard of.
#[derive(Debug, Clone)]
pub struct Others {
    pub runs: HashSet<String>,
    /// When they were heard of last; `None` before the first time.
    pub at: Option<Instant>,
}

/// What the store said of other instances counts for so long.
const HEARSAY: Duration = Duration::from_secs(5);

impl Others {
    /// Whether the store has answered a moment ago.
    pub fn are_known(&self) -> bool {
        self.at.is_some_and(|at| at.elapsed() <= HEARSAY)
    }
}

pub struct PulseTask {
    pub(super) store: Arc<dyn EngineStore>,
    pub(super) instance: InstanceId,
    /// The number of the last batch that the store has acknowledged.
    pub(super) applied: Arc<AtomicU64>,
    pub(super) store_up: Arc<StoreUp>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) inflight: Arc<Inflight>,
    pub(super) settler: Settler,
    pub(super) others: watch::Sender<Others>,
}

impl PulseTask {
    /// Runs until `stop`, or until the store does not know this instance any more.
    pub async fn run(self, mut stop: Stop) {
        let mut older = 0;
        loop {
            let applied = self.applied.load(Ordering::SeqCst);
            let (held, asked_at) = (self.inflight.held(), Moment::now());
            match tokio::time::timeout(PATIENCE, self.store.pulse(self.instance, applied)).await {
                Ok(Ok(pulse)) => {
                    self.store_up.pulses(None);
                    self.heard_of(pulse.programs, &mut older);
                    for partition in self.inflight.hear_epochs(held, pulse.epochs.as_ref(), asked_at) {
                        tracing::warn!(%partition, "another instance has taken this partition: it is given up");
                    }
                    self.heard(pulse);
                }
                Ok(Err(error @ (StoreError::Broken(_) | StoreError::Superseded(_)))) => {
                    self.settler.break_off(error).await;
                    stop.stopped().await;
                    return;
                }
                Ok(Err(error)) => self.store_up.pulses(Some(&error)),
                Err(_) => {
                    let why = format!("it did not answer within {} s", PATIENCE.as_secs());
                    self.store_up.pulses(Some(&StoreError::Unavailable(why)));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.stopped() => return,
            }
        }
    }

    /// Nothing is written that a living older program can't read. `older` is how many there were before.
    fn heard_of(&self, programs: Option<Programs>, older: &mut usize) {
        let programs = programs.unwrap_or(Programs { older: 0, builder: newest_builder() });
        self.inflight.set_builder(programs.builder.min(newest_builder()));
        match (*older, programs.older) {
            (0, 1..) => tracing::info!(
                instances = programs.older,
                "older callbackd work on this store, too: what they can't read is not written until they have ended"
            ),
            (1.., 0) => tracing::info!("no older callbackd works on this store any more"),
            _ => {}
        }
        *older = programs.older;
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
            others.at = Some(Instant::now());
        });
    }
}
