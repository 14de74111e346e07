//! Jobs that send many callbacks again.

use super::filter::CallbackFilter;
use crate::base::clock::Timestamp;
use crate::base::named::named;
use crate::model::callback::CallbackId;

named! {
    /// The state of a job.
    pub enum ResendState {
        Running = "running",
        /// It opens no more rounds until it is resumed.
        Paused = "paused",
        /// It has looked at every callback that matches.
        Done = "done",
        Cancelled = "cancelled",
    }
}

impl ResendState {
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// How callbacks are sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResendForm {
    /// To the team's default URL, and not to the task's own.
    pub to_default: bool,
    /// Also if that is an origin where the callback never went.
    pub allow_new_origin: bool,
    /// Under an id of its own, so that a receiver that knows the callback's id takes it as new.
    pub new_id: bool,
}

/// What became of the callbacks that a job has looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResendCounts {
    /// Rounds that it opened.
    pub opened: u64,
    /// Left alone: they were being sent again already, or ended after the job began.
    pub busy: u64,
    /// Their bodies are not kept, and Kafka does not have their records any more.
    pub no_body: u64,
    /// They would have gone to a new origin without consent, or have no URL to go to.
    pub refused: u64,
}

impl ResendCounts {
    pub fn looked_at(&self) -> u64 {
        self.opened + self.busy + self.no_body + self.refused
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResendRow {
    /// In the order of time.
    pub id: String,
    /// Only what ended before is sent again.
    pub created_at: Timestamp,
    pub created_by: String,
    pub filter: CallbackFilter,
    /// What the queues of the filter were asked for with.
    pub endpoint: Option<String>,
    pub form: ResendForm,
    /// At most so many rounds a second; `None` for as many as there is room for.
    pub rate: Option<u32>,
    pub state: ResendState,
    /// How many callbacks matched when it began.
    pub matched: u64,
    /// The last callback that it looked at.
    pub cursor: Option<CallbackId>,
    pub counts: ResendCounts,
    pub changed_at: Timestamp,
}

impl ResendRow {
    /// The job after a step that did so much, up to this callback.
    pub fn follow(&mut self, (to, is_last): (Option<CallbackId>, bool), did: ResendCounts, now: Timestamp) {
        self.cursor = to;
        self.counts.opened += did.opened;
        self.counts.busy += did.busy;
        self.counts.no_body += did.no_body;
        self.counts.refused += did.refused;
        self.changed_at = now;
        if is_last {
            self.state = ResendState::Done;
        }
    }
}
