//! The configuration of a gate, and its bounds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use scale_callback_serve::forwarded::ForwardedHeader;
use scale_callback_serve::nets::Net;

use super::upstream::UpstreamAt;
use crate::keys::KeySource;
use crate::receiver::BODY_LIMIT;

/// The configuration of a gate.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where callbacks come in.
    pub listen: SocketAddr,
    /// The certificate chain and its key, PEM. With them the listener speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where health and metrics are served.
    pub admin: Option<SocketAddr>,
    /// The path and query that callbacks are sent to. It is compared byte by byte.
    pub path: String,
    /// Where verified callbacks go.
    pub upstream: UpstreamAt,
    /// A file with a token for the upstream. It is sent as `authorization: Bearer`, so that the upstream can refuse
    /// everybody but this gate.
    pub upstream_token: Option<PathBuf>,
    /// The keys.
    pub keys: KeySource,
    /// Forward `scale-callback-auth` as well, which may be a secret.
    pub keep_auth_header: bool,
    /// Proxies in front of the gate. They say in a header, or in the PROXY protocol, whose request they pass on.
    pub trusted_proxies: Vec<Net>,
    /// The header in which the trusted proxies say it.
    pub forwarded_header: ForwardedHeader,
    /// Each connection begins with a header of the PROXY protocol, and only trusted proxies may connect.
    pub proxy_protocol: bool,
    /// The bounds.
    pub bounds: Bounds,
}

/// The bounds of a gate.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections open at once. For one more, the oldest one gives way that has not sent a whole request head.
    pub connections: usize,
    /// Connections open at once from one address, and requests of one address whose bodies have not arrived whole.
    pub per_address: usize,
    /// The same from addresses side by side.
    pub per_prefix: usize,
    /// Bytes of one body.
    pub body: usize,
    /// Bytes of all bodies that are held at once. A request that needs more is answered 503.
    pub bodies: usize,
    /// The time for a TLS handshake and for a request head.
    pub head: Duration,
    /// The time for a whole body.
    pub whole_body: Duration,
    /// The time for the upstream's whole answer.
    pub upstream: Duration,
    /// The time for open requests once the gate stops.
    pub drain: Duration,
    /// Refusals a second, over all connections. Refusals beyond it wait, so that a crowd leaves the machine to the
    /// callbacks.
    pub refusals: u32,
    /// Callbacks that are remembered, so that a captured callback that is sent again is not handled again.
    pub remembered: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1_024,
            // The platform sends at most 64 requests at once to one server, from each of its processes. A quarter of all
            // places holds four of them, and leaves three quarters to everybody else.
            per_address: 256,
            per_prefix: 512,
            body: BODY_LIMIT,
            bodies: 64 << 20,
            head: Duration::from_secs(10),
            whole_body: Duration::from_secs(30),
            upstream: Duration::from_secs(14),
            drain: Duration::from_secs(20),
            // When every connection waits for a refusal, the last one waits a second.
            refusals: 1_000,
            remembered: 200_000,
        }
    }
}
