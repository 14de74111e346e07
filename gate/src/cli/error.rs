//! Why a command ended without success, and why an argument was not accepted.

/// Why a command ended without success, with its exit status.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct CommandError {
    /// 1: it failed. 2: wrong usage, or a setting that cannot be used.
    pub status: u8,
    /// One sentence.
    pub sentence: String,
}

/// An argument that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgumentError {
    #[error("write an address and a port, for example 127.0.0.1:8080 or [::]:8080")]
    Address,
    #[error("write for example 500ms, 30s or 5m")]
    Duration,
    #[error("write a whole number, at least {0}")]
    AtLeast(u64),
    #[error("write a whole number from {0} to {1}")]
    Between(u64, u64),
    #[error("it must be between 100ms and 60s")]
    Timeout,
    #[error("a path begins with / and is written as a request writes it")]
    Path,
    #[error("an id is 1 to 64 of A-Z a-z 0-9 _ -")]
    Id,
}

impl CommandError {
    /// The command did its work, and it did not succeed.
    pub(super) fn failed(sentence: impl ToString) -> Self {
        Self { status: 1, sentence: sentence.to_string() }
    }

    /// The command cannot be carried out as it was given.
    pub(super) fn refused(sentence: impl ToString) -> Self {
        Self { status: 2, sentence: sentence.to_string() }
    }
}
