//! Callbacks whose attempts may end the process that makes them: suspects. Each of their attempts is made in a process of its
//! own, so that the daemon lives. Few are tried at once, and the others wait for their places outside the lanes, where they
//! take nothing from other callbacks. Being a suspect ends no callback: whoever is innocent is delivered.

mod child;
mod process;
mod wire;

pub use child::run as run_child;
pub(super) use process::Launcher;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::claimed::{ClaimedRow, Offering};
use crate::base::stop::Stop;
use crate::model::attempt::Outcome;
use crate::model::lease::Suspect;
use crate::model::no_body::NoBody;

/// The hidden command with which this program makes one attempt.
pub const COMMAND: &str = "attempt-sandboxed";
/// Suspects that are tried at once. Each may take as much memory as a sandbox.
const AT_ONCE: usize = 2;
/// Suspects that wait for a place, with their bodies.
const WAITING: usize = 32;
/// A callback that begins for this time, and never settled, is a suspect. A kill raises this count of innocent ones, too.
const STARTS: u32 = 3;

/// Why a callback is a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    /// Earlier attempts began and did not settle: the daemon ended meanwhile, for this reason or for another.
    Unsettled,
    /// Its last attempt panicked, or ended its process. This was certainly its own.
    Failed,
}

/// Whether a claimed row is a suspect. `starts` counts the attempts since its last settle, with the one that begins now.
fn suspicion(starts: u32, last: Option<Outcome>) -> Option<Suspicion> {
    if last == Some(Outcome::Panicked) {
        Some(Suspicion::Failed)
    } else {
        (starts >= STARTS).then_some(Suspicion::Unsettled)
    }
}

/// The way of all claimed rows to their lanes.
#[derive(Clone)]
pub(super) struct Suspects {
    offering: Offering,
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    row: ClaimedRow,
    body: Bytes,
    suspicion: Suspicion,
}

/// Brings suspects to their lanes when they have places.
pub(super) struct SuspectsTask {
    offering: Offering,
    waiting: mpsc::Receiver<Waiting>,
    places: Arc<Semaphore>,
}

pub(super) fn build(offering: Offering) -> (Suspects, SuspectsTask) {
    let (sender, waiting) = mpsc::channel(WAITING);
    let task = SuspectsTask { offering: offering.clone(), waiting, places: Arc::new(Semaphore::new(AT_ONCE)) };
    (Suspects { offering, waiting: sender }, task)
}

impl Suspects {
    /// Offers the row to its lane, or lets it wait if it is a suspect. One whose body can't be had ends with its turn. False
    /// if the row was given back, because too many wait.
    pub(super) async fn offer(&self, row: ClaimedRow, body: Result<Bytes, NoBody>) -> bool {
        let body = body.map(|body| self.offering.held(body));
        match (suspicion(row.pending.starts, row.pending.last_outcome), body) {
            (Some(suspicion), Ok(body)) => {
                let Err(refused) = self.waiting.try_send(Waiting { row, body, suspicion }) else { return true };
                self.offering.give_back(refused.into_inner().row).await;
                false
            }
            (_, body) => {
                self.offering.offer(row, body, None).await;
                true
            }
        }
    }
}

impl SuspectsTask {
    /// Runs until `stop`. What waits then is given back.
    pub(super) async fn run(mut self, mut stop: Stop) {
        loop {
            let waiting = tokio::select! {
                waiting = self.waiting.recv() => waiting,
                () = stop.stopped() => None,
            };
            let Some(Waiting { row, body, suspicion }) = waiting else { break };
            let place = tokio::select! {
                place = self.place(&row) => place,
                () = stop.stopped() => None,
            };
            let Some(place) = place else {
                self.offering.give_back(row).await;
                continue;
            };
            tracing::info!(
                callback = %row.pending.facts.id,
                starts = row.pending.starts,
                "a callback whose attempts did not end is tried in a process of its own"
            );
            let suspect = Suspect { failed_before: suspicion == Suspicion::Failed, place };
            self.offering.offer(row, Ok(body), Some(suspect)).await;
        }
        self.waiting.close();
        while let Ok(waiting) = self.waiting.try_recv() {
            self.offering.give_back(waiting.row).await;
        }
    }

    /// A place, if one is free before the row's lease has too little time left.
    async fn place(&self, row: &ClaimedRow) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::time::timeout(self.offering.patience(row), place).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_suspect_after_two_starts_without_a_settle_or_after_a_failure_of_its_own() {
        for (starts, last, expected) in [
            (1, None, None),
            (2, None, None),
            (3, None, Some(Suspicion::Unsettled)),
            (u32::MAX, Some(Outcome::ServerError), Some(Suspicion::Unsettled)),
            (1, Some(Outcome::ServerError), None),
            // A stop cut it off, or somebody killed its process.
            (2, Some(Outcome::Interrupted), None),
            (1, Some(Outcome::Panicked), Some(Suspicion::Failed)),
            (3, Some(Outcome::Panicked), Some(Suspicion::Failed)),
        ] {
            assert_eq!(suspicion(starts, last), expected, "{starts} {last:?}");
        }
    }
}
