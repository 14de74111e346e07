//! Deletes rows that are older than they are to be kept. It works in small pieces, so that delivery never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Settings;
use crate::base::clock::Clock;
use crate::base::stop::Stop;
use crate::model::callback::CallbackId;
use crate::store::admin::AdminStore;
use crate::store::{EngineStore, PruneAsk, Pruned, StoreError};

/// Rows that are deleted in one transaction.
const ROWS: usize = 2_000;
/// While there is more to delete, the pause after a piece is so many times as long as the piece took: deleting takes a fifth of
/// the store's writer.
const PAUSE: u32 = 4;
/// The same, while rows are deleted whose events are older than the cutoff by so much: then deleting takes half of the writer, so
/// that the store does not grow. Callbacks are tried for a day, and go by when they ended. Rows with random task ids cost about as
/// much to delete as to write.
const PAUSE_BEHIND: u32 = 1;
const BEHIND: Duration = Duration::from_secs(26 * 60 * 60);
/// The pause when nothing is left to delete.
const REST: Duration = Duration::from_secs(60);

/// How long settings that callbacks were sent with are kept after their last use, beyond the time of what names them. An attempt may
/// be a month older than the end of its callback, and uses are recorded once a day.
const SENT_WITH: Duration = Duration::from_secs(40 * 24 * 60 * 60);

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
        let pause = match prune(&*store, &*admin, ask).await {
            Ok((pruned, more)) => {
                after = pruned.next;
                more.then(|| if is_behind(&pruned, ask) { PAUSE_BEHIND } else { PAUSE })
            }
            Err(error) => {
                tracing::debug!(%error, "old rows can't be deleted now; the next round tries again");
                None
            }
        };
        let wait = pause.map_or(REST, |pause| begun.elapsed().saturating_mul(pause).min(REST));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.stopped() => return,
        }
    }
}

/// Whether the rows that were just deleted should have gone long ago. Ids without a time say nothing.
fn is_behind(pruned: &Pruned, ask: PruneAsk) -> bool {
    let reached = pruned.next.map(CallbackId::time).filter(|time| time.is_plausible());
    pruned.settled > 0 && reached.is_some_and(|time| ask.settled_before.since(time) > BEHIND)
}

/// Deletes one piece. What it was, and whether there is more to delete.
async fn prune(store: &dyn EngineStore, admin: &dyn AdminStore, ask: PruneAsk) -> Result<(Pruned, bool), StoreError> {
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
    Ok((pruned, more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    #[test]
    fn pruning_hurries_only_while_it_deletes_what_should_have_gone_long_ago() {
        let at = |minutes: i64| Timestamp::from_millis(1_764_000_000_000 + minutes * 60_000);
        let id = |time: Timestamp| {
            let mut bytes = [0; 16];
            bytes[..6].copy_from_slice(&time.millis().to_be_bytes()[2..]);
            CallbackId::from_bytes(bytes)
        };
        let ask = PruneAsk {
            now: at(20_000),
            settled_before: at(10_000),
            after: None,
            dead_letters_before: at(0),
            event_ids_before: at(0),
            at_most: ROWS,
        };
        let behind = |settled, next| is_behind(&Pruned { settled, next, ..Pruned::default() }, ask);
        assert!(behind(1, Some(id(at(10_000 - 26 * 60 - 1)))));
        assert!(!behind(1, Some(id(at(10_000 - 26 * 60)))), "little more than a day");
        assert!(!behind(0, Some(id(at(1)))), "nothing was deleted there");
        assert!(!behind(1, Some(id(Timestamp::from_millis(0)))), "an id without a time");
        assert!(!behind(1, None), "all was looked at");
    }
}
