//! Who goes next: lanes, gates and permits under one lock, and the guards that give slots and permits back.
//!
//! A call that frees a slot or a permit also starts the callbacks that waited for it. There is no dispatcher task. The
//! rules are in `scheduler`, which is pure.

mod caps;
mod gate;
mod lane;
mod list;
mod pools;
mod ring;
mod scheduler;
mod snapshot;
mod table;
mod wake;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use caps::Caps;
pub use lane::{LaneKey, PROMPT, Side};
use pools::Pool;
pub use scheduler::Room;
use scheduler::{Offer, Scheduler, Slot};
pub use snapshot::LaneSnapshot;
pub use wake::{ClaimWaker, LONGEST_WAIT};

use crate::base::metrics::Metrics;
use crate::model::lease::Lease;

/// An attempt that may begin now.
pub struct Start {
    pub lease: Arc<Lease>,
    pub slot: LaneSlot,
    pub permit: Permit,
}

/// Begins an attempt. It is called without the lock, and must not block.
pub type Starter = Box<dyn Fn(Start) + Send + Sync>;

/// How many attempts are taken from the scheduler while the lock is held once.
const AT_ONCE: usize = 4;

/// The lanes of this instance.
pub struct Lanes {
    state: Mutex<State>,
    starter: Starter,
    /// Notified when a slot is freed: more due rows may be claimed.
    pub slot_freed: Notify,
    /// Notified when a slot or a permit is freed: intake may admit the callbacks that it holds back.
    pub room_freed: Notify,
    permit_freed: Notify,
    metrics: Arc<Metrics>,
}

struct State {
    scheduler: Scheduler<Arc<Lease>>,
    /// False while the store is known to be down.
    is_open: bool,
    /// True while an operator has paused all deliveries.
    is_paused: bool,
    /// True for good once the daemon stops.
    is_closed: bool,
}

impl State {
    fn may_start(&self) -> bool {
        self.is_open && !self.is_paused && !self.is_closed
    }
}

impl Lanes {
    /// `starter` begins each attempt.
    pub fn new(caps: Caps, metrics: Arc<Metrics>, starter: Starter) -> Arc<Self> {
        let state = State { scheduler: Scheduler::new(caps), is_open: true, is_paused: false, is_closed: false };
        Arc::new(Self {
            state: Mutex::new(state),
            starter,
            slot_freed: Notify::new(),
            room_freed: Notify::new(),
            permit_freed: Notify::new(),
            metrics,
        })
    }

    /// Puts a callback into its lane. It starts at once if it may.
    pub fn offer(self: &Arc<Self>, key: LaneKey, side: Side, lease: Arc<Lease>) {
        self.change(|state, now| {
            let item = Arc::clone(&lease);
            let offer = Offer { key, target: &lease.facts.queue.target, side, bytes: lease.body.len(), item };
            state.scheduler.offer(offer, now);
        });
    }

    /// Whether a lane's slots are taken and its share of waiting bytes is used up.
    pub fn is_full(&self, key: &LaneKey) -> bool {
        self.state().scheduler.is_full(key, Instant::now())
    }

    /// Whether all fast permits are taken. Then callbacks wait for the machine, and not for their lane.
    pub fn machine_is_the_limit(&self) -> bool {
        self.state().scheduler.fast_taken()
    }

    /// How many due rows may be claimed now in all, and how many from each queue. A queue that is not named may give
    /// one.
    pub fn rooms(&self) -> (usize, Vec<Room>) {
        let mut state = self.state();
        let free = if state.may_start() { state.scheduler.free_for_due() } else { 0 };
        let rooms = if free == 0 { Vec::new() } else { state.scheduler.rooms(Instant::now()) };
        (free, rooms)
    }

    /// No attempt starts while this is false, because the store is known to be down.
    pub fn set_open(self: &Arc<Self>, is_open: bool) {
        self.change(|state, _| state.is_open = is_open);
    }

    /// No attempt starts while this is true, because all deliveries are paused.
    pub fn set_paused(self: &Arc<Self>, is_paused: bool) {
        self.change(|state, _| state.is_paused = is_paused);
    }

    /// No attempt starts any more. Returns the callbacks that wait.
    pub fn close(&self) -> Vec<Arc<Lease>> {
        let mut state = self.state();
        state.is_closed = true;
        state.scheduler.forget(|_| true, Instant::now())
    }

    /// Removes and returns the waiting callbacks that match.
    pub fn forget(&self, matches: impl FnMut(&Arc<Lease>) -> bool) -> Vec<Arc<Lease>> {
        self.state().scheduler.forget(matches, Instant::now())
    }

    /// Removes and returns fresh callbacks that have waited for `age` in a lane at its cap, if `may_go` allows it.
    /// Returns none while the machine itself is the limit.
    pub fn stale(&self, age: Duration, may_go: impl Fn(&Arc<Lease>) -> bool) -> Vec<Arc<Lease>> {
        let mut state = self.state();
        if state.scheduler.fast_taken() { Vec::new() } else { state.scheduler.stale(age, Instant::now(), may_go) }
    }

    /// Waits until no attempt is under way or awaits its settle.
    pub async fn settled(&self) {
        loop {
            let freed = self.permit_freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if self.state().scheduler.unsettled() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// The present state of every lane.
    pub fn snapshot(&self) -> Vec<LaneSnapshot> {
        self.state().scheduler.snapshot(Instant::now())
    }

    /// How many lanes are not limited, and how many are.
    pub fn lane_states(&self) -> (usize, usize) {
        self.state().scheduler.lane_states(Instant::now())
    }

    /// Changes the caps.
    pub fn set_caps(self: &Arc<Self>, caps: Caps) {
        self.change(|state, now| state.scheduler.set_caps(caps, now));
    }

    /// Drops lanes that have not been used for a long time.
    pub fn sweep(&self) {
        self.state().scheduler.sweep(Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then starts every callback that may start. The starter is called without the lock.
    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let now = Instant::now();
        let mut state = self.state();
        let changed = change(&mut state, now);
        loop {
            let mut starts = [const { None }; AT_ONCE];
            for start in &mut starts {
                *start = if state.may_start() { state.scheduler.next(now) } else { None };
                if start.is_none() {
                    break;
                }
            }
            self.metrics.unsettled.set(i64::try_from(state.scheduler.unsettled()).unwrap_or(i64::MAX));
            self.metrics.waiting.set(i64::try_from(state.scheduler.waiting()).unwrap_or(i64::MAX));
            drop(state);
            let is_last = starts[AT_ONCE - 1].is_none();
            // The guards lock the state when they are dropped, so they are made only after it is unlocked.
            starts.into_iter().flatten().for_each(|start| (self.starter)(self.guarded(start)));
            if is_last {
                return changed;
            }
            state = self.state();
        }
    }

    fn guarded(self: &Arc<Self>, (slot, pool, lease): (Slot, Pool, Arc<Lease>)) -> Start {
        let slot = LaneSlot { lanes: Arc::clone(self), slot, prompt: false };
        let permit = Permit { lanes: Arc::clone(self), pool };
        Start { lease, slot, permit }
    }
}

/// A slot at the customer's endpoint. It is given back when the exchange is over, before the settle is written.
pub struct LaneSlot {
    lanes: Arc<Lanes>,
    slot: Slot,
    prompt: bool,
}

impl LaneSlot {
    /// The endpoint answered within [`PROMPT`].
    pub fn was_prompt(&mut self) {
        self.prompt = true;
    }
}

impl Drop for LaneSlot {
    fn drop(&mut self) {
        self.lanes.change(|state, now| state.scheduler.leave(self.slot, self.prompt, now));
        self.lanes.slot_freed.notify_one();
        self.lanes.room_freed.notify_one();
    }
}

/// Counts one unsettled attempt. It is given back when the attempt's settle is durable.
pub struct Permit {
    lanes: Arc<Lanes>,
    pool: Pool,
}

impl Permit {
    /// The attempt takes longer than [`PROMPT`]. It counts as slow from now on, if the slow pool has room.
    pub fn to_slow(&mut self) {
        self.pool = self.lanes.change(|state, _| state.scheduler.move_to_slow(self.pool));
    }

    /// The request is over, and the attempt awaits its settle.
    pub fn to_settling(&mut self) {
        self.pool = self.lanes.change(|state, _| state.scheduler.move_to_settling(self.pool));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.lanes.change(|state, _| state.scheduler.release(self.pool));
        self.lanes.room_freed.notify_one();
        self.lanes.permit_freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
