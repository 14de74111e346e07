//! The bounds of a server and of each of its connections. Every bound has a default that suits an internal listener.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::nets::Net;
use crate::refusal_pace::RefusalPace;

/// Requests at once on one HTTP/2 connection, unless the caller says otherwise.
const STREAMS: u32 = 32;

/// The bounds of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once. For one more, the oldest one gives way that has not sent a whole request head.
    pub connections: usize,
    /// Connections open at once from one address (an IPv4 address, or 64 bits of IPv6).
    pub per_address: usize,
    /// Connections open at once from addresses side by side (24 bits of IPv4, 48 bits of IPv6).
    pub per_prefix: usize,
    /// Proxies in front of the server. Their connections carry the requests of many senders, so they are bounded among all
    /// connections alone.
    pub trusted_proxies: Arc<[Net]>,
    /// Each connection begins with a header of the PROXY protocol, and only trusted proxies may connect.
    pub proxy_protocol: bool,
    /// Whether one more connection is closed where nobody gives way. Otherwise it waits.
    pub refuse_more: bool,
    /// How long a connection keeps its place in any case while its first request head is on its way. Without it, a burst of connections
    /// would close those of its own that were accepted a moment ago. With it, a crowd of silent connections makes others wait, so it is
    /// for listeners that only trusted programs reach.
    pub patience: Duration,
    /// Counts the connections that were closed because places were short.
    pub closed: Arc<AtomicU64>,
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
            per_address: usize::MAX,
            per_prefix: usize::MAX,
            trusted_proxies: Arc::new([]),
            proxy_protocol: false,
            refuse_more: false,
            patience: Duration::ZERO,
            closed: Arc::default(),
            head: Duration::from_secs(10),
            head_bytes: 16 * 1024,
            streams: STREAMS,
            life: Duration::from_secs(3_600),
            drain: Duration::from_secs(5),
            refusals: None,
        }
    }
}

impl Limits {
    pub(crate) fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(address))
    }
}
