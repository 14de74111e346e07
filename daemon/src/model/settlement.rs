//! What one change does to the rows of one callback. Only [`apply`] decides this: every store is tested against it,
//! pair by pair, and the in-memory store uses it.
//!
//! The numbers in comments are those of the table in ARCHITECTURE.md ("Row-level transitions").

mod rejected;
mod rounds;

use std::sync::Arc;

use bytes::Bytes;

use super::attempt::{Attempt, Outcome, SentWithId};
use super::dead_letter::DeadLetter;
use super::endpoint::CallbackUrl;
use super::lease::{Facts, Token};
use super::retry::{Next, Progress};
pub use super::state::Ended;
use crate::base::clock::Timestamp;

/// A row of `settled`: a callback that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub facts: Arc<Facts>,
    pub ended: Ended,
    pub attempts: u32,
    pub status: Option<u16>,
    pub outcome: Outcome,
    pub round: u32,
    pub first_at: Timestamp,
    pub settled_at: Timestamp,
    pub revision: u32,
    /// As in the attempt that decided.
    pub sent_with: Option<SentWithId>,
}

/// A row of `pending`: a callback that did not end with its first attempt, or had no room for a first attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub facts: Arc<Facts>,
    pub url: Option<CallbackUrl>,
    pub progress: Progress,
    pub due: Timestamp,
    pub token: Option<Token>,
    pub lease_until: Option<Timestamp>,
    /// Attempts begun since the last settle.
    pub starts: u32,
    pub last_outcome: Option<Outcome>,
    pub round: u32,
    /// In this round the callback has an id of its own.
    pub new_id: bool,
}

/// Both rows of one callback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    pub settled: Option<Settled>,
    pub pending: Option<Pending>,
}

impl Rows {
    /// The pending row, unless it is void: if there is a settled row too, no attempt starts from a pending row of round
    /// 0.
    pub fn live(&self) -> Option<&Pending> {
        self.pending.as_ref().filter(|pending| pending.round > 0 || self.settled.is_none())
    }
}

/// An attempt ended.
#[derive(Debug, Clone)]
pub struct Settle {
    pub facts: Arc<Facts>,
    pub token: Token,
    /// The epoch under which a first try was read; `None` for a claimed row.
    pub epoch: Option<i64>,
    pub url: Option<CallbackUrl>,
    pub body: Bytes,
    /// The number that was sent to the receiver: the count of earlier attempts, plus 1.
    pub number: u32,
    pub attempt: Attempt,
    pub next: Next,
}

/// Stores a callback with its body, due at `due`. If its first attempt is under way, the row gets its token.
#[derive(Debug, Clone)]
pub struct Park {
    pub facts: Arc<Facts>,
    pub epoch: i64,
    pub url: Option<CallbackUrl>,
    pub body: Bytes,
    pub due: Timestamp,
    /// The token of its lease.
    pub token: Token,
    /// When the lease ends, if its first attempt is under way. `None` if there was no room for an attempt.
    pub lease_until: Option<Timestamp>,
}

/// One change that must become durable.
#[derive(Debug, Clone)]
pub enum Change {
    Settle(Box<Settle>),
    Park(Box<Park>),
    /// Give a claimed row back without an attempt.
    Release {
        facts: Arc<Facts>,
        token: Token,
    },
    Bury(Box<DeadLetter>, i64),
}

/// A row taken for an attempt (the store's own change, never in a batch).
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub token: Token,
    pub until: Timestamp,
}

/// An attempt row: the attempt and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedAttempt {
    pub n: u32,
    pub round: u32,
    pub attempt: Attempt,
}

/// The result of a change, for metrics, logs and the table of what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ended now (rows 1, 2, 7, 12, 14, 24 to 26).
    Ended(Ended),
    /// Tried again at that time (rows 3, 8, 11, 13).
    Due(Timestamp),
    Parked,
    Released,
    Buried,
    /// As `Buried`, but the store's budget had no room for the value.
    BuriedWithoutValue,
    /// Delivered for the first time, in a round, long after its event (row 18).
    DeliveredInRound,
    /// A round of a callback that had ended before is over, and its state stays as it was (rows 19, 20).
    RoundEnded,
    /// Another settle had already decided (rows 27, 28).
    Late,
    /// Nothing was written (row 29, a park whose id has a row already, or another token).
    Nothing,
}

/// The rows after a change, and the attempt row to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub rows: Rows,
    pub attempt: Option<NumberedAttempt>,
    pub verdict: Verdict,
}

impl Step {
    fn nothing(rows: &Rows) -> Self {
        Self { rows: rows.clone(), attempt: None, verdict: Verdict::Nothing }
    }
}

/// What `change` does to `rows`. `ours` tells whether the epoch that a first try or a park names is still ours.
pub fn apply(rows: &Rows, change: &Change, ours: bool) -> Step {
    match change {
        Change::Settle(settle) => apply_settle(rows, settle, ours),
        Change::Park(park) => apply_park(rows, park, ours),
        Change::Release { token, .. } => apply_release(rows, *token),
        Change::Bury(..) if ours => Step { verdict: Verdict::Buried, ..Step::nothing(rows) },
        Change::Bury(..) => Step::nothing(rows),
    }
}

/// Row 9. A void row is removed.
pub fn apply_claim(rows: &Rows, claim: &Claim) -> Rows {
    let mut after = rows.clone();
    after.pending = rows.live().cloned().map(|pending| Pending {
        token: Some(claim.token),
        lease_until: Some(claim.until),
        starts: pending.starts.saturating_add(1),
        ..pending
    });
    after
}

/// Rows 4, 5 and 23.
fn apply_park(rows: &Rows, park: &Park, ours: bool) -> Step {
    if !ours || rows.settled.is_some() || rows.pending.is_some() {
        return Step::nothing(rows);
    }
    let pending = Pending {
        facts: Arc::clone(&park.facts),
        url: park.url.clone(),
        progress: Progress::default(),
        due: park.due,
        token: park.lease_until.map(|_| park.token),
        lease_until: park.lease_until,
        starts: u32::from(park.lease_until.is_some()),
        last_outcome: None,
        round: 0,
        new_id: false,
    };
    Step { rows: Rows { settled: None, pending: Some(pending) }, attempt: None, verdict: Verdict::Parked }
}

/// Row 10.
fn apply_release(rows: &Rows, token: Token) -> Step {
    match rows.live().filter(|pending| pending.token == Some(token)) {
        None => Step::nothing(rows),
        Some(pending) => {
            let released =
                Pending { token: None, lease_until: None, starts: pending.starts.saturating_sub(1), ..pending.clone() };
            let rows = Rows { settled: rows.settled.clone(), pending: Some(released) };
            Step { rows, attempt: None, verdict: Verdict::Released }
        }
    }
}

fn apply_settle(rows: &Rows, settle: &Settle, ours: bool) -> Step {
    if let Some(pending) = rows.live().filter(|pending| pending.token == Some(settle.token)) {
        return by_token(rows, pending, settle);
    }
    // Row 11 with another token, or without a row: the holder of the row, or Kafka's record, brings the callback on.
    if matches!(settle.next, Next::Interrupted { .. }) {
        return Step::nothing(rows);
    }
    let untouched = rows.settled.is_none() && rows.pending.is_none();
    if untouched && ours && settle.epoch.is_some() {
        return first_try(settle);
    }
    late(rows, settle)
}

/// Rows 1, 2 and 3: there is no row yet.
fn first_try(settle: &Settle) -> Step {
    match settle.next {
        Next::Retry { due, since, horizon } => {
            let pending = Pending {
                facts: Arc::clone(&settle.facts),
                url: settle.url.clone(),
                progress: Progress { since: Some(since), horizon: Some(horizon), tries: 1, attempts: 1 },
                due,
                token: None,
                lease_until: None,
                starts: 0,
                last_outcome: Some(settle.attempt.outcome),
                round: 0,
                new_id: false,
            };
            Step {
                rows: Rows { settled: None, pending: Some(pending) },
                attempt: numbered(settle, 1, 0),
                verdict: Verdict::Due(due),
            }
        }
        _ => ends(settle, Progress::default()),
    }
}

/// Rows 7, 8, 11 to 14 and 18 to 20: the holder of the row's lease settles.
fn by_token(rows: &Rows, pending: &Pending, settle: &Settle) -> Step {
    let attempts = pending.progress.attempts.saturating_add(1);
    let (due, since, horizon, charged) = match settle.next {
        Next::Retry { due, since, horizon } => (due, since, horizon, 1),
        Next::Interrupted { due, since, horizon } => (due, since, horizon, 0),
        _ => match &rows.settled {
            Some(settled) => return rounds::end(settled, pending, settle),
            None => return ends(settle, pending.progress),
        },
    };
    let after = Pending {
        progress: Progress {
            since: pending.progress.since.or(Some(since)),
            horizon: pending.progress.horizon.or(Some(horizon)),
            tries: pending.progress.tries.saturating_add(charged),
            attempts,
        },
        due,
        token: None,
        lease_until: None,
        starts: 0,
        last_outcome: Some(settle.attempt.outcome),
        ..pending.clone()
    };
    Step {
        rows: Rows { settled: rows.settled.clone(), pending: Some(after) },
        attempt: numbered(settle, attempts, pending.round),
        verdict: Verdict::Due(due),
    }
}

/// The callback ends: it gets one settled row. A delivery needs no attempt row in addition.
fn ends(settle: &Settle, before: Progress) -> Step {
    let ended = match settle.next {
        Next::Abandoned(reason) => Ended::Abandoned(reason),
        Next::Exhausted => Ended::Exhausted,
        _ => Ended::Delivered,
    };
    let attempts = before.attempts.saturating_add(1);
    let settled = Settled {
        facts: Arc::clone(&settle.facts),
        ended,
        attempts,
        status: settle.attempt.status,
        outcome: settle.attempt.outcome,
        round: 0,
        first_at: before.since.unwrap_or(settle.attempt.begun_at),
        settled_at: settle.attempt.ended_at(),
        revision: 1,
        sent_with: settle.attempt.sent_with,
    };
    let attempt = if ended == Ended::Delivered { None } else { numbered(settle, attempts, 0) };
    Step { rows: Rows { settled: Some(settled), pending: None }, attempt, verdict: Verdict::Ended(ended) }
}

/// Rows 24 to 29: another settle has decided, or the rows are gone. A success makes the callback delivered for good. A
/// failure changes only the count.
fn late(rows: &Rows, settle: &Settle) -> Step {
    let success = settle.next == Next::Delivered;
    if let Some(settled) = &rows.settled {
        return rounds::late(rows, settled, settle);
    }
    let mut after = rows.clone();
    match after.pending.as_mut() {
        Some(pending) if success => ends(settle, pending.progress),
        Some(pending) => {
            pending.progress.attempts = pending.progress.attempts.saturating_add(1);
            let (n, round) = (pending.progress.attempts, pending.round);
            Step { rows: after, attempt: numbered(settle, n, round), verdict: Verdict::Late }
        }
        None if success => ends(settle, Progress::default()),
        None => Step::nothing(rows),
    }
}

fn numbered(settle: &Settle, n: u32, round: u32) -> Option<NumberedAttempt> {
    Some(NumberedAttempt { n, round, attempt: settle.attempt.clone() })
}

impl Change {
    /// The record that this change brings, and the epoch under which it was read.
    pub fn record(&self) -> Option<(&super::event::RecordRef, i64)> {
        match self {
            // An attempt that was cut off and has no row leaves nothing in the store: its record is read again.
            Self::Settle(settle) if matches!(settle.next, Next::Interrupted { .. }) => None,
            Self::Settle(settle) => settle.epoch.map(|epoch| (&settle.facts.record, epoch)),
            Self::Park(park) => Some((&park.facts.record, park.epoch)),
            Self::Release { .. } => None,
            Self::Bury(letter, epoch) => Some((&letter.record, *epoch)),
        }
    }

    /// The callback it is about; `None` for a dead letter.
    pub fn facts(&self) -> Option<&Arc<Facts>> {
        match self {
            Self::Settle(settle) => Some(&settle.facts),
            Self::Park(park) => Some(&park.facts),
            Self::Release { facts, .. } => Some(facts),
            Self::Bury(..) => None,
        }
    }
}
