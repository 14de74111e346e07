//! What was done, and when: every fault with its begin and its end. The attribution of repeats reads it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::plan::Kind;

/// A fault that came.
#[derive(Debug, Clone)]
pub(crate) struct Incident {
    pub(crate) kind: Kind,
    pub(crate) from: Instant,
    /// When the fault was over. A killed daemon answers again by then, and a server runs again.
    pub(crate) until: Instant,
    /// The run of the daemon that it befell.
    pub(crate) run: Option<u32>,
    /// What the daemon said of itself just before it was killed, if it answered. If the store stood still: what all daemons said
    /// just before it went on.
    pub(crate) before: Option<Before>,
    /// How many COMMITs were cut, or sessions terminated.
    pub(crate) count: u64,
}

impl Incident {
    /// An incident that is over now.
    pub(crate) fn until_now(kind: Kind, from: Instant, run: Option<u32>) -> Self {
        Self { kind, from, until: Instant::now(), run, before: None, count: 0 }
    }
}

/// What a daemon said of itself before it was killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    /// When it was asked.
    pub(crate) asked: Instant,
    pub(crate) unsettled: usize,
}

#[derive(Default)]
pub(crate) struct Incidents {
    all: Mutex<Vec<Incident>>,
    /// What should not have happened: a daemon that ended by itself, for example.
    troubles: Mutex<Vec<String>>,
}

impl Incidents {
    pub(crate) fn add(&self, incident: Incident) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(incident);
    }

    pub(crate) fn trouble(&self, what: String) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// All incidents in the order of their begins.
    pub(crate) fn taken(&self) -> Vec<Incident> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|incident| incident.from);
        all
    }

    pub(crate) fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
