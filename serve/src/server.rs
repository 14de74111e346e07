//! The accept loop: it accepts connections within the limits, serves each in a task of its own, and drains them when it is
//! told to stop. It never looks at a request; what is served is the caller's.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::activity::Activity;
use crate::connection::{self, Surroundings};
pub use crate::limits::Limits;
pub use crate::listener::{Listener, Peer};
use crate::nets::Sender;
use crate::places::{NoPlace, Place, PlaceBounds, Places};

/// After closing this many connections because too many are open, the loop pauses for [`CLOSING_PAUSE`]. Otherwise a crowd that
/// connects again and again would get all of the processor.
const CLOSED_BETWEEN_PAUSES: u64 = 8;
const CLOSING_PAUSE: Duration = Duration::from_millis(1);
/// How long the loop waits after a failed accept. Most failures mean that no file descriptor is left.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection that waits for a place looks for one that gives way.
const NEXT_LOOK: Duration = Duration::from_millis(50);
/// Failed accepts are logged at most this often.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until `stop`, then lets open requests end within the drain. `make` gives the service of one connection.
pub async fn serve<S, B>(
    listener: Listener,
    limits: Limits,
    make: impl Fn(Peer) -> S + Send + Sync + 'static,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let make = Arc::new(make);
    let places = Places::new(PlaceBounds {
        all: limits.connections,
        per_address: limits.per_address,
        per_prefix: limits.per_prefix,
        patience: limits.patience,
    });
    let mut last_warning = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn(&error, &mut last_warning);
                places.make_one_give_way();
                tokio::time::sleep(FAILURE_PAUSE).await;
                continue;
            }
        };
        let activity = Arc::new(Activity::new(limits.refusals.clone()));
        let entered = tokio::select! {
            entered = enter(&places, peer, &activity, &limits) => entered,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let one_was_closed = entered.as_ref().map_or(true, |(_, gave_way)| *gave_way);
        if let Ok((place, _)) = entered {
            let around = Surroundings { limits: limits.clone(), activity, place, stop: stop.clone() };
            tokio::spawn(connection::run(stream, peer, Arc::clone(&make), around));
        }
        if one_was_closed && limits.closed.fetch_add(1, Ordering::Relaxed).is_multiple_of(CLOSED_BETWEEN_PAUSES) {
            tokio::time::sleep(CLOSING_PAUSE).await;
        }
    }
    drop(listener);
    // Each connection ends itself at the same deadline.
    let emptied = async {
        while !places.is_empty() {
            places.freed().await;
        }
    };
    tokio::time::timeout(limits.drain, emptied).await.ok();
}

/// A place for a connection, and whether another one gave way for it.
async fn enter(
    places: &Arc<Places>,
    peer: Peer,
    activity: &Arc<Activity>,
    limits: &Limits,
) -> Result<(Place, bool), NoPlace> {
    let address = peer.ip();
    let is_proxy = address.is_some_and(|address| limits.is_trusted(address));
    if limits.proxy_protocol && !is_proxy {
        return Err(NoPlace);
    }
    // A proxy's connections are of many senders.
    let sender = address.filter(|_| !is_proxy).map(Sender::of);
    loop {
        match places.enter(sender, activity) {
            Err(NoPlace) if !limits.refuse_more => {
                // A connection that becomes idle frees no place, but it would give way.
                tokio::time::timeout(NEXT_LOOK, places.freed()).await.ok();
            }
            entered => return entered,
        }
    }
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
    async fn one_connection_more_is_closed_while_every_other_one_has_an_open_request() {
        let mut server = start(Limits { connections: 1, refuse_more: true, ..Limits::default() }).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        server.requests.recv().await.unwrap();
        assert_eq!(all_of(TcpStream::connect(server.address).await.unwrap()).await, "");
        server.release.send_replace(true);
        server.stop.send_replace(true);
        assert!(all_of(first).await.starts_with("HTTP/1.1 200"), "the first one keeps its place");
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_gives_way_to_one_more() {
        for refuse_more in [true, false] {
            let mut server = start(Limits { connections: 2, refuse_more, ..Limits::default() }).await;
            let silent = TcpStream::connect(server.address).await.unwrap();
            let mut half = TcpStream::connect(server.address).await.unwrap();
            half.write_all(&REQUEST[..20]).await.unwrap();
            let mut real = TcpStream::connect(server.address).await.unwrap();
            real.write_all(REQUEST).await.unwrap();
            server.requests.recv().await.unwrap();
            assert_eq!(all_of(silent).await, "", "the oldest went");
            let mut another = TcpStream::connect(server.address).await.unwrap();
            another.write_all(REQUEST).await.unwrap();
            server.requests.recv().await.unwrap();
            assert_eq!(all_of(half).await, "", "so did the one with half a head");
            server.release.send_replace(true);
            server.stop.send_replace(true);
            assert!(all_of(real).await.starts_with("HTTP/1.1 200"));
            assert!(all_of(another).await.starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn a_burst_of_connections_waits_and_none_of_it_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { connections: 8, patience: DEADLINE, ..Limits::default() };
        let (stop, stopped) = watch::channel(false);
        let make = |_| {
            service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) })
        };
        let task = tokio::spawn(serve(Listener::Tcp(listener), limits, make, stopped));
        // All of them connect before the server accepts the first one. More than 128 would not fit into the queue of a machine
        // with a small `net.core.somaxconn`.
        let ask = |_| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            all_of(stream).await
        };
        let asked: Vec<_> = (0..100).map(|n| tokio::spawn(ask(n))).collect();
        for answer in asked {
            assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"), "each one has its turn");
        }
        stop.send_replace(true);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn one_more_waits_where_the_limits_say_so_until_one_is_idle() {
        let mut server = start(Limits { connections: 1, ..Limits::default() }).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        server.requests.recv().await.unwrap();
        let mut second = TcpStream::connect(server.address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        server.release.send_replace(true);
        server.requests.recv().await.unwrap();
        assert!(all_of(first).await.starts_with("HTTP/1.1 200"), "it is idle, so it gave way");
        server.stop.send_replace(true);
        assert!(all_of(second).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn with_the_proxy_protocol_only_trusted_proxies_come_in_and_each_says_for_whom() {
        let trusted = Limits { trusted_proxies: Arc::new(["127.0.0.1".parse().unwrap()]), ..Limits::default() };
        let limits = Limits { proxy_protocol: true, refuse_more: true, per_address: 1, ..trusted };
        let mut server = start(limits.clone()).await;
        server.release.send_replace(true);
        let ask = async |begin: &str| {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            // A connection that is refused may be closed before this is written.
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.ok();
            all_of(stream).await
        };
        assert!(ask("PROXY TCP4 192.0.2.1 10.0.0.1 1 80\r\n").await.starts_with("HTTP/1.1 200"));
        assert!(ask("PROXY UNKNOWN\r\n").await.starts_with("HTTP/1.1 200"));
        assert_eq!(ask("").await, "", "the header is missing");
        assert_eq!(ask("PROXY TCP4 192.0.2.1 10.0.0.1 1 80\n").await, "", "the header is malformed");
        // The bound of one sender holds for the sender that the header names, and not for the proxy.
        let begin = async |sender: &str| {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(format!("PROXY TCP4 {sender} 10.0.0.1 1 80\r\n").as_bytes()).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let mut answer = [0; 12];
            tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("it is answered").unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            stream
        };
        let (one, mut other) = (begin("192.0.2.1").await, begin("192.0.2.2").await);
        let again = begin("192.0.2.1").await;
        assert!(!all_of(one).await.contains("HTTP/1.1"), "the first one of this sender was idle and gave way");
        other.write_all(REQUEST).await.unwrap();
        tokio::time::timeout(DEADLINE, other.read_exact(&mut [0; 12])).await.expect("it is answered").unwrap();
        drop(again);
        while server.requests.try_recv().is_ok() {}
        let elsewhere = Limits { trusted_proxies: Arc::new(["192.0.2.0/24".parse().unwrap()]), ..limits };
        let server = start(elsewhere).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 1 80\r\n").await.ok();
        assert_eq!(all_of(stream).await, "", "nobody else may say for whom it speaks");
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let server = start(Limits { head: Duration::from_millis(50), ..Limits::default() }).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(all_of(stream).await, "");
        assert!(!server.task.is_finished());
    }
}
