//! Watches the disk space of the store. Above the budget of parked bodies, and below the reserve of free disk, intake
//! pauses: what is in the store goes on, and Kafka keeps the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::flight::BodyRoom;
use crate::store::{EngineStore, Space, SpaceAsk};

/// The time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The time between two counts of pending callbacks, while some are stored without their bodies.
const COUNT: Duration = Duration::from_secs(30);

/// How much disk space the store may use.
#[derive(Debug, Clone, Copy)]
pub struct SpaceLimits {
    /// Bytes of the bodies of pending callbacks.
    pub parked_bytes: u64,
    /// The same, of one queue.
    pub parked_bytes_of_queue: u64,
    /// Pending callbacks, while some are stored without their bodies.
    pub pending_rows: u64,
    /// Bytes of the disk that must stay free.
    pub free_bytes: u64,
    /// Notices that wait to be published.
    pub notices: u64,
}

/// Why intake pauses for lack of space: a sentence for people. `None` while there is room.
pub type SpaceShort = watch::Receiver<Option<String>>;

pub(super) struct SpaceWatch {
    limits: SpaceLimits,
    store: Arc<dyn EngineStore>,
    metrics: Arc<Metrics>,
    short: watch::Sender<Option<String>>,
    room: Arc<BodyRoom>,
    /// Pending callbacks at the last count.
    pending: u64,
    counted: Instant,
    /// How many callbacks had been stored without their bodies then.
    thinned: u64,
}

impl SpaceWatch {
    pub(super) fn new(
        limits: SpaceLimits,
        store: Arc<dyn EngineStore>,
        metrics: Arc<Metrics>,
        short: watch::Sender<Option<String>>,
        room: Arc<BodyRoom>,
    ) -> Self {
        Self { limits, store, metrics, short, room, pending: 0, counted: Instant::now(), thinned: 0 }
    }

    /// Watches until `stop`.
    pub(super) async fn run(mut self, mut stop: Stop) {
        loop {
            let mark = self.room.mark();
            let ask =
                SpaceAsk { queue_bytes: self.limits.parked_bytes_of_queue, count_pending_upto: self.count_upto() };
            // A store that does not answer has its own readiness and alert.
            if let Ok(space) = self.store.space(ask).await {
                self.room.look(&space, mark);
                if let Some(pending) = space.pending {
                    (self.pending, self.counted, self.thinned) = (pending, Instant::now(), self.room.thinned());
                }
                self.look(&space);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.stopped() => return,
            }
        }
    }

    /// Up to which number pending callbacks are counted now; 0 if they are not. It is work for the store, and only callbacks
    /// without bodies are not bounded otherwise.
    fn count_upto(&self) -> u64 {
        let is_due = self.counted.elapsed() >= COUNT;
        let may_be_many = self.room.thinned() > self.thinned || self.pending > self.limits.pending_rows / 2;
        if is_due && may_be_many { self.limits.pending_rows.saturating_add(1) } else { 0 }
    }

    fn look(&self, space: &Space) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.store_parked_bytes.set(gauge(space.parked_bytes));
        self.metrics.store_kept_bytes.set(gauge(space.kept_bytes));
        self.metrics.outbox_messages.set(gauge(space.notices));
        self.metrics.store_free_bytes.set(space.free_bytes.map_or(-1, gauge));
        let was_short = self.short.borrow().is_some();
        let short = self.limits.short(space, self.pending, was_short);
        match &short {
            Some(why) if !was_short => tracing::error!(why, "intake pauses until there is room in the store"),
            None if was_short => tracing::info!("there is room in the store again: intake goes on"),
            _ => {}
        }
        self.short.send_if_modified(|kept| {
            let is_changed = kept.is_some() != short.is_some();
            *kept = short;
            is_changed
        });
    }
}

impl SpaceLimits {
    /// Why there is too little space. What pauses goes on only when there is clearly more room, so that it does not switch
    /// with every callback.
    fn short(self, space: &Space, pending: u64, was_short: bool) -> Option<String> {
        let parked_most = if was_short { self.parked_bytes - self.parked_bytes / 20 } else { self.parked_bytes };
        let free_least = if was_short { self.free_bytes.saturating_add(self.free_bytes / 10) } else { self.free_bytes };
        if space.parked_bytes > parked_most {
            return Some(format!(
                "the bodies of pending callbacks take {} MiB of the disk, and store.parked_bytes allows {} MiB: nothing more is read until some of them end",
                space.parked_bytes >> 20,
                self.parked_bytes >> 20
            ));
        }
        let pending_most = if was_short { self.pending_rows - self.pending_rows / 20 } else { self.pending_rows };
        if pending > pending_most {
            return Some(format!(
                "more than {} callbacks are pending, and store.pending_rows allows {}: nothing more is read until some of them end",
                pending_most, self.pending_rows
            ));
        }
        let notices_most = if was_short { self.notices - self.notices / 20 } else { self.notices };
        if space.notices > notices_most {
            return Some(format!(
                "{} messages wait to be published, and outcomes.backlog allows {}: nothing more is read until Kafka takes some of them",
                space.notices, self.notices
            ));
        }
        let free = space.free_bytes.filter(|free| *free < free_least)?;
        Some(format!(
            "the disk of the store has {} MiB left, and store.free_bytes keeps {} MiB free: nothing more is read until there is room",
            free >> 20,
            self.free_bytes >> 20
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SpaceLimits = SpaceLimits {
        parked_bytes: 100 << 20,
        parked_bytes_of_queue: 10 << 20,
        pending_rows: 1_000,
        free_bytes: 10 << 20,
        notices: 1_000,
    };

    fn short(parked_mib: u64, free_mib: Option<u64>, was_short: bool) -> bool {
        let (parked_bytes, free_bytes) = (parked_mib << 20, free_mib.map(|free| free << 20));
        LIMITS.short(&Space { parked_bytes, free_bytes, ..Space::default() }, 0, was_short).is_some()
    }

    #[test]
    fn intake_pauses_above_the_budget_and_below_the_reserve() {
        for (parked, free, is_short) in
            [(100, Some(10), false), (101, Some(10), true), (0, Some(9), true), (0, None, false), (101, None, true)]
        {
            assert_eq!(short(parked, free, false), is_short, "{parked} {free:?}");
        }
    }

    #[test]
    fn it_goes_on_only_with_clearly_more_room() {
        assert!(short(96, Some(20), true) && !short(95, Some(20), true));
        assert!(short(0, Some(10), true) && !short(0, Some(11), true));
        let with = |notices, was_short| LIMITS.short(&Space { notices, ..Space::default() }, 0, was_short).is_some();
        assert!(!with(1_000, false) && with(1_001, false) && with(951, true) && !with(950, true));
        let with = |pending, was_short| LIMITS.short(&Space::default(), pending, was_short).is_some();
        assert!(!with(1_000, false) && with(1_001, false) && with(951, true) && !with(950, true));
    }
}
