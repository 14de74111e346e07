//! Refusals keep their pace, and callbacks never wait for it.

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
        (400, with(&fresh_id(), "host: another\r\n")),
        // The HTTP library refuses these itself: there is no request.
        (400, "POST /callbacks HTTP/1.1\r\nhost : gate\r\n\r\n".to_owned()),
        (400, "POST /callbacks HTTP/1.1\nhost: gate\n\n".to_owned()),
        (400, "\0\r\n\r\n".to_owned()),
        (431, format!("POST /callbacks HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(40_000))),
    ];
    // A refusal that is alone does not wait.
    let (refused, took) = timed(gate.address, tampered()).await;
    assert!(refused == 401 && took < Duration::from_millis(500), "{took:?}");
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
async fn a_client_that_leaves_before_its_refusal_keeps_its_place_until_then() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    (setup.config.bounds.refusals, setup.config.bounds.connections) = (1, 3);
    let gate = setup.start().await;
    // The first is refused at once, the second in a second, the third in two.
    let began = Instant::now();
    let first = "POST /callbacks HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(timed(gate.address, first.to_owned()).await.0, 401);
    for connections in [2, 3] {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(b"\0\r\n\r\n").await.unwrap();
        until_some("the gate has accepted it", async || {
            (gate.metric("scale_callback_gate_connections_total").await == connections).then_some(())
        })
        .await;
    }
    // The one place that is left goes to whoever comes last.
    let open = async || kept_open(gate.address).await;
    let mut held = until_some("the first has gone", open).await;
    let mut last = open().await.expect("the one before it gives way");
    assert!(read_all(&mut held).await.1 && began.elapsed() < Duration::from_millis(950), "{:?}", began.elapsed());
    // Once the two have gone, three are open at the same time.
    let three = until_some("the two have gone", async || {
        let mut three = [open().await?, open().await?, open().await?];
        let closed = read_all(&mut three[0]).await.1;
        (!closed).then_some(three)
    })
    .await;
    assert!(began.elapsed() > Duration::from_millis(1_900), "they kept their places: {:?}", began.elapsed());
    assert!(read_all(&mut last).await.1);
    drop(three);
    gate.stop().await;
}
