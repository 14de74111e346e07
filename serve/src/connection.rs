//! One connection from its handshake to its end. It ends when the client ends it, when it is idle for too long, when its
//! life is over, or when the server stops. A connection never outlasts the drain.

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
use crate::listener::Accepted;
use crate::paced_stream::PacedStream;
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

/// Serves one connection to its end.
pub(crate) async fn run<S, B>(accepted: Accepted, service: S, limits: Limits, stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some((stream, is_http2)) = accepted.secured(limits.head).await else { return };
    let activity = Arc::new(Activity::new(limits.refusals.clone()));
    let stream = WriteTimeout::new(stream, limits.head, Arc::clone(&activity));
    let service = TrackedService::new(service, Arc::clone(&activity));
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
        until_end(connection, http2::Connection::graceful_shutdown, limits, &activity, stop).await;
    } else {
        let stream = PacedStream::new(StrictStream::new(stream), Arc::clone(&activity));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(limits.head_bytes.max(LEAST_BUFFER))
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        until_end(connection, http1::Connection::graceful_shutdown, limits, &activity, stop).await;
    }
    // A client that leaves before its refusal goes out keeps its place until then, so leaving gains it nothing.
    if let Some(due) = activity.last_refusal() {
        sleep_until(due).await;
    }
}

/// Runs a connection to its end. A connection that has no open request for as long as a head may take is closed. From a
/// stop, or from the end of the connection's life, open requests have the drain's time.
async fn until_end<C: Future>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    limits: Limits,
    activity: &Activity,
    mut stop: watch::Receiver<bool>,
) {
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
