//! The events that a partition receives, and the actions that it returns. They are plain data: a position is a real
//! offset, and an unknown position is `None`, never one of the client's special numbers.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::reset::{Reset, ResetWay};
use crate::base::named::named;
use crate::model::callback::Hash;
use crate::model::offsets::Watermark;
use crate::store::Taken;

named! {
    /// From where partitions start whose offsets an operator accepts.
    pub enum AcceptFrom {
        Earliest = "earliest",
        Committed = "committed",
        End = "end",
    }
}

/// What the consumer group committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// The id of the store that committed it; empty when a tool did.
    pub store: Arc<str>,
}

/// Where a partition's log begins and ends in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnds {
    pub low: i64,
    /// One above the last record.
    pub high: i64,
    /// The partition's watermark at that moment, durable or on its way; `None` if this instance does not hold it.
    pub watermark: Option<Watermark>,
}

/// What decides whether a partition is paused.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub now: Instant,
    /// The partition must pause for a reason outside it: no memory, a stop, or admission.
    pub hold: bool,
    /// Records above the watermark, and how many there may be.
    pub outstanding: usize,
    pub window: usize,
}

#[derive(Debug, Clone)]
pub enum Event {
    /// The group gave us the partition.
    Assigned,
    /// Time has passed: a question that failed before is asked again.
    Tick,
    /// Answers [`Action::AskCommitted`].
    Committed(Option<Committed>),
    /// Answers [`Action::Take`] and [`Action::StartOver`].
    Taken(Taken),
    /// Answers [`Action::AskEnds`].
    LogEnds(LogEnds),
    /// Answers [`Action::AssignAt`], [`Action::AssignSandboxed`] and [`Action::SkipTo`].
    Moved,
    /// The store or Kafka did not answer, or refused.
    NoAnswer,
    /// Kafka gave a record, or has one here that ends whoever reads it: then the hash is [`UNREAD`](crate::model::offsets::UNREAD).
    Read {
        offset: i64,
        hash: Hash,
    },
    /// Kafka refused an offset of some partition. It does not say which.
    OutOfRange,
    /// The store refused a write because the epoch is over, or records must be read again.
    Fenced,
    /// An operator says from where a blocked partition starts.
    Accepted(AcceptFrom),
    /// An operator moves the watermark.
    Reset(Reset),
    /// The log is another one than the one that was read before in this epoch.
    OtherLog,
    /// The client's position, if it has one and every record that was read has been received.
    Position(Option<i64>),
    Flow(Flow),
    /// It is time to commit; everything below is durable.
    CommitDue {
        durable_upto: i64,
    },
    /// The last commit failed.
    CommitFailed,
    /// The group took the partition away.
    Revoked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask Kafka what the group committed.
    AskCommitted,
    /// Ask Kafka for the ends of the log.
    AskEnds(Check),
    /// Ask the store for the next epoch.
    Take,
    /// Ask the store for the next epoch, which begins at `start`.
    StartOver {
        start: i64,
        log_end: i64,
        cause: StartOverCause,
    },
    /// Read from here.
    AssignAt(Place),
    /// Read from here, in a process of its own, until the end of the log is reached: a record may end the process that reads
    /// it.
    AssignSandboxed(Place),
    /// Raise the watermark to this offset if nothing is outstanding, and read from here.
    SkipTo(i64),
    /// Stop everything of the current epoch, and forget it.
    GiveUp,
    /// Count records under this epoch from now on.
    Hold {
        epoch: i64,
        watermark: Watermark,
    },
    /// Hand over the record of [`Event::Read`].
    Admit,
    /// Tell an operator that the partition waits for a decision.
    Block(BlockReason),
    /// Report that the store's watermark is below the offset that Kafka has.
    StoreWentBack {
        committed: i64,
        watermark: i64,
    },
    /// Report that Kafka deleted the `lost` records below `begin` before they were read.
    CountLost {
        lost: i64,
        begin: i64,
    },
    /// Raise the watermark to this position if nothing is outstanding.
    PassTo(i64),
    Pause,
    Resume,
    /// Commit this offset to Kafka.
    Commit(i64),
}

impl Action {
    /// Whether the partition waits for an answer to this.
    pub fn awaits_an_answer(&self) -> bool {
        match self {
            Self::AskCommitted
            | Self::AskEnds(_)
            | Self::Take
            | Self::StartOver { .. }
            | Self::AssignAt(_)
            | Self::AssignSandboxed(_)
            | Self::SkipTo(_) => true,
            Self::GiveUp
            | Self::Hold { .. }
            | Self::Admit
            | Self::Block(_)
            | Self::StoreWentBack { .. }
            | Self::CountLost { .. }
            | Self::PassTo(_)
            | Self::Pause
            | Self::Resume
            | Self::Commit(_) => false,
        }
    }
}

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Beginning,
    Offset(i64),
}

/// Why Kafka is asked for the ends of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// No record has come yet that can be compared with the one we know.
    Silent,
    /// The first record that came lies above the one we know.
    RecordGone,
    /// Kafka refused some offset.
    OutOfRange,
    /// To read the partition from its beginning as a new log.
    StartOver(StartOverReason),
    /// To start at the place that an operator named.
    Accept { from: AcceptFrom, committed: Option<Committed> },
}

/// Why a partition starts over, at another watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartOverCause {
    /// Its topic was re-created or truncated.
    LogChanged(StartOverReason),
    /// An operator accepted its offsets, which this store wrote.
    Accepted { store: Arc<str> },
    /// An operator moved its watermark, which was at `from`.
    Reset { way: ResetWay, from: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOverReason {
    OtherRecord,
    EndsBelow,
}

impl fmt::Display for StartOverReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherRecord => "the record below the watermark is another one",
            Self::EndsBelow => "the log ends below what was read of it",
        })
    }
}

/// Why a partition is not read as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// The log ends below what was read of it.
    EndsBelow,
    /// A record that was read is another one now.
    OtherRecord,
    /// There are records, and the client does not bring them.
    Silent,
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndsBelow => "its log ends below what was read of it: the topic was re-created or truncated",
            Self::OtherRecord => "a record that was read of it is another one now: the topic was re-created",
            Self::Silent => "it has records that the Kafka client does not bring",
        })
    }
}

/// Why a partition waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockReason {
    /// The group has an offset, but this store has never read the partition.
    UnknownOffset(i64),
    /// Another store wrote the group's offset.
    OtherStore(Arc<str>),
    /// This store wrote the group's offset, but for a cluster of another id.
    OtherCluster(i64),
}

impl BlockReason {
    /// One sentence for a person.
    pub fn sentence(&self, partition: &impl fmt::Display) -> String {
        match self {
            Self::UnknownOffset(offset) => {
                format!("the consumer group has an offset ({offset}) for {partition} that this store knows nothing of")
            }
            Self::OtherStore(store) => format!(
                "the consumer group's offset for {partition} was written by another store ({store}): this store was lost or swapped"
            ),
            Self::OtherCluster(offset) => format!(
                "the consumer group has our offset ({offset}) for {partition}, but this store knows nothing of a Kafka cluster with this id: the id has changed, or the store is a copy from before the first record"
            ),
        }
    }
}

/// What to do, in this order. There are at most three actions, and nothing is allocated.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Actions([Option<Action>; 3]);

impl Actions {
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn one(action: Action) -> Self {
        Self([Some(action), None, None])
    }

    pub(super) fn and(mut self, action: Action) -> Self {
        let free = self.0.iter_mut().find(|place| place.is_none());
        *free.expect("no event makes more than three actions") = Some(action);
        self
    }
}

impl IntoIterator for Actions {
    type Item = Action;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Action>, 3>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}
