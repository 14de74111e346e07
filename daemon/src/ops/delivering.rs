//! Which attempts of a callback were made, and in which rounds. The store keeps no row of the attempt that delivered a callback,
//! because nearly every callback has only this one. What is known of it is told by the callback's own row, and by the attempts before
//! and behind it.

use std::collections::HashSet;

use crate::base::clock::Timestamp;
use crate::model::attempt::{Outcome, SentWithId};
use crate::model::settlement::{Ended, NumberedAttempt, Rows, Settled};

/// The rounds in which an attempt can have been made, from the first to the last one. It is one round, unless this can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rounds {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Rounds {
    pub(super) fn one(round: u32) -> Self {
        Self { first: round, last: round }
    }
}

/// An attempt of which the request is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) with: Option<SentWithId>,
    pub(super) number: u32,
    pub(super) rounds: Rounds,
    pub(super) begun_at: Option<Timestamp>,
}

impl Sent {
    pub(super) fn of(row: &NumberedAttempt) -> Self {
        let begun_at = Some(row.attempt.begun_at);
        Self { with: row.attempt.sent_with, number: row.n, rounds: Rounds::one(row.round), begun_at }
    }

    /// The attempt that delivered the callback, if it was delivered. When it began is known if it was the only one.
    pub(super) fn delivery(rows: &Rows, attempts: &[NumberedAttempt]) -> Option<Self> {
        let settled = rows.settled.as_ref().filter(|settled| settled.ended == Ended::Delivered)?;
        let numbers: HashSet<_> = attempts.iter().map(|row| row.n).collect();
        let number = (1..=settled.attempts).rev().find(|number| !numbers.contains(number))?;
        let open = rows.live().map(|pending| pending.round);
        let rounds = rounds_of_delivery(settled, open, attempts, number);
        let begun_at = (settled.attempts == 1).then_some(settled.first_at);
        Some(Self { with: settled.sent_with, number, rounds, begun_at })
    }
}

/// The rounds in which the attempt of this number can have delivered the callback: not before the attempt before it. It ended its
/// round, so it came before the attempt behind it, and before a round that is `open`.
fn rounds_of_delivery(settled: &Settled, open: Option<u32>, attempts: &[NumberedAttempt], number: u32) -> Rounds {
    let behind: Vec<_> = attempts.iter().filter(|row| row.n > number).collect();
    // The first end of a callback has the revision 1, and each success behind it raises the revision by one. If later successes
    // explain the revision, the delivery was the first end, and before any round.
    let successes = behind.iter().filter(|row| row.attempt.outcome == Outcome::Ok).count();
    if settled.round == 0 || settled.revision as usize <= successes.saturating_add(1) {
        return Rounds::one(0);
    }
    let before = attempts.iter().filter(|row| row.n < number).map(|row| row.round).max();
    let next = behind.iter().map(|row| row.round).min().or(open);
    let first = before.unwrap_or(0).max(1);
    let last = next.map_or(settled.round, |round| round.saturating_sub(1));
    Rounds { first, last: last.max(first) }
}

/// The attempt that delivered a callback, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivering {
    pub number: u32,
    /// If rounds had no attempts, the last one in which it can have been.
    pub round: u32,
    pub outcome: Outcome,
    pub status: Option<u16>,
    /// Known if it was the only attempt.
    pub begun_at: Option<Timestamp>,
    pub ended_at: Timestamp,
}

impl Delivering {
    pub(super) fn new(settled: &Settled, sent: Sent) -> Self {
        Self {
            number: sent.number,
            round: sent.rounds.last,
            outcome: settled.outcome,
            status: settled.status,
            begun_at: sent.begun_at,
            ended_at: settled.settled_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::model::amendment::{Amended, Amendment, Resend, amend};
    use crate::model::attempt::Attempt;
    use crate::model::callback::CallbackId;
    use crate::model::endpoint::{QueueKey, QueueTarget};
    use crate::model::event::{PartitionKey, RecordRef};
    use crate::model::lease::{Facts, Token};
    use crate::model::retry::{Next, Reason};
    use crate::model::settlement::{Change, Claim, Settle, apply, apply_claim};
    use crate::model::team::Mode;

    fn queue() -> QueueKey {
        QueueKey { team: "team".into(), target: QueueTarget::Default(Mode::Live) }
    }

    fn attempt(letter: char, begun_at: Timestamp) -> (Attempt, Next) {
        let (outcome, status, next) = match letter {
            'r' => (Outcome::ServerError, 503, Next::Retry { due: begun_at, since: begun_at, horizon: begun_at }),
            'x' => (Outcome::ServerError, 503, Next::Exhausted),
            'd' => (Outcome::Ok, 204, Next::Delivered),
            other => panic!("{other}"),
        };
        let attempt = Attempt {
            outcome,
            sent: true,
            status: Some(status),
            begun_at,
            took: Duration::from_millis(7),
            peer: None,
            redialed: false,
            sent_with: None,
            snippet: Bytes::new(),
        };
        (attempt, next)
    }

    /// The life of a callback, letter by letter: an attempt that a retry follows (r), that is the last one (x) or that succeeds (d); the
    /// callback is sent again (+), or its round is cancelled (c).
    fn life(letters: &str) -> (Rows, Vec<NumberedAttempt>) {
        let facts = Arc::new(Facts {
            id: CallbackId::from_bytes([1; 16]),
            record: RecordRef {
                partition: Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 }),
                offset: 0,
                timestamp: 1,
            },
            team: "team".into(),
            task_id: "task".into(),
            event_id: None,
            event_type: "task.completed".into(),
            queue: queue(),
            mode: Mode::Live,
            content_hash: [1; 32],
            builder: 1,
        });
        let (mut rows, mut attempts, mut now) = (Rows::default(), Vec::new(), Timestamp::from_millis(0));
        for letter in letters.chars() {
            now = now.plus(Duration::from_secs(1));
            let again = Resend { ended_before: None, new_id: false, url: None, queue: queue(), body: Bytes::new() };
            let amendment = match letter {
                '+' => Some(Amendment::Resend(Box::new(again))),
                'c' => Some(Amendment::Cancel(Reason::Cancelled)),
                _ => None,
            };
            if let Some(amendment) = amendment {
                let (after, answer) = amend(&rows, &amendment, now);
                assert_eq!(answer, Amended::Changed, "{letters}: {letter}");
                rows = after;
                continue;
            }
            let is_first = rows == Rows::default();
            let token = Token(now.millis().unsigned_abs());
            if !is_first {
                rows = apply_claim(&rows, &Claim { token, until: now });
            }
            let (attempt, next) = attempt(letter, now);
            let settle = Settle {
                facts: Arc::clone(&facts),
                token,
                epoch: is_first.then_some(1),
                url: None,
                body: Bytes::new(),
                number: 1,
                attempt,
                next,
            };
            let step = apply(&rows, &Change::Settle(Box::new(settle)), true);
            rows = step.rows;
            attempts.extend(step.attempt);
        }
        (rows, attempts)
    }

    #[test]
    fn the_delivering_attempt_has_its_number_and_its_round() {
        for (letters, number, round) in [
            ("d", 1, 0),
            ("rrd", 3, 0),
            ("rrx+d", 4, 1),
            ("x+x+d", 3, 2),
            ("x+rx+rrd", 6, 2),
            // It was sent again after it had been delivered.
            ("d+d", 1, 0),
            ("d+", 1, 0),
            ("rd+x+d", 2, 0),
            ("d+c", 1, 0),
            ("rx+d+x", 3, 1),
            ("x+d+d+d", 2, 1),
            ("x+d+", 2, 1),
            ("x+x+d+r", 3, 2),
        ] {
            let (rows, attempts) = life(letters);
            let sent = Sent::delivery(&rows, &attempts).expect("it was delivered");
            let told = Delivering::new(rows.settled.as_ref().expect("it has ended"), sent);
            assert_eq!((told.number, told.round), (number, round), "{letters}");
            assert_eq!((told.outcome, told.status), (Outcome::Ok, Some(204)), "{letters}");
        }
        for letters in ["r", "x", "x+", "x+rx", "x+c"] {
            let (rows, attempts) = life(letters);
            assert_eq!(Sent::delivery(&rows, &attempts), None, "{letters}");
        }
    }

    #[test]
    fn a_round_without_an_attempt_leaves_open_which_round_it_was() {
        let rounds = |letters: &str| {
            let (rows, attempts) = life(letters);
            Sent::delivery(&rows, &attempts).expect("it was delivered").rounds
        };
        assert_eq!(rounds("x+d"), Rounds::one(1));
        assert_eq!(rounds("x+c+d"), Rounds { first: 1, last: 2 });
        assert_eq!(rounds("x+d+c"), Rounds { first: 1, last: 2 });
        assert_eq!(rounds("x+c+d+x"), Rounds { first: 1, last: 2 });
        assert_eq!(rounds("x+x+x+d"), Rounds { first: 2, last: 3 });
    }

    #[test]
    fn the_begin_is_known_of_the_only_attempt() {
        let begun = |letters: &str| {
            let (rows, attempts) = life(letters);
            Sent::delivery(&rows, &attempts).expect("it was delivered").begun_at
        };
        assert_eq!(begun("d"), Some(Timestamp::from_millis(1_000)));
        assert_eq!(begun("rd"), None);
        assert_eq!(begun("d+d"), None);
    }
}
