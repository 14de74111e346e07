//! What the consumer's thread is given, and what others may ask of it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::partition::AcceptFrom;
use super::trouble::Troubles;
use super::{Config, Deps, Incoming, KafkaState, Stalled};
use crate::base::stop::Stop;

/// What others may ask of the consumer's thread.
pub enum Ask {
    /// Start the blocked partitions from there; answers how many did.
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
    pub(super) budget: Arc<Semaphore>,
    pub(super) asks: mpsc::Receiver<Ask>,
    /// True: partitions are paused, and polled on.
    pub(super) quiet: Stop,
    /// True: a last commit, and the end.
    pub(super) stop: Stop,
}
