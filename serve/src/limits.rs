//! The bounds of a server and of each of its connections. Every bound has a default that suits an internal listener.

use std::sync::Arc;
use std::time::Duration;

use crate::refusal_pace::RefusalPace;

/// Requests at once on one HTTP/2 connection, unless the caller says otherwise.
const STREAMS: u32 = 32;

/// The bounds of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Whether one more connection is closed at once. Otherwise it waits to be accepted.
    pub refuse_more: bool,
    /// The time for a whole request head. A connection without a request is kept as long, and a client may read nothing of
    /// an answer for as long.
    pub head: Duration,
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// The longest life of one connection.
    pub life: Duration,
    /// How long open requests may take to end once the server stops.
    pub drain: Duration,
    /// The pace of refusals: of heads that the HTTP library refuses, and of responses that are marked as
    /// [`Refused`](crate::refusal_pace::Refused). A refusal that waits keeps its connection's place until it goes out,
    /// also when the client leaves earlier. With a pace, every response must be one frame.
    pub refusals: Option<Arc<RefusalPace>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            refuse_more: false,
            head: Duration::from_secs(10),
            head_bytes: 16 * 1024,
            streams: STREAMS,
            life: Duration::from_secs(3_600),
            drain: Duration::from_secs(5),
            refusals: None,
        }
    }
}
