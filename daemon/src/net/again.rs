//! How a request is sent again that was certainly not handled.

/// How a request may be sent again that was not handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    AsBefore,
    /// The receiver speaks HTTP/2, but does not take this request over it.
    OverHttp1,
}
