//! Requests that two programs could read differently: the receiver sees none of them, or one with the verified body, and
//! the connection ends.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::kit::*;

/// The pause after the first piece of a request, so that the gate reads it apart from the second.
const BETWEEN_PIECES: Duration = Duration::from_millis(30);

/// A request with these line ends, these lines and this body. Its headers prove [`BODY`].
fn odd(line_end: &str, lines: &str, body: &str) -> String {
    let proof = proof(&fresh_id(), BODY).replace("\r\n", line_end);
    format!("POST /callbacks HTTP/1.1{line_end}host: gate{line_end}{proof}{lines}{line_end}{body}")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    let length = BODY.len();
    let chunked = format!("{length:x}\r\n{BODY}\r\n0\r\n\r\n");
    let smuggled = "POST /callbacks HTTP/1.1\r\nhost: inner\r\ncontent-length: 0\r\n\r\n";
    let table: Vec<(&str, String)> = vec![
        ("two codings", odd("\r\n", "transfer-encoding: gzip, chunked\r\n", &chunked)),
        ("an unknown coding", odd("\r\n", "transfer-encoding: identity\r\n", &chunked)),
        ("chunked twice", odd("\r\n", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", &chunked)),
        ("chunked with a vertical tab", odd("\r\n", "transfer-encoding: \u{b}chunked\r\n", &chunked)),
        ("a space before the colon", odd("\r\n", "transfer-encoding : chunked\r\n", &chunked)),
        (
            "a length, then chunks",
            odd("\r\n", &format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"), &chunked),
        ),
        ("chunks, then a length", odd("\r\n", "transfer-encoding: chunked\r\ncontent-length: 4\r\n", &chunked)),
        ("bare line feeds", odd("\n", &format!("content-length: {length}\n"), BODY)),
        ("one bare line feed", odd("\r\n", &format!("x: y\ncontent-length: {length}\r\n"), BODY)),
        ("a bare return", odd("\r\n", &format!("x: y\rcontent-length: 0\r\ncontent-length: {length}\r\n"), BODY)),
        ("a plus in the length", odd("\r\n", &format!("content-length: +{length}\r\n"), BODY)),
        ("two equal lengths", odd("\r\n", &format!("content-length: {length}\r\ncontent-length: {length}\r\n"), BODY)),
        ("two lengths", odd("\r\n", &format!("content-length: 0\r\ncontent-length: {length}\r\n"), BODY)),
        ("a list of lengths", odd("\r\n", &format!("content-length: {length}, {length}\r\n"), BODY)),
        ("a hexadecimal length", odd("\r\n", &format!("content-length: 0x{length:x}\r\n"), BODY)),
        ("an empty length", odd("\r\n", "content-length:\r\n", BODY)),
        ("a folded header", odd("\r\n", &format!("x: y\r\n content-length: 0\r\ncontent-length: {length}\r\n"), BODY)),
        ("a null byte", odd("\r\n", &format!("x: \0\r\ncontent-length: {length}\r\n"), BODY)),
        ("HTTP/1.0", odd("\r\n", &format!("content-length: {length}\r\n"), BODY).replace("HTTP/1.1", "HTTP/1.0")),
        ("HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("a bad chunk size", odd("\r\n", "transfer-encoding: chunked\r\n", &format!("+{chunked}"))),
        (
            "a chunk size that overflows",
            odd("\r\n", "transfer-encoding: chunked\r\n", &format!("1{:016x}\r\n{BODY}\r\n0\r\n\r\n", length)),
        ),
        ("a short length", odd("\r\n", &format!("content-length: {}\r\n", length - 1), BODY)),
    ];
    for (what, request) in &table {
        let before = recorder.count();
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        // The gate may close the connection before everything was written.
        drop(stream.write_all(format!("{request}{smuggled}").as_bytes()).await);
        let (answer, closed) = read_all(&mut stream).await;
        assert!(closed, "{what}: the connection is open: {answer:?}");
        assert!(!answer.contains(" 200 OK"), "{what}: {answer:?}");
        assert_eq!(recorder.count(), before, "{what}: {:?}", recorder.requests().last());
    }
    // A well-formed chunked request is accepted, and it is the last one of its connection.
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let request = odd("\r\n", "transfer-encoding: chunked\r\n", &chunked);
    stream.write_all(format!("{request}{}", good(&fresh_id())).as_bytes()).await.unwrap();
    let (answer, closed) = read_all(&mut stream).await;
    assert!(closed && status(&answer) == 200 && answer.matches("HTTP/1.1").count() == 1, "{answer:?}");
    assert_eq!(recorder.count(), 1);
    assert!(recorder.requests()[0].ends_with(BODY));
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_is_made_from_scratch() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    let id = fresh_id();
    let lines = "scale_callback_verified: live\r\nscale-callback-verified: test\r\nwebhook_id: other\r\nx-forwarded-for: 1.2.3.4\r\n\
                 cookie: a=b\r\nauthorization: Basic eA==\r\nconnection: webhook-id, close, content-type\r\nte: trailers\r\n\
                 trailer: webhook-id\r\nuser-agent: platform\r\nscale-callback-attempt: 2\r\nproxy-connection: x\r\n";
    let proof = proof(&id, BODY);
    let chunked = format!(
        "{:x};ext=1\r\n{BODY}\r\n0\r\nwebhook-id: trailer\r\nscale-callback-verified: live\r\n\r\n",
        BODY.len()
    );
    let request = format!(
        "POST /callbacks HTTP/1.1\r\nHost: gate\r\nContent-Type: application/json\r\n{proof}{lines}transfer-encoding: chunked\r\n\r\n{chunked}"
    );
    let answer = exchange(gate.address, request.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    let seen = recorder.requests();
    let (head, body) = seen[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(body, BODY);
    let mut names: Vec<_> = head.lines().skip(1).map(|line| line.split_once(": ").unwrap()).collect();
    names.sort_unstable();
    let signature = proof.lines().find_map(|line| line.strip_prefix("webhook-signature: ")).unwrap();
    let time = proof.lines().find_map(|line| line.strip_prefix("webhook-timestamp: ")).unwrap();
    let (host, length) = (recorder.address.to_string(), BODY.len().to_string());
    assert_eq!(head.lines().next(), Some("POST /callbacks HTTP/1.1"));
    assert_eq!(
        names,
        [
            ("content-length", length.as_str()),
            ("content-type", "application/json"),
            ("host", host.as_str()),
            ("scale-callback-attempt", "2"),
            ("scale-callback-verified", "live"),
            ("user-agent", "platform"),
            ("webhook-id", id.as_str()),
            ("webhook-signature", signature),
            ("webhook-timestamp", time),
        ]
    );
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_serve_again_and_each_pipelined_request_is_checked() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let three = format!("{}{}{}", good(&fresh_id()), good(&fresh_id()), good(&fresh_id()));
    stream.write_all(three.as_bytes()).await.unwrap();
    let (answer, closed) = read_all(&mut stream).await;
    assert_eq!((answer.matches("HTTP/1.1 200").count(), closed), (3, false), "{answer}");
    assert_eq!(recorder.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "one connection served all three");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_before_a_bad_head_is_answered_however_the_bytes_arrive() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    for behind in ["\r\n", "\n", "POST /callbacks HTTP/1.1\nhost: inner\n\n", "\0"] {
        let request = good(&fresh_id());
        let whole = format!("{request}{behind}");
        // In one piece, in two pieces between the two heads, and with the body's last byte in the second piece.
        for split in [whole.len(), request.len(), request.len() - 1] {
            let whole = format!("{}{behind}", good(&fresh_id()));
            let before = recorder.count();
            let mut stream = TcpStream::connect(gate.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&whole.as_bytes()[..split]).await.unwrap();
            tokio::time::sleep(BETWEEN_PIECES).await;
            drop(stream.write_all(&whole.as_bytes()[split..]).await);
            let (answer, closed) = read_all(&mut stream).await;
            assert_eq!(status(&answer), 200, "{behind:?} at {split}: {answer:?}");
            assert!(closed, "{behind:?} at {split}");
            assert_eq!(recorder.count(), before + 1);
            assert!(recorder.requests().last().unwrap().ends_with(BODY));
        }
    }
    gate.stop().await;
}
