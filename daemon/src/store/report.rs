//! The findings of a check of a store, for every database.

use super::admin::KeyRow;
use crate::base::clock::Timestamp;
use crate::base::finding::Finding;
use crate::base::metrics::names;
use crate::model::attempt::Outcome;
use crate::model::state::State;

/// The findings of a check, and whether a daemon runs on the store now.
pub struct Looked {
    pub findings: Vec<Finding>,
    pub in_use: bool,
    /// A few of the keys in the store, where it exists and no daemon runs on it.
    pub keys: Vec<KeyRow>,
}

/// What a store is and holds.
#[derive(Debug, Clone)]
pub struct Info {
    pub store_id: String,
    pub created_at: Timestamp,
    pub schema: String,
    /// The oldest schema that a program must know to write to it.
    pub oldest_writer: usize,
    pub file_bytes: u64,
    pub pending: u64,
    pub settled: u64,
    pub attempts: u64,
    pub dead_letters: u64,
    pub teams: u64,
}

/// A copy of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    pub store_id: String,
    pub bytes: u64,
}

/// Pending callbacks whose builder is newer than this one.
pub(super) const NEWER_BUILDER: &str = "SELECT count(*) FROM pending WHERE builder > $1";

/// Counts ended callbacks with a state or an outcome that this program does not know.
pub(super) fn unreadable_settled() -> String {
    let quoted = |names: Vec<&str>| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let states = names::<State>().into_iter().filter(|name| *name != State::Pending.name()).collect();
    format!(
        "SELECT count(*) FROM settled WHERE outcome NOT IN ({}) OR state NOT IN ({})",
        quoted(names::<Outcome>()),
        quoted(states)
    )
}

/// A sentence for each kind of rows that this program can't read, or can't send.
pub(super) fn unreadable_rows(pending: u64, settled: u64, newer_builder: u64) -> Vec<String> {
    let kinds = [
        (pending, "pending callbacks that this program can't read; they wait"),
        (settled, "ended callbacks that this program can't read"),
        (
            newer_builder,
            "pending callbacks with a builder that this program does not know; a newer callbackd sends them",
        ),
    ];
    let found = kinds.into_iter().filter(|(count, _)| *count > 0);
    found.map(|(count, what)| format!("{count} {what}")).collect()
}
