//! The HTTP server shell: accepts, limits, drains. What it serves is the caller's.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::pace::{Pace, Paced, Refused};
use crate::stall::Impatient;
use crate::tls::ServerTls;
use crate::wire::Strict;

/// Bounds of an HTTP/2 connection: the library's own are large.
const WINDOW: u32 = 64 * 1024;
const STREAMS: u32 = 32;
/// How long an idle connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// So many connections are closed, because there are too many, without a rest of a millisecond.
const CLOSED_AT_ONCE: usize = 8;
/// Headers of one HTTP/1.1 request.
const HEADERS: usize = 64;

/// Bounds of every connection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// One more is closed at once, where it would wait to be accepted otherwise.
    pub refuse_more: bool,
    /// For a whole request head; also how long a connection without a request is kept, and how long a client may take
    /// nothing of an answer.
    pub head: Duration,
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// For one connection's whole life.
    pub life: Duration,
    /// How long open requests may take to end once the server stops.
    pub drain: Duration,
    /// The pace of refusals: of heads that the library refuses, and of responses that are marked as [`Refused`]. Each
    /// keeps its connection's place until it went out, or would have. Responses have to be in one piece then.
    pub refusals: Option<Arc<Pace>>,
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

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process of this machine, by its user id.
    Unix(Option<u32>),
}

/// Where a server listens.
#[derive(Debug)]
pub enum Listener {
    /// On TCP, HTTP/1.1.
    Tcp(TcpListener),
    /// On TCP with TLS, HTTP/1.1 and HTTP/2 as the client chooses.
    Tls(TcpListener, Arc<ServerTls>),
    /// On a socket in the file system.
    Unix(UnixListener),
}

/// What was accepted, before any handshake.
enum Accepted {
    Plain(Box<dyn Connection>),
    Tls(TcpStream, TlsAcceptor),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Accepted::Plain(Box::new(stream)), Peer::Tcp(address)))
            }
            Self::Tls(listener, tls) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Accepted::Tls(stream, tls.acceptor()), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Accepted::Plain(Box::new(stream)), Peer::Unix(user)))
            }
        }
    }
}

impl Accepted {
    /// The stream to speak HTTP on, and whether it is HTTP/2; `None` when there was no handshake in time.
    async fn secured(self, within: Duration) -> Option<(Box<dyn Connection>, bool)> {
        match self {
            Self::Plain(stream) => Some((stream, false)),
            Self::Tls(stream, acceptor) => {
                let stream = tokio::time::timeout(within, acceptor.accept(stream)).await.ok()?.ok()?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Some((Box::new(stream), http2))
            }
        }
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Serves until `stop`, then lets open requests end within the drain. `make` gives the service of one connection.
pub async fn serve<S, B>(listener: Listener, limits: Limits, make: impl Fn(Peer) -> S, mut stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut closed = 0_usize;
    let mut complained: Option<Instant> = None;
    loop {
        let place = if limits.refuse_more {
            None
        } else {
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            place.ok()
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = place.or_else(|| Arc::clone(&places).try_acquire_owned().ok()) else {
                    drop(stream);
                    closed += 1;
                    if closed.is_multiple_of(CLOSED_AT_ONCE) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    continue;
                };
                let service = make(peer);
                let (limits, stop) = (limits.clone(), stop.clone());
                tokio::spawn(async move {
                    serve_one(stream, service, limits, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Mostly: no file descriptor left. Others end in a moment.
                if complained.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                    tracing::warn!(%error, "a connection could not be accepted");
                    complained = Some(Instant::now());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(limits.drain, places.acquire_many(all)).await;
}

async fn serve_one<S, B>(accepted: Accepted, service: S, limits: Limits, stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some((stream, is_http2)) = accepted.secured(limits.head).await else { return };
    let activity = Arc::new(Activity { refusals: limits.refusals.clone(), ..Activity::default() });
    let stream = Impatient::new(stream, limits.head, Arc::clone(&activity));
    let service = Watched { service, activity: Arc::clone(&activity) };
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.head)
            .keep_alive_timeout(limits.head)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(stream), service);
        until_stopped(connection, http2::Connection::graceful_shutdown, limits, &activity, stop).await;
    } else {
        let stream = Paced::new(Strict::new(stream), Arc::clone(&activity));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(limits.head_bytes.max(8 * 1024))
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        until_stopped(connection, http1::Connection::graceful_shutdown, limits, &activity, stop).await;
    }
    // Who leaves before the answer gains nothing by it.
    if let Some(due) = activity.due() {
        sleep_until(due).await;
    }
}

/// What a connection's requests do.
#[derive(Default)]
pub(crate) struct Activity {
    open: AtomicUsize,
    /// Rises with every request that begins or ends, and with what is taken of an answer.
    turns: AtomicUsize,
    /// What is written next belongs to a request.
    owes: AtomicBool,
    refusals: Option<Arc<Pace>>,
    /// When the last refusal goes out.
    due: Mutex<Option<Instant>>,
}

impl Activity {
    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn owes(&self) -> bool {
        self.owes.load(Ordering::Relaxed)
    }

    pub(crate) fn owe(&self) {
        self.owes.store(true, Ordering::Relaxed);
    }

    /// When a refusal may go out; `None` if at once.
    pub(crate) fn refuse(&self, refused: Refused) -> Option<Instant> {
        let pace = self.refusals.as_ref()?;
        let now = Instant::now();
        let due = Some(pace.take(now, refused)).filter(|due| *due > now)?;
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = Some(due);
        Some(due)
    }

    fn due(&self) -> Option<Instant> {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything was written so far.
    pub(crate) fn settle(&self) {
        if self.open.load(Ordering::Relaxed) == 0 {
            self.owes.store(false, Ordering::Relaxed);
        }
    }
}

/// An open request.
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.turn();
        activity.owe();
        Self(Arc::clone(activity))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.turn();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The service, with its open requests counted. A chunked request ends its connection: where its body ends is for the
/// library alone to say, and what comes behind it is looked at by nobody else.
struct Watched<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S, B> Service<Request<Incoming>> for Watched<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Answering<S::Future, B>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let last = request.headers().contains_key(header::TRANSFER_ENCODING);
        Answering { answering: self.service.call(request), last, refused: None, open: Open::new(&self.activity) }
    }
}

struct Waiting<B> {
    until_due: Pin<Box<Sleep>>,
    response: Response<B>,
}

pin_project! {
    struct Answering<F, B> {
        #[pin]
        answering: F,
        last: bool,
        // A refusal that waits: rare, and out of the way of the others.
        refused: Option<Box<Waiting<B>>>,
        open: Open,
    }
}

impl<F: Future<Output = Result<Response<B>, Infallible>>, B> Future for Answering<F, B> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.refused.is_none() {
            let Ok(mut response) = ready!(this.answering.poll(cx));
            if *this.last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let due = response.extensions().get::<Refused>().and_then(|refused| this.open.0.refuse(*refused));
            let Some(due) = due else { return Poll::Ready(Ok(response)) };
            *this.refused = Some(Box::new(Waiting { until_due: Box::pin(sleep_until(due)), response }));
        }
        if let Some(waiting) = this.refused {
            ready!(waiting.until_due.as_mut().poll(cx));
        }
        match this.refused.take() {
            Some(waiting) => Poll::Ready(Ok(waiting.response)),
            None => Poll::Pending,
        }
    }
}

/// Runs a connection to its end. One without an open request for as long as a head may take is closed; from a stop, or
/// the end of its life, open requests have the drain's time.
async fn until_stopped<C: Future>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    limits: Limits,
    activity: &Activity,
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = pin!(connection);
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let end = Instant::now() + limits.life;
    loop {
        let turns = activity.turns.load(Ordering::Relaxed);
        tokio::select! {
            biased;
            // How a peer ends its connection is its own business.
            _ = connection.as_mut() => return,
            _ = stopped.as_mut() => break,
            () = tokio::time::sleep(limits.head) => {}
        }
        if Instant::now() >= end {
            break;
        }
        if activity.open.load(Ordering::Relaxed) == 0 && activity.turns.load(Ordering::Relaxed) == turns {
            // It is idle, and hears goodbye. A request that was on its way by then is served all the same.
            shut_down(connection.as_mut());
            if tokio::time::timeout(GOODBYE.min(limits.drain), connection.as_mut()).await.is_ok()
                || activity.open.load(Ordering::Relaxed) == 0
            {
                return;
            }
            break;
        }
    }
    shut_down(connection.as_mut());
    let _ = tokio::time::timeout(limits.drain, connection).await;
}
