//! Refusals keep their pace; callbacks do not wait for them.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::*;

/// Sends a request on a connection of its own; gives the status, and how long it took.
async fn timed(gate: std::net::SocketAddr, request: String) -> (u16, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(gate).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let count = stream.read(&mut answer).await.unwrap();
    (status(&String::from_utf8_lossy(&answer[..count])), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_every_kind_share_one_pace_and_callbacks_do_not_wait() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.refusals = 10;
    let gate = setup.start().await;
    let tampered = || good(&fresh_id()).replace("\"t1\"", "\"t2\"");
    let kinds: [(u16, String); 8] = [
        (401, tampered()),
        (404, good(&fresh_id()).replace("/callbacks", "/other")),
        (405, good(&fresh_id()).replace("POST", "PUT")),
        (400, with(&fresh_id(), "upgrade: h2c\r\n")),
        // The library's own: there is no request.
        (400, "POST /callbacks HTTP/1.1\r\nhost : gate\r\n\r\n".to_owned()),
        (400, "POST /callbacks HTTP/1.1\nhost: gate\n\n".to_owned()),
        (400, "\0\r\n\r\n".to_owned()),
        (431, format!("POST /callbacks HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(40_000))),
    ];
    // Alone, none waits.
    let (refused, took) = timed(gate.address, tampered()).await;
    assert!(refused == 401 && took < Duration::from_millis(500), "{took:?}");
    tokio::time::sleep(Duration::from_millis(110)).await;
    let (began, address) = (Instant::now(), gate.address);
    let crowd = kinds.map(|(expected, request)| {
        tokio::spawn(async move { (expected, timed(address, request).await.0, began.elapsed()) })
    });
    // Callbacks come in between.
    for _ in 0..5 {
        let (answer, took) = timed(gate.address, good(&fresh_id())).await;
        assert!(answer == 200 && took < Duration::from_millis(500), "{answer} {took:?}");
    }
    let mut answered = Vec::new();
    for one in crowd {
        let (expected, answer, at) = one.await.unwrap();
        assert_eq!(answer, expected);
        answered.push(at);
    }
    answered.sort();
    for (n, at) in (0_u32..).zip(&answered) {
        assert!(*at >= Duration::from_millis(100) * n, "number {n} of {answered:?}");
    }
    assert_eq!(recorder.count(), 5);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_its_refusal_keeps_its_place_until_then() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    (setup.config.bounds.refusals, setup.config.bounds.connections) = (1, 3);
    let gate = setup.start().await;
    // The first is refused at once, the second in a second, the third in two.
    let began = Instant::now();
    for head in ["POST /callbacks HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n", "\0\r\n\r\n", "\0\r\n\r\n"] {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let open = async || {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0; 1])).await.is_err().then_some(stream)
    };
    let held = open().await.expect("the first has gone");
    assert!(open().await.is_none(), "two wait, and one is there");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    drop(held);
    tokio::time::sleep(Duration::from_millis(2_300).saturating_sub(began.elapsed())).await;
    let again = (open().await, open().await, open().await);
    assert!(again.0.is_some() && again.1.is_some() && again.2.is_some(), "they have gone");
    gate.stop().await;
}
