//! The memory of the real binary under what fills it: large bodies for receivers that hang, due ones and fresh ones, many
//! dead letters at once, and receivers that flood. The records are not compressed: what Kafka's client inflates is not in our budget.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use callbackd_bench::http2::{self, Http2, go_away};
use callbackd_bench::raw::{self, Raw};
use callbackd_bench::tls::Certificates;
use h2::Reason;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use tokio::net::TcpListener;

use crate::harness::{TEAM, until};
use crate::kafka::{create_topic, shared_broker};
use crate::process::Process;

/// What the daemon may use at most.
pub const MEBIBYTES: u64 = 250;

/// The most memory that the process has used so far, in MiB.
pub fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

/// Accepts every connection and never answers, at all addresses of loopback. Each of them is an endpoint of its own.
async fn hanging() -> u16 {
    // Bound to the one address that covers them all; clients of this test use 127.0.0.0/8 alone.
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    port
}

fn producer(servers: &str) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("message.max.bytes", "8000000");
    config.set("queue.buffering.max.kbytes", "262144").create().unwrap()
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, value: &[u8]) {
    loop {
        match producer.send(BaseRecord::<[u8], [u8]>::to(topic).payload(value)) {
            Ok(()) => return,
            // The producer's queue is full.
            Err(_) => producer.flush(Duration::from_secs(60)).unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_its_bound_whatever_fills_it() {
    let servers = shared_broker();
    create_topic(&servers, "memory", 4).await;
    let more = "[retry]\nfirst = \"1s\"\n[deliver]\nhead_timeout = \"2s\"\ntotal_timeout = \"2s\"\n";
    let mut process = Process::new(&servers, "memory", more);
    process.start(None, "warn").await;
    process.team(TEAM);
    let port = hanging().await;
    let producer = producer(&servers);

    // Hundreds of endpoints that hang, with bodies of 1 MB, which are many times the budget. Retries begin while fresh ones
    // still come.
    let padding = "x".repeat(1_000_000);
    for n in 0..600_u32 {
        let host = Ipv4Addr::from(0x7f01_0000 + n);
        let value = format!(
            "{{\"team_id\":\"{TEAM}\",\"response\":\"{padding}\",\"task\":{{\"task_id\":\"task-{n}\",\"callback_url\":\"http://{host}:{port}/\"}}}}"
        );
        send(&producer, "memory", value.as_bytes());
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    until("fresh and due ones are tried", async || {
        let failed = process.metric("callbackd_attempts_total{outcome=\"head_timeout\"}").await?;
        (failed > 150.0).then_some(())
    })
    .await;
    let used = process.metric("callbackd_body_bytes").await.unwrap();
    assert!(used > 0.0 && used <= f64::from(48 << 20), "{used}");
    let large_bodies = peak(&process);
    assert!(large_bodies <= MEBIBYTES, "{large_bodies} MiB with large bodies");

    // 10,000 dead letters at once.
    let junk = vec![b'j'; 64 << 10];
    for _ in 0..10_000 {
        send(&producer, "memory", &junk);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    until("they are buried", async || {
        let buried = process.metric("callbackd_dead_letters_total{reason=\"not_json\"}").await?;
        (buried >= 1_000.0).then_some(())
    })
    .await;
    let dead_letters = peak(&process);
    assert!(dead_letters <= MEBIBYTES, "{dead_letters} MiB with dead letters");
    println!("peak memory: {large_bodies} MiB with large bodies, {dead_letters} MiB with dead letters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_its_bound_while_hundreds_of_attempts_are_flooded() {
    const CALLBACKS: u32 = 600;
    let servers = shared_broker();
    create_topic(&servers, "floods", 1).await;
    let more = "[retry]\nfirst = \"1s\"\n[deliver]\nper_endpoint = 400\nper_origin = 400\nper_team_percent = 100\n\
                head_timeout = \"3s\"\ntotal_timeout = \"3s\"\n";
    let mut process = Process::new(&servers, "floods", more);
    let certificates = Certificates::make(process.folder.path()).unwrap();
    process.variables.push(("CALLBACKD_EGRESS__CA_FILE".to_owned(), certificates.ca_file.display().to_string()));
    process.start(None, "error").await;
    process.team(TEAM);
    // Heads before the final one, without an end; and a farewell with as much text as a frame holds.
    let hints: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n".repeat(200).leak();
    let over_http1 = Raw::start(raw::Act::Flood(b"", hints)).await.unwrap();
    let farewell = go_away(0, Reason::ENHANCE_YOUR_CALM, &[b'd'; 16_000]);
    let over_http2 = Http2::start(&certificates, http2::Act::FramesThenClose(farewell)).await.unwrap();
    let urls =
        [("http1", format!("http://{}/", over_http1.address)), ("http2", format!("https://{}/", over_http2.address))];
    let producer = producer(&servers);
    for n in 0..CALLBACKS {
        for (name, url) in &urls {
            let value = format!(
                "{{\"team_id\":\"{TEAM}\",\"response\":1,\"task\":{{\"task_id\":\"{name}-{n}\",\"callback_url\":\"{url}\"}}}}"
            );
            send(&producer, "floods", value.as_bytes());
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    for outcome in ["head_invalid", "head_reset"] {
        until("each callback was tried, most of them more than once", async || {
            let failed = process.metric(&format!("callbackd_attempts_total{{outcome=\"{outcome}\"}}")).await?;
            (failed > f64::from(CALLBACKS) * 1.5).then_some(())
        })
        .await;
    }
    let used = peak(&process);
    println!("peak memory: {used} MiB while receivers flood");
    assert!(used <= MEBIBYTES, "{used} MiB while receivers flood");
}
