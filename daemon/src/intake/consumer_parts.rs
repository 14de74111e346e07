//! What the consumer's thread needs, and which requests it takes from others.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::partition::AcceptFrom;
use super::trouble::Troubles;
use super::twin::{Standing, TwinWatch};
use super::{Config, Deps, Incoming, KafkaState, Stalled};
use crate::base::stop::Stop;

/// A request to the consumer's thread.
pub enum Ask {
    /// Start the blocked partitions from this place. Answers how many started.
    Accept(AcceptFrom, oneshot::Sender<Result<usize, String>>),
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
