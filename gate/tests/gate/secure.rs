//! TLS, HTTP/2, and what the admin listener alone shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::kit::*;

/// The pause between two pieces of a head that drips in.
const DRIP: Duration = Duration::from_millis(200);

/// A certificate for localhost in `folder`, and the roots that trust it.
fn certificate(folder: &std::path::Path) -> ((PathBuf, PathBuf), rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    ((cert, key), roots)
}

async fn tls(
    address: std::net::SocketAddr,
    roots: rustls::RootCertStore,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn request(id: &str, authority: &str) -> http::Request<()> {
    let mut request = http::Request::post(format!("https://{authority}/callbacks")).body(()).unwrap();
    *request.version_mut() = http::Version::HTTP_2;
    for line in proof(id, BODY).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        request.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_served_over_tls_and_held_to_the_same_rules() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.tls = Some(files);
    let gate = setup.start().await;
    let stream = tls(gate.address, roots, b"h2").await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = async |request: http::Request<()>, body: &'static str| {
        let (answer, mut sending) = sender.send_request(request, false).unwrap();
        // A request that is refused before its body may be reset.
        sending.send_data(Bytes::from_static(body.as_bytes()), true).ok();
        answer.await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(send(request(&fresh_id(), "localhost"), BODY).await.unwrap(), 200);
    assert_eq!(send(request(&fresh_id(), "localhost"), "tampered").await.unwrap(), 401);
    let mut two_hosts = request(&fresh_id(), "localhost");
    two_hosts.headers_mut().insert("host", "other".parse().unwrap());
    assert_eq!(send(two_hosts, BODY).await.unwrap(), 400);
    let mut twice = request(&fresh_id(), "localhost");
    twice.headers_mut().append("webhook-id", "cb_2".parse().unwrap());
    assert_eq!(send(twice, BODY).await.unwrap(), 400);
    let mut other = request(&fresh_id(), "localhost");
    *other.uri_mut() = "https://localhost/other".parse().unwrap();
    assert_eq!(send(other, BODY).await.unwrap(), 404);
    let mut large = request(&fresh_id(), "localhost");
    large.headers_mut().insert("x-large", "y".repeat(20_000).parse().unwrap());
    assert_ne!(send(large, BODY).await.ok(), Some(200), "16 KiB of headers at the most");
    assert_eq!(recorder.count(), 1);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_http2_that_drips_ends_its_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.tls = Some(files);
    setup.config.bounds.head = Duration::from_millis(700);
    let gate = setup.start().await;
    let mut stream = tls(gate.address, roots, b"h2").await.unwrap();
    // The preface, empty settings, and a HEADERS frame without END_HEADERS: the head never ends.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    stream.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x83").await.unwrap();
    let began = Instant::now();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let drip = tokio::spawn(async move {
        // A CONTINUATION of one byte: a header of the static table.
        while writing.write_all(b"\0\0\x01\x09\0\0\0\0\x01\x84").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    });
    let ended = async {
        let mut chunk = [0; 4096];
        while !matches!(reading.read(&mut chunk).await, Ok(0) | Err(_)) {}
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("its connection ends");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drip.abort();
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_over_tls_keeps_no_place() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.tls = Some(files);
    setup.config.bounds.head = Duration::from_millis(600);
    let gate = setup.start().await;
    // No handshake; a handshake and silence; half a preface; a whole one and nothing but answers to pings.
    let mut silent = Vec::new();
    silent.push(tokio::spawn(ended(TcpStream::connect(gate.address).await.unwrap())));
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut stream = tls(gate.address, roots.clone(), b"h2").await.unwrap();
        stream.write_all(said).await.unwrap();
        silent.push(tokio::spawn(ended(stream)));
    }
    let stream = tls(gate.address, roots, b"h2").await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    silent.push(tokio::spawn(async move {
        // It ends with an error or without one.
        connection.await.ok();
        drop(sender);
    }));
    for (n, one) in silent.into_iter().enumerate() {
        tokio::time::timeout(Duration::from_secs(8), one)
            .await
            .unwrap_or_else(|_| panic!("{n} is still there"))
            .unwrap();
    }
    gate.stop().await;
}

/// Reads until the other end closes.
async fn ended(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut chunk = [0; 4096];
    while !matches!(stream.read(&mut chunk).await, Ok(0) | Err(_)) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_http2_that_wait_for_bodies_take_bounded_room() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.tls = Some(files);
    setup.config.bounds.bodies = 16 * 12 * 1024;
    let gate = setup.start().await;
    let stream = tls(gate.address, roots.clone(), b"h2").await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // Sixteen streams hold the room of their heads, which is all there is.
    let mut held = Vec::new();
    for _ in 0..16 {
        sender = sender.ready().await.unwrap();
        held.push(sender.send_request(request(&fresh_id(), "localhost"), false).unwrap());
    }
    let stream = tls(gate.address, roots, b"h2").await.unwrap();
    let (other, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut other = other.ready().await.unwrap();
    let one_more = other.send_request(request(&fresh_id(), "localhost"), false).unwrap();
    // There is room for one more once the slowest of the sixteen has given way.
    until_some("one gives way", async || {
        (gate.metric("scale_callback_gate_refused_total{reason=\"gave_way\"}").await >= 1).then_some(())
    })
    .await;
    let mut answers = Vec::new();
    for (answer, _stream) in held.into_iter().chain([one_more]) {
        let answer =
            tokio::time::timeout(Duration::from_secs(10), answer).await.expect("a body is not waited for long");
        answers.push(answer.unwrap().status().as_u16());
    }
    assert!(answers.contains(&503) && answers.contains(&408), "{answers:?}");
    assert!(answers.iter().all(|answer| matches!(answer, 408 | 503)), "{answers:?}");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_while_the_gate_runs_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (files, first) = certificate(folder.path());
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.tls = Some(files.clone());
    let gate = setup.start().await;
    assert!(tls(gate.address, first.clone(), b"http/1.1").await.is_ok());
    std::fs::write(&files.0, "no certificate").unwrap();
    (gate.reload)();
    assert!(tls(gate.address, first.clone(), b"http/1.1").await.is_ok(), "the old one stays");
    let (_, second) = certificate(folder.path());
    (gate.reload)();
    assert!(tls(gate.address, first, b"http/1.1").await.is_err());
    let mut stream = tls(gate.address, second, b"http/1.1").await.unwrap();
    stream.write_all(good(&fresh_id()).as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_on_the_admin_listener_alone() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let ask = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(status(&exchange(gate.admin, ask.as_bytes()).await), 200, "{path}");
        assert_eq!(status(&exchange(gate.address, ask.as_bytes()).await), 405, "{path}");
    }
    assert_eq!(gate.metric("scale_callback_gate_refused_total{reason=\"method\"}").await, 3);
    assert_eq!(gate.metric("scale_callback_gate_refused_total{reason=\"signature_mismatch\"}").await, 0);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_empty_pieces_does_not_outlast_the_time_for_a_body() {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.tls = Some(files);
    setup.config.bounds.whole_body = Duration::from_millis(500);
    let gate = setup.start().await;
    let stream = tls(gate.address, roots, b"h2").await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let (answer, mut body) = sender.send_request(request(&fresh_id(), "localhost"), false).unwrap();
    let flood = tokio::spawn(async move {
        while body.send_data(bytes::Bytes::new(), false).is_ok() {
            tokio::task::yield_now().await;
        }
    });
    // Either the gate or the library ends it.
    let ended = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("it ends");
    assert!(ended.is_err() || ended.unwrap().status().as_u16() == 408);
    flood.abort();
    gate.stop().await;
}
