//! What an operator changes about one callback. Only [`amend`] decides it: every store is tested against it, pair by pair, as
//! for `settlement::apply`. The numbers are those of the table in ARCHITECTURE.md ("Row-level transitions").

use std::sync::Arc;

use bytes::Bytes;

use super::attempt::Outcome;
use super::endpoint::{CallbackUrl, QueueKey};
use super::lease::Facts;
use super::retry::{Progress, Reason};
use super::settlement::{Ended, Pending, Rows, Settled};
use crate::base::clock::Timestamp;

/// One change that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amendment {
    /// The next attempt of a pending callback is due now. It takes the place of the planned one.
    RetryNow,
    /// A pending callback, or the round of one that had ended, ends without another attempt, for this reason.
    Cancel(Reason),
    /// A callback that has ended is sent again.
    Resend(Box<Resend>),
}

/// A round: where it goes, with what, and under which id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resend {
    /// Nothing happens if the callback ended at this time or later. A job sends each callback again once.
    pub ended_before: Option<Timestamp>,
    /// With an id of its own, so that a receiver that knows the callback's id takes it as new.
    pub new_id: bool,
    /// The task's own URL; `None` for the team's default.
    pub url: Option<CallbackUrl>,
    /// The queue of that URL.
    pub queue: QueueKey,
    pub body: Bytes,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amended {
    Changed,
    /// An attempt is under way, so nothing can be due earlier.
    InFlight,
    /// It has ended before.
    Ended(Ended),
    /// It has not ended, so it can't be sent again.
    Pending,
    /// It is being sent again already, in this round.
    Open(u32),
    /// It ended too late to be sent again by this job.
    EndedLater,
    /// There is no row of it.
    Unknown,
}

/// What `amendment` does to `rows` at this time of the store's clock.
pub fn amend(rows: &Rows, amendment: &Amendment, now: Timestamp) -> (Rows, Amended) {
    match amendment {
        Amendment::Resend(resend) => open_round(rows, resend, now),
        Amendment::RetryNow => of_live(rows, |pending| retry_now(rows, pending, now)),
        Amendment::Cancel(reason) => of_live(rows, |pending| cancel(rows, pending, *reason, now)),
    }
}

/// What is done to a row that waits or is under way; there may be none.
fn of_live(rows: &Rows, change: impl FnOnce(&Pending) -> (Rows, Amended)) -> (Rows, Amended) {
    match (rows.live(), &rows.settled) {
        (Some(pending), _) => change(pending),
        (None, Some(settled)) => (rows.clone(), Amended::Ended(settled.ended)),
        (None, None) => (rows.clone(), Amended::Unknown),
    }
}

/// Row 17.
fn retry_now(rows: &Rows, pending: &Pending, now: Timestamp) -> (Rows, Amended) {
    if pending.token.is_some() {
        return (rows.clone(), Amended::InFlight);
    }
    let pending = Pending { due: pending.due.min(now), ..pending.clone() };
    (Rows { settled: rows.settled.clone(), pending: Some(pending) }, Amended::Changed)
}

/// Rows 21 and 22: an attempt that is under way settles late, and a success still makes the callback delivered.
fn cancel(rows: &Rows, pending: &Pending, reason: Reason, now: Timestamp) -> (Rows, Amended) {
    let settled = match &rows.settled {
        None => cancelled(pending, reason, now),
        Some(settled) => Settled { attempts: pending.progress.attempts, ..settled.clone() },
    };
    (Rows { settled: Some(settled), pending: None }, Amended::Changed)
}

fn cancelled(pending: &Pending, reason: Reason, now: Timestamp) -> Settled {
    Settled {
        facts: Arc::clone(&pending.facts),
        ended: Ended::Abandoned(reason),
        attempts: pending.progress.attempts,
        status: None,
        // A callback without an attempt has no outcome. Its count of attempts says that this one means nothing.
        outcome: pending.last_outcome.unwrap_or(Outcome::Interrupted),
        round: 0,
        first_at: pending.progress.since.unwrap_or(now),
        settled_at: now,
        revision: 1,
        sent_with: None,
    }
}

/// Row 16. The round has tries and a horizon of its own, which begins with its first attempt. A void pending row goes.
fn open_round(rows: &Rows, resend: &Resend, now: Timestamp) -> (Rows, Amended) {
    let settled = match (&rows.settled, rows.live()) {
        (Some(_), Some(open)) => return (rows.clone(), Amended::Open(open.round)),
        (None, Some(_)) => return (rows.clone(), Amended::Pending),
        (None, None) => return (rows.clone(), Amended::Unknown),
        (Some(settled), None) => settled,
    };
    if resend.ended_before.is_some_and(|before| settled.settled_at >= before) {
        return (rows.clone(), Amended::EndedLater);
    }
    let round = settled.round.saturating_add(1);
    let pending = Pending {
        facts: Arc::new(Facts { queue: resend.queue.clone(), ..(*settled.facts).clone() }),
        url: resend.url.clone(),
        progress: Progress { since: None, horizon: None, tries: 0, attempts: settled.attempts },
        due: now,
        token: None,
        lease_until: None,
        starts: 0,
        last_outcome: (settled.attempts > 0).then_some(settled.outcome),
        round,
        new_id: resend.new_id,
    };
    let settled = Settled { round, ..settled.clone() };
    (Rows { settled: Some(settled), pending: Some(pending) }, Amended::Changed)
}
