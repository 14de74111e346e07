//! Receivers that send as much as they can, or in the smallest pieces: an attempt reads a bounded part of it, and takes
//! little time of a core. The client runs alone on its thread, so that the thread's time is the client's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use callbackd_bench::http2::{self, Http2, frame, head};
use callbackd_bench::raw::{self, Raw};

use super::*;

/// What the system takes from the receiver before the client reads it.
const SOCKET_BUFFERS: u64 = 8 << 20;
/// The promise is 10 ms for an attempt of an optimised build. This build and a busy machine take longer.
const TIME: Duration = Duration::from_millis(150);

/// How long this thread has run on a core.
fn thread_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// Runs receivers on a thread of their own until the returned sender is dropped.
fn elsewhere<T: Send + 'static>(
    start: impl AsyncFnOnce() -> (T, Box<dyn std::any::Any>) + Send + 'static,
) -> (T, tokio::sync::oneshot::Sender<()>) {
    let (started, result) = mpsc::sync_channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (value, _running) = start().await;
            started.send(value).unwrap();
            stopped.await.ok();
        });
    });
    (result.recv().unwrap(), stop)
}

/// An attempt that lasts two seconds, and its time on a core.
async fn attempt(client: &Client, url: &str) -> (Exchange, Duration) {
    let before = thread_time();
    let end = Instant::now() + Duration::from_secs(2);
    let exchange = client.post(&callback(url), Timestamp::from_millis(0), end).await;
    (exchange, thread_time().saturating_sub(before))
}

#[tokio::test]
async fn floods_over_http1_are_read_to_a_bound() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let long_chunk: &'static [u8] = format!("1;{}\r\nx\r\n", "e".repeat(900)).leak().as_bytes();
    let continues: &'static [u8] = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100).leak();
    for (outcome, first, again) in [
        (Outcome::HeadInvalid, &b""[..], continues),
        (Outcome::HeadInvalid, b"", b"HTTP/1.1 103 \r\n\r\n"),
        (Outcome::HeadInvalid, b"HTTP/1.1 200 OK\r\n", b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"),
        (Outcome::HeadInvalid, b"HTTP/1.1 200 OK\r\nx-fold: a\r\n", b" b\r\n"),
        (Outcome::HeadInvalid, b"HTTP/1.1 200 OK\r\n", b"\x01\r\n"),
        (Outcome::Ok, OK, long_chunk),
        (Outcome::Ok, OK, b"1\r\nx\r\n"),
        (Outcome::Ok, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-trailer: aaaaaaaaaaaaaa\r\n"),
        (Outcome::Ok, b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", b"0123456789abcdef"),
    ] {
        let ((address, sent), _stop) = elsewhere(async move || {
            let raw = Raw::start(raw::Act::Flood(first, again)).await.unwrap();
            ((raw.address, Arc::clone(&raw.flooded)), Box::new(raw) as Box<dyn std::any::Any>)
        });
        let client = client(None);
        let (exchange, time) = attempt(&client, &format!("http://{address}/")).await;
        let case = String::from_utf8_lossy(&again[..again.len().min(20)]).into_owned();
        println!("{case:?}: {time:?} on a core, {} bytes sent", sent.load(Ordering::Relaxed));
        // Slow pieces may meet the deadline first.
        let as_expected = exchange.outcome == outcome
            || (outcome == Outcome::HeadInvalid && exchange.outcome == Outcome::HeadTimeout && again.len() < 64);
        assert!(as_expected, "{case:?}: {exchange:?}");
        assert!(time < TIME, "{case:?}: {time:?}");
        assert!(sent.load(Ordering::Relaxed) < SOCKET_BUFFERS, "{case:?}");
    }
}

#[tokio::test]
async fn bytes_that_come_one_by_one_cost_little() {
    let newlines: &'static [u8] = b"\r\n".repeat(30_000).leak();
    for (first, again) in [
        (&b"HTTP/1.1 200 OK\r\nx-long: "[..], &b"a"[..]),
        // A head that has not begun is looked at anew with each piece.
        (newlines, b"\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n", b"a"),
    ] {
        let (address, _stop) = elsewhere(async move || {
            let raw = Raw::start(raw::Act::Flood(first, again)).await.unwrap();
            (raw.address, Box::new(raw) as Box<dyn std::any::Any>)
        });
        let (_, time) = attempt(&client(None), &format!("http://{address}/")).await;
        println!("{} bytes, then {again:?}: {time:?} on a core", first.len());
        assert!(time < TIME, "{again:?}: {time:?}");
    }
}

/// The block of a head: `:status: 200`, or an interim one, and then many small headers by their number in the table that
/// both sides know (RFC 7541, appendix A).
fn block(status: &[u8], headers: usize) -> Vec<u8> {
    [status, &vec![0x80 | 21; headers]].concat()
}

#[tokio::test]
async fn floods_over_http2_are_read_to_a_bound() {
    const EARLY_HINTS: &[u8] = b"\x08\x03103";
    let interim = |headers| head(1, false, &block(EARLY_HINTS, headers));
    let ok = head(1, false, &[0x88]);
    let (ping, settings) = (frame(6, 0, 0, &[0; 8]), frame(4, 0, 0, &[]));
    for (name, outcome, first, again) in [
        ("interim heads", Outcome::HeadInvalid, Vec::new(), interim(0).repeat(100)),
        ("large interim heads", Outcome::HeadInvalid, Vec::new(), interim(3_000).repeat(8)),
        ("pings", Outcome::HeadInvalid, Vec::new(), ping.repeat(200)),
        ("settings", Outcome::HeadInvalid, Vec::new(), settings.repeat(200)),
        ("windows", Outcome::HeadInvalid, Vec::new(), frame(8, 0, 0, &[0, 0, 0, 1]).repeat(200)),
        ("unknown frames", Outcome::HeadInvalid, Vec::new(), frame(0xbe, 0, 0, &[]).repeat(200)),
        ("continuations", Outcome::HeadInvalid, frame(1, 0, 1, &[0x88]), frame(9, 0, 1, &[]).repeat(200)),
        ("small bodies", Outcome::Ok, ok.clone(), frame(0, 0, 1, b"x").repeat(200)),
        ("empty bodies", Outcome::Ok, ok.clone(), frame(0, 0, 1, b"").repeat(200)),
        ("pings in a body", Outcome::Ok, ok, ping.repeat(200)),
    ] {
        let (certificates, _folder) = certificates();
        let client = client(Some(&certificates));
        let (address, _stop) = elsewhere(async move || {
            let receiver = Http2::start(&certificates, http2::Act::Frames(first, again)).await.unwrap();
            (receiver.address, Box::new(receiver) as Box<dyn std::any::Any>)
        });
        let (exchange, time) = attempt(&client, &format!("https://{address}/")).await;
        println!("{name}: {time:?} on a core, {}: {}", exchange.outcome.name(), told(&exchange));
        let ended = exchange.outcome == outcome || (outcome != Outcome::Ok && exchange.outcome == Outcome::HeadReset);
        assert!(ended, "{name}: {exchange:?}");
        assert!(time < TIME, "{name}: {time:?}");
    }
}

/// A connection that is reused many times saves up no allowance, and a slow but honest receiver is not refused.
#[tokio::test]
async fn honest_receivers_are_not_slowed() {
    let body: &'static str = "x".repeat(60_000).leak();
    let answer =
        format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let receiver = Raw::start(raw::Act::Answer(answer.into_bytes())).await.unwrap();
    let client = client(None);
    let begun = Instant::now();
    for _ in 0..50 {
        let exchange = post(&client, &format!("http://{}/", receiver.address)).await;
        assert_eq!((exchange.outcome, exchange.snippet.len()), (Outcome::Ok, KEPT), "{}", told(&exchange));
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
