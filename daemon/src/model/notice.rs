//! What is told to others when a callback ends, or an event becomes a dead letter. A notice names what happened; what is known of it
//! is read when the notice is published.

use super::callback::CallbackId;
use super::settlement::Rows;

/// What is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notices {
    /// How callbacks ended.
    pub outcomes: bool,
    pub dead_letters: bool,
}

/// One notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// This callback ended, or ended otherwise than before, in this revision of its row.
    Ended(CallbackId, u32),
    /// The dead letter of this id was buried.
    Buried(CallbackId),
}

impl Notices {
    /// What a change of a callback's rows has to tell.
    pub fn of(self, id: CallbackId, before: &Rows, after: &Rows) -> Option<Notice> {
        let revision = |rows: &Rows| rows.settled.as_ref().map_or(0, |settled| settled.revision);
        (self.outcomes && revision(after) > revision(before)).then(|| Notice::Ended(id, revision(after)))
    }

    /// What a new dead letter has to tell.
    pub fn of_letter(self, id: CallbackId) -> Option<Notice> {
        self.dead_letters.then_some(Notice::Buried(id))
    }
}
