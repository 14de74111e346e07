//! One-way switches. Each phase of the drain flips one to announce that it begins.

use tokio::sync::watch;

/// The side that announces. It flips once and never back.
#[derive(Debug)]
pub struct Switch(watch::Sender<bool>);

impl Switch {
    pub fn new() -> Self {
        Self(watch::channel(false).0)
    }

    pub fn flip(&self) {
        self.0.send_replace(true);
    }

    pub fn stop(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

/// The side that waits for a switch to be flipped.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when the switch is flipped or dropped.
    pub async fn stopped(&mut self) {
        // An error means that the switch was dropped, which counts as flipped.
        drop(self.0.wait_for(|flipped| *flipped).await);
    }

    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// For servers outside this crate.
    pub fn into_receiver(self) -> watch::Receiver<bool> {
        self.0
    }
}
