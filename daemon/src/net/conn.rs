//! Connections and the small pool of idle ones. The pool's key holds the team, so that two teams never share a
//! connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor;
use hyper::{Response, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::dial::Dialed;
use super::lenient_http2::LenientStream;
use super::meter::Meter;
use super::recorded::{RecordedStream, StreamRecord};
use crate::model::endpoint::Origin;

/// Node's servers close an idle connection after 5 s, so we use one only before that.
const IDLE: Duration = Duration::from_secs(4);
const AGE: Duration = Duration::from_secs(600);
const IDLE_PER_KEY: usize = 16;
const IDLE_IN_ALL: usize = 1_024;
/// The largest head of an answer, over both versions of HTTP. Servers behind several proxies add many headers.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
pub(crate) const MAX_HEADERS: usize = 128;
/// The buffer of an HTTP/1.1 connection begins small and grows only as far as a head needs it.
const BUFFER: usize = HEAD_BYTES + 32 * 1024;
/// Bounds of an HTTP/2 connection. The library's defaults are too large.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// HTTP/2 counts 32 bytes more for each header. The library can't say that a head is too large, so it lets larger heads
/// through, and the exchange refuses them.
const HEADER_LIST: u32 = 2 * HEAD_BYTES as u32;
const SEND_BUFFER: usize = 256 * 1024;
/// At most this many requests share one HTTP/2 connection, even if the receiver would take more.
const STREAMS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) team: Arc<str>,
    pub(crate) origin: Origin,
    /// The generation of the egress policy that allowed the connection.
    pub(crate) generation: u64,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What requests on one connection share.
struct Shared {
    record: Arc<StreamRecord>,
    meter: Arc<Meter>,
    peer: SocketAddr,
    born: Instant,
    /// They end when the connection is dropped. A receiver that never reads would keep them and their bodies for ever.
    tasks: Tasks,
    /// How many requests the receiver takes at once, as it said last.
    streams: Arc<AtomicUsize>,
}

/// The tasks of one connection. HTTP/2 has several: one owns the socket, and the others send bodies to it.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(async move { drop(task.await) });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The library's own tasks also hold the set, so dropping it here does not end them.
        self.tasks.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

/// A connection, or a share in an HTTP/2 connection.
pub(crate) struct Connection {
    sender: Sender,
    shared: Arc<Shared>,
    idle_since: Instant,
    /// It came from the pool, so the receiver may have closed it.
    pub(crate) reused: bool,
}

/// Wakes the task of a new HTTP/2 connection a few times. The library knows how many requests the receiver takes at once as soon
/// as it has said so, but it wakes this task only for the next request.
struct Looks {
    wait: Duration,
    next: Pin<Box<Sleep>>,
}

impl Looks {
    const FIRST: Duration = Duration::from_millis(1);
    const LAST: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self { wait: Self::FIRST, next: Box::pin(sleep(Self::FIRST)) }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        while self.wait <= Self::LAST && self.next.as_mut().poll(context).is_ready() {
            self.wait = self.wait.saturating_mul(2);
            self.next.as_mut().reset(tokio::time::Instant::now() + self.wait);
        }
    }
}

impl Connection {
    pub(crate) async fn over(dialed: Dialed) -> hyper::Result<Self> {
        let record = Arc::new(StreamRecord::default());
        let stream = RecordedStream::new(dialed.stream, Arc::clone(&record));
        // One request until the receiver has said how many it takes at once.
        let (tasks, streams) = (Tasks::default(), Arc::new(AtomicUsize::new(1)));
        // An exchange sees how its connection ends. How an idle connection ends does not matter.
        let sender = if dialed.http2 {
            let (sender, mut driver) = http2::Builder::new(tasks.clone())
                .timer(TokioTimer::new())
                .initial_max_send_streams(1)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(HEADER_LIST)
                .max_send_buf_size(SEND_BUFFER)
                .handshake(TokioIo::new(LenientStream::new(stream, Arc::clone(&dialed.meter))))
                .await?;
            let streams = Arc::clone(&streams);
            let mut looks = Looks::new();
            tasks.spawn(std::future::poll_fn(move |context| {
                looks.poll(context);
                let ended = Pin::new(&mut driver).poll(context).map(drop);
                streams.store(driver.current_max_send_streams(), Ordering::Relaxed);
                ended
            }));
            Sender::Http2(sender)
        } else {
            let (sender, driver) = http1().handshake(TokioIo::new(stream)).await?;
            tasks.spawn(async move { drop(driver.await) });
            Sender::Http1(sender)
        };
        let now = Instant::now();
        let shared = Shared { record, meter: dialed.meter, peer: dialed.peer, born: now, tasks, streams };
        Ok(Self { sender, shared: Arc::new(shared), idle_since: now, reused: false })
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    pub(crate) fn record(&self) -> &StreamRecord {
        &self.shared.record
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.shared.meter
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.shared.peer
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }

    /// Waits until it can take the next request. Over HTTP/1.1, the last request must be sent completely.
    pub(crate) async fn ready(&mut self) -> hyper::Result<()> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        }
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Another share in an HTTP/2 connection.
    fn share(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else { return None };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            shared: Arc::clone(&self.shared),
            idle_since: self.idle_since,
            reused: true,
        })
    }

    /// How many requests have a share in it. The pool's own share is not counted.
    fn users(&self) -> usize {
        Arc::strong_count(&self.shared).saturating_sub(1)
    }

    /// Whether the receiver takes one more request now.
    fn has_room(&self) -> bool {
        self.users() < STREAMS.min(self.shared.streams.load(Ordering::Relaxed)).max(1)
    }

    fn usable(&self, now: Instant) -> bool {
        let idle = now.duration_since(self.idle_since) >= IDLE && self.users() == 0;
        !self.is_closed() && !idle && now.duration_since(self.shared.born) < AGE
    }
}

/// HTTP/1.1 as receivers speak it. Old servers and firewalls send heads that the standard forbids: folded lines, a space
/// before the colon, control bytes in a cookie. The status can be read all the same, so such a line is accepted or
/// ignored. What leaves open where the answer ends, such as two different lengths, is still refused.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(BUFFER)
        .max_header_size(HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    builder
}

#[derive(Default)]
pub(crate) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    by_key: HashMap<PoolKey, Kept>,
    count: usize,
}

/// The connections of one key: idle ones, or the one that requests share.
#[derive(Default)]
struct Kept {
    idle: Vec<Connection>,
    shared: Option<Connection>,
}

impl Kept {
    fn len(&self) -> usize {
        self.idle.len() + usize::from(self.shared.is_some())
    }
}

impl Pool {
    /// Takes a share in the HTTP/2 connection, or the idle connection used last, which is the least likely to be
    /// closed.
    pub(crate) fn take(&self, key: &PoolKey) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Idle { by_key, count } = &mut *idle;
        let kept = by_key.get_mut(key)?;
        if let Some(shared) = &kept.shared {
            if shared.usable(now) {
                return if shared.has_room() { shared.share() } else { None };
            }
            kept.shared = None;
            *count = count.saturating_sub(1);
        }
        while let Some(mut connection) = kept.idle.pop() {
            *count = count.saturating_sub(1);
            if connection.usable(now) {
                connection.reused = true;
                return Some(connection);
            }
        }
        by_key.remove(key);
        None
    }

    /// Lets other requests share a new HTTP/2 connection at once. Only the first one of a key is kept.
    pub(crate) fn offer(&self, key: &PoolKey, connection: &Connection) {
        if let Some(share) = connection.share() {
            self.put(key.clone(), share);
        }
    }

    /// No new request gets a share in this connection, because something went wrong on it.
    pub(crate) fn retire(&self, key: &PoolKey, connection: &Connection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Idle { by_key, count } = &mut *idle;
        let Some(kept) = by_key.get_mut(key) else { return };
        if kept.shared.take_if(|shared| Arc::ptr_eq(&shared.shared, &connection.shared)).is_some() {
            *count = count.saturating_sub(1);
        }
    }

    pub(crate) fn put(&self, key: PoolKey, mut connection: Connection) {
        let now = Instant::now();
        connection.idle_since = now;
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Idle { by_key, count } = &mut *idle;
        if let Some(kept) = by_key.get_mut(&key).filter(|_| connection.is_http2())
            && let Some(shared) = &mut kept.shared
        {
            if Arc::ptr_eq(&shared.shared, &connection.shared) {
                shared.idle_since = now;
            } else if !shared.usable(now) {
                *shared = connection;
            }
            return;
        }
        if *count >= IDLE_IN_ALL {
            return;
        }
        let kept = by_key.entry(key).or_default();
        if connection.is_http2() {
            kept.shared = Some(connection);
        } else if kept.idle.len() < IDLE_PER_KEY {
            kept.idle.push(connection);
        } else {
            return;
        }
        *count = count.saturating_add(1);
    }

    /// Drops connections that have been idle or alive too long. Requests under way on a shared connection can end.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.by_key.retain(|_, kept| {
            kept.idle.retain(|connection| connection.usable(now));
            kept.shared.take_if(|connection| !connection.usable(now));
            kept.len() > 0
        });
        idle.count = idle.by_key.values().map(Kept::len).sum();
    }
}

#[cfg(test)]
#[path = "conn_tests.rs"]
mod tests;
