//! The hostile crowd, a process of its own: connections that send one byte at a time, and requests of every kind that
//! must be refused, over the connections that are left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use scale_callback_auth::conformance::{Corpus, OwnKeys};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::requests::{AUTH, SECRET, body, bytes, connect, exchange, now, signed, signer};

const DRIPPING: u64 = 1_000;
/// Of the 24 connections that are left, one belongs to the good client, and a few are being closed at any time.
const WORKERS: u64 = 18;
const DRIP: Duration = Duration::from_millis(500);
/// The size of the largest body that the gate allows.
const LARGE: usize = 12 << 20;

/// Sends `requests` requests in all. One in `large` of them has the largest body that is allowed; if `large` is 0, none
/// has.
pub(crate) async fn run(gate: SocketAddr, requests: u64, large: u64) -> anyhow::Result<()> {
    let dripped = Arc::new(AtomicU64::new(0));
    for n in 0..DRIPPING {
        let dripped = Arc::clone(&dripped);
        tokio::spawn(async move {
            // They start at different times, because otherwise the gate would close all of them at the same time.
            tokio::time::sleep(Duration::from_millis(n * 5)).await;
            loop {
                // The gate closes these connections, so an error is expected.
                drip(gate, n, &dripped).await.ok();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(DRIPPING * 5 + 500)).await;
    let kinds = Arc::new(kinds()?);
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let workers =
        (0..WORKERS).map(|_| tokio::spawn(work(gate, requests, large, Arc::clone(&next), Arc::clone(&kinds))));
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    for worker in workers.collect::<Vec<_>>() {
        for (answer, count) in worker.await?? {
            *answers.entry(answer).or_default() += count;
        }
    }
    let rate = requests as f64 / began.elapsed().as_secs_f64();
    println!("crowd: {requests} hostile requests of {} kinds, {rate:.0} /s, answered {answers:?}", kinds.len());
    println!("crowd: {DRIPPING} dripping connections, opened {} times", dripped.load(Ordering::Relaxed));
    Ok(())
}

/// Requests that must be refused. Requests that verify in part have ids from the corpus.
fn kinds() -> anyhow::Result<Vec<Vec<u8>>> {
    let corpus = Corpus::embedded();
    let own = OwnKeys { signing: Some(SECRET.into()), auth: Some(AUTH.into()), hmac: None };
    let refused = |why: &str| !why.starts_with("not_");
    let mut kinds = Vec::new();
    for case in corpus.cases() {
        if case.is_http() && case.verifier() == "keyed" && case.refusal().is_some_and(refused) {
            let request = case.request(&own, "cb_0123456789abcdefghjkmnpqrs", now())?;
            kinds.push(bytes(&request.headers, &request.body));
        }
    }
    let (signer, body) = (signer()?, body());
    let good = String::from_utf8(signed(&signer, "cb_hostile", body.as_bytes()))?;
    for (find, put) in [
        ("POST /", "GET /"),
        ("POST /callbacks", "POST /other"),
        ("POST /callbacks", "POST /callbacks?x=1"),
        ("POST /callbacks", "POST http://gate/callbacks"),
        ("POST /callbacks HTTP/1.1", "PRI * HTTP/2.0"),
        ("host: gate", "host: gate\r\nhost: other"),
        ("host: gate", "host : gate"),
        ("host: gate\r\n", "host: gate\n"),
        ("host: gate", "host: gate\r\ntransfer-encoding: chunked"),
        ("host: gate", "host: gate\r\ntransfer-encoding: gzip, chunked"),
        ("host: gate", "host: gate\r\nexpect: 100-continue\r\nwebhook-id: other"),
        ("host: gate", "host: gate\r\nupgrade: h2c"),
        ("webhook-id", "webhook_id"),
        ("content-length: 2", "content-length: +2"),
        ("content-length: 2048", "content-length: 99999999999"),
        ("\"xx", "\"xy"),
    ] {
        ensure!(good.contains(find), "{find:?} is in no request");
        kinds.push(good.replacen(find, put, 1).into_bytes());
    }
    kinds.push(b"\0\x01\x02\r\n\r\n".to_vec());
    kinds.push([b"POST /callbacks HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 40_000], b"\r\n\r\n".to_vec()].concat());
    Ok(kinds)
}

type Answers = BTreeMap<String, u64>;

/// Sends its share of the requests. If the gate accepts one, the benchmark fails.
async fn work(
    gate: SocketAddr,
    requests: u64,
    large_ones: u64,
    next: Arc<AtomicU64>,
    kinds: Arc<Vec<Vec<u8>>>,
) -> anyhow::Result<Answers> {
    let mut answers = Answers::new();
    let mut connection: Option<TcpStream> = None;
    // The last byte of the large body is wrong.
    let large = {
        let mut large = signed(&signer()?, "cb_large", &vec![b'x'; LARGE]);
        *large.last_mut().unwrap_or(&mut 0) = b'y';
        large
    };
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= requests {
            return Ok(answers);
        }
        let is_large = large_ones > 0 && n % large_ones == large_ones - 1;
        let request = if is_large { &large } else { &kinds[n as usize % kinds.len()] };
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => connect(gate).await?,
        };
        let answer = tokio::time::timeout(Duration::from_secs(60), exchange(&mut stream, request)).await?;
        let status = answer.unwrap_or_default();
        ensure!(
            !matches!(status, Some(200..=299)),
            "accepted: {:?}",
            String::from_utf8_lossy(&request[..400.min(request.len())])
        );
        *answers.entry(status.map_or_else(|| "closed".to_owned(), |status| status.to_string())).or_default() += 1;
        // The connection stays open after a refused signature. After a malformed request the gate closes it.
        if matches!(status, Some(401 | 403)) {
            connection = Some(stream);
        }
    }
}

/// Sends a head or a body one byte at a time until the gate closes the connection.
async fn drip(gate: SocketAddr, n: u64, dripped: &AtomicU64) -> anyhow::Result<()> {
    let mut stream = connect(gate).await?;
    dripped.fetch_add(1, Ordering::Relaxed);
    let request = signed(&signer()?, &format!("cb_drip{n}"), body().as_bytes());
    let head = request.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |place| place + 4);
    let mut at = if n.is_multiple_of(2) { 1 } else { head };
    stream.write_all(&request[..at]).await?;
    loop {
        // The gate answers or closes the connection early. Either ends this connection.
        if let Ok(read) = tokio::time::timeout(DRIP, stream.read(&mut [0; 64])).await {
            read?;
            return Ok(());
        }
        // The last byte is never sent.
        if at + 1 < request.len() {
            stream.write_all(&request[at..=at]).await?;
            at += 1;
        }
    }
}
