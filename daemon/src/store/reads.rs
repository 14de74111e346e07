//! What people ask of the store. Apart from the engine's trait: these reads are bounded in time and never block it.

use bytes::Bytes;

use super::Answer;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Unreadable};
use crate::model::event::SourceKey;
use crate::model::offsets::Reached;
use crate::model::settlement::{NumberedAttempt, Rows};

/// Which callbacks; every given field must match.
#[derive(Debug, Clone, Default)]
pub struct CallbackFilter {
    pub team: Option<String>,
    pub task: Option<String>,
    /// `pending`, `delivered`, `exhausted` or `abandoned`.
    pub state: Option<String>,
}

/// A page of a list, newest event first, below the id `before`.
#[derive(Debug, Clone)]
pub struct Page {
    pub before: Option<CallbackId>,
    pub limit: usize,
}

#[derive(Debug, Clone)]
pub struct SourceRow {
    pub source: SourceKey,
    pub reached: Reached,
    pub epoch: i64,
    pub owner: Option<i64>,
    pub moved_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct BuriedLetter {
    pub letter: DeadLetter,
    pub buried_at: Timestamp,
}

#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub pending: u64,
    pub oldest_due: Option<Timestamp>,
    /// Counts by state, `pending` left out.
    pub settled: Vec<(String, Option<String>, u64)>,
    pub dead_letters: Vec<(Unreadable, u64)>,
}

pub trait Reads: Send + Sync {
    fn rows(&self, id: CallbackId) -> Answer<'_, Rows>;
    fn attempts(&self, id: CallbackId) -> Answer<'_, Vec<NumberedAttempt>>;
    /// The body, while its callback is pending.
    fn body(&self, id: CallbackId) -> Answer<'_, Option<Bytes>>;
    fn callbacks(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Vec<(CallbackId, Rows)>>;
    fn dead_letters(&self, task: Option<String>, page: Page) -> Answer<'_, Vec<BuriedLetter>>;
    fn dead_letter(&self, id: CallbackId) -> Answer<'_, Option<BuriedLetter>>;
    fn sources(&self) -> Answer<'_, Vec<SourceRow>>;
    /// Pending rows and the oldest due one: cheap enough for every scrape.
    fn backlog(&self) -> Answer<'_, (u64, Option<Timestamp>)>;
    /// Counts of everything: a scan, for a ledger at the end.
    fn totals(&self) -> Answer<'_, Totals>;
}
