//! The trait of the reads for people. It is separate from the engine's trait: these reads are bounded in time, and
//! delivery never waits for them.

use bytes::Bytes;

use super::Answer;
pub use super::filter::{CallbackFilter, QueueMatch, Span};
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Fate, LetterState, Unreadable};
use crate::model::event::PartitionKey;
use crate::model::offsets::Watermark;
use crate::model::settlement::{Ended, NumberedAttempt, Rows, Verdict};

/// Which dead letters; every given field must match.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    pub team: Option<String>,
    /// One of these teams.
    pub teams: Option<Vec<String>>,
    pub task: Option<String>,
    pub reason: Option<Unreadable>,
    pub state: Option<LetterState>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// The bytes of a dead letter's value that a list shows.
pub const LISTED_BYTES: usize = 256;

/// A page of a list, newest event first, below the id `before`.
#[derive(Debug, Clone)]
pub struct Page {
    pub before: Option<CallbackId>,
    pub limit: usize,
}

/// What a list says of the last recorded attempt of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastAttempt {
    /// `None` where no answer came.
    pub status: Option<u16>,
    pub ended_at: Timestamp,
}

/// What a page holds. A read is bounded in time, so it may end before the page is full; `next` tells where to go on.
#[derive(Debug, Clone)]
pub struct Found<T> {
    pub docs: Vec<T>,
    /// More may follow below this id.
    pub next: Option<CallbackId>,
}

#[derive(Debug, Clone)]
pub struct PartitionOffsets {
    pub partition: PartitionKey,
    pub watermark: Watermark,
    pub epoch: i64,
    pub owner: Option<i64>,
    pub moved_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct BuriedLetter {
    pub letter: DeadLetter,
    pub buried_at: Timestamp,
    pub fate: Fate,
}

/// Which queues, and up to which number their callbacks are counted; 0 counts none.
#[derive(Debug, Clone)]
pub struct QueueAsk {
    pub which: Queues,
    pub count_upto: usize,
}

#[derive(Debug, Clone)]
pub enum Queues {
    /// Of this team and of those whose ids follow it, or of all teams.
    From { team: Option<String>, at_most: usize },
    /// Of one team.
    Of(String),
    /// These, by team and target.
    These(Vec<(String, String)>),
}

/// A queue with pending callbacks.
#[derive(Debug, Clone)]
pub struct QueueRow {
    pub team: String,
    pub target: String,
    /// Callbacks that are not under way, counted up to the number that was asked for.
    pub pending: u64,
    /// When the first of them became or becomes due; `None` while all are under way.
    pub oldest_due: Option<Timestamp>,
    pub parked_bytes: u64,
    /// The outcome of the last attempt of that oldest callback, and how often it failed.
    pub last_outcome: Option<Outcome>,
    pub tries: u32,
}

/// One instance: one run of a daemon on this store.
#[derive(Debug, Clone)]
pub struct InstanceRow {
    pub id: i64,
    /// The id of the run, which people see.
    pub run: String,
    /// The name of its configuration, its machine, and its version.
    pub name: Option<String>,
    pub host: Option<String>,
    pub version: Option<String>,
    /// How many partitions it owns.
    pub partitions: u32,
    pub started_at: Timestamp,
    /// Its last sign of life.
    pub seen_at: Timestamp,
    /// `None` while it runs.
    pub end: Option<InstanceEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceEnd {
    Clean,
    /// Its process is gone, and it did not end cleanly.
    Died,
}

/// What has ended and was buried, in all instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub delivered: u64,
    pub exhausted: u64,
    pub abandoned: u64,
    pub dead_letters: u64,
}

impl Counts {
    /// What these verdicts add.
    pub fn of(verdicts: &[Verdict]) -> Self {
        let mut counts = Self::default();
        for verdict in verdicts {
            match verdict {
                Verdict::Ended(Ended::Delivered) | Verdict::DeliveredInRound => counts.delivered += 1,
                Verdict::Ended(Ended::Exhausted) => counts.exhausted += 1,
                Verdict::Ended(Ended::Abandoned(_)) => counts.abandoned += 1,
                Verdict::Buried | Verdict::BuriedWithoutValue => counts.dead_letters += 1,
                Verdict::Due(_)
                | Verdict::Parked
                | Verdict::Released
                | Verdict::RoundEnded
                | Verdict::Late
                | Verdict::Nothing => {}
            }
        }
        counts
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            delivered: self.delivered + other.delivered,
            exhausted: self.exhausted + other.exhausted,
            abandoned: self.abandoned + other.abandoned,
            dead_letters: self.dead_letters + other.dead_letters,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub pending: u64,
    pub oldest_due: Option<Timestamp>,
    /// Counts of settled callbacks by state and reason.
    pub settled: Vec<(String, Option<String>, u64)>,
    pub dead_letters: Vec<(Unreadable, u64)>,
}

/// The reads for people.
pub trait Reads: Send + Sync {
    /// Both rows of a callback, as far as they exist.
    fn rows(&self, id: CallbackId) -> Answer<'_, Rows>;
    fn attempts(&self, id: CallbackId) -> Answer<'_, Vec<NumberedAttempt>>;
    /// The last recorded attempt of each callback.
    fn last_attempts(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<LastAttempt>>>;
    /// The body of a callback, as far as it is kept.
    fn body(&self, id: CallbackId) -> Answer<'_, Option<Bytes>>;
    /// The bodies of the first of these callbacks: as many as have together at most so many bytes, and at least one.
    fn bodies(&self, ids: Vec<CallbackId>, at_most: usize) -> Answer<'_, Vec<Option<Bytes>>>;
    /// Ids of callbacks that match.
    fn callback_ids(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<CallbackId>>;
    /// Rounds that were not tried yet, of this team or of all, at most `at_most` of them.
    fn untried_rounds(&self, team: Option<&str>, at_most: usize) -> Answer<'_, usize>;
    /// Callbacks that match.
    fn callbacks(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<(CallbackId, Rows)>>;
    /// Dead letters that match, each with the first [`LISTED_BYTES`] of its value.
    fn dead_letters(&self, filter: DeadLetterFilter, page: Page) -> Answer<'_, Found<BuriedLetter>>;
    fn dead_letter(&self, id: CallbackId) -> Answer<'_, Option<BuriedLetter>>;
    /// Dead letters that name no task, at most `at_most` of them.
    fn nameless_dead_letters(&self, at_most: usize) -> Answer<'_, usize>;
    fn offsets(&self) -> Answer<'_, Vec<PartitionOffsets>>;
    /// Queues with pending callbacks, by team and target.
    fn queues(&self, ask: QueueAsk) -> Answer<'_, Vec<QueueRow>>;
    /// Instances, the newest first.
    fn instances(&self, at_most: usize) -> Answer<'_, Vec<InstanceRow>>;
    /// Pending rows and the oldest due one: cheap enough for every scrape.
    fn backlog(&self) -> Answer<'_, (u64, Option<Timestamp>)>;
    /// What has ended and was buried in all instances, and since when it is counted. Cheap.
    fn counts(&self) -> Answer<'_, (Counts, Timestamp)>;
    /// Counts of everything. It scans all rows, so it is for a report at the end and not for a scrape.
    fn totals(&self) -> Answer<'_, Totals>;
}
