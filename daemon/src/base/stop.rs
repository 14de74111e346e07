//! One-way switches: a phase of the drain is announced by flipping one.

use tokio::sync::watch;

/// Announces; flips once.
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

/// Sees a switch being flipped.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Comes back when the switch is flipped, or gone.
    pub async fn stopped(&mut self) {
        let _ = self.0.wait_for(|flipped| *flipped).await;
    }

    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// For servers outside this crate.
    pub fn into_receiver(self) -> watch::Receiver<bool> {
        self.0
    }
}
