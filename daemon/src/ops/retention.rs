//! Deletes rows that are older than they are to be kept. It works in small pieces, so that delivery never waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Settings;
use crate::base::clock::Clock;
use crate::base::stop::Stop;
use crate::store::{EngineStore, PruneAsk};

/// Rows that are deleted in one transaction.
const ROWS: usize = 500;
/// The pause between two pieces while there is more to delete.
const BREATH: Duration = Duration::from_millis(100);
/// The pause when nothing is left to delete.
const REST: Duration = Duration::from_secs(60);

/// How long each kind of row is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub settled: Duration,
    pub dead_letters: Duration,
    pub event_ids: Duration,
}

/// Prunes until `stop`.
pub async fn run(
    store: Arc<dyn EngineStore>,
    clock: Arc<dyn Clock>,
    settings: watch::Receiver<Settings>,
    mut stop: Stop,
) {
    let mut after = None;
    loop {
        let keep = settings.borrow().keep;
        let now = clock.now();
        let ask = PruneAsk {
            settled_before: now.minus(keep.settled),
            after,
            dead_letters_before: now.minus(keep.dead_letters),
            event_ids_before: now.minus(keep.event_ids),
            at_most: ROWS,
        };
        let more = match store.prune(ask).await {
            Ok(pruned) => {
                after = pruned.next;
                pruned.next.is_some() || pruned.dead_letters > 0 || pruned.event_ids > 0
            }
            Err(error) => {
                tracing::debug!(%error, "old rows can't be deleted now; the next round tries again");
                false
            }
        };
        tokio::select! {
            () = tokio::time::sleep(if more { BREATH } else { REST }) => {}
            () = stop.stopped() => return,
        }
    }
}
