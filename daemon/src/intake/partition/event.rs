//! What a partition is told, and what it asks for. Only plain data: positions are real offsets, and a position that
//! nobody knows is `None`, never one of the client's special numbers.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::model::callback::Hash;
use crate::model::offsets::Watermark;
use crate::store::Taken;

/// From where partitions start whose offsets an operator accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFrom {
    Earliest,
    Committed,
    End,
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
    /// Something outside the partition wants it paused: no memory, a stop, admission.
    pub hold: bool,
    /// Records above the watermark, and how many there may be.
    pub outstanding: usize,
    pub window: usize,
}

#[derive(Debug, Clone)]
pub enum Event {
    /// The group gave us the partition.
    Assigned,
    /// Time has passed: what failed before is tried again.
    Tick,
    /// Answers [`Action::AskCommitted`].
    Committed(Option<Committed>),
    /// Answers [`Action::Take`] and [`Action::StartAnew`].
    Taken(Taken),
    /// Answers [`Action::AskEnds`].
    LogEnds(LogEnds),
    /// Answers [`Action::AssignAt`], [`Action::SkipTo`] and [`Action::SkipUnreadable`].
    Moved,
    /// Whoever was asked did not answer, or could not do it.
    NoAnswer,
    /// Kafka gave a record.
    Read {
        offset: i64,
        hash: Hash,
    },
    /// Kafka has a record here that the client can't read.
    Unreadable(i64),
    /// Kafka refused an offset. It does not say which partition's.
    OutOfRange,
    /// A write found the epoch gone, or the records must be read again.
    Fenced,
    /// An operator says from where a blocked partition starts.
    Accepted(AcceptFrom),
    /// The client's position, where it has one and nothing that was read still waits to be received.
    Position(Option<i64>),
    Flow(Flow),
    /// It is time to commit; everything below is durable.
    CommitDue {
        durable_upto: i64,
    },
    /// The last commit failed.
    CommitFailed,
    /// The group takes the partition away.
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
    StartAnew {
        start: i64,
        log_end: i64,
        cause: AnewCause,
    },
    /// Read from here.
    AssignAt(Place),
    /// Raise the watermark to this offset if nothing is outstanding, and read from here.
    SkipTo(i64),
    /// Read from behind this record, which can't be read.
    SkipUnreadable(i64),
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
    /// Tell that the store knows less than Kafka's committed offset says.
    StoreWentBack {
        committed: i64,
        watermark: i64,
    },
    /// Tell that Kafka deleted the `lost` records below `begin` before they were read.
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
            | Self::StartAnew { .. }
            | Self::AssignAt(_)
            | Self::SkipTo(_)
            | Self::SkipUnreadable(_) => true,
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

/// Why the ends of the log are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// No record came yet that could be compared with the one we know.
    Silent,
    /// The first record that came lies above the one we know.
    RecordGone,
    /// Kafka refused some offset.
    OutOfRange,
    /// To start anew at the begin.
    StartAnew(AnewReason),
    /// To start where an operator says.
    Accept { from: AcceptFrom, committed: Option<Committed> },
}

/// Why a partition starts anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnewCause {
    /// Its topic was re-created or truncated.
    LogChanged(AnewReason),
    /// An operator accepted its offsets, which this store wrote.
    Accepted { store: Arc<str> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnewReason {
    OtherRecord,
    EndsBelow,
}

impl fmt::Display for AnewReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherRecord => "the record below the watermark is another one",
            Self::EndsBelow => "the log ends below what was read of it",
        })
    }
}

/// Why a partition waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockReason {
    /// The group has an offset, and this store never read the partition.
    UnknownOffset(i64),
    /// Another store wrote the group's offset.
    OtherStore(Arc<str>),
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
