//! What becomes of verified callbacks: each is passed on once, its answer is passed back, and a repeat is not handled again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::kit::*;

/// How long after its head a receiver sends a body that nobody expects.
const LATE: Duration = Duration::from_millis(2);

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_back_as_it_is() {
    let recorder = Recorder::start(|n| match n {
        0 => Act::Say("HTTP/1.1 503 Busy\r\nretry-after: 7\r\nx-own: y\r\nconnection: x-own, keep-alive\r\ncontent-length: 4\r\n\r\nbusy"),
        1 => Act::Say("HTTP/1.1 410 Gone\r\ntransfer-encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\nx: y\r\n\r\n"),
        _ => Act::Say("HTTP/1.1 204 No Content\r\n\r\n"),
    })
    .await;
    let gate = Setup::before(&recorder).start().await;
    let first = exchange(gate.address, good(&fresh_id()).as_bytes()).await;
    assert!(first.starts_with("HTTP/1.1 503") && first.ends_with("\r\n\r\nbusy"), "{first}");
    assert!(
        first.contains("retry-after: 7\r\n") && !first.contains("x-own") && !first.contains("keep-alive"),
        "{first}"
    );
    let second = exchange(gate.address, good(&fresh_id()).as_bytes()).await;
    assert!(second.starts_with("HTTP/1.1 410") && second.ends_with("\r\n\r\nbye"), "{second}");
    assert!(second.contains("content-length: 3"), "{second}");
    let third = exchange(gate.address, good(&fresh_id()).as_bytes()).await;
    assert!(third.starts_with("HTTP/1.1 204"), "{third}");
    assert_eq!(recorder.connections.load(Ordering::SeqCst), 1, "each answer was read to its end");
    assert_eq!(gate.metric("scale_callback_gate_forwarded_total{status=\"5xx\"}").await, 1);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handled_callback_is_not_handled_again_and_a_failed_one_is() {
    let recorder =
        Recorder::start(
            |n| if n == 0 { Act::Say("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n") } else { Act::Say(OK) },
        )
        .await;
    let gate = Setup::before(&recorder).start().await;
    let id = fresh_id();
    let send = async || status(&exchange(gate.address, good(&id).as_bytes()).await);
    assert_eq!(send().await, 500);
    assert_eq!(send().await, 200, "a failure is tried again");
    assert_eq!(send().await, 200, "a repeat is answered");
    assert_eq!(recorder.count(), 2, "and not handled again");
    assert_eq!(gate.metric("scale_callback_gate_repeats_total").await, 1);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_is_being_handled_waits_and_a_client_that_leaves_changes_nothing() {
    let recorder = Recorder::start(|_| Act::After(Duration::from_millis(1_500))).await;
    let gate = Setup::before(&recorder).start().await;
    let id = fresh_id();
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(good(&id).as_bytes()).await.unwrap();
    until("it is forwarded", || recorder.count() == 1).await;
    let again = exchange(gate.address, good(&id).as_bytes()).await;
    assert_eq!(status(&again), 503, "{again}");
    assert!(again.contains("retry-after: "), "{again}");
    // The client leaves while the receiver is at work.
    drop(stream);
    until_some("the receiver's answer is counted", async || {
        (gate.metric("scale_callback_gate_forwarded_total{status=\"2xx\"}").await == 1).then_some(())
    })
    .await;
    assert_eq!(status(&exchange(gate.address, good(&id).as_bytes()).await), 200, "it was handled all the same");
    assert_eq!(recorder.count(), 1);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_answers_nonsense_or_is_away() {
    let recorder = Recorder::start(|n| match n {
        0 => Act::Hang,
        1 => Act::Say("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        2 => Act::SayAndClose("nonsense\r\n\r\n"),
        3 => Act::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort"),
        4 => Act::SayAndClose(""),
        _ => Act::Say(OK),
    })
    .await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.upstream = Duration::from_millis(500);
    let gate = setup.start().await;
    let id = fresh_id();
    for (what, expected) in [
        ("hangs", 504),
        ("switches protocols", 502),
        ("answers nonsense", 502),
        ("breaks off", 502),
        ("closes without an answer", 502),
        ("answers", 200),
    ] {
        // The same id each time: the claim is released whenever it was not handled.
        let answer = exchange(gate.address, good(&id).as_bytes()).await;
        assert_eq!(status(&answer), expected, "{what}: {answer}");
    }
    assert_eq!(recorder.count(), 6, "one attempt each, no hidden retry");
    gate.stop().await;

    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let gate = Setup::new(&format!("http://{address}")).start().await;
    assert_eq!(status(&exchange(gate.address, good(&fresh_id()).as_bytes()).await), 502);
    assert_eq!(gate.metric("scale_callback_gate_upstream_failures_total{failure=\"unreachable\"}").await, 1);
    gate.stop().await;
}

/// What the receiver says to the requests that it gets, one after the other, and then [`OK`].
async fn saying(answers: &[String]) -> Recorder {
    let answers: Vec<&'static str> = answers.iter().map(|answer| &*answer.clone().leak()).collect();
    Recorder::start(move |n| Act::Say(answers.get(n).copied().unwrap_or(OK))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_before_the_final_one_are_passed_over_within_a_bound() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
    let before = |many: &str| format!("{many}{OK}");
    let endless = early.repeat(400 * 1_024 / early.len());
    let answers = [
        before("HTTP/1.1 100 Continue\r\n\r\n"),
        before("HTTP/1.1 102 Processing\r\n\r\n"),
        before(early),
        before(&early.repeat(1_000)),
        before(&endless),
    ];
    let recorder = saying(&answers).await;
    let gate = Setup::before(&recorder).start().await;
    for expected in [200, 200, 200, 200, 502] {
        let answer = exchange(gate.address, good(&fresh_id()).as_bytes()).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(expected == 502 || (answer.ends_with("\r\n\r\nok") && !answer.contains("HTTP/1.1 1")), "{answer}");
    }
    assert_eq!(recorder.count(), answers.len(), "one attempt each");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_other_programs_accept_are_passed_on_and_made_safe() {
    let answer = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}content-length: 2\r\n\r\nok");
    let many: String = (0..126).map(|n| format!("x-{n}: y\r\n")).collect();
    let answers = [
        answer("x-folded: one\r\n\ttwo\r\n  three\r\n"),
        answer("x-spaced : yes\r\n"),
        answer("x inside: no\r\nx-kept: yes\r\n"),
        answer("set-cookie: a=\u{1}b\r\nx-kept: yes\r\n"),
        answer(&many),
        answer(&format!("x-large: {}\r\n", "y".repeat(60_000))),
        // What two programs could read differently is refused still.
        answer("content-length: 3\r\n"),
        answer(&format!("{many}x-127: y\r\nx-128: y\r\n")),
        answer(&format!("x-large: {}\r\n", "y".repeat(70_000))),
    ];
    let recorder = saying(&answers).await;
    let gate = Setup::before(&recorder).start().await;
    let ask = async || exchange(gate.address, good(&fresh_id()).as_bytes()).await;
    let folded = ask().await;
    let line = folded.lines().find(|line| line.starts_with("x-folded: ")).unwrap_or_else(|| panic!("{folded}"));
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["x-folded:", "one", "two", "three"], "{folded}");
    assert_eq!((status(&folded), folded.lines().any(|line| line.starts_with([' ', '\t']))), (200, false));
    let spaced = ask().await;
    assert!(status(&spaced) == 200 && spaced.contains("x-spaced: yes\r\n"), "{spaced}");
    for _ in 0..2 {
        let odd = ask().await;
        assert!(status(&odd) == 200 && odd.contains("x-kept: yes\r\n") && odd.ends_with("ok"), "{odd}");
        assert!(!odd.contains("inside") && !odd.contains('\u{1}'), "{odd}");
    }
    let long = ask().await;
    assert!(status(&long) == 200 && long.contains("x-0: y\r\n") && long.contains("x-125: y\r\n"), "{long}");
    assert_eq!(status(&ask().await), 200, "60 KB of headers");
    for refused in ["two lengths", "129 headers", "70 KB of headers"] {
        assert_eq!(status(&ask().await), 502, "{refused}");
    }
    assert_eq!(recorder.count(), answers.len());
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_follows_a_204_is_never_taken_for_the_next_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt as _;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 8_192];
                while let Ok(1..) = stream.read(&mut request).await {
                    stream.write_all(b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n").await.ok();
                    // The body comes late, when the connection may be in use again.
                    tokio::time::sleep(LATE).await;
                    stream.write_all(b"late").await.ok();
                }
            });
        }
    });
    let gate = Setup::new(&format!("http://{address}")).start().await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let twenty: String = (0..20).map(|_| good(&fresh_id())).collect();
    stream.write_all(twenty.as_bytes()).await.unwrap();
    let (answers, _) = read_all(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 204").count(), 20, "{answers}");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_was_closed_costs_no_failure() {
    let recorder = Recorder::start(|_| Act::SayAndClose(OK)).await;
    let gate = Setup::before(&recorder).start().await;
    for _ in 0..20 {
        let answer = exchange(gate.address, good(&fresh_id()).as_bytes()).await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
    assert_eq!(recorder.count(), 20);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_stops_lets_what_was_begun_end() {
    let recorder = Recorder::start(|_| Act::After(Duration::from_millis(400))).await;
    let gate = Setup::before(&recorder).start().await;
    let (address, request) = (gate.address, good(&fresh_id()));
    let open = tokio::spawn(async move { exchange(address, request.as_bytes()).await });
    until("it is forwarded", || recorder.count() == 1).await;
    gate.stop().await;
    assert_eq!(status(&open.await.unwrap()), 200);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_stops_waits_for_what_a_client_left() {
    let recorder = Recorder::start(|_| Act::After(Duration::from_millis(1_500))).await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.drain = Duration::from_secs(5);
    setup.config.bounds.connections = 1;
    let gate = setup.start().await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(good(&fresh_id()).as_bytes()).await.unwrap();
    until("it is forwarded", || recorder.count() == 1).await;
    drop(stream);
    // The only place is free once the gate has noticed that the client left.
    drop(until_some("the gate notices it", async || kept_open(gate.address).await).await);
    let began = std::time::Instant::now();
    gate.stop().await;
    assert!(began.elapsed() > Duration::from_millis(400), "the receiver was still at work");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_whole_request_was_taken_delays_no_other_request() {
    // It answers as soon as it has a head, reads no more of a large body, and keeps the connection open.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt as _;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 512];
                while let Ok(count @ 1..) = stream.read(&mut head).await {
                    stream.write_all(OK.as_bytes()).await.unwrap();
                    if count == head.len() {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    let gate = Setup::new(&format!("http://{address}")).start().await;
    for _ in 0..4 {
        let body = format!(r#"{{"task":{{}},"task_id":"t","x":"{}"}}"#, "y".repeat(8 << 20));
        let proof = proof(&fresh_id(), &body);
        let large =
            format!("POST /callbacks HTTP/1.1\r\nhost: g\r\n{proof}content-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(status(&exchange(gate.address, large.as_bytes()).await), 200);
        let began = std::time::Instant::now();
        assert_eq!(status(&exchange(gate.address, good(&fresh_id()).as_bytes()).await), 200);
        // `exchange` itself waits 700 ms for silence.
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_cannot_be_remembered_is_refused() {
    let recorder = Recorder::start(|_| Act::Say(OK)).await;
    let mut setup = Setup::before(&recorder);
    setup.config.bounds.remembered = 2;
    let gate = setup.start().await;
    let first = fresh_id();
    for (id, expected) in [(first.clone(), 200), (fresh_id(), 200), (fresh_id(), 503), (first, 200)] {
        assert_eq!(status(&exchange(gate.address, good(&id).as_bytes()).await), expected, "{id}");
    }
    assert_eq!(gate.metric("scale_callback_gate_refused_total{reason=\"remembers_full\"}").await, 1);
    assert_eq!(recorder.count(), 2);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_can_tell_the_gate_from_anybody_else() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-32-random-characters\n").unwrap();
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let mut setup = Setup::new(&format!("unix:{}", socket.display()));
    setup.config.upstream_token = Some(token);
    setup.config.keep_auth_header = true;
    let gate = setup.start().await;
    let serving = tokio::spawn(async move {
        use tokio::io::AsyncReadExt as _;
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 8_192];
        let count = stream.read(&mut request).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    assert_eq!(status(&exchange(gate.address, good(&fresh_id()).as_bytes()).await), 200);
    let request = serving.await.unwrap();
    assert!(request.contains("authorization: Bearer a-token-of-32-random-characters\r\n"), "{request}");
    assert!(request.contains(&format!("scale-callback-auth: {AUTH}\r\n")), "it was asked for: {request}");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_closes_or_greets_at_once_is_tried_once() {
    for greeting in ["", "220 mail.example ESMTP\r\n"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                // The gate may have closed it already.
                drop(stream.write_all(greeting.as_bytes()).await);
            }
        });
        let gate = Setup::new(&format!("http://{address}")).start().await;
        let callbacks = 20;
        for _ in 0..callbacks {
            assert_eq!(
                status(&exchange(gate.address, with(&fresh_id(), "connection: close\r\n").as_bytes()).await),
                502
            );
        }
        assert_eq!(connections.load(Ordering::SeqCst), callbacks, "after {greeting:?}");
        gate.stop().await;
    }
}
