//! Which callbacks: what lists, exports and jobs ask for.

use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::retry::Reason;
use crate::model::state::State;
use crate::model::team::Mode;

/// A queue by its name, of one team or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueMatch {
    pub team: Option<String>,
    pub target: String,
}

/// A time from its first moment to before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Which callbacks; every given field must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallbackFilter {
    pub team: Option<String>,
    /// One of these teams.
    pub teams: Option<Vec<String>>,
    pub task: Option<String>,
    /// One of these queues.
    pub queues: Option<Vec<QueueMatch>>,
    pub state: Option<State>,
    /// Only those that have ended, and were not delivered.
    pub undelivered: bool,
    pub reason: Option<Reason>,
    /// Of the last attempt.
    pub outcome: Option<Outcome>,
    /// The HTTP status of the last attempt.
    pub status: Option<u16>,
    /// An attempt failed in this time.
    pub failed: Option<Span>,
    pub mode: Option<Mode>,
    /// The event's time, at or after this, and before that.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}
