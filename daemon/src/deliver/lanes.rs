//! The lanes at work: one lock around the scheduler, and the guards that give slots and permits back.
//!
//! Whatever frees a place starts what waits for it, at once and in the same call: there is no dispatcher task between.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::lane::{Caps, LaneKey, LaneSnapshot, Pool, Room, Scheduler, Side, Slot};
use crate::base::clock::Timestamp;
use crate::base::metrics::Metrics;
use crate::model::attempt::Outcome;
use crate::model::endpoint::QueueTarget;
use crate::model::lease::Lease;

/// An attempt that may begin now.
pub struct Start {
    pub lease: Arc<Lease>,
    pub slot: LaneSlot,
    pub permit: Permit,
}

type Starter = Box<dyn Fn(Start) + Send + Sync>;

pub struct Lanes {
    state: Mutex<State>,
    starter: OnceLock<Starter>,
    /// A due row's slot came free: more of them may be claimed.
    pub due_progress: Notify,
    /// Any place came free: what intake holds back may go on.
    pub progress: Notify,
    freed: Notify,
    metrics: Arc<Metrics>,
}

struct State {
    scheduler: Scheduler<Arc<Lease>>,
    /// False while the store is known to be down, and for good once we stop.
    open: bool,
    closed: bool,
}

impl Lanes {
    pub fn new(caps: Caps, metrics: Arc<Metrics>) -> Arc<Self> {
        let state = State { scheduler: Scheduler::new(caps), open: true, closed: false };
        Arc::new(Self {
            state: Mutex::new(state),
            starter: OnceLock::new(),
            due_progress: Notify::new(),
            progress: Notify::new(),
            freed: Notify::new(),
            metrics,
        })
    }

    /// Says what begins an attempt; once, before the first offer.
    pub fn start_with(&self, starter: Starter) {
        assert!(self.starter.set(starter).is_ok(), "the lanes have one starter");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn offer(self: &Arc<Self>, key: LaneKey, side: Side, lease: Arc<Lease>) {
        let target: &QueueTarget = &lease.facts.queue.target;
        self.state().scheduler.offer(key, target, side, lease.body.len(), Arc::clone(&lease), Instant::now());
        self.pump();
    }

    pub fn is_full(&self, key: &LaneKey) -> bool {
        self.state().scheduler.is_full(key, Instant::now())
    }

    pub fn machine_is_the_limit(&self) -> bool {
        self.state().scheduler.fast_taken()
    }

    /// Fast permits that no due row waits for, none while nothing may begin; and the room of each lane in use.
    pub fn rooms(&self) -> (usize, Vec<Room>) {
        let state = self.state();
        let free = if state.open && !state.closed { state.scheduler.free_for_due(Instant::now()) } else { 0 };
        (free, state.scheduler.rooms(Instant::now()))
    }

    pub fn set_open(self: &Arc<Self>, open: bool) {
        self.state().open = open;
        self.pump();
    }

    /// Nothing begins any more. Gives back what waits.
    pub fn close(&self) -> Vec<Arc<Lease>> {
        let mut state = self.state();
        state.closed = true;
        state.scheduler.forget(|_| true)
    }

    pub fn forget(&self, matches: impl FnMut(&Arc<Lease>) -> bool) -> Vec<Arc<Lease>> {
        self.state().scheduler.forget(matches)
    }

    /// Fresh callbacks that wait too long behind a lane at its cap; none while the machine itself is the limit.
    pub fn stale(&self, age: Duration, may_go: impl Fn(&Arc<Lease>) -> bool) -> Vec<Arc<Lease>> {
        let mut state = self.state();
        if state.scheduler.fast_taken() { Vec::new() } else { state.scheduler.stale(age, Instant::now(), may_go) }
    }

    /// Waits until no attempt is under way or awaits its settle.
    pub async fn settled(&self) {
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if self.state().scheduler.unsettled() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// Every lane, as it stands now.
    pub fn seen(&self) -> Vec<LaneSnapshot> {
        self.state().scheduler.seen(Instant::now())
    }

    /// How many lanes are free to go on, and how many are limited.
    pub fn lane_states(&self) -> (usize, usize) {
        self.state().scheduler.lane_states(Instant::now())
    }

    pub fn set_caps(self: &Arc<Self>, caps: Caps) {
        self.state().scheduler.set_caps(caps);
        self.pump();
    }

    pub fn sweep(&self) {
        self.state().scheduler.sweep(Instant::now());
    }

    fn pump(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                self.metrics.unsettled.set(i64::try_from(state.scheduler.unsettled()).unwrap_or(i64::MAX));
                self.metrics.waiting.set(i64::try_from(state.scheduler.waiting()).unwrap_or(i64::MAX));
                if state.open && !state.closed { state.scheduler.next(Instant::now()) } else { None }
            };
            let Some((slot, pool, lease)) = next else { return };
            let slot = LaneSlot { lanes: Arc::clone(self), slot, prompt: false, ended: None };
            let permit = Permit { lanes: Arc::clone(self), pool };
            let starter = self.starter.get().expect("the starter is set before the first offer");
            starter(Start { lease, slot, permit });
        }
    }
}

/// A customer's slot; given back when the exchange is over, before our disk has its turn.
pub struct LaneSlot {
    lanes: Arc<Lanes>,
    slot: Slot,
    prompt: bool,
    ended: Option<(Outcome, Timestamp)>,
}

impl LaneSlot {
    /// What the attempt came to, and when.
    pub fn ended(&mut self, outcome: Outcome, at: Timestamp) {
        self.ended = Some((outcome, at));
    }

    /// The endpoint answered in time.
    pub fn was_prompt(&mut self) {
        self.prompt = true;
    }
}

impl Drop for LaneSlot {
    fn drop(&mut self) {
        {
            let mut state = self.lanes.state();
            if let Some((outcome, at)) = self.ended {
                state.scheduler.note(self.slot, outcome, at);
            }
            state.scheduler.leave(self.slot, self.prompt, Instant::now());
        }
        self.lanes.pump();
        self.lanes.due_progress.notify_one();
        self.lanes.progress.notify_one();
    }
}

/// Counts one unsettled attempt; given back when its settle is durable.
pub struct Permit {
    lanes: Arc<Lanes>,
    pool: Pool,
}

impl Permit {
    pub fn to_slow(&mut self) {
        self.pool = self.lanes.state().scheduler.to_slow(self.pool);
        self.lanes.pump();
    }

    pub fn to_settling(&mut self) {
        self.pool = self.lanes.state().scheduler.to_settling(self.pool);
        self.lanes.pump();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.lanes.state().scheduler.release(self.pool);
        self.lanes.pump();
        self.lanes.progress.notify_one();
        self.lanes.freed.notify_waiters();
    }
}
