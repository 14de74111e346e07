//! The states of a callback, and how it can end.

use super::retry::Reason;
use crate::base::named::named;

named! {
    /// The state of a callback, as people name it.
    pub enum State {
        Pending = "pending",
        Delivered = "delivered",
        Exhausted = "exhausted",
        Abandoned = "abandoned",
    }
}

/// How a callback ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    Delivered,
    Exhausted,
    Abandoned(Reason),
}

impl Ended {
    pub fn state(self) -> State {
        match self {
            Self::Delivered => State::Delivered,
            Self::Exhausted => State::Exhausted,
            Self::Abandoned(_) => State::Abandoned,
        }
    }

    pub fn name(self) -> &'static str {
        self.state().name()
    }

    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Abandoned(reason) => Some(reason),
            _ => None,
        }
    }

    /// Reads a row's two columns.
    pub fn parse(name: &str, reason: Option<&str>) -> Option<Self> {
        match (State::parse(name)?, reason) {
            (State::Delivered, None) => Some(Self::Delivered),
            (State::Exhausted, None) => Some(Self::Exhausted),
            (State::Abandoned, Some(reason)) => Reason::parse(reason).map(Self::Abandoned),
            _ => None,
        }
    }
}
