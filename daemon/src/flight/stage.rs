//! Where a callback stands while this instance holds it.

/// A callback under way. Every step of it is a method here, so that a step that does not fit is refused.
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
    /// An attempt begins; `None` where none may begin.
    pub(super) fn start(self) -> Option<Self> {
        match self {
            Self::Queued => Some(Self::Started),
            Self::Claimed => Some(Self::StartedWithRow),
            Self::Parking | Self::Started | Self::StartedWithRow => None,
        }
    }

    /// The callback gets its row; `None` where it has one already.
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
