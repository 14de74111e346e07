//! Crowds that hold what they can: places, room and time are bounded for each sender, and those who send slowly give way.
//! Addresses of this machine (127.0.0.x) stand for different senders.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::kit::*;

/// The pause between two pieces of a body that drips in.
const DRIP: Duration = Duration::from_millis(250);

/// A request with a body of `bytes` bytes, up to its body.
fn head_of(bytes: usize) -> String {
    with(&fresh_id(), "")
        .split_once("\r\n\r\n")
        .unwrap()
        .0
        .replace(&format!("content-length: {}", BODY.len()), &format!("content-length: {bytes}"))
        + "\r\n\r\n"
}

/// A good request with a body of about this size.
fn large(bytes: usize) -> String {
    let body = format!(r#"{{"task":{{}},"task_id":"t","x":"{}"}}"#, "y".repeat(bytes));
    let proof = proof(&fresh_id(), &body);
    format!("POST /callbacks HTTP/1.1\r\nhost: g\r\n{proof}content-length: {}\r\n\r\n{body}", body.len())
}

/// Sends a request from an address, and gives the status.
async fn send_from(address: &str, gate: &Running, request: &str) -> u16 {
    use tokio::io::AsyncReadExt as _;
    let mut stream = connect_from(address, gate.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await;
    read.expect("it is answered").unwrap();
    status(&String::from_utf8_lossy(&answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_that_never_end_give_way_to_one_that_comes() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    // A sixteenth of the usual room, and of bodies of 12 MiB: a slow machine must not need seconds to take them.
    setup.config.bounds.bodies = 4 << 20;
    let gate = setup.start().await;
    // Four bodies take all the room for large ones. Then they come at 16 KiB a second, four times the usual least rate.
    let size = 768 << 10;
    let mut crowd = Vec::new();
    for _ in 0..4 {
        let mut stream = connect_from("127.0.0.2", gate.address).await.unwrap();
        let begin = format!("{}{}", head_of(size), "x".repeat(size - (64 << 10)));
        crowd.push(tokio::spawn(async move {
            stream.write_all(begin.as_bytes()).await.unwrap();
            let piece = [b'x'; 4_096];
            let began = Instant::now();
            while stream.write_all(&piece).await.is_ok() {
                tokio::time::sleep(DRIP).await;
            }
            began.elapsed()
        }));
    }
    let began = Instant::now();
    assert_eq!(send_from("127.0.0.3", &gate, &good(&fresh_id())).await, 200, "a small one always finds room");
    for _ in 0..3 {
        assert_eq!(send_from("127.0.0.3", &gate, &large(256 << 10)).await, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // All of the crowd ends long before the time for a whole body is over.
    for one in crowd {
        let took = tokio::time::timeout(Duration::from_secs(25), one).await.expect("it is given up").unwrap();
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    let refusals = gate.refusals().await;
    let all: u64 = refusals.iter().map(|(_, count)| count).sum();
    assert_eq!(all, 4, "all of the crowd were refused: {refusals:?}");
    // Which one comes first depends on how fast this machine takes their bytes. When enough of them have gone, there is
    // room again, and the last ones may come to their end.
    let known = |reason: &str| ["gave_way", "too_slow", "signature_mismatch"].contains(&reason);
    assert!(refusals.iter().all(|(reason, _)| known(reason)), "{refusals:?}");
    assert_eq!(recorder.count(), 4);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_room_is_short_the_slowest_large_body_gives_way() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.bodies = 1 << 20;
    let gate = setup.start().await;
    // A machine that stalls for seconds ends the crowd as too slow before room is short, or finds none old enough to be
    // judged, so there are several rounds.
    for _ in 0..5 {
        let mut crowd = Vec::new();
        for _ in 0..4 {
            let mut stream = connect_from("127.0.0.2", gate.address).await.unwrap();
            let begin = format!("{}{}", head_of(1 << 20), "x".repeat(176 << 10));
            stream.write_all(begin.as_bytes()).await.unwrap();
            crowd.push(stream);
        }
        // It waits until one of them is old enough to be judged.
        let status = send_from("127.0.0.3", &gate, &large(128 << 10)).await;
        if status == 200 && gate.metric("scale_callback_gate_refused_total{reason=\"gave_way\"}").await > 0 {
            gate.stop().await;
            return;
        }
    }
    panic!("none gave way: {:?}", gate.refusals().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_sender_has_its_own_bound() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    setup.config.bounds.per_address = 2;
    let gate = setup.start().await;
    let begin = async |sender: &str| {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let head = head_of(1_000).replacen("host:", &format!("x-forwarded-for: 9.9.9.9, {sender}\r\nhost:"), 1);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let overloaded = async || gate.metric("scale_callback_gate_refused_total{reason=\"sender_overloaded\"}").await;
    let slow = [begin("192.0.2.1").await, begin("192.0.2.1").await, begin("198.51.100.1").await];
    let mut third = begin("192.0.2.1").await;
    let (answer, _) = read_all(&mut third).await;
    // Which of the three of this sender came last is not known: one of them is refused.
    until_some("one of this sender's is refused", async || (overloaded().await == 1).then_some(())).await;
    assert!(answer.is_empty() || status(&answer) == 503, "{answer}");
    // The proxy itself has more connections than one sender may have, and whole callbacks wait for nobody.
    let answer = exchange(gate.address, with(&fresh_id(), "x-forwarded-for: 192.0.2.1\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 200);
    drop((slow, third));
    gate.stop().await;

    // Somebody else's header is not believed: its own connections are bounded.
    let mut setup = Setup::before(&recorder);
    setup.config.trusted_proxies = vec!["127.0.0.9".parse().unwrap()];
    setup.config.bounds.per_address = 2;
    let gate = setup.start().await;
    let mut held = Vec::new();
    for n in 0..3 {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(format!("POST / HTTP/1.1\r\nx-forwarded-for: 192.0.2.{n}\r\n").as_bytes()).await.unwrap();
        held.push(stream);
    }
    until_some("one of them was closed", async || {
        (gate.metric("scale_callback_gate_connections_closed_total").await == 1).then_some(())
    })
    .await;
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_proxy_protocol_callbacks_come_in_and_nothing_else_does() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    setup.config.proxy_protocol = true;
    let gate = setup.start().await;
    let named = format!("PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n{}", good(&fresh_id()));
    assert_eq!(status(&exchange(gate.address, named.as_bytes()).await), 200);
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\x12\x34\0\x50";
    let named = [&binary[..], good(&fresh_id()).as_bytes()].concat();
    assert_eq!(status(&exchange(gate.address, &named).await), 200);
    assert_eq!(exchange(gate.address, good(&fresh_id()).as_bytes()).await, "", "without the header");
    let mut elsewhere = connect_from("127.0.0.2", gate.address).await.unwrap();
    // The gate may close it before this is written.
    elsewhere.write_all(&named).await.ok();
    assert_eq!(read_all(&mut elsewhere).await, (String::new(), true), "from an address that is not trusted");
    assert_eq!(recorder.count(), 2);
    gate.stop().await;
}
