//! Why the receiver gave no answer, and why it cannot be called at all.

use http::StatusCode;

/// Why there is no answer of the receiver to pass back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gate) enum UpstreamError {
    Unreachable,
    Timeout,
    /// The conversation broke off, or it was not HTTP.
    Broken,
    /// The receiver switched protocols.
    Unasked,
}

/// Why the upstream cannot be called as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamSetupError {
    /// The path cannot stand in a request.
    #[error("{0} can't be called")]
    Path(String),
    /// The host cannot stand in a header.
    #[error("{0:?} is not a host")]
    Host(String),
    /// The token cannot stand in a header.
    #[error("the upstream's token can't be sent")]
    Token,
}

impl UpstreamError {
    pub(in crate::gate) const ALL: [Self; 4] = [Self::Unreachable, Self::Timeout, Self::Broken, Self::Unasked];

    pub(in crate::gate) fn status(self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable | Self::Broken | Self::Unasked => StatusCode::BAD_GATEWAY,
        }
    }

    /// Its name in metrics and logs.
    pub(in crate::gate) fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Unasked => "unasked",
        }
    }
}
