//! The accept loop: it accepts connections within the limits, serves each in a task of its own, and drains them when it is
//! told to stop. It never looks at a request; what is served is the caller's.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::connection;
pub use crate::limits::Limits;
pub use crate::listener::{Listener, Peer};

/// After closing this many connections because too many are open, the loop pauses for [`CLOSING_PAUSE`].
const CLOSED_BETWEEN_PAUSES: usize = 8;
const CLOSING_PAUSE: Duration = Duration::from_millis(1);
/// How long the loop waits after a failed accept. Most failures mean that no file descriptor is left.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);
/// Failed accepts are logged at most this often.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

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
    let mut last_warning = None;
    loop {
        let accepting = async {
            let place = waited_for_place(&places, limits.refuse_more).await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepting => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn(&error, &mut last_warning);
                tokio::time::sleep(FAILURE_PAUSE).await;
                continue;
            }
        };
        let Some(place) = place.or_else(|| Arc::clone(&places).try_acquire_owned().ok()) else {
            drop(stream);
            closed += 1;
            if closed.is_multiple_of(CLOSED_BETWEEN_PAUSES) {
                tokio::time::sleep(CLOSING_PAUSE).await;
            }
            continue;
        };
        let serving = connection::run(stream, make(peer), limits.clone(), stop.clone());
        tokio::spawn(async move {
            serving.await;
            drop(place);
        });
    }
    drop(listener);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    // Each connection ends itself at the same deadline.
    tokio::time::timeout(limits.drain, places.acquire_many(all)).await.ok();
}

/// A place for the next connection, before it is accepted. Where one more is refused, its place is looked for afterwards.
async fn waited_for_place(places: &Arc<Semaphore>, refuse_more: bool) -> Option<OwnedSemaphorePermit> {
    if refuse_more { None } else { Arc::clone(places).acquire_owned().await.ok() }
}

fn warn(error: &io::Error, last: &mut Option<Instant>) {
    if last.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
        tracing::warn!(%error, "a connection could not be accepted");
        *last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const DEADLINE: Duration = Duration::from_secs(10);

    /// A server whose service tells of each request, and answers once it is released.
    struct Running {
        address: SocketAddr,
        requests: mpsc::Receiver<()>,
        release: watch::Sender<bool>,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
    }

    async fn start(limits: Limits) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, requests) = mpsc::channel(8);
        let ((release, released), (stop, stopped)) = (watch::channel(false), watch::channel(false));
        let make = move |_| {
            let (told, released) = (told.clone(), released.clone());
            service_fn(move |_| {
                let (told, mut released) = (told.clone(), released.clone());
                async move {
                    told.send(()).await.unwrap();
                    assert!(released.wait_for(|released| *released).await.is_ok());
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            })
        };
        let task = tokio::spawn(serve(Listener::Tcp(listener), limits, make, stopped));
        Running { address, requests, release, stop, task }
    }

    async fn all_of(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        // A connection that is reset holds what came before it.
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it is closed").ok();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_stop_lets_open_requests_end() {
        let mut server = start(Limits { drain: DEADLINE, ..Limits::default() }).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        server.requests.recv().await.unwrap();
        server.stop.send_replace(true);
        let listener_closes = async { while TcpStream::connect(server.address).await.is_ok() {} };
        tokio::time::timeout(DEADLINE, listener_closes).await.expect("the server listens no more");
        assert!(!server.task.is_finished(), "it waits for the open request");
        server.release.send_replace(true);
        assert!(all_of(stream).await.starts_with("HTTP/1.1 200"));
        tokio::time::timeout(DEADLINE, server.task).await.expect("the server ends").unwrap();
    }

    #[tokio::test]
    async fn a_request_that_outlasts_the_drain_is_cut_off() {
        let mut server = start(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        server.requests.recv().await.unwrap();
        server.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, server.task).await.expect("the server ends").unwrap();
        assert_eq!(all_of(stream).await, "");
    }

    #[tokio::test]
    async fn one_connection_more_is_closed_where_the_limits_say_so() {
        let mut server = start(Limits { connections: 1, refuse_more: true, ..Limits::default() }).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(all_of(TcpStream::connect(server.address).await.unwrap()).await, "");
        first.write_all(REQUEST).await.unwrap();
        server.requests.recv().await.unwrap();
        server.release.send_replace(true);
        server.stop.send_replace(true);
        assert!(all_of(first).await.starts_with("HTTP/1.1 200"), "the first one keeps its place");
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let server = start(Limits { head: Duration::from_millis(50), ..Limits::default() }).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(all_of(stream).await, "");
        assert!(!server.task.is_finished());
    }
}
