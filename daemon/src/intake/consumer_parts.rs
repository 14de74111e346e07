//! What the consumer's thread needs, and which requests it takes from others.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::partition::{AcceptFrom, Reset, ResetFacts, Suspicion};
use super::trouble::Troubles;
use super::twin::{Standing, TwinWatch};
use super::{Config, Deps, Incoming, KafkaState, Stalled};
use crate::base::clock::Timestamp;
use crate::base::stop::Stop;
use crate::model::event::PartitionKey;

/// A request to the consumer's thread.
pub enum Ask {
    /// Start the blocked partitions from this place. Answers how many started.
    Accept(AcceptFrom, oneshot::Sender<Result<usize, String>>),
    /// Look at partitions of ours that are to be moved.
    Look(Look, oneshot::Sender<Vec<Looked>>),
    /// Move the watermarks of these partitions, one after the other. No further one is moved once nobody waits for the answer.
    Reset(Vec<(Arc<PartitionKey>, Reset)>, oneshot::Sender<Vec<Moved>>),
    /// The partition, taken in this epoch, is not read as it should be.
    Suspect { partition: Arc<PartitionKey>, epoch: i64, suspicion: Suspicion },
}

/// Which partitions are looked at, and which times are looked for in their logs.
#[derive(Debug, Clone)]
pub struct Look {
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub at: Option<Timestamp>,
    /// Callbacks of older records may have been pruned.
    pub kept_since: Option<Timestamp>,
}

/// A partition of ours, and what a reset needs to know of it, or a sentence that says why it can't be moved now.
#[derive(Debug, Clone)]
pub struct Looked {
    pub partition: Arc<PartitionKey>,
    pub facts: Result<ResetFacts, String>,
}

/// Where the watermark of a partition stands after its reset, or a sentence that says what went wrong.
#[derive(Debug, Clone)]
pub struct Moved {
    pub partition: Arc<PartitionKey>,
    pub watermark: Result<i64, String>,
}

pub(super) struct Consumer {
    pub(super) config: Config,
    pub(super) deps: Arc<Deps>,
    pub(super) runtime: Handle,
    pub(super) stalled: Arc<Stalled>,
    pub(super) troubles: Arc<Troubles>,
    pub(super) state: watch::Sender<KafkaState>,
    pub(super) batches: mpsc::Sender<Vec<Incoming>>,
    pub(super) twins: TwinWatch,
    /// The answer of the last look for twins, and how many looks have failed since.
    pub(super) standing: Standing,
    pub(super) failed_looks: u32,
    pub(super) asks: mpsc::Receiver<Ask>,
    /// If true, partitions are paused, but polling goes on.
    pub(super) quiet: Stop,
    /// If true, the thread commits for the last time and ends.
    pub(super) stop: Stop,
}
