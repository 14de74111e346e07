//! Whether due rows may be claimed. It is closed while another daemon runs on a copy of this store, which would claim
//! the same rows. At the start nobody knows yet: then claims wait for the answer, but not for long.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long claims wait for the first answer. Kafka may be away.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct ClaimGate {
    begun: Instant,
    open: watch::Sender<Option<bool>>,
}

impl ClaimGate {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), open: watch::channel(None).0 }
    }

    pub fn set_open(&self, open: bool) {
        self.open.send_if_modified(|is_open| is_open.replace(open) != Some(open));
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.borrow().unwrap_or_else(|| self.begun.elapsed() >= PATIENCE)
    }

    /// Returns when an answer comes, or when none came in time.
    pub(super) async fn changed(&self) {
        let mut open = self.open.subscribe();
        let is_unknown = !self.is_open() && open.borrow_and_update().is_none();
        tokio::select! {
            // The sender is ours as well, so it is never dropped.
            Ok(()) = open.changed() => {}
            () = tokio::time::sleep_until(self.begun + PATIENCE), if is_unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn claims_wait_for_the_answer_and_not_for_long() {
        let gate = ClaimGate::new();
        assert!(!gate.is_open());
        gate.changed().await;
        assert!(gate.is_open() && gate.begun.elapsed() >= PATIENCE, "no answer came");
        gate.set_open(false);
        assert!(!gate.is_open(), "an answer that comes late counts all the same");

        let gate = ClaimGate::new();
        let changed = gate.changed();
        gate.set_open(true);
        // What is known before the wait begins is no change.
        tokio::select! {
            () = changed => panic!("nothing changed"),
            () = tokio::time::sleep(PATIENCE) => {}
        }
        assert!(gate.is_open());
        let (other, ()) = (gate.clone(), ());
        let waiting = tokio::spawn(async move { other.changed().await });
        tokio::task::yield_now().await;
        gate.set_open(false);
        waiting.await.unwrap();
        assert!(!gate.is_open());
    }
}
