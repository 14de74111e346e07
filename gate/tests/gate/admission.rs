//! Which requests are let in, and within which bounds.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::*;

/// The pause between two pieces of a request that drips in.
const DRIP: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn only_a_post_to_the_very_path_is_answered() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    let request = |line: &str| good(&fresh_id()).replacen("POST /callbacks HTTP/1.1", line, 1);
    for (line, expected) in [
        ("GET /callbacks HTTP/1.1", 405),
        ("PUT /callbacks HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 405),
        ("CONNECT 127.0.0.1:80 HTTP/1.1", 405),
        ("POST http://gate/callbacks HTTP/1.1", 400),
        ("POST * HTTP/1.1", 404),
        ("POST /callbacks/ HTTP/1.1", 404),
        ("POST /callbacks? HTTP/1.1", 404),
        ("POST /callbacks?x=1 HTTP/1.1", 404),
        ("POST //callbacks HTTP/1.1", 404),
        ("POST /%63allbacks HTTP/1.1", 404),
        ("POST /a/../callbacks HTTP/1.1", 404),
        ("POST /CALLBACKS HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 404),
        ("POST /readyz HTTP/1.1", 404),
    ] {
        let answer = exchange(gate.address, request(line).as_bytes()).await;
        assert_eq!(status(&answer), expected, "{line}: {answer}");
    }
    assert_eq!(recorder.count(), 0);
    let answer = exchange(gate.address, b"GET /callbacks HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.contains("allow: POST") && answer.contains("connection: close"), "{answer}");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_to_upgrade_is_ignored() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    for lines in [
        // Java's client sends these lines with its first request.
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "upgrade: h2c\r\n",
        "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x\r\n",
    ] {
        let answer = exchange(gate.address, with(&fresh_id(), lines).as_bytes()).await;
        assert_eq!(status(&answer), 200, "{lines}: {answer}");
    }
    assert_eq!(recorder.count(), 3);
    assert!(
        recorder.requests().iter().all(|request| !request.to_lowercase().contains("upgrade")),
        "nothing is passed on"
    );
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_refused_with_the_lines_that_mend_it() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    let old = good(&fresh_id()).replacen("HTTP/1.1", "HTTP/1.0", 1);
    let answer = exchange(gate.address, old.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 400") && answer.contains("proxy_http_version 1.1;"), "{answer}");
    assert_eq!(recorder.count(), 0);
    assert_eq!(gate.metric("scale_callback_gate_refused_total{reason=\"http_version\"}").await, 1);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_stands_twice_is_refused() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    for line in ["webhook-id: cb_2", "Webhook-Timestamp: 1", "SCALE-CALLBACK-AUTH: x", "host: other"] {
        let answer = exchange(gate.address, with(&fresh_id(), &format!("{line}\r\n")).as_bytes()).await;
        assert_eq!(status(&answer), 400, "{line}: {answer}");
    }
    let no_host = good(&fresh_id()).replace("host: gate\r\n", "");
    assert_eq!(status(&exchange(gate.address, no_host.as_bytes()).await), 400);
    let empty_host = good(&fresh_id()).replace("host: gate\r\n", "host:\r\n");
    assert_eq!(status(&exchange(gate.address, empty_host.as_bytes()).await), 400);
    assert_eq!(recorder.count(), 0);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_is_answered_by_the_headers_alone() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    let head = |request: &str| request.split_once("\r\n\r\n").unwrap().0.to_owned() + "\r\n\r\n";
    // Without a key that could be right the gate does not ask for the body.
    let bad = with(&fresh_id(), "expect: 100-continue\r\n").replace(AUTH, "live_auth_00000000000000000000000000000000");
    let answer = exchange(gate.address, head(&bad).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let odd = exchange(gate.address, head(&with(&fresh_id(), "expect: something\r\n")).as_bytes()).await;
    assert_eq!(status(&odd), 417, "{odd}");
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(head(&with(&fresh_id(), "expect: 100-continue\r\n")).as_bytes()).await.unwrap();
    let (answer, _) = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 100"), "{answer}");
    stream.write_all(BODY.as_bytes()).await.unwrap();
    let (answer, _) = read_all(&mut stream).await;
    assert_eq!(status(&answer), 200, "{answer}");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_their_bounds() {
    let recorder = Recorder::start(|_| Act::After(Duration::from_secs(2))).await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.body = 64 * 1024;
    setup.config.bounds.bodies = 96 * 1024;
    let gate = setup.start().await;
    // Announced too long: refused before it is read.
    let proof_lines = proof(&fresh_id(), BODY);
    let head = |lines: &str| format!("POST /callbacks HTTP/1.1\r\nhost: g\r\n{proof_lines}{lines}\r\n");
    let answer = exchange(gate.address, head("content-length: 65537\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 413, "{answer}");
    // Too long without an announcement.
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
    let answer = exchange(
        gate.address,
        format!("{}{chunk}1\r\ny\r\n0\r\n\r\n", head("transfer-encoding: chunked\r\n")).as_bytes(),
    )
    .await;
    assert_eq!(status(&answer), 413, "{answer}");
    // The room that all share: a second large body finds none while the first one is held, and finds some afterwards.
    let large = |id: &str| {
        let body = format!(r#"{{"task":{{}},"task_id":"t","x":"{}"}}"#, "y".repeat(60_000));
        let proof = proof(id, &body);
        format!("POST /callbacks HTTP/1.1\r\nhost: g\r\n{proof}content-length: {}\r\n\r\n{body}", body.len())
    };
    let (first, second) = (fresh_id(), fresh_id());
    let running = tokio::spawn({
        let (address, request) = (gate.address, large(&first));
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let count = stream.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..count]).into_owned()
        }
    });
    until("the first one is forwarded", || recorder.count() == 1).await;
    let answer = exchange(gate.address, large(&second).as_bytes()).await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("retry-after: "), "{answer}");
    assert_eq!(status(&running.await.unwrap()), 200);
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(large(&second).as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_bodies_are_given_up() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.head = Duration::from_millis(500);
    let gate = setup.start().await;
    // A head that drips.
    let began = Instant::now();
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(b"POST /callbacks HTTP/1.1\r\n").await.unwrap();
    let dripping = async {
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dripping).await.expect("its connection ends");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // A body that drips: below the least rate it is given up, long before the time for a whole body is over.
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let request = with(&fresh_id(), "").replace(&format!("content-length: {}", BODY.len()), "content-length: 1000000");
    stream.write_all(request.as_bytes()).await.unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    let reading = async {
        loop {
            let mut chunk = [0; 1024];
            tokio::select! {
                read = stream.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => answer.extend_from_slice(&chunk[..count]),
                },
                // The next drop of the body. The gate may have given the connection up meanwhile.
                () = tokio::time::sleep(DRIP) => drop(stream.write_all(b"drip").await),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), reading).await.expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(status(&String::from_utf8_lossy(&answer)), 408);
    assert_eq!(recorder.count(), 0);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_answers_keeps_no_place() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.head = Duration::from_millis(700);
    setup.config.bounds.refusals = u32::MAX;
    let gate = setup.start().await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let refused = "POST /callbacks HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n".repeat(100);
    // It sends until its connection ends, and reads nothing.
    let sending = async { while stream.write_all(refused.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), sending).await.expect("its connection ends");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_more_takes_the_place_of_the_oldest_without_a_whole_head() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.connections = 8;
    let gate = setup.start().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(b"POST /callbacks HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    until_some("all eight have their places", async || {
        (gate.metric("scale_callback_gate_connections_total").await == 8).then_some(())
    })
    .await;
    let answer = exchange(gate.address, good(&fresh_id()).as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(read_all(&mut held[0]).await, (String::new(), true), "the oldest one was closed");
    assert_eq!(read_all(&mut held[1]).await, (String::new(), false), "and no other one");
    assert_eq!(gate.metric("scale_callback_gate_connections_closed_total").await, 1);
    gate.stop().await;
}
