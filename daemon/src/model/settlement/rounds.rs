//! What rounds add: a callback that had ended is sent again, and its settled row stays. While a round is open, its pending row
//! counts the attempts.

use super::{Ended, Pending, Rows, Settle, Settled, Step, Verdict, numbered};
use crate::model::retry::Next;

/// Rows 18, 19 and 20: a round is over. A success makes the callback delivered for good; a failure changes only the count.
pub(super) fn end(settled: &Settled, pending: &Pending, settle: &Settle) -> Step {
    let attempts = pending.progress.attempts.saturating_add(1);
    let success = settle.next == Next::Delivered;
    let after = match success {
        true => delivered(settled, attempts, settle),
        false => Settled { attempts, ..settled.clone() },
    };
    let is_first_delivery = success && settled.ended != Ended::Delivered;
    let rows = Rows { settled: Some(after), pending: None };
    if is_first_delivery {
        // As every first delivery, it stands in the settled row.
        return Step { rows, attempt: None, verdict: Verdict::DeliveredInRound };
    }
    Step { rows, attempt: numbered(settle, attempts, pending.round), verdict: Verdict::RoundEnded }
}

/// Rows 26, 27 and 28: an attempt of which nobody waits for the end, beside a settled row.
pub(super) fn late(rows: &Rows, settled: &Settled, settle: &Settle) -> Step {
    let open = rows.live();
    let n = open.map_or(settled.attempts, |pending| pending.progress.attempts).saturating_add(1);
    let round = open.map_or(settled.round, |pending| pending.round);
    let is_open = open.is_some();
    let mut pending = rows.pending.clone();
    if let Some(pending) = pending.as_mut().filter(|_| is_open) {
        pending.progress.attempts = n;
    }
    if settle.next == Next::Delivered && settled.ended != Ended::Delivered {
        let rows = Rows { settled: Some(delivered(settled, n, settle)), pending };
        return Step { rows, attempt: None, verdict: Verdict::Ended(Ended::Delivered) };
    }
    let counted = if is_open { settled.clone() } else { Settled { attempts: n, ..settled.clone() } };
    let rows = Rows { settled: Some(counted), pending };
    Step { rows, attempt: numbered(settle, n, round), verdict: Verdict::Late }
}

/// The settled row after a success. Only the first one decides; each raises the revision.
fn delivered(settled: &Settled, attempts: u32, settle: &Settle) -> Settled {
    let revision = settled.revision.saturating_add(1);
    if settled.ended == Ended::Delivered {
        return Settled { attempts, revision, ..settled.clone() };
    }
    Settled {
        ended: Ended::Delivered,
        attempts,
        status: settle.attempt.status,
        outcome: settle.attempt.outcome,
        settled_at: settle.attempt.ended_at(),
        revision,
        sent_with: settle.attempt.sent_with,
        ..settled.clone()
    }
}
