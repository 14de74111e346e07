//! One connection from its handshake to its end. It ends when the client ends it, when it is idle for too long, when it must
//! give way to another one, when its life is over, or when the server stops. A connection never outlasts the drain.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::activity::Activity;
use crate::limits::Limits;
use crate::listener::{Accepted, Peer};
use crate::nets::Sender;
use crate::paced_stream::PacedStream;
use crate::places::Place;
use crate::proxy_header;
use crate::strict_stream::StrictStream;
use crate::tracked_service::TrackedService;
use crate::write_timeout::WriteTimeout;

/// Flow-control window of an HTTP/2 connection and of each of its streams: the library's own windows are large.
const WINDOW: u32 = 64 * 1024;
/// How long an idle connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Headers of one HTTP/1.1 request.
const HEADERS: usize = 64;
/// The HTTP/1.1 library needs a buffer of at least this many bytes.
const LEAST_BUFFER: usize = 8 * 1024;

/// What a connection needs beside its stream.
pub(crate) struct Surroundings {
    pub(crate) limits: Limits,
    pub(crate) activity: Arc<Activity>,
    pub(crate) place: Place,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves one connection to its end, which may also be that it gives way to another one. `make` gives its service.
pub(crate) async fn run<S, B>(mut accepted: Accepted, peer: Peer, make: Arc<impl Fn(Peer) -> S>, around: Surroundings)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let activity = Arc::clone(&around.activity);
    let serving = async {
        if let Some(peer) = identify(&mut accepted, peer, &around).await {
            converse(accepted, make(peer), &around).await;
        }
    };
    tokio::select! {
        biased;
        () = activity.must_give_way() => {}
        () = serving => {}
    }
}

/// Who is at the other end. With the PROXY protocol, the header says whose connection it is, and the connection is counted
/// for that sender from now on. `None` ends the connection.
async fn identify(accepted: &mut Accepted, peer: Peer, around: &Surroundings) -> Option<Peer> {
    if !around.limits.proxy_protocol {
        return Some(peer);
    }
    let header = tokio::time::timeout(around.limits.head, proxy_header::read(accepted.raw())).await;
    match header {
        Ok(Ok(None)) => Some(peer),
        Ok(Ok(Some(sender))) => {
            if !around.limits.is_trusted(sender.ip()) {
                around.place.move_to(Sender::of(sender.ip())).ok()?;
            }
            Some(Peer::Tcp(sender))
        }
        Ok(Err(error)) => {
            // A load balancer that is set up differently does this with each of its connections.
            tracing::debug!(%error, ?peer, "a connection was closed");
            None
        }
        Err(_) => None,
    }
}

async fn converse<S, B>(accepted: Accepted, service: S, around: &Surroundings)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (limits, activity) = (&around.limits, &around.activity);
    let Some((stream, is_http2)) = accepted.secured(limits.head).await else { return };
    let stream = WriteTimeout::new(stream, limits.head, Arc::clone(activity));
    let service = TrackedService::new(service, Arc::clone(activity));
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
        until_end(connection, http2::Connection::graceful_shutdown, around).await;
    } else {
        let stream = PacedStream::new(StrictStream::new(stream), Arc::clone(activity));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(limits.head_bytes.max(LEAST_BUFFER))
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        until_end(connection, http1::Connection::graceful_shutdown, around).await;
    }
    // A client that leaves before its refusal goes out keeps its place until then, so leaving gains it nothing.
    if let Some(due) = activity.last_refusal() {
        sleep_until(due).await;
    }
}

/// Runs a connection to its end. A connection that has no open request for as long as a head may take is closed. From a
/// stop, or from the end of the connection's life, open requests have the drain's time.
async fn until_end<C: Future>(connection: C, shut_down: impl Fn(Pin<&mut C>), around: &Surroundings) {
    let (limits, activity, mut stop) = (&around.limits, &around.activity, around.stop.clone());
    let mut connection = pin!(connection);
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let end_of_life = Instant::now() + limits.life;
    loop {
        let progress = activity.progress();
        tokio::select! {
            biased;
            // How the client ends its connection makes no difference here.
            _ = connection.as_mut() => return,
            _ = stopped.as_mut() => break,
            () = tokio::time::sleep(limits.head) => {}
        }
        if Instant::now() >= end_of_life {
            break;
        }
        if !activity.has_open_requests() && activity.progress() == progress {
            // The connection is idle. A request that was on its way by now is served all the same.
            shut_down(connection.as_mut());
            let goodbye = tokio::time::timeout(GOODBYE.min(limits.drain), connection.as_mut()).await;
            if goodbye.is_ok() || !activity.has_open_requests() {
                return;
            }
            break;
        }
    }
    shut_down(connection.as_mut());
    // A connection that outlasts the drain is closed where it stands.
    tokio::time::timeout(limits.drain, connection).await.ok();
}
