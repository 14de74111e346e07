//! Provokes every outcome by a receiver, a name server, a configuration or a fault switch. The test fails if nothing
//! provokes an outcome, except for those that only a later feature (thin rows) can cause.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use callbackd::model::attempt::{Attempt, Outcome};
use callbackd::model::settlement::Ended;
use callbackd_bench::dns::{Answer, NameServer};
use callbackd_bench::raw::{Act, Raw};
use tokio::net::TcpListener;

use crate::harness::{Event, Harness};

/// A TLS listener for `localhost` with a certificate that no root signed.
async fn tls_listener() -> std::net::SocketAddr {
    use std::sync::Arc;
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(acceptor.accept(stream).await);
        }
    });
    address
}

/// Raw receivers by the outcome that each provokes.
fn acts() -> Vec<(Outcome, Act)> {
    let answer = |head: &str| Act::Answer(format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n").into_bytes());
    vec![
        (Outcome::Ok, answer("299 Fine")),
        (Outcome::Ok, Act::EndlessBody),
        (Outcome::Ok, Act::DripBody),
        (
            Outcome::Redirect,
            Act::Answer(b"HTTP/1.1 301 Moved\r\nlocation: https://good.example/\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ),
        (Outcome::Gone, answer("410 Gone")),
        (Outcome::RateLimited, answer("429 Slow down")),
        (Outcome::ClientError, answer("404 Not found")),
        (Outcome::ServerError, Act::Answer(b"HTTP/1.1 500 No\r\ncontent-length: 5\r\n\r\n\0\xff\x1b[2".to_vec())),
        (Outcome::BadStatus, answer("777 What")),
        (Outcome::HeadTimeout, Act::Silence),
        (Outcome::HeadTimeout, Act::DripHead),
        (Outcome::HeadReset, Act::Reset(Vec::new())),
        (Outcome::HeadReset, Act::Reset(b"HTTP/1.1 200 OK\r\ncontent-".to_vec())),
        (Outcome::HeadReset, Act::CloseAtOnce),
        (Outcome::HeadInvalid, Act::EndlessHead),
        (Outcome::HeadInvalid, Act::Greet(b"220 mail.example ESMTP\r\n".to_vec())),
        (Outcome::HeadInvalid, Act::Answer(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_is_provoked_and_named_in_the_record() {
    let names = NameServer::start().await.unwrap();
    names.set("denied.example", Answer::Addresses(vec![Ipv4Addr::new(10, 0, 0, 1).into()]));
    names.set(
        "mixed.example",
        Answer::Addresses(vec![Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(169, 254, 169, 254).into()]),
    );
    names.set("silent.example", Answer::Silence);
    names.set("broken.example", Answer::Failure);
    names.set("wrong-name.example", Answer::Addresses(vec![Ipv4Addr::LOCALHOST.into()]));
    let servers = names.address.to_string();
    let harness = Harness::with(&[
        ("DNS__SERVERS", servers.as_str()),
        ("RETRY__RETRIES", "1"),
        ("RETRY__FIRST", "10ms"),
        ("DELIVER__DNS_TIMEOUT", "700ms"),
        ("DELIVER__CONNECT_TIMEOUT", "700ms"),
        ("DELIVER__TLS_TIMEOUT", "700ms"),
    ])
    .await;

    let mut expected: Vec<(String, Outcome, String)> = Vec::new();
    let mut raws = Vec::new();
    for (n, (outcome, act)) in acts().into_iter().enumerate() {
        let raw = Raw::start(act.clone()).await.unwrap();
        let name: String = format!("{act:?}").chars().take(12).collect();
        expected.push((format!("raw-{n}-{name}"), outcome, format!("http://{}/", raw.address)));
        raws.push(raw);
    }
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let (full, _held) = full_listener().await;
    let tls = tls_listener().await;
    let silence = Raw::start(Act::Silence).await.unwrap();
    let plain = Raw::start(Act::Greet(b"HTTP/1.1 400 This is no TLS\r\n\r\n".to_vec())).await.unwrap();
    let over_https = |address: std::net::SocketAddr| format!("https://{address}/");
    for (name, outcome, url) in [
        ("dns-nxdomain", Outcome::DnsFailed, "http://nowhere.example/".to_owned()),
        ("dns-broken", Outcome::DnsFailed, "http://broken.example/".to_owned()),
        ("dns-silent", Outcome::DnsTimeout, "http://silent.example/".to_owned()),
        ("denied-literal", Outcome::AddressDenied, "http://10.0.0.1/".to_owned()),
        ("denied-name", Outcome::AddressDenied, "http://denied.example/".to_owned()),
        ("denied-mixed", Outcome::AddressDenied, "http://mixed.example/".to_owned()),
        ("refused", Outcome::ConnectRefused, format!("http://127.0.0.1:{refused}/")),
        ("connect-failed", Outcome::ConnectFailed, "http://[fe80::1]/".to_owned()),
        ("connect-timeout", Outcome::ConnectTimeout, format!("http://{full}/")),
        ("tls-self-signed", Outcome::TlsFailed, over_https(tls)),
        ("tls-wrong-name", Outcome::TlsFailed, format!("https://wrong-name.example:{}/", tls.port())),
        ("tls-plain", Outcome::TlsFailed, over_https(plain.address)),
        ("tls-silent", Outcome::TlsTimeout, over_https(silence.address)),
        ("url", Outcome::UrlInvalid, "nonsense".to_owned()),
        ("email", Outcome::EmailNotSupported, "dev@customer.example".to_owned()),
        ("no-url", Outcome::NoUrl, String::new()),
    ] {
        expected.push((name.to_owned(), outcome, url));
    }
    for (task, _, url) in &expected {
        harness.produce(&Event::new(task).to(url.clone()));
    }

    let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
    for (task, outcome, _) in &expected {
        let (_, rows, attempts) = harness.ended(task).await;
        let settled = rows.settled.unwrap();
        let first = attempts.first().map(|attempt| attempt.attempt.outcome).unwrap_or(settled.outcome);
        assert_eq!(first, *outcome, "{task}: {attempts:?}");
        let delivered = *outcome == Outcome::Ok;
        assert_eq!(settled.ended == Ended::Delivered, delivered, "{task}");
        assert!(attempts.iter().all(|attempt| attempt.attempt.snippet.len() <= 1024), "{task}: bounded");
        for attempt in &attempts {
            assert!(sent_is_right(&attempt.attempt), "{task}: {:?}", attempt.attempt);
        }
        *seen.entry(first.name()).or_default() += 1;
    }
    // Each of these has a test of its own.
    let elsewhere = [
        (Outcome::WriteFailed, "a_request_that_can_not_be_written_is_told_apart"),
        (Outcome::OriginNotAllowed, "allowed_origins_and_http_are_refusals_like_any_other"),
        (Outcome::HttpNotAllowed, "allowed_origins_and_http_are_refusals_like_any_other"),
        (Outcome::NoKey, "keys_rotate_without_a_refused_callback"),
        (Outcome::Panicked, "a_panicking_attempt_is_an_outcome"),
        (Outcome::Interrupted, "what_outlives_the_grace_is_interrupted"),
        (Outcome::StoreRejected, "a_row_that_the_store_refuses_ends_alone"),
    ];
    // Only thin rows, a later feature, can cause these.
    let later = [Outcome::RecordChanged, Outcome::BodyGone];
    let tests = [include_str!("outcomes.rs"), include_str!("delivery.rs"), include_str!("binary.rs")].concat();
    for outcome in Outcome::ALL {
        let named = |(own, test): &(Outcome, &str)| own == outcome && tests.contains(&format!("async fn {test}()"));
        let provoked = seen.contains_key(outcome.name()) || later.contains(outcome) || elsewhere.iter().any(named);
        assert!(provoked, "nothing provokes {}", outcome.name());
    }
}

/// A listener whose queue is full, so that a new connection waits.
async fn full_listener() -> (std::net::SocketAddr, Vec<tokio::task::JoinHandle<()>>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(tokio::spawn(async move {
            let stream = tokio::net::TcpStream::connect(address).await;
            std::future::pending::<()>().await;
            drop(stream);
        }));
    }
    held.push(tokio::spawn(async move {
        let _never_accepted = listener;
        std::future::pending::<()>().await;
    }));
    // The queue is full as soon as a connection is no longer completed.
    let probe = || tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address));
    crate::harness::until("the queue of connections is full", async || probe().await.is_err().then_some(())).await;
    (address, held)
}

/// Nothing is sent before there is a connection. If there is a head, something was sent.
fn sent_is_right(attempt: &Attempt) -> bool {
    match attempt.outcome {
        Outcome::DnsFailed
        | Outcome::DnsTimeout
        | Outcome::AddressDenied
        | Outcome::ConnectRefused
        | Outcome::ConnectFailed
        | Outcome::ConnectTimeout
        | Outcome::TlsFailed
        | Outcome::TlsTimeout
        | Outcome::UrlInvalid
        | Outcome::EmailNotSupported
        | Outcome::NoUrl => !attempt.sent && attempt.status.is_none(),
        Outcome::HeadReset | Outcome::HeadInvalid | Outcome::HeadTimeout | Outcome::WriteFailed => {
            attempt.status.is_none()
        }
        _ => attempt.sent && attempt.status.is_some(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_can_not_be_written_is_told_apart() {
    let harness = Harness::with(&[("RETRY__RETRIES", "0")]).await;
    let deaf = Raw::start(Act::DeafThenReset).await.unwrap();
    let large = format!("\"{}\"", "x".repeat(4 << 20));
    harness.produce(&Event::new("task-1").to(format!("http://{}/", deaf.address)).response(&large));
    let (_, _, attempts) = harness.ended("task-1").await;
    assert_eq!(attempts[0].attempt.outcome, Outcome::WriteFailed, "{attempts:?}");
    assert!(attempts[0].attempt.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_was_closed_costs_no_attempt() {
    let harness = Harness::start().await;
    let closing =
        Raw::start(Act::AnswerOnceThenClose(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec())).await.unwrap();
    for n in 0..20 {
        harness.produce(&Event::new(&format!("task-{n}")).to(format!("http://{}/", closing.address)));
        let (_, rows, attempts) = harness.ended(&format!("task-{n}")).await;
        assert_eq!((rows.settled.unwrap().ended, attempts.len()), (Ended::Delivered, 0), "task {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_an_end_takes_bounded_time() {
    let harness = Harness::start().await;
    let drip = Raw::start(Act::DripBody).await.unwrap();
    harness.produce(&Event::new("task-1").to(format!("http://{}/", drip.address)));
    let (_, rows, _) = harness.ended("task-1").await;
    let settled = rows.settled.unwrap();
    assert_eq!(settled.ended, Ended::Delivered);
    let took = settled.settled_at.since(settled.first_at);
    assert!(took >= Duration::from_millis(1_500) && took < Duration::from_secs(4), "{took:?}");
}
