//! The gate: a proxy that lets verified callbacks through and nothing else, for receivers in any language.
//!
//! No header map is ever forwarded: the upstream request is made from what was verified and a short list of names.

mod admin;
mod admission;
mod body;
mod finishing;
mod journal;
mod metrics;
mod upstream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use scale_callback_auth::replay::{Claim, MemoryGuard, ReplayGuard as _, Token as _};
use scale_callback_auth::{Verified, Verifier, VerifyError};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::conformance::unix_millis;
use crate::keys::{Change, KeySource, LiveKeys};
use crate::pace::Pace;
use crate::receiver::BODY_LIMIT;
use crate::server::{Limits, Listener, serve};
use crate::text::printable;
use crate::tls::ServerTls;
use admission::Refusal;
use body::{Held, Reading, STRETCH};
use finishing::Finishing;
use journal::Journal;
use metrics::Metrics;
use upstream::Upstream;
pub use upstream::UpstreamAt;

/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 16;
/// Callbacks that are passed on at once; connections and room bound them long before.
const FORWARDS: u32 = 1 << 16;

/// What a gate is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where callbacks come in.
    pub listen: SocketAddr,
    /// The certificate chain and its key, PEM; the listener speaks TLS with them.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where health and metrics are asked for.
    pub admin: Option<SocketAddr>,
    /// The path and query that callbacks are sent to, compared as it is written.
    pub path: String,
    /// Where verified callbacks go.
    pub upstream: UpstreamAt,
    /// A file with a token for the upstream, sent as `authorization: Bearer`, so that only this gate can call it.
    pub upstream_token: Option<PathBuf>,
    /// The keys.
    pub keys: KeySource,
    /// Forward `scale-callback-auth` as well, which may be a secret.
    pub keep_auth_header: bool,
    /// Bounds.
    pub bounds: Bounds,
}

/// Bounds of a gate.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections open at once; one more is closed.
    pub connections: usize,
    /// Bytes of one body.
    pub body: usize,
    /// Bytes of all bodies that are held at once; a request above it is answered 503.
    pub bodies: usize,
    /// For TLS and for a request head.
    pub head: Duration,
    /// For a whole body.
    pub whole_body: Duration,
    /// For the upstream's whole answer.
    pub upstream: Duration,
    /// For open requests once the gate stops.
    pub drain: Duration,
    /// Refusals a second, over all connections: beyond it they wait, so that a crowd leaves the machine to the callbacks.
    pub refusals: u32,
    /// Callbacks that are remembered, so that a captured one that is sent again is not handled again.
    pub remembered: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1_024,
            body: BODY_LIMIT,
            bodies: 64 << 20,
            head: Duration::from_secs(10),
            whole_body: Duration::from_secs(30),
            upstream: Duration::from_secs(14),
            drain: Duration::from_secs(20),
            // The last of a full house waits a second.
            refusals: 1_000,
            remembered: 200_000,
        }
    }
}

/// A gate that listens.
pub struct Gate {
    /// Where callbacks come in.
    pub address: SocketAddr,
    /// Where health and metrics are asked for.
    pub admin_address: Option<SocketAddr>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    inner: Arc<Inner>,
    tls: Option<Arc<ServerTls>>,
}

struct Inner {
    path: String,
    keys: LiveKeys,
    guard: MemoryGuard,
    upstream: Upstream,
    room: Arc<Semaphore>,
    /// A place for each callback that is being passed on, whether its client is still there or not.
    forwards: Arc<Semaphore>,
    bounds: Bounds,
    refusals: Arc<Pace>,
    metrics: Metrics,
    journal: Journal,
}

impl Gate {
    /// Reads keys and files and takes the ports.
    ///
    /// # Errors
    /// One sentence that says what and where.
    pub async fn bind(config: Config) -> Result<Self, String> {
        let keys = LiveKeys::load(config.keys)?;
        let tls = config.tls.as_ref().map(|(cert, key)| ServerTls::load(cert, key)).transpose()?.map(Arc::new);
        let token = config.upstream_token.as_ref().map(read_token).transpose()?;
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.map_err(|error| format!("can't listen at {address}: {error}"))
        };
        let listener = bind(config.listen).await?;
        let admin = match config.admin {
            None => None,
            Some(address) => Some(bind(address).await?),
        };
        let local = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
        let bounds = config.bounds;
        let lease = bounds.upstream.as_secs().saturating_add(5);
        let inner = Inner {
            upstream: Upstream::new(config.upstream, &config.path, token, config.keep_auth_header, bounds.upstream)?,
            path: config.path,
            keys,
            guard: MemoryGuard::new(bounds.remembered, lease),
            room: Arc::new(Semaphore::new(bounds.bodies / body::UNIT)),
            forwards: Arc::new(Semaphore::new(FORWARDS as usize)),
            bounds,
            refusals: Arc::new(Pace::new(bounds.refusals)),
            metrics: Metrics::new(),
            journal: Journal::default(),
        };
        Ok(Self {
            address: local(&listener)?,
            admin_address: admin.as_ref().map(local).transpose()?,
            listener,
            admin,
            inner: Arc::new(inner),
            tls,
        })
    }

    /// Looks at keys and certificate again; what can't be used changes nothing.
    pub fn reloader(&self) -> impl Fn() + Send + Sync + 'static {
        let (inner, tls) = (Arc::clone(&self.inner), self.tls.clone());
        move || {
            match inner.keys.reload() {
                Change::None => tracing::info!("the keys were read again: they are the same"),
                change => tell(&inner.metrics, &change),
            }
            match tls.as_ref().map(|tls| tls.reload()) {
                None => {}
                Some(Ok(())) => {
                    inner.metrics.reload("ok");
                    tracing::info!("the certificate was read again");
                }
                Some(Err(why)) => {
                    inner.metrics.reload("refused");
                    tracing::error!(why, "the certificate was read again and refused: the old one stays");
                }
            }
        }
    }

    /// Serves until `stop`, then lets open requests end.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let bounds = self.inner.bounds;
        let limits = Limits {
            connections: bounds.connections,
            refuse_more: true,
            streams: STREAMS,
            head: bounds.head,
            drain: bounds.drain,
            refusals: Some(Arc::clone(&self.inner.refusals)),
            ..Limits::default()
        };
        let follow = {
            let (keys, inner) = (self.inner.keys.clone(), Arc::clone(&self.inner));
            tokio::spawn(async move { keys.follow(|change| tell(&inner.metrics, &change)).await })
        };
        let sweep = {
            let inner = Arc::clone(&self.inner);
            tokio::spawn(async move { inner.upstream.sweep().await })
        };
        // Health and metrics are told to the end of the drain.
        let (drained, until_drained) = watch::channel(false);
        let admin = self
            .admin
            .map(|listener| tokio::spawn(admin::run(listener, Arc::clone(&self.inner), stop.clone(), until_drained)));
        let listener = match self.tls {
            None => Listener::Tcp(self.listener),
            Some(tls) => Listener::Tls(self.listener, tls),
        };
        let serving = Arc::clone(&self.inner);
        let make = move |_| {
            let inner = Arc::clone(&serving);
            inner.metrics.connections.inc();
            service_fn(move |request| answer(Arc::clone(&inner), request))
        };
        let end = {
            let mut stop = stop.clone();
            tokio::spawn(async move {
                let _ = stop.wait_for(|stop| *stop).await;
                Instant::now() + bounds.drain
            })
        };
        serve(listener, limits, make, stop).await;
        // What a client began and left comes to its end as well, within the same time.
        if let Ok(end) = end.await {
            let _ = tokio::time::timeout_at(end, self.inner.forwards.acquire_many(FORWARDS)).await;
        }
        follow.abort();
        sweep.abort();
        drained.send_replace(true);
        if let Some(admin) = admin {
            let _ = admin.await;
        }
    }
}

fn tell(metrics: &Metrics, change: &Change) {
    match change {
        Change::None => {}
        Change::Taken => {
            metrics.reload("ok");
            tracing::info!("other keys are in force");
        }
        Change::Refused(why) => {
            metrics.reload("refused");
            tracing::error!(why, "the keys were read again and refused: the old ones stay in force");
        }
    }
}

fn read_token(path: &PathBuf) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?);
    let token = Zeroizing::new(text.trim().to_owned());
    let sendable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if sendable { Ok(token) } else { Err(format!("{shown}: a token is one line of printable ASCII")) }
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut taken = 0;
    Ok(match inner.read(request, &mut taken).await {
        Err(refusal) => refusal.response(false, taken),
        Ok(read) => inner.pass_on(read).await.unwrap_or_else(|refusal| refusal.response(true, taken)),
    })
}

/// A request that was read to its end, and looks like a callback.
struct Read {
    verifier: Arc<Verifier>,
    headers: HeaderMap,
    held: Held,
}

impl Inner {
    /// Reads a request that may be a callback; `taken` tells how much of its body came.
    async fn read(&self, request: Request<Incoming>, taken: &mut usize) -> Result<Read, Refusal> {
        let (head, body) = request.into_parts();
        let verifier = self.keys.verifier();
        let announced = body::announced(&head.headers);
        let reading = Reading::new(body, announced, taken, self);
        let mut reading = reading.map_err(|refusal| self.told(refusal, &head.headers))?;
        // The first look at a body is what lets a client that asked first send it.
        let asks_first = head.headers.contains_key(header::EXPECT);
        let mut is_there = false;
        let mut judged = admission::shape(&head, &self.path);
        if judged.is_ok() && !asks_first {
            is_there = reading.is_there().await.map_err(|refusal| self.told(refusal, &head.headers))?;
        }
        if judged.is_ok() && !is_there {
            judged = verifier.check_headers(&head.headers).map_err(Refusal::Unproven);
        }
        if let Err(refusal) = judged {
            let refusal = self.told(refusal, &head.headers);
            if !asks_first {
                Box::pin(reading.discard()).await;
            }
            return Err(refusal);
        }
        let headers = upstream::wanted(&head.headers, !is_there);
        drop(head);
        if !is_there {
            // Whoever waits for a body has room for what waiting takes; the others don't carry it along.
            Box::pin(reading.finish()).await.map_err(|refusal| self.told(refusal, &headers))?;
        }
        Ok(Read { verifier, headers, held: reading.into_held() })
    }

    /// Counts a refusal and tells it to the log; the caller hears a status.
    fn told(&self, refusal: Refusal, headers: &HeaderMap) -> Refusal {
        self.metrics.refused(refusal.reason());
        if let Some(untold) = self.journal.may() {
            let id = headers.get(scale_callback_auth::header::ID).map_or(&b"-"[..], HeaderValue::as_bytes);
            tracing::warn!(reason = refusal.reason(), id = printable(id, 64), untold, "refused");
        }
        refusal
    }

    /// Verifies a large body: that takes milliseconds, and others are not to wait behind it.
    async fn in_stretches<'b>(
        &self,
        verifier: &Verifier,
        headers: &HeaderMap,
        body: &'b [u8],
        now: u64,
    ) -> Result<Verified<'b>, VerifyError> {
        let mut steps = verifier.begin_incremental_at(headers, body, now)?;
        loop {
            if let Some(verdict) = steps.step(STRETCH) {
                return verdict;
            }
            self.refusals.rest().await;
        }
    }

    /// Verifies a request and passes it on.
    async fn pass_on(self: &Arc<Self>, read: Read) -> Result<Response<Full<Bytes>>, Refusal> {
        let Read { verifier, headers, held } = read;
        // One look at the clock for both: what still verifies is still remembered.
        let now = u64::try_from(unix_millis() / 1_000).unwrap_or_default();
        let verified = if held.bytes.len() > STRETCH {
            self.in_stretches(&verifier, &headers, &held.bytes, now).await
        } else {
            verifier.verify_at(&headers, &held.bytes, now)
        };
        let refused = |refusal| self.told(refusal, &headers);
        let verified = verified.map_err(|why| refused(Refusal::Unproven(why)))?;
        // Every verified request names the credential that accepted it.
        let credential = verifier.credential(&verified).ok_or_else(|| refused(Refusal::Overloaded))?;
        let token = match self.guard.claim_at(credential, &verified, now) {
            Claim::Fresh(token) => token,
            Claim::Done => {
                self.metrics.repeats.inc();
                return Ok(Response::new(Full::default()));
            }
            Claim::InFlight => return Err(refused(Refusal::InFlight)),
            Claim::Full => return Err(refused(Refusal::Full)),
        };
        let place = Arc::clone(&self.forwards).try_acquire_owned().map_err(|_| refused(Refusal::Overloaded))?;
        let id = headers.get(scale_callback_auth::header::ID).cloned();
        let mut forward = Some(self.upstream.request(headers, verified.mode(), held.bytes.clone()));
        // A client that goes away now changes nothing: what was begun comes to its end, and its claim is kept.
        let own = Arc::clone(self);
        let work = async move {
            let answer = own.upstream.send(&mut forward).await;
            match &answer {
                Ok(answer) => {
                    own.metrics.forwarded(answer.status());
                    if answer.status().is_success() {
                        token.done();
                    }
                }
                Err(failure) => {
                    own.metrics.failed(failure.name());
                    if let Some(untold) = own.journal.may() {
                        let id = id.as_ref().map_or(&b"-"[..], HeaderValue::as_bytes);
                        tracing::warn!(
                            failure = failure.name(),
                            id = printable(id, 64),
                            untold,
                            "your server gave no answer"
                        );
                    }
                }
            }
            drop((held, place));
            answer
        };
        let forwarding = Finishing::new(work);
        match forwarding.await {
            Ok(answer) => Ok(answer),
            Err(failure) => Ok(plain(failure.status())),
        }
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}
