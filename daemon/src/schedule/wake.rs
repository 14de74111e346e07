//! Wakes the task that claims due rows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::clock::{Clock, Timestamp};

/// The longest time between two claims.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Wakes the claim loop. Cheap to clone.
#[derive(Clone)]
pub struct ClaimWaker {
    notify: Arc<Notify>,
    clock: Arc<dyn Clock>,
}

impl ClaimWaker {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { notify: Arc::default(), clock }
    }

    /// Returns at the next wake-up.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Wakes the claim loop now.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Wakes the claim loop if a row is due before its next claim.
    pub fn wake_for(&self, due: Timestamp) {
        if due.since(self.clock.now()) < LONGEST_WAIT {
            self.wake();
        }
    }
}
