//! Real receivers that answer in every way, and what an exchange makes of it.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use callbackd_bench::http2::{self, Http2, go_away};
use callbackd_bench::raw::{self, Raw};
use callbackd_bench::tls::Certificates;
use h2::Reason;

use super::*;
use crate::model::team::HttpPolicy;
use crate::net::egress::{AllowRule, Allowed, Net};

const KEY: &str = "live_auth_0123456789abcdef0123456789abcdef";
const SIGNATURE: &str = "v1,MBUSh+QI+NzjmNhVFjH8GZ53LE10KtywtNyfu5kuSQo=";
/// Longer than any attempt of these tests lasts.
const PATIENCE: Duration = Duration::from_secs(15);

fn client(certificates: Option<&Certificates>) -> Client {
    let deadlines = Deadlines { dns: PATIENCE, connect: PATIENCE, tls: PATIENCE, head: PATIENCE, total: PATIENCE };
    // No name is looked up here.
    let dns = dns::Config { servers: vec![(Ipv4Addr::LOCALHOST, 9).into()], cache_entries: 0 };
    let ca_file = certificates.map(|certificates| certificates.ca_file.clone());
    let what = Allowed::Net(Net::parse("127.0.0.0/8").unwrap());
    let policy = Policy {
        allow: vec![AllowRule { what, ports: Vec::new(), teams: Vec::new() }],
        never: Vec::new(),
        own: Vec::new(),
        nat64: Vec::new(),
        http: HttpPolicy::Allow,
        generation: 1,
    };
    Client::new(&Config { deadlines, dns, http2: true, ca_file }, policy).unwrap()
}

fn callback(url: &str) -> Outgoing {
    let target = Target::parse(url).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_str(&format!("{}:{}", target.origin.host, target.origin.port)).unwrap());
    for (name, value) in [("scale-callback-auth", KEY), ("webhook-signature", SIGNATURE)] {
        let mut value = HeaderValue::from_static(value);
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Outgoing { team: "team_a".into(), target, headers, body: Bytes::from_static(b"{}") }
}

async fn post(client: &Client, url: &str) -> Exchange {
    client.post(&callback(url), Timestamp::from_millis(0), Instant::now() + PATIENCE).await
}

/// The exchange with a receiver that answers with these bytes.
async fn answered(answer: &[u8]) -> Exchange {
    let receiver = Raw::start(raw::Act::Answer(answer.to_vec())).await.unwrap();
    post(&client(None), &format!("http://{}/", receiver.address)).await
}

fn certificates() -> (Certificates, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Certificates::make(folder.path()).unwrap(), folder)
}

async fn over_http2(act: http2::Act) -> (Exchange, Http2) {
    let (certificates, _folder) = certificates();
    let receiver = Http2::start(&certificates, act).await.unwrap();
    let exchange = post(&client(Some(&certificates)), &format!("https://{}/", receiver.address)).await;
    (exchange, receiver)
}

fn told(exchange: &Exchange) -> String {
    String::from_utf8_lossy(&exchange.snippet).into_owned()
}

#[tokio::test]
async fn a_head_that_the_standard_forbids_is_read_if_its_status_and_length_are_clear() {
    for lines in [
        "x-folded: one\r\n two\r\n\tthree\r\ncontent-length: 0",
        "content-length : 0",
        "content-length\t: 0\r\nx-space : 1",
        "x name: 1\r\ncontent-length: 0",
        "x(name): 1\r\ncontent-length: 0",
        "no colon at all\r\ncontent-length: 0",
        "set-cookie: a=\x01b\x7f; path=/\r\ncontent-length: 0",
        ": no name\r\ncontent-length: 0",
        "x-latin: caf\u{e9}\r\ncontent-length: 0",
    ] {
        let exchange = answered(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n").as_bytes()).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)), "{lines:?}: {}", told(&exchange));
    }
    let exchange = answered(b"HTTP/1.1 503 Busy\r\nretry-after :\r\n 7\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(exchange.retry_after, Some(Duration::from_secs(7)), "a folded line is read as one");
}

#[tokio::test]
async fn what_leaves_open_where_the_answer_ends_is_refused() {
    for lines in [
        "content-length: 1\r\ncontent-length: 2",
        "content-length: 1, 2",
        "content-length: -1",
        "content-length: 1x",
        "content-length: 99999999999999999999999",
        "content-length: 1\r\n 2",
        "x-nul: a\0b",
    ] {
        let exchange = answered(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nx").as_bytes()).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::HeadInvalid, None), "{lines:?}");
    }
}

fn with_headers(count: usize, size: usize) -> Vec<u8> {
    let lines: String = (1..count).map(|n| format!("x-{n}: {}\r\n", "v".repeat(size))).collect();
    format!("HTTP/1.1 200 OK\r\n{lines}content-length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn heads_of_128_headers_and_64_kib_are_read_and_larger_ones_are_refused_with_the_reason() {
    let reason = "the answer's head has more than 128 headers or 64 KiB, or announces an impossible length";
    for (count, size, reads) in [(128, 10, true), (129, 10, false), (100, 600, true), (100, 700, false)] {
        let exchange = answered(&with_headers(count, size)).await;
        let outcome = if reads { Outcome::Ok } else { Outcome::HeadInvalid };
        assert_eq!(exchange.outcome, outcome, "{count} headers of {size}: {}", told(&exchange));
        assert!(reads || told(&exchange) == reason, "{}", told(&exchange));

        let (exchange, _receiver) = over_http2(http2::Act::Headers(count, size)).await;
        assert_eq!(exchange.outcome, outcome, "{count} headers of {size} over HTTP/2: {}", told(&exchange));
        assert!(reads || told(&exchange) == reason, "{}", told(&exchange));
    }
}

#[tokio::test]
async fn a_connection_is_not_kept_if_the_next_answer_could_be_the_rest_of_this_one() {
    for (head, connections) in [
        ("204 No Content", 1),
        ("204 No Content\r\ncontent-length: 0", 1),
        ("204 No Content\r\ncontent-length: 4", 3),
        ("204 No Content\r\ntransfer-encoding: chunked", 3),
        ("304 Not Modified\r\ncontent-length: 4", 3),
        ("200 OK\r\ncontent-length: 0", 1),
        ("200 OK\r\ncontent-length: 0\r\nconnection: close", 3),
    ] {
        let act = raw::Act::Answer(format!("HTTP/1.1 {head}\r\n\r\n").into_bytes());
        let receiver = Raw::start(act).await.unwrap();
        let client = client(None);
        for _ in 0..3 {
            let exchange = post(&client, &format!("http://{}/", receiver.address)).await;
            assert!(exchange.status.is_some() && !exchange.redialed, "{head:?}: {}", told(&exchange));
        }
        assert_eq!(receiver.connections.load(Ordering::SeqCst), connections, "{head:?}");
    }
}

#[test]
fn an_answer_with_two_lengths_ends_its_connection() {
    let headers = |lines: &[(&'static str, &'static str)]| -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    };
    let (length, chunked) = (("content-length", "5"), ("transfer-encoding", "chunked"));
    assert!(keeps_connection(200, &headers(&[length])));
    assert!(keeps_connection(200, &headers(&[chunked])));
    assert!(!keeps_connection(200, &headers(&[length, chunked])));
    assert!(!keeps_connection(101, &headers(&[])));
}

/// A receiver that ends its connection in order, or refuses a stream, has not handled the request.
#[tokio::test]
async fn a_request_that_the_receiver_did_not_handle_is_sent_again_in_the_same_attempt() {
    let leaves = go_away(0, Reason::NO_ERROR, b"");
    let refuses = http2::frame(3, 0, 1, &u32::from(Reason::REFUSED_STREAM).to_be_bytes());
    for frames in [leaves, refuses] {
        let first = http2::Act::Frames(frames, Vec::new());
        let act = http2::Act::First(Box::new(first.clone()), Box::new(http2::Act::Status(204)));
        let (exchange, receiver) = over_http2(act).await;
        assert_eq!((exchange.outcome, exchange.redialed), (Outcome::Ok, true), "{}", told(&exchange));
        assert_eq!(receiver.requests.load(Ordering::SeqCst), 2);

        let (exchange, receiver) = over_http2(first).await;
        assert_eq!((exchange.outcome, exchange.redialed), (Outcome::HeadReset, true), "{}", told(&exchange));
        assert_eq!(receiver.connections.load(Ordering::SeqCst), 2, "one new connection, and no more");
    }
}

/// A receiver that chooses HTTP/2 where it is offered, and then wants the request over HTTP/1.1.
#[tokio::test]
async fn a_request_that_must_come_over_http1_does_so_in_the_same_attempt() {
    let resets = http2::frame(3, 0, 1, &u32::from(Reason::HTTP_1_1_REQUIRED).to_be_bytes());
    let leaves = go_away(0, Reason::HTTP_1_1_REQUIRED, b"");
    for frames in [resets, leaves] {
        let (exchange, receiver) = over_http2(http2::Act::Http1Required(frames)).await;
        assert_eq!((exchange.outcome, exchange.redialed), (Outcome::Ok, true), "{}", told(&exchange));
        assert_eq!(receiver.connections.load(Ordering::SeqCst), 2, "one new connection, and no more");
    }
}

#[tokio::test]
async fn a_request_that_the_receiver_may_have_handled_is_not_sent_again() {
    for frames in [
        // The receiver may still answer the stream that it names, and then the connection ends.
        go_away(1, Reason::NO_ERROR, b""),
        go_away(1, Reason::INTERNAL_ERROR, b""),
        http2::frame(3, 0, 1, &u32::from(Reason::INTERNAL_ERROR).to_be_bytes()),
        http2::frame(3, 0, 1, &u32::from(Reason::CANCEL).to_be_bytes()),
    ] {
        let act = http2::Act::FramesThenClose(frames);
        let (exchange, receiver) = over_http2(act).await;
        assert_eq!((exchange.outcome, exchange.redialed), (Outcome::HeadReset, false), "{}", told(&exchange));
        assert!(exchange.sent);
        assert_eq!(receiver.requests.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_http2_answer_with_a_header_of_http1_is_read() {
    let literal = |name: &str, value: &str| {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [&[0x40][..], &text(name), &text(value)].concat()
    };
    for (name, value) in [
        ("connection", "keep-alive"),
        ("Connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("content-length", "nonsense"),
        ("content-length", "99"),
        ("X-Upper-Case", "yes"),
    ] {
        let block = [&[0x88][..], &literal(name, value), &literal("x-after", "1")].concat();
        let (exchange, _receiver) = over_http2(http2::Act::FramesThenClose(http2::head(1, true, &block))).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)), "{name}: {}", told(&exchange));
        // Huffman code and numbers are in the tests of `lenient_http2`.
    }
    let two_lengths = [&[0x88][..], &[0x5c, 1, b'1'], &[0x5c, 1, b'2']].concat();
    let (exchange, _receiver) = over_http2(http2::Act::FramesThenClose(http2::head(1, true, &two_lengths))).await;
    assert_eq!(exchange.outcome, Outcome::Ok, "{}", told(&exchange));
}

#[tokio::test]
async fn the_text_of_a_failure_is_short_and_holds_no_secret() {
    let echo = format!("you sent {KEY} and {SIGNATURE}{}", "x".repeat(10_000));
    let frames = go_away(0, Reason::ENHANCE_YOUR_CALM, echo.as_bytes());
    let (exchange, _receiver) = over_http2(http2::Act::FramesThenClose(frames)).await;
    let text = told(&exchange);
    assert!(text.contains("you sent [redacted] and [redacted]x") && text.len() <= KEPT, "{}: {text}", text.len());

    // The names in a certificate are the receiver's choice.
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::for_names(folder.path(), &[&format!("{KEY}.example")]).unwrap();
    let receiver = Http2::start(&certificates, http2::Act::Silence).await.unwrap();
    let exchange = post(&client(Some(&certificates)), &format!("https://{}/", receiver.address)).await;
    assert_eq!(exchange.outcome, Outcome::TlsFailed);
    assert!(told(&exchange).contains("[redacted].example"), "{}", told(&exchange));
}

#[path = "flood_tests.rs"]
mod floods;
