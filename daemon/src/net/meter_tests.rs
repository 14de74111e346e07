//! How much a receiver may send, and how often it is read.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

fn metered() -> (MeteredStream<DuplexStream>, Arc<Meter>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let meter = Arc::new(Meter::new());
    (MeteredStream::new(ours, Arc::clone(&meter)), meter, theirs)
}

/// How many bytes can be read until the end or an error.
async fn read_all(stream: &mut MeteredStream<DuplexStream>) -> (u64, io::Result<()>) {
    let mut total = 0;
    let mut chunk = [0; 8 * 1024];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return (total, Ok(())),
            Ok(count) => total += count as u64,
            Err(error) => return (total, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_flood_ends_the_connection_and_says_why() {
    let (mut stream, meter, mut theirs) = metered();
    let _request = meter.request();
    let flood = tokio::spawn(async move { while theirs.write_all(&[b'x'; 4096]).await.is_ok() {} });
    let (total, result) = read_all(&mut stream).await;
    assert!(result.unwrap_err().get_ref().is_some_and(|cause| cause.is::<Flooded>()));
    assert!(meter.is_flooded());
    assert!(total <= ANSWER_BYTES + IDLE_BYTES + 8 * 1024, "{total}");
    drop(stream);
    flood.await.unwrap();
}

#[test]
fn what_one_request_does_not_use_is_not_saved_up_for_another() {
    let mut allowance = Allowance::new();
    for _ in 0..1_000 {
        allowance.begin();
        allowance.received(500);
        allowance.end();
    }
    assert!(allowance.bytes <= IDLE_BYTES && allowance.small_pieces <= SMALL_PIECES, "{allowance:?}");
    assert!(allowance.bytes > 0 && allowance.heads == HEADS, "{allowance:?}");
    for _ in 0..64 {
        allowance.begin();
    }
    assert!(allowance.bytes <= 64 * ANSWER_BYTES + IDLE_BYTES);
}

#[test]
fn a_receiver_that_takes_a_large_body_in_small_steps_is_not_slowed() {
    let mut allowance = Allowance::new();
    allowance.begin();
    for _ in 0..12 * 1024 / 4 {
        allowance.sent(4 * 1024);
        // Two frames of HTTP/2 that enlarge the windows of the stream and of the connection, each in a piece of TLS.
        assert!(!allowance.received(13 + 22) && !allowance.received(13 + 22), "{allowance:?}");
    }
    assert!(!allowance.flooded, "{allowance:?}");
}

#[tokio::test(start_paused = true)]
async fn small_pieces_are_read_less_often() {
    let (mut stream, meter, mut theirs) = metered();
    let _request = meter.request();
    let drip = tokio::spawn(async move {
        let mut sent = 0;
        while theirs.write_all(b"x").await.is_ok() {
            sent += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sent
    });
    let (mut reads, mut read) = (0_u64, 0);
    let end = tokio::time::Instant::now() + Duration::from_secs(15);
    let mut chunk = [0; 1024];
    while let Ok(count) = tokio::time::timeout_at(end, stream.read(&mut chunk)).await {
        reads += 1;
        read += count.unwrap();
    }
    assert!(reads <= 2 * SMALL_PIECES + 152, "{reads}");
    drop(stream);
    assert!(read + 200 >= drip.await.unwrap(), "nothing is refused, only read later");
}
