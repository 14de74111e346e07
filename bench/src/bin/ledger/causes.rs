//! Why a request came again: two requests of one callback, one after the other, and what was done meanwhile. Pure.

use std::time::{Duration, Instant};

use super::daemon::DEADLINE;
use super::incidents::Incident;
use super::plan::Kind;
use super::receipts::{End, Receipt};

/// A callback whose answer was written this shortly before a kill may come again, because its settle was not durable yet.
pub(crate) const WINDOW: Duration = Duration::from_millis(250);
/// On a busy machine a commit takes longer than that, but not longer than this.
const SLOWEST_COMMIT: Duration = Duration::from_secs(1);
/// While COMMITs are cut, a settle is written again and again. This takes longer still, but not longer than this.
const SLOWEST_CUT_COMMIT: Duration = Duration::from_secs(5);
/// How long a daemon needs to go on after its store, or itself, stood still.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(2);
/// How long the locks of a daemon that stands still can hold others: PostgreSQL ends its transaction after 5 s, and those that wait
/// try again after 2 s at most. If one that waited is stopped as well, its own transaction begins to hold them then.
const BLOCKED: Duration = Duration::from_secs(8);
/// No lease ends earlier than this after the begin of its attempt: an attempt begins only if its deadline and 5 s fit into the lease.
const SHORTEST_LEASE: Duration = DEADLINE.saturating_add(Duration::from_millis(4_500));
/// The clocks of a deadline are read at both ends of a connection.
const SLACK: Duration = Duration::from_millis(200);

/// A cause that explains a repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The daemon was killed before the answer was written.
    KilledOpen,
    /// The daemon was killed at most [`WINDOW`] after the answer was written.
    KilledAnswered,
    /// The same, but up to [`SLOWEST_COMMIT`] before. It counts only if the daemon told how much was unsettled, because this number
    /// bounds what its kill may repeat.
    KilledInCommit,
    /// The same, but up to [`SLOWEST_CUT_COMMIT`] before, and COMMITs were cut meanwhile.
    KilledInCuts,
    /// The daemon stood still (SIGSTOP) past its session and its lease.
    Paused,
    /// The store was away or stood still, and the daemon was killed or stopped before it could settle.
    EndedWhileStoreAway,
    /// The store was away or stood still so long that the daemon lost the lease or the partition.
    StoreAway,
    /// A daemon that stood still held locks in PostgreSQL, so that others could not settle before their leases ended.
    StoreBlocked,
    /// The answer came when the deadline had nearly passed, so the daemon counts it as a failure.
    LateAnswer,
}

impl Cause {
    pub(crate) const ALL: [Self; 9] = [
        Self::KilledOpen,
        Self::KilledAnswered,
        Self::KilledInCommit,
        Self::KilledInCuts,
        Self::Paused,
        Self::EndedWhileStoreAway,
        Self::StoreAway,
        Self::StoreBlocked,
        Self::LateAnswer,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::KilledOpen => "open at a kill",
            Self::KilledAnswered => "answered at most 250 ms before a kill",
            Self::KilledInCommit => "answered up to 1 s before a kill",
            Self::KilledInCuts => "answered up to 5 s before a kill, in cut COMMITs",
            Self::Paused => "under way at a SIGSTOP",
            Self::EndedWhileStoreAway => "unsettled at a kill or stop, with the store away",
            Self::StoreAway => "unsettled while the store was away",
            Self::StoreBlocked => "lease ended behind the locks of a stopped one",
            Self::LateAnswer => "answered at the deadline",
        }
    }

    /// Whether what was unsettled at the kill bounds how many there can be of it.
    pub(crate) const fn is_kill(self) -> bool {
        matches!(self, Self::KilledOpen | Self::KilledAnswered | Self::KilledInCommit | Self::KilledInCuts)
    }

    /// Whether it is the store that was away or stood still.
    pub(crate) const fn is_store(self) -> bool {
        matches!(self, Self::EndedWhileStoreAway | Self::StoreAway)
    }
}

/// What a later request is to an earlier one of the same callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Again {
    /// A retry of an attempt that failed, and that the daemon counted.
    Retry,
    /// A repeat, with its cause and the number of the incident that explains it, if one does.
    Repeat(Cause, Option<usize>),
    /// No fault explains it.
    Unexplained(String),
}

/// Judges two requests of one callback that came one after the other.
pub(crate) fn judge(earlier: &Receipt, later: &Receipt, incidents: &[Incident]) -> Again {
    let failed = matches!(earlier.end, End::Refused(_) | End::Cut(_));
    if failed && later.attempt > earlier.attempt {
        return Again::Retry;
    }
    let ended = match earlier.end {
        End::Open => None,
        End::Accepted(at) | End::Refused(at) | End::Cut(at) => Some(at),
    };
    // The earlier exchange, up to its end or up to the later request.
    let last = ended.unwrap_or(later.came).min(later.came);
    for (number, incident) in incidents.iter().enumerate().filter(|(_, incident)| incident.run == Some(earlier.run)) {
        // The receiver may read a request only after its sender was killed.
        if incident.kind.is_kill() && incident.from <= later.came {
            match ended.map(|at| incident.from.saturating_duration_since(at)) {
                None | Some(Duration::ZERO) => return Again::Repeat(Cause::KilledOpen, Some(number)),
                Some(time) if time <= WINDOW => return Again::Repeat(Cause::KilledAnswered, Some(number)),
                Some(time) if time <= SLOWEST_COMMIT && incident.before.is_some() => {
                    return Again::Repeat(Cause::KilledInCommit, Some(number));
                }
                Some(time) if time <= SLOWEST_CUT_COMMIT && incident.before.is_some() && is_cut(incidents, last) => {
                    return Again::Repeat(Cause::KilledInCuts, Some(number));
                }
                Some(_) => {}
            }
        }
        if incident.kind == Kind::Pause && overlaps(incident, earlier.came, last) {
            return Again::Repeat(Cause::Paused, Some(number));
        }
    }
    for (number, incident) in incidents.iter().enumerate() {
        if incident.kind.blocks_store() && overlaps(incident, earlier.came, last) {
            let has_ended = incidents.iter().any(|end| {
                let ends = end.kind.is_kill() || matches!(end.kind, Kind::Restart | Kind::ClockStepped | Kind::Join);
                ends && end.run == Some(earlier.run) && end.until >= last && end.from <= later.came
            });
            let cause = if has_ended { Cause::EndedWhileStoreAway } else { Cause::StoreAway };
            return Again::Repeat(cause, Some(number));
        }
    }
    // A repeat that comes earlier than a lease can end has another cause.
    if later.came.duration_since(earlier.came) >= SHORTEST_LEASE {
        for (number, incident) in incidents.iter().enumerate().filter(|(_, incident)| incident.kind == Kind::Pause) {
            if last + WINDOW >= incident.from && earlier.came <= incident.from + BLOCKED {
                return Again::Repeat(Cause::StoreBlocked, Some(number));
            }
        }
    }
    if later.attempt > earlier.attempt && last.duration_since(earlier.came) + SLACK >= DEADLINE {
        return Again::Repeat(Cause::LateAnswer, None);
    }
    Again::Unexplained(sentence(earlier, later, incidents))
}

/// Whether COMMITs were cut when an exchange that ended then could have been settled.
fn is_cut(incidents: &[Incident], ended: Instant) -> bool {
    incidents.iter().any(|incident| incident.kind == Kind::Cut && overlaps(incident, ended, ended))
}

/// Whether an exchange from `came` to `ended` was under way, or not settled yet, during an incident.
fn overlaps(incident: &Incident, came: Instant, ended: Instant) -> bool {
    came <= incident.until + AFTERMATH && ended + WINDOW >= incident.from
}

/// What happened, for people.
pub(crate) fn sentence(earlier: &Receipt, later: &Receipt, incidents: &[Incident]) -> String {
    let answer = match earlier.end {
        End::Open => "it had no answer".to_owned(),
        End::Accepted(_) => "it was answered with 2xx".to_owned(),
        End::Refused(_) => "it was answered with 500".to_owned(),
        End::Cut(_) => "its connection was cut".to_owned(),
    };
    let ended = match earlier.end {
        End::Open => String::new(),
        End::Accepted(at) | End::Refused(at) | End::Cut(at) => {
            format!(" {:?} after it came", at.duration_since(earlier.came))
        }
    };
    let killed = incidents.iter().find(|incident| incident.kind.is_kill() && incident.run == Some(earlier.run));
    let killed = killed.map_or("that was never killed".to_owned(), |kill| {
        match kill.from.checked_duration_since(earlier.came) {
            Some(after) => format!("that was killed {after:?} after the request came"),
            None => "that was killed before the request came".to_owned(),
        }
    });
    format!(
        "request {} of run {}, {killed}, at the receiver \"{}\": {answer}{ended}; {:?} after it, request {} of run {} came",
        earlier.attempt,
        earlier.run,
        earlier.receiver.name(),
        later.came.duration_since(earlier.came),
        later.attempt,
        later.run,
    )
}

#[cfg(test)]
mod tests {
    use super::super::event::Receiver;
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn receipt(run: u32, attempt: u32, came: Instant, end: End) -> Receipt {
        Receipt { id: "cb".into(), task: 1, attempt, run, receiver: Receiver::Prompt, body: 0, came, end }
    }

    fn incident(kind: Kind, run: u32, from: Instant, lasts: Duration) -> Incident {
        Incident { kind, from, until: from + lasts, run: Some(run), before: None, count: 0 }
    }

    #[test]
    fn a_repeat_is_attributed_to_the_fault_that_it_falls_under() {
        let now = Instant::now();
        let kill = [incident(Kind::Kill, 1, now + ms(1_000), ms(500))];
        let again = |end, incidents: &[Incident]| {
            judge(&receipt(1, 1, now, end), &receipt(2, 1, now + ms(5_000), End::Open), incidents)
        };
        assert_eq!(again(End::Open, &kill), Again::Repeat(Cause::KilledOpen, Some(0)));
        assert_eq!(again(End::Accepted(now + ms(1_200)), &kill), Again::Repeat(Cause::KilledOpen, Some(0)));
        assert_eq!(again(End::Accepted(now + ms(900)), &kill), Again::Repeat(Cause::KilledAnswered, Some(0)));
        assert!(matches!(again(End::Accepted(now + ms(700)), &kill), Again::Unexplained(_)));
        assert!(matches!(again(End::Accepted(now + ms(900)), &[]), Again::Unexplained(_)));
        // Another run was killed.
        let other = [incident(Kind::Kill, 3, now + ms(1_000), ms(500))];
        assert!(matches!(again(End::Accepted(now + ms(900)), &other), Again::Unexplained(_)));
        let pause = [incident(Kind::Pause, 1, now + ms(100), ms(4_000))];
        assert_eq!(again(End::Accepted(now + ms(1)), &pause), Again::Repeat(Cause::Paused, Some(0)));
        // Another one stood still: only a lease that ended explains it.
        let other = [incident(Kind::Pause, 3, now + ms(100), ms(4_000))];
        assert!(matches!(again(End::Accepted(now + ms(1)), &other), Again::Unexplained(_)));
        let much_later = receipt(2, 1, now + ms(9_500), End::Open);
        let earlier = receipt(1, 1, now, End::Accepted(now + ms(1)));
        assert_eq!(judge(&earlier, &much_later, &other), Again::Repeat(Cause::StoreBlocked, Some(0)));
        let away = [incident(Kind::StoreStop, 9, now + ms(100), ms(400))];
        assert_eq!(again(End::Accepted(now + ms(1)), &away), Again::Repeat(Cause::StoreAway, Some(0)));
        assert!(matches!(
            again(End::Accepted(now + ms(1)), &[incident(Kind::Cut, 9, now, ms(400))]),
            Again::Unexplained(_)
        ));
    }

    #[test]
    fn a_settle_that_was_cut_is_slow_only_while_commits_are_cut_and_bounded_by_what_was_unsettled() {
        let now = Instant::now();
        let before = Some(super::super::incidents::Before { asked: now + ms(3_900), unsettled: 1 });
        let kill = Incident { before, ..incident(Kind::Kill, 1, now + ms(4_000), ms(500)) };
        let cut = incident(Kind::Cut, 0, now, ms(4_500));
        let earlier = receipt(1, 1, now, End::Accepted(now + ms(1_000)));
        let later = receipt(2, 1, now + ms(9_000), End::Open);
        let again = |incidents: &[Incident]| judge(&earlier, &later, incidents);
        assert_eq!(again(&[kill.clone(), cut.clone()]), Again::Repeat(Cause::KilledInCuts, Some(0)));
        assert!(matches!(again(std::slice::from_ref(&kill)), Again::Unexplained(_)));
        assert!(matches!(again(&[Incident { before: None, ..kill }, cut]), Again::Unexplained(_)));
    }

    #[test]
    fn a_failed_attempt_that_was_counted_is_retried_and_no_repeat() {
        let now = Instant::now();
        for end in [End::Refused(now), End::Cut(now)] {
            let earlier = receipt(1, 1, now, end);
            assert_eq!(judge(&earlier, &receipt(1, 2, now + ms(300), End::Open), &[]), Again::Retry);
            assert!(matches!(judge(&earlier, &receipt(1, 1, now + ms(300), End::Open), &[]), Again::Unexplained(_)));
        }
    }
}
