//! What an operator changes about one callback. Only [`amend`] decides it: every store is tested against it, pair by pair, as
//! for `settlement::apply`. The numbers are those of the table in ARCHITECTURE.md ("Row-level transitions").

use super::attempt::Outcome;
use super::retry::Reason;
use super::settlement::{Ended, Pending, Rows, Settled};
use crate::base::clock::Timestamp;

/// One change that an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amendment {
    /// The next attempt of a pending callback is due now. It takes the place of the planned one.
    RetryNow,
    /// A pending callback ends without another attempt.
    Cancel,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amended {
    Changed,
    /// An attempt is under way, so nothing can be due earlier.
    InFlight,
    /// It has ended before.
    Ended(Ended),
    /// There is no row of it.
    Unknown,
}

/// What `amendment` does to `rows` at this time of the store's clock.
pub fn amend(rows: &Rows, amendment: Amendment, now: Timestamp) -> (Rows, Amended) {
    let untouched = |amended| (rows.clone(), amended);
    let pending = match (&rows.settled, rows.live()) {
        // A round that is open after the end is not this callback's first life: that is for the operations of rounds.
        (Some(settled), _) => return untouched(Amended::Ended(settled.ended)),
        (None, None) => return untouched(Amended::Unknown),
        (None, Some(pending)) => pending,
    };
    match amendment {
        // Row 17.
        Amendment::RetryNow if pending.token.is_some() => untouched(Amended::InFlight),
        Amendment::RetryNow => {
            let due = pending.due.min(now);
            let after = Rows { settled: None, pending: Some(Pending { due, ..pending.clone() }) };
            (after, Amended::Changed)
        }
        // Row 21: an attempt that is under way settles late, and a success still makes the callback delivered.
        Amendment::Cancel => (Rows { settled: Some(cancelled(pending, now)), pending: None }, Amended::Changed),
    }
}

fn cancelled(pending: &Pending, now: Timestamp) -> Settled {
    Settled {
        facts: std::sync::Arc::clone(&pending.facts),
        ended: Ended::Abandoned(Reason::Cancelled),
        attempts: pending.progress.attempts,
        status: None,
        // A callback without an attempt has no outcome. Its count of attempts says that this one means nothing.
        outcome: pending.last_outcome.unwrap_or(Outcome::Interrupted),
        round: 0,
        first_at: pending.progress.since.unwrap_or(now),
        settled_at: now,
        revision: 1,
    }
}
