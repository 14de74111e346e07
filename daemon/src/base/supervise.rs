//! The long-lived parts of the daemon, and an owner that notices when one of them ends.
//!
//! A part that ends though nothing asked it to is an error of the program. It is logged, readiness goes off with the
//! reason, and [`Supervisor::first_failure`] tells the owner, who ends the process in order. No part is started again:
//! after a panic its state can't be trusted, and a new process reads it from the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::stop::Stop;
use crate::faults;

/// A panic's message may quote a customer's data, so only the panic hook's line with its place tells more.
const PANICKED: &str = "it panicked; the log says where";
const RETURNED: &str = "it returned";

/// A part ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} ended by itself: {why}")]
pub struct PartEnded {
    part: &'static str,
    why: &'static str,
}

/// Starts parts and remembers which one ended by itself first. Clones share it.
#[derive(Clone)]
pub struct Supervisor(Arc<watch::Sender<Option<PartEnded>>>);

impl Supervisor {
    pub fn new() -> Self {
        Self(Arc::new(watch::channel(None).0))
    }

    /// The part that ended by itself first, if any did.
    pub fn failure(&self) -> Option<PartEnded> {
        self.0.borrow().clone()
    }

    /// Waits until a part ends by itself.
    pub async fn first_failure(&self) -> PartEnded {
        let mut failure = self.0.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // `self` holds the sender, so the channel can't be closed.
            _ => std::future::pending().await,
        }
    }

    /// Runs a part as a task. It may end only after `stop`.
    pub fn spawn(
        &self,
        part: &'static str,
        stop: Stop,
        run: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let supervisor = self.clone();
        let run = async move {
            faults::end_if_named(part);
            run.await;
        };
        tokio::spawn(async move {
            match AssertUnwindSafe(run).catch_unwind().await {
                Err(_) => supervisor.report(part, PANICKED),
                Ok(()) if stop.is_on() => {}
                Ok(()) => supervisor.report(part, RETURNED),
            }
        })
    }

    /// Runs a part on a thread of its own. The receiver is answered with an error when the thread has ended. `run` can
    /// report its own panic early, if it takes long to end after it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn_thread(
        &self,
        part: &'static str,
        name: &str,
        stop: Stop,
        run: impl FnOnce(&dyn Fn()) + Send + 'static,
    ) -> std::io::Result<oneshot::Receiver<()>> {
        let supervisor = self.clone();
        let (ended, has_ended) = oneshot::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let panicked = || supervisor.report(part, PANICKED);
            let run = || {
                faults::end_if_named(part);
                run(&panicked);
            };
            match catch_unwind(AssertUnwindSafe(run)) {
                Err(_) => panicked(),
                Ok(()) if stop.is_on() => {}
                Ok(()) => supervisor.report(part, RETURNED),
            }
            drop(ended);
        })?;
        Ok(has_ended)
    }

    fn report(&self, part: &'static str, why: &'static str) {
        let is_first = self.0.send_if_modified(|failure| {
            let is_first = failure.is_none();
            failure.get_or_insert(PartEnded { part, why });
            is_first
        });
        if is_first {
            // The place of a panic stands in the line that the panic itself was logged with.
            tracing::error!(part, why, "a part of the daemon ended by itself: the process must end");
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::stop::Switch;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn failure_of(supervisor: &Supervisor) -> String {
        let failed = tokio::time::timeout(PATIENCE, supervisor.first_failure()).await.expect("it is noticed");
        assert_eq!(supervisor.failure(), Some(failed.clone()), "readiness tells it");
        failed.to_string()
    }

    #[tokio::test]
    async fn a_part_that_panics_or_returns_is_noticed() {
        let stop = Switch::new();
        for (panics, told) in [(true, PANICKED), (false, RETURNED)] {
            let supervisor = Supervisor::new();
            supervisor.spawn("a task", stop.stop(), async move { assert!(!panics, "number {}", 7) });
            assert_eq!(failure_of(&supervisor).await, format!("a task ended by itself: {told}"));
            let supervisor = Supervisor::new();
            supervisor.spawn_thread("a thread", "test", stop.stop(), move |_| assert!(!panics, "its message")).unwrap();
            assert_eq!(failure_of(&supervisor).await, format!("a thread ended by itself: {told}"));
        }
    }

    #[tokio::test]
    async fn a_panic_is_told_before_the_part_has_closed() {
        let supervisor = Supervisor::new();
        let stop = Switch::new();
        let (wait, waits) = std::sync::mpsc::sync_channel::<()>(0);
        let close = move |panicked: &dyn Fn()| {
            panicked();
            assert!(waits.recv().is_err());
        };
        let ended = supervisor.spawn_thread("a thread", "test", stop.stop(), close).unwrap();
        assert!(failure_of(&supervisor).await.ends_with(PANICKED));
        drop(wait);
        assert!(ended.await.is_err(), "the sender is dropped");
        assert!(failure_of(&supervisor).await.ends_with(PANICKED), "the first failure counts");
    }

    #[tokio::test]
    async fn an_end_that_was_asked_for_is_no_failure() {
        let supervisor = Supervisor::new();
        let stop = Switch::new();
        stop.flip();
        supervisor.spawn("a task", stop.stop(), std::future::ready(())).await.unwrap();
        assert!(supervisor.spawn_thread("a thread", "test", stop.stop(), |_| {}).unwrap().await.is_err());
        assert_eq!(supervisor.failure(), None);
    }
}
