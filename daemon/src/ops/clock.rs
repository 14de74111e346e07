//! The store's clock and the wall clock: whether they agree, and the word of an operator that the wall clock is right.

use std::time::Duration;

use super::policy::Operation;
use super::{OpsError, Session};
use crate::base::clock::{ClockState, NEAR, Timestamp};

/// What followed from accepting the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockAccepted {
    /// The store's clock now.
    pub now: Timestamp,
    /// By how much it was set back. Zero if it was set forward.
    pub set_back: Duration,
}

impl Session {
    /// Sets the store's clock to the wall clock. Times of pending callbacks that were written while the store's clock was
    /// ahead are taken back within a second.
    ///
    /// # Errors
    /// `forbidden`, `conflict` when both clocks agree already, or the store's.
    pub async fn accept_clock(&self) -> Result<ClockAccepted, OpsError> {
        self.allow(Operation::AcceptClock)?;
        let state = self.parts().clock.state();
        let Some(what) = sentence(state) else {
            return Err(OpsError::Conflict("the clocks agree, so there is nothing to accept".to_owned()));
        };
        if self.parts().clock.is_anchored() && !matches!(state, ClockState::Unconfirmed(_)) {
            return Err(OpsError::Conflict(format!(
                "{what}, and the store's clock is that of the database's server: set the clock of this machine, or that of the server"
            )));
        }
        // The audit row is written first. It has the time of the clock that is given up.
        self.parts().admin.note(self.caller.entry(Operation::AcceptClock, "clock", &what)).await?;
        let set_back = self.parts().clock.accept();
        Ok(ClockAccepted { now: self.parts().clock.now(), set_back })
    }
}

/// What is wrong with the clock, if anything is: a sentence for people.
pub(super) fn sentence(state: ClockState) -> Option<String> {
    let seconds = |by: Duration| by.as_secs();
    match state {
        ClockState::Agrees => None,
        ClockState::Unconfirmed(pause) => Some(format!(
            "the store was not written for {} s, and nothing confirms the clock yet: no callback ends and nothing is pruned until a new record comes",
            seconds(pause)
        )),
        ClockState::WallAhead(by) => Some(format!("the wall clock is {} s ahead of the store's clock", seconds(by))),
        ClockState::WallBehind(by) => Some(format!("the wall clock is {} s behind the store's clock", seconds(by))),
    }
}

/// Why the daemon is not ready, if it is the clock. A clock that is only unconfirmed keeps nobody from work.
pub(super) fn trouble(state: ClockState) -> Option<String> {
    let what = sentence(state).filter(|_| !matches!(state, ClockState::Unconfirmed(_)))?;
    Some(format!(
        "{what}, more than {} s: no callback ends and nothing is pruned until they agree; if the wall clock is right: callbackd clock accept",
        NEAR.as_secs()
    ))
}
