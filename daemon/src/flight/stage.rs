//! The stage that a callback has reached while this instance holds it.

/// The stage of a callback under way. Each transition is a method, which refuses a stage that does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A first try that waits for its turn. Only Kafka has it.
    Queued,
    /// A first try that gets its row without an attempt. The park is on its way to the store.
    Parking,
    /// A claimed row that waits for its turn.
    Claimed,
    /// The first attempt is under way. Only Kafka has the callback.
    Started,
    /// An attempt is under way, and the callback has a row or one is on its way to the store.
    StartedWithRow,
}

impl Stage {
    /// An attempt begins. `None` if this stage does not allow it.
    pub(super) fn start(self) -> Option<Self> {
        match self {
            Self::Queued => Some(Self::Started),
            Self::Claimed => Some(Self::StartedWithRow),
            Self::Parking | Self::Started | Self::StartedWithRow => None,
        }
    }

    /// The callback gets its row. `None` if it has one already.
    pub(super) fn park(self) -> Option<Self> {
        match self {
            Self::Queued => Some(Self::Parking),
            Self::Started => Some(Self::StartedWithRow),
            Self::Parking | Self::Claimed | Self::StartedWithRow => None,
        }
    }

    /// Whether an attempt has begun, so that the request may have left.
    pub(super) fn is_started(self) -> bool {
        matches!(self, Self::Started | Self::StartedWithRow)
    }
}
