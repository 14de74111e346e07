//! One POST over one connection: the request is sent, the head is read, and the body is read up to a limit. The outcome
//! of a failure names its phase. If a kept connection gives the request back unsent, the request is sent over one new
//! connection, and the attempt records this.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, timeout_at};

use super::conn::{Connection, Pool, PoolKey};
use super::dial::{Deadlines, Dialer, Failed};
use super::dns::{self, Dns};
use super::egress::Policy;
use super::error::SetupError;
use super::target::Target;
use super::tls;
use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::retry::retry_after;

/// How many bytes of an answer's body are read, and how many are kept.
const READ: usize = 64 * 1024;
const KEPT: usize = 1024;
/// How many more bytes are kept until secrets are removed, and the shortest beginning of a secret that is recognised.
const MARGIN: usize = 512;
const SECRET_PREFIX: usize = 12;

#[derive(Debug, Clone)]
pub struct Config {
    pub deadlines: Deadlines,
    pub dns: dns::Config,
    /// Offer HTTP/2 in the TLS handshake.
    pub http2: bool,
    /// More root certificates for TLS, in PEM.
    pub ca_file: Option<std::path::PathBuf>,
}

/// What is sent: everything but the connection.
pub struct Outgoing {
    pub team: Arc<str>,
    pub target: Target,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The result of one attempt's exchange.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub outcome: Outcome,
    pub hopeless: bool,
    pub sent: bool,
    pub status: Option<u16>,
    pub retry_after: Option<Duration>,
    pub peer: Option<SocketAddr>,
    pub redialed: bool,
    /// The beginning of the answer's body, or the reason of a failure as the operator sees it.
    pub snippet: Bytes,
}

impl Exchange {
    /// An attempt that was refused before anything was sent.
    pub fn refused(outcome: Outcome, why: impl ToString) -> Self {
        Self {
            outcome,
            hopeless: false,
            sent: false,
            status: None,
            retry_after: None,
            peer: None,
            redialed: false,
            snippet: Bytes::from(why.to_string()),
        }
    }
}

/// The POST client: dialer, pool and egress policy.
pub struct Client {
    pub(super) dialer: Dialer,
    pool: Pool,
    policy: RwLock<Arc<Policy>>,
}

impl Client {
    /// Makes the client. It connects to nothing yet.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn new(config: &Config, policy: Policy) -> Result<Self, SetupError> {
        let tls = tls::connector(config.ca_file.as_deref(), config.http2)?;
        let dialer = Dialer { dns: Dns::new(&config.dns)?, tls, deadlines: config.deadlines };
        Ok(Self { dialer, pool: Pool::default(), policy: RwLock::new(Arc::new(policy)) })
    }

    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Changes the policy. Connections of an older policy are not used again.
    pub fn set_policy(&self, policy: Policy) {
        let mut current = self.policy.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let generation = current.generation.saturating_add(1);
        *current = Arc::new(Policy { generation, ..policy });
    }

    pub fn total_deadline(&self) -> Duration {
        self.dialer.deadlines.total
    }

    /// Drops idle connections that are too old. It must be called every second.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    /// Sends one POST, which ends before `end`. `now` is for a date in `Retry-After`.
    pub async fn post(&self, outgoing: &Outgoing, now: Timestamp, end: Instant) -> Exchange {
        let policy = self.policy();
        let key = PoolKey {
            team: Arc::clone(&outgoing.team),
            origin: outgoing.target.origin.clone(),
            generation: policy.generation,
        };
        let kept = self.pool.take(&key);
        let reused = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => match self.dial(outgoing, &policy, end).await {
                Ok(connection) => {
                    self.pool.offer(&key, &connection);
                    connection
                }
                Err(exchange) => return exchange,
            },
        };
        match self.converse(connection, outgoing, &key, now, end).await {
            Ok(exchange) => exchange,
            // No byte was sent on the kept connection, so the request is sent once more on a new one.
            Err(_) if reused => match self.dial(outgoing, &policy, end).await {
                Ok(fresh) => {
                    let exchange = self.converse(fresh, outgoing, &key, now, end).await.unwrap_or_else(|unsent| unsent);
                    Exchange { redialed: true, ..exchange }
                }
                Err(exchange) => Exchange { redialed: true, ..exchange },
            },
            Err(unsent) => unsent,
        }
    }

    async fn dial(&self, outgoing: &Outgoing, policy: &Policy, end: Instant) -> Result<Connection, Exchange> {
        let failed = match self.dialer.dial(&outgoing.target, &outgoing.team, policy, end).await {
            Ok(dialed) => {
                let peer = dialed.peer;
                match Connection::over(dialed).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => Failed {
                        outcome: Outcome::ConnectFailed,
                        hopeless: false,
                        peer: Some(peer),
                        why: error.to_string(),
                    },
                }
            }
            Err(failed) => failed,
        };
        Err(Exchange { hopeless: failed.hopeless, peer: failed.peer, ..Exchange::refused(failed.outcome, failed.why) })
    }

    /// Sends the request over `connection`. `Err` means that it was given back unsent.
    pub(super) async fn converse(
        &self,
        mut connection: Connection,
        outgoing: &Outgoing,
        key: &PoolKey,
        now: Timestamp,
        end: Instant,
    ) -> Result<Exchange, Exchange> {
        let http2 = connection.is_http2();
        // The connection has a copy of its own, so that we see when it has dropped it.
        let (body, held) = counted_body(&outgoing.body);
        let Some(request) = request(outgoing, body, http2) else {
            return Ok(Exchange::refused(Outcome::UrlInvalid, "the URL's path can't be sent"));
        };
        let written_before = connection.record().written();
        let head_end = end.min(Instant::now() + self.dialer.deadlines.head);
        let answer = timeout_at(head_end, connection.send(request)).await;
        let mut exchange = Exchange {
            // The bytes written on a shared connection may belong to another request. So over HTTP/2 a request counts
            // as sent unless it is given back.
            sent: http2 || connection.record().written() > written_before,
            peer: Some(connection.peer()),
            ..Exchange::refused(Outcome::HeadTimeout, "no complete head within its deadline")
        };
        match answer {
            Err(_) => {
                self.pool.retire(key, &connection);
                Ok(exchange)
            }
            Ok(Ok(response)) => {
                exchange.sent = true;
                let status = response.status().as_u16();
                exchange.status = Some(status);
                exchange.outcome = Outcome::of_status(status);
                exchange.retry_after = asked_wait(status, response.headers(), now);
                let (kept, whole) = read_body(response.into_body(), end).await;
                exchange.snippet = without_secrets(kept, &outgoing.headers);
                // An answer may come before our request is sent completely. Then the connection is not kept.
                let is_out = Arc::strong_count(&held) == 1;
                if http2 && !is_out {
                    self.pool.retire(key, &connection);
                }
                let reusable = if http2 { is_out } else { whole && status != 101 };
                if reusable && matches!(timeout_at(end, connection.ready()).await, Ok(Ok(()))) {
                    self.pool.put(key.clone(), connection);
                }
                Ok(exchange)
            }
            Ok(Err(mut refused)) => {
                self.pool.retire(key, &connection);
                let unsent = refused.take_message().is_some() && (http2 || !exchange.sent);
                exchange.sent &= !unsent;
                exchange.outcome = failed_head(refused.error(), &connection);
                exchange.snippet = Bytes::from(reason_of(refused.error()));
                if unsent { Err(exchange) } else { Ok(exchange) }
            }
        }
    }
}

/// The same bytes, with a count of their holders: over HTTP/2 an answer may come before the receiver has taken them.
fn counted_body(body: &Bytes) -> (Bytes, Arc<()>) {
    struct CountedBytes(Bytes, #[expect(dead_code, reason = "only its references are counted")] Arc<()>);
    impl AsRef<[u8]> for CountedBytes {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let held = Arc::new(());
    (Bytes::from_owner(CountedBytes(body.clone(), Arc::clone(&held))), held)
}

fn request(outgoing: &Outgoing, body: Bytes, http2: bool) -> Option<Request<Full<Bytes>>> {
    let path = outgoing.target.path.expose_secret();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = outgoing.headers.clone();
    if http2 {
        // HTTP/2 sends scheme and host as pseudo-headers, and not in the header `host`.
        let host = request.headers_mut().remove(HOST)?;
        let authority = host.to_str().ok()?;
        *request.uri_mut() = Uri::builder().scheme("https").authority(authority).path_and_query(path).build().ok()?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        *request.uri_mut() = path.parse().ok()?;
        *request.version_mut() = Version::HTTP_11;
    }
    Some(request)
}

/// The outcome of a request whose answer had no complete head.
fn failed_head(error: &hyper::Error, connection: &Connection) -> Outcome {
    if error.is_parse() || error.is_parse_too_large() {
        return Outcome::HeadInvalid;
    }
    // With TLS 1.3, a server's demand for a client certificate shows only when the first answer is read.
    if is_tls(error) || connection.record().tls_failed() {
        return Outcome::TlsFailed;
    }
    if let Some(outcome) = failed_http2(error) {
        return outcome;
    }
    if connection.record().write_failed() || error.is_body_write_aborted() {
        return Outcome::WriteFailed;
    }
    // Bytes came before our request was sent, so they can't be an answer to it.
    if (error.is_canceled() || error.is_closed()) && !connection.reused && connection.record().read() > 0 {
        return Outcome::HeadInvalid;
    }
    Outcome::HeadReset
}

/// The outcome of an HTTP/2 error: a head that we can't read is invalid, and a stream that the receiver closed was
/// reset.
fn failed_http2(error: &hyper::Error) -> Option<Outcome> {
    let cause = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    if cause.is_io() {
        return None;
    }
    Some(if cause.is_library() { Outcome::HeadInvalid } else { Outcome::HeadReset })
}

fn is_tls(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        source = cause.source();
    }
    false
}

fn reason_of(error: &hyper::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn asked_wait(status: u16, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let obeyed = matches!(status, 429 | 503);
    obeyed
        .then(|| headers.get(RETRY_AFTER).map(HeaderValue::as_bytes))
        .flatten()
        .and_then(|value| retry_after(value, now))
}

/// The kept part of an answer. Our secrets are removed from it, since a receiver may have echoed them.
fn without_secrets(mut kept: Vec<u8>, headers: &HeaderMap) -> Bytes {
    for secret in headers.values().filter(|value| value.is_sensitive()).map(HeaderValue::as_bytes) {
        let mut at = 0;
        while at < kept.len() {
            let rest = &kept[at..];
            // A secret that our limit cut off is removed as well, if enough of it is there to recognise it.
            let cut = rest.len() >= SECRET_PREFIX && rest.len() < secret.len() && secret.starts_with(rest);
            if cut || rest.starts_with(secret) {
                let end = at + rest.len().min(secret.len());
                kept.splice(at..end, *b"[redacted]");
            }
            at += 1;
        }
    }
    kept.truncate(KEPT);
    Bytes::from(kept)
}

/// Reads a body up to its limit, and tells whether this was all of it. Keeps a little more than is stored, so that an
/// echoed secret can be recognised.
async fn read_body(mut body: Incoming, end: Instant) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let mut read = 0_usize;
    loop {
        match timeout_at(end, body.frame()).await {
            Ok(None) => return (kept, true),
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let wanted = (KEPT + MARGIN).saturating_sub(kept.len()).min(data.len());
                    kept.extend_from_slice(&data[..wanted]);
                    read = read.saturating_add(data.len());
                }
                if read > READ {
                    return (kept, false);
                }
            }
            Ok(Some(Err(_))) | Err(_) => return (kept, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoed_secrets_are_not_kept() {
        let mut headers = HeaderMap::new();
        let mut key = HeaderValue::from_static("live_auth_0123456789abcdef0123456789abcdef");
        key.set_sensitive(true);
        headers.insert("scale-callback-auth", key.clone());
        headers.insert("webhook-id", HeaderValue::from_static("cb_1"));
        let text =
            |kept: &str| String::from_utf8(without_secrets(kept.as_bytes().to_vec(), &headers).to_vec()).unwrap();
        let secret = key.to_str().unwrap();
        assert_eq!(
            text(&format!("id cb_1, auth {secret}; again {secret}")),
            "id cb_1, auth [redacted]; again [redacted]"
        );
        assert_eq!(text(&format!("cut {}", &secret[..20])), "cut [redacted]");
        assert_eq!(text("live_auth_ is a prefix"), "live_auth_ is a prefix");
        assert!(text(&"x".repeat(2_000)).len() <= KEPT);
    }
}
