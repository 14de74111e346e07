//! Deletes rows that are older than they are to be kept. It works in small pieces, so that delivery never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Settings;
use crate::base::clock::Clock;
use crate::base::stop::Stop;
use crate::model::callback::CallbackId;
use crate::store::admin::AdminStore;
use crate::store::{EngineStore, PruneAsk, StoreError};

/// Rows that are deleted in one transaction.
const ROWS: usize = 2_000;
/// While there is more to delete, the pause after a piece is so many times as long as the piece took. Deleting then takes
/// a fifth of the store's writer, and keeps up with whatever the rest of it can settle.
const PAUSE: u32 = 4;
/// The pause when nothing is left to delete.
const REST: Duration = Duration::from_secs(60);

/// How long settings that callbacks were sent with are kept after their last use, beyond the time of what names them. Uses are
/// recorded once a day.
const SENT_WITH: Duration = Duration::from_secs(3 * 24 * 60 * 60);

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
    admin: Arc<dyn AdminStore>,
    clock: Arc<dyn Clock>,
    settings: watch::Receiver<Settings>,
    mut stop: Stop,
) {
    let mut after = None;
    loop {
        let keep = settings.borrow().keep;
        let now = clock.now();
        let ask = PruneAsk {
            now,
            settled_before: now.minus(keep.settled),
            after,
            dead_letters_before: now.minus(keep.dead_letters),
            event_ids_before: now.minus(keep.event_ids),
            at_most: ROWS,
        };
        // By a clock that may be wrong, young rows could look old.
        if !clock.state().is_trusted() {
            tokio::select! {
                () = tokio::time::sleep(REST) => continue,
                () = stop.stopped() => return,
            }
        }
        let begun = Instant::now();
        let more = match prune(&*store, &*admin, ask).await {
            Ok((next, more)) => {
                after = next;
                more
            }
            Err(error) => {
                tracing::debug!(%error, "old rows can't be deleted now; the next round tries again");
                false
            }
        };
        tokio::select! {
            () = tokio::time::sleep(if more { begun.elapsed().saturating_mul(PAUSE).min(REST) } else { REST }) => {}
            () = stop.stopped() => return,
        }
    }
}

/// Deletes one piece. Where the next one begins, and whether there is more to delete.
async fn prune(
    store: &dyn EngineStore,
    admin: &dyn AdminStore,
    ask: PruneAsk,
) -> Result<(Option<CallbackId>, bool), StoreError> {
    let unused_since = ask.settled_before.minus(SENT_WITH);
    let pruned = store.prune(ask).await?;
    let more = pruned.more_days
        || pruned.next.is_some()
        || pruned.dead_letters > 0
        || pruned.event_ids > 0
        || pruned.queues > 0;
    if !more {
        admin.prune_sent_with(unused_since).await?;
    }
    Ok((pruned.next, more))
}
