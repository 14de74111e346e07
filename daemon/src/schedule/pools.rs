//! The permits: how many attempts are unsettled, in which pool. Pure.
//!
//! An attempt begins with a fast permit. It may move on to the slow pool, and to the pool of those that await their
//! settle. No pool borrows from another: an attempt that finds the next pool full keeps the permit it has.

use super::caps::Caps;
use super::gate::Gate;

/// The pool that an unsettled attempt counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    Fast {
        /// It holds one of the permits that unproven endpoints share.
        unproven: bool,
    },
    Slow,
    Settling,
}

/// The gates of the whole machine. Lanes that wait for `fast` or `unproven` are in the lines of their teams' gates. No
/// lane waits for the other two.
pub(super) struct Pools {
    pub(super) fast: Gate,
    /// A part of the fast permits.
    pub(super) unproven: Gate,
    slow: Gate,
    settling: Gate,
}

impl Pools {
    pub(super) fn new(caps: &Caps) -> Self {
        Self {
            fast: Gate::new(caps.fast),
            unproven: Gate::new(caps.unproven),
            slow: Gate::new(caps.slow),
            settling: Gate::new(caps.settling),
        }
    }

    pub(super) fn set_caps(&mut self, caps: &Caps) {
        self.fast.set_cap(caps.fast);
        self.unproven.set_cap(caps.unproven);
        self.slow.set_cap(caps.slow);
        self.settling.set_cap(caps.settling);
    }

    /// Attempts that began and are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.fast.used() + self.slow.used() + self.settling.used()
    }

    /// Takes a fast permit, for an attempt that begins. The caller knows that there is one.
    pub(super) fn take(&mut self, unproven: bool) -> Pool {
        self.fast.enter();
        if unproven {
            self.unproven.enter();
        }
        Pool::Fast { unproven }
    }

    pub(super) fn release(&mut self, pool: Pool) {
        match pool {
            Pool::Fast { unproven } => {
                self.fast.leave();
                if unproven {
                    self.unproven.leave();
                }
            }
            Pool::Slow => self.slow.leave(),
            Pool::Settling => self.settling.leave(),
        }
    }

    /// Moves a fast attempt to the slow pool, if that has room.
    pub(super) fn move_to_slow(&mut self, pool: Pool) -> Pool {
        if !matches!(pool, Pool::Fast { .. }) || !self.slow.has_room() {
            return pool;
        }
        self.release(pool);
        self.slow.enter();
        Pool::Slow
    }

    /// Moves an attempt to the pool of those that await their settle, if that has room.
    pub(super) fn move_to_settling(&mut self, pool: Pool) -> Pool {
        if pool == Pool::Settling || !self.settling.has_room() {
            return pool;
        }
        self.release(pool);
        self.settling.enter();
        Pool::Settling
    }
}
