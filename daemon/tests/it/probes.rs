//! The ops listener answers whatever others hold, and the API's socket answers everybody in a burst.

use std::time::Duration;

use scale_callback_serve::client::{Remote, call};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::api::started;
use crate::harness::Harness;

/// Connections that are held: as many as the API has places.
const HELD: usize = 128;
/// A container platform gives a probe one second unless it is told otherwise.
const PROBE: Duration = Duration::from_secs(1);

/// Connections on which a request never ends: half of them send nothing, and half a part of a head.
async fn hold(address: std::net::SocketAddr) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(HELD);
    for n in 0..HELD {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        }
        held.push(stream);
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_answer_whatever_others_hold() {
    let (harness, api) = started().await;
    let ops = harness.app().ops_address.unwrap();
    let mut held = hold(api.address).await;
    held.extend(hold(ops).await);
    for path in ["/livez", "/readyz", "/metrics"] {
        let (get, none) = (http::Method::GET, http::HeaderMap::new());
        let answer = call(&Remote::Tcp(ops), get, path, none, bytes::Bytes::new(), PROBE).await;
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        // Readiness depends on the broker as well, but it is told.
        assert!(answer.status == 200 || (path == "/readyz" && answer.status == 503), "{path}: {}", answer.status);
        assert_eq!(answer.headers["connection"], "close", "{path} keeps no place");
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_connections_to_the_socket_is_answered() {
    let harness = Harness::start().await;
    let socket = Remote::Unix(harness.app().api_socket.clone());
    let ask = |socket: Remote| async move {
        let (get, none) = (http::Method::GET, http::HeaderMap::new());
        call(&socket, get, "/openapi.json", none, bytes::Bytes::new(), Duration::from_secs(60)).await
    };
    let asked: Vec<_> = (0..300).map(|_| tokio::spawn(ask(socket.clone()))).collect();
    for answer in asked {
        let answer = answer.await.unwrap().unwrap_or_else(|error| panic!("one of {HELD} places comes free: {error}"));
        assert_eq!(answer.status, 200);
    }
}
