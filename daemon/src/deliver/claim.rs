//! Due rows, from the store to the lanes: retries, parked callbacks, and what an earlier instance left.
//!
//! One task claims under leases, as many rows as the lanes have room for. It never sends anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::claimed::{ClaimedRow, Offering};
use super::pauses::paused_queues;
use super::resolve::queue_of;
use super::shelf::Shelf;
use super::suspect::Suspects;
use crate::base::body_budget::Share;
use crate::base::clock::{Moment, Timestamp};
use crate::base::labels::{AsideCause, RepeatCause};
use crate::base::metrics::Metrics;
use crate::base::pace::Pace;
use crate::base::stop::Stop;
use crate::faults::{self, Fault};
use crate::model::endpoint::QueueKey;
use crate::schedule::{ClaimWaker, LONGEST_WAIT};
use crate::store::batch::StoreUp;
use crate::store::{ClaimAsk, Claimed, EngineStore, InstanceId, SetAside, StoreError};

/// Rows taken in one claim, and the bytes of their bodies.
const ROWS: usize = 512;
const BYTES: usize = 8 << 20;
/// Rows that a queue may give if the lanes name no number for it.
const USUAL_ROOM: u32 = 1;
/// The shortest time between two claims, so that one claim answers many wake-ups.
const BREATH: Duration = Duration::from_millis(5);
/// The wait while due rows have no room in their lanes.
const NO_ROOM_WAIT: Duration = Duration::from_millis(100);
/// The wait while there is no place for rows without a body, or for suspects.
const NO_PLACE_WAIT: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(60);
/// The time between two looks for leases that ran out, those of instances that died among them.
const LEASES: Duration = Duration::from_secs(1);

pub(super) struct ClaimTask {
    pub(super) store: Arc<dyn EngineStore>,
    pub(super) instance: InstanceId,
    pub(super) offering: Offering,
    /// Where rows without a body wait for it.
    pub(super) shelf: Shelf,
    /// Where suspects wait for their places.
    pub(super) suspects: Suspects,
    pub(super) waker: ClaimWaker,
    pub(super) metrics: Arc<Metrics>,
    /// Learns the result of each claim, so that a store that is down is noticed even if nothing is settled.
    pub(super) store_up: Arc<StoreUp>,
    /// The log has said that rows wait for a newer program.
    pub(super) told_of_newer: AtomicBool,
}

impl ClaimTask {
    /// Claims until `stop`, or until the store breaks.
    pub(super) async fn run(self, stop: Stop) {
        // A sweep of millions of rows may take long, and claims go on meanwhile.
        tokio::join!(self.claims(stop.clone()), self.sweeps(stop));
    }

    async fn claims(&self, mut stop: Stop) {
        let mut pace = Pace::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut next_look = Instant::now();
        loop {
            if Instant::now() >= next_look {
                self.free_leases().await;
                next_look = Instant::now() + LEASES;
            }
            let wait = match self.claim().await {
                Ok(wait) => {
                    pace.succeeded();
                    self.store_up.claims(None);
                    wait
                }
                Err(error @ (StoreError::Broken(_) | StoreError::Superseded(_))) => {
                    // Settling ends with this error, and the process with it.
                    self.offering.settler.break_off(error).await;
                    stop.stopped().await;
                    return;
                }
                Err(error) => {
                    self.store_up.claims(Some(&error));
                    pace.next_wait()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait.max(BREATH)) => {}
                () = self.waker.woken() => tokio::time::sleep(BREATH).await,
                () = self.offering.delivery.lanes.slot_freed.notified() => tokio::time::sleep(BREATH).await,
                () = self.offering.delivery.claim_gate.changed() => {}
                () = stop.stopped() => return,
            }
        }
    }

    async fn free_leases(&self) {
        if faults::is_on(Fault::LeaseNeverExpires) {
            return;
        }
        match self.store.free_leases(self.offering.lease).await {
            Ok(0) => {}
            Ok(expired) => {
                tracing::warn!(expired, "leases ran out before their attempts were settled: repeats are possible");
                let count = u64::try_from(expired).unwrap_or(u64::MAX);
                let cause = RepeatCause::LeaseExpired.name();
                self.metrics.repeats_possible_total.with_label_values(&[cause]).inc_by(count);
            }
            Err(error) => tracing::debug!(%error, "expired leases can't be released now"),
        }
    }

    async fn sweeps(&self, mut stop: Stop) {
        let mut is_told = false;
        loop {
            let swept = tokio::select! {
                swept = self.store.sweep(queue_of) => swept,
                () = stop.stopped() => return,
            };
            match swept {
                Ok(()) => is_told = false,
                Err(error) if !std::mem::replace(&mut is_told, true) => {
                    tracing::warn!(%error, "queues can't be repaired now; this is tried again and again");
                }
                Err(_) => {}
            }
            self.offering.delivery.lanes.sweep();
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                () = stop.stopped() => return,
            }
        }
    }

    /// Makes one claim. Returns how long to wait before the next one.
    async fn claim(&self) -> Result<Duration, StoreError> {
        let (free, rooms) = self.offering.delivery.lanes.rooms();
        // While no attempt may begin, an empty claim still shows whether the store answers.
        let free = self.shelf.leaves_of(free);
        let at_most = if self.offering.delivery.claim_gate.is_open() { free.min(ROWS) } else { 0 };
        let mut room: HashMap<QueueKey, u32> = rooms
            .into_iter()
            .map(|room| {
                let rows = u32::try_from(room.rows).unwrap_or(u32::MAX);
                (QueueKey { team: room.team, target: room.target }, rows)
            })
            .collect();
        self.shelf.take_from(&mut room, USUAL_ROOM);
        let first_token = self.offering.delivery.tokens.take(at_most);
        // The lease is counted from before the claim, so that it never lasts longer here than in the store.
        let born = Moment::now();
        let ask = ClaimAsk {
            instance: self.instance,
            at_most,
            bytes: self.offering.bodies.free(Share::Due).min(BYTES),
            takes_larger_body_alone: self.offering.bodies.free(Share::Due) == self.offering.bodies.largest(Share::Due),
            lease: self.offering.lease,
            usual_room: USUAL_ROOM,
            room,
            paused: paused_queues(&self.offering.delivery).await,
            first_token,
        };
        let claimed = self.store.claim(ask).await?;
        self.count(claimed.set_aside);
        let (now, next_at, taken) = (claimed.now, claimed.next_at, claimed.rows.len());
        let wait = next_wait(at_most, taken, next_at, now);
        // What is given back at once must not be claimed again at once.
        Ok(if self.offer(claimed, born).await { wait } else { wait.max(NO_PLACE_WAIT) })
    }

    /// Counts what the claim could not take. The store has named each row that can't be read; rows for a newer program are told of
    /// once, because they are found again and again.
    fn count(&self, set_aside: SetAside) {
        for (cause, count) in
            [(AsideCause::Unreadable, set_aside.unreadable), (AsideCause::UnknownBuilder, set_aside.unknown_builder)]
        {
            self.metrics.rows_set_aside_total.with_label_values(&[cause.name()]).inc_by(count as u64);
        }
        if set_aside.unknown_builder > 0 && !self.told_of_newer.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                rows = set_aside.unknown_builder,
                "callbacks wait for a newer callbackd, which wrote them in a way that this one does not know; others go on"
            );
        }
    }

    /// False if rows had to be given back because the shelf is full, or too many suspects wait.
    async fn offer(&self, claimed: Claimed, born: Moment) -> bool {
        let mut had_places = true;
        for (pending, body) in claimed.rows {
            let Some(token) = pending.token else { continue };
            let row = ClaimedRow { pending, token, born_at: claimed.now, born };
            if !body.is_empty() {
                had_places &= self.suspects.offer(row, Ok(body)).await;
            } else if let Some(row) = self.shelf.put(row) {
                had_places = false;
                self.offering.give_back(row).await;
            }
        }
        had_places
    }
}

/// How long to wait after a claim of at most this many rows that took this many, if the next row is due at `next_at`.
fn next_wait(at_most: usize, taken: usize, next_at: Option<Timestamp>, now: Timestamp) -> Duration {
    match next_at {
        _ if at_most == 0 => LONGEST_WAIT,
        _ if taken == at_most => Duration::ZERO,
        // Due rows that were not taken have no room. `slot_freed` wakes the task when they may be claimed.
        Some(at) if at <= now => NO_ROOM_WAIT,
        Some(at) => at.since(now).min(LONGEST_WAIT),
        None => LONGEST_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_claim_comes_when_it_can_take_a_row() {
        let now = Timestamp::from_millis(1_000_000);
        let later = |wait: Duration| Some(now.plus(wait));
        let short = Duration::from_millis(40);
        for (at_most, taken, next_at, wait) in [
            // No attempt may begin: a freed slot wakes the task.
            (0, 0, Some(now), LONGEST_WAIT),
            // There may be more rows that are due now.
            (128, 128, later(short), Duration::ZERO),
            // The rows that are due have no room.
            (128, 3, Some(now), NO_ROOM_WAIT),
            (128, 3, Some(Timestamp::from_millis(0)), NO_ROOM_WAIT),
            (128, 0, later(short), short),
            (128, 0, later(LONGEST_WAIT * 3), LONGEST_WAIT),
            (128, 0, None, LONGEST_WAIT),
        ] {
            assert_eq!(next_wait(at_most, taken, next_at, now), wait, "{at_most} {taken} {next_at:?}");
        }
    }
}
