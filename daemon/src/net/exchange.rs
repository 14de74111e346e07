//! One POST over one connection: the request is sent, the head is read, and the body is read up to a limit. The outcome
//! of a failure names its phase. If the request certainly was not handled (a kept connection gave it back unsent, or the
//! receiver says so), it is sent over one new connection, and the attempt records this.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, timeout_at};

use super::again::Again;
use super::conn::{Connection, HEAD_BYTES, MAX_HEADERS, Pool, PoolKey};
use super::dial::{Deadlines, Dialer};
use super::dns::{self, Dns};
use super::egress::Policy;
use super::error::SetupError;
use super::failed::Failed;
use super::head_failure;
use super::redact::{self, KEPT, MARGIN};
use super::target::Target;
use super::tls;
use crate::base::clock::Timestamp;
use crate::faults::{self, Fault};
use crate::model::attempt::Outcome;
use crate::model::retry::retry_after;

/// How many bytes of an answer's body are read, and in how many pieces. A chunk of one byte costs as much as a large one.
const READ: usize = 64 * 1024;
const PIECES: usize = 4 * 1024;

/// What the fault switch `abort` looks for in a body.
const ABORTING: &[u8] = b"task-abort";

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
        let mut why = Bytes::from(why.to_string());
        why.truncate(KEPT);
        Self {
            outcome,
            hopeless: false,
            sent: false,
            status: None,
            retry_after: None,
            peer: None,
            redialed: false,
            snippet: why,
        }
    }
}

/// A request that was not handled, and what would be recorded if it were not sent again.
#[derive(Debug)]
pub(super) struct Unhandled {
    pub(super) exchange: Exchange,
    again: Again,
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
        let http1 = tls::connector(config.ca_file.as_deref(), false)?;
        let dialer = Dialer { dns: Dns::new(&config.dns)?, tls, http1, deadlines: config.deadlines };
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
        if faults::is_on(Fault::Abort) && outgoing.body.windows(ABORTING.len()).any(|part| part == ABORTING) {
            std::process::abort();
        }
        let policy = self.policy();
        let key = PoolKey {
            team: Arc::clone(&outgoing.team),
            origin: outgoing.target.origin.clone(),
            generation: policy.generation,
        };
        let connection = match self.pool.take(&key) {
            Some(connection) => connection,
            None => match self.dial(outgoing, &policy, end, Again::AsBefore).await {
                Ok(connection) => {
                    self.pool.offer(&key, &connection);
                    connection
                }
                Err(exchange) => return exchange,
            },
        };
        // A new connection over HTTP/1.1 that gives the request back would do so again.
        let may_redial = connection.reused || connection.is_http2();
        match self.converse(connection, outgoing, &key, now, end).await {
            Ok(exchange) => exchange,
            Err(Unhandled { again, .. }) if may_redial => match self.dial(outgoing, &policy, end, again).await {
                Ok(fresh) => {
                    self.pool.offer(&key, &fresh);
                    let again = self.converse(fresh, outgoing, &key, now, end).await;
                    Exchange { redialed: true, ..again.unwrap_or_else(|unhandled| unhandled.exchange) }
                }
                Err(exchange) => Exchange { redialed: true, ..exchange },
            },
            Err(unhandled) => unhandled.exchange,
        }
    }

    async fn dial(
        &self,
        outgoing: &Outgoing,
        policy: &Policy,
        end: Instant,
        how: Again,
    ) -> Result<Connection, Exchange> {
        let failed = match self.dialer.dial(&outgoing.target, &outgoing.team, policy, end, how).await {
            Ok(dialed) => {
                let peer = dialed.peer;
                match Connection::over(dialed).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => Failed { peer: Some(peer), ..Failed::new(Outcome::ConnectFailed, error) },
                }
            }
            Err(failed) => failed,
        };
        let snippet = redact::kept(failed.why.as_bytes(), &outgoing.headers);
        let exchange = Exchange { snippet, ..Exchange::refused(failed.outcome, "") };
        Err(Exchange { hopeless: failed.hopeless, peer: failed.peer, ..exchange })
    }

    /// Sends the request over `connection`. `Err` means that it was not handled: it was given back unsent, or the
    /// receiver says so.
    pub(super) async fn converse(
        &self,
        mut connection: Connection,
        outgoing: &Outgoing,
        key: &PoolKey,
        now: Timestamp,
        end: Instant,
    ) -> Result<Exchange, Unhandled> {
        let http2 = connection.is_http2();
        let _metered = connection.meter().request();
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
                read_head(&response, now, &mut exchange);
                let keeps = keeps_connection(response.status().as_u16(), response.headers());
                let (text, whole) = read_body(response.into_body(), end).await;
                if exchange.outcome != Outcome::HeadInvalid {
                    exchange.snippet = redact::kept(&text, &outgoing.headers);
                }
                // An answer may come before our request is sent completely. Then the connection is not kept.
                let is_out = Arc::strong_count(&held) == 1;
                if http2 && !is_out {
                    self.pool.retire(key, &connection);
                }
                let reusable = if http2 { is_out } else { whole && keeps };
                if reusable && matches!(timeout_at(end, connection.ready()).await, Ok(Ok(()))) {
                    self.pool.put(key.clone(), connection);
                }
                Ok(exchange)
            }
            Ok(Err(mut refused)) => {
                self.pool.retire(key, &connection);
                let given_back = refused.take_message().is_some() && (http2 || !exchange.sent);
                exchange.sent &= !given_back;
                let failure = head_failure::of(refused.error(), &connection);
                exchange.outcome = failure.outcome;
                exchange.snippet = redact::kept(failure.why.as_bytes(), &outgoing.headers);
                match failure.again.or(given_back.then_some(Again::AsBefore)) {
                    Some(again) => Err(Unhandled { exchange, again }),
                    None => Ok(exchange),
                }
            }
        }
    }
}

/// What an answer's head says. Over HTTP/1.1, the library has refused too large a head before.
fn read_head(response: &Response<Incoming>, now: Timestamp, exchange: &mut Exchange) {
    exchange.sent = true;
    let bytes: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if response.headers().len() > MAX_HEADERS || bytes > HEAD_BYTES {
        exchange.outcome = Outcome::HeadInvalid;
        exchange.snippet = Bytes::from(head_failure::too_large());
        return;
    }
    let status = response.status().as_u16();
    exchange.status = Some(status);
    exchange.outcome = Outcome::of_status(status);
    exchange.retry_after = asked_wait(status, response.headers(), now);
}

/// Whether the next answer over HTTP/1.1 can be told from the rest of this one. An answer 204 or 304 has no body; a
/// receiver that announces one anyway may send it later.
fn keeps_connection(status: u16, headers: &HeaderMap) -> bool {
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    let has_length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    match status {
        101 => false,
        204 | 304 => !is_chunked && !has_length,
        _ => !(is_chunked && headers.contains_key(CONTENT_LENGTH)),
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

fn asked_wait(status: u16, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let obeyed = matches!(status, 429 | 503);
    obeyed
        .then(|| headers.get(RETRY_AFTER).map(HeaderValue::as_bytes))
        .flatten()
        .and_then(|value| retry_after(value, now))
}

/// Reads a body up to its limit, and tells whether this was all of it. Keeps a little more than is stored, so that an
/// echoed secret can be recognised.
async fn read_body(mut body: Incoming, end: Instant) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let mut read = 0_usize;
    for _ in 0..PIECES {
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
    (kept, false)
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
