//! What came out of a run: what was counted, and what is wrong.

use std::collections::BTreeMap;

use super::causes::Cause;
use super::event::Fate;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    Lost,
    State,
    NotExpected,
    SecondCallback,
    OtherBytes,
    NotVerified,
    Repeat,
    TooManyRepeats,
    Attempts,
    NotTold,
    Told,
    Takeover,
    NeverSettles,
    Trouble,
    NotValid,
}

impl Wrong {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::State => "wrong state",
            Self::NotExpected => "not expected",
            Self::SecondCallback => "second callback",
            Self::OtherBytes => "other bytes",
            Self::NotVerified => "not verified",
            Self::Repeat => "repeat without a cause",
            Self::TooManyRepeats => "more repeats than were unsettled",
            Self::Attempts => "wrong count of attempts",
            Self::NotTold => "not published",
            Self::Told => "wrong message",
            Self::Takeover => "taken over too late",
            Self::NeverSettles => "never settles",
            Self::Trouble => "trouble",
            Self::NotValid => "the run is not valid",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) wrong: Wrong,
    pub(crate) id: String,
    pub(crate) why: String,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Of each fate: how many events should have it, and how many have it in the store.
    pub(crate) fates: BTreeMap<Fate, (u64, u64)>,
    /// Records of the topic that was created again: how many there are, and how many are delivered in the store.
    pub(crate) recreated: (u64, u64),
    pub(crate) messages: Messages,
    /// Callbacks that should be delivered and whose 2xx was written.
    pub(crate) accepted: u64,
    pub(crate) retries: u64,
    pub(crate) repeats: BTreeMap<Cause, u64>,
    /// Repeats of requests that had been answered with 2xx, whatever their cause.
    pub(crate) repeats_of_accepted: u64,
    /// Each repeat that a fault explains, in a sentence.
    pub(crate) explained: Vec<String>,
    pub(crate) violations: Vec<Violation>,
}

/// How many messages were published, and how many of them are repeats.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) outcomes: usize,
    pub(crate) repeated_outcomes: usize,
    pub(crate) letters: usize,
    pub(crate) repeated_letters: usize,
}

impl Findings {
    pub(crate) fn is_wrong(&mut self, wrong: Wrong, id: impl ToString, why: impl Into<String>) {
        self.violations.push(Violation { wrong, id: id.to_string(), why: why.into() });
    }

    pub(crate) fn count(&self, wrong: Wrong) -> usize {
        self.violations.iter().filter(|violation| violation.wrong == wrong).count()
    }
}
