//! The receivers: small HTTP/1.1 servers, a port for each kind. They verify every request with the SDK, and record it before they
//! answer. They are written over plain sockets, so that they can reset a connection and know when an answer was written.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use scale_callback_auth::Verifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::event::{Receiver, number_of};
use super::receipts::{End, Receipt, Receipts};

/// The largest head and the largest body that are read.
const HEAD: usize = 64 << 10;
const BODY: usize = 16 << 20;
/// How long a slow receiver takes at most, and a hanging one.
const SLOW: u64 = 2_600;
const HANG: Duration = Duration::from_secs(30);

/// Every receiver. They end when this value is dropped.
pub(crate) struct Receivers {
    addresses: HashMap<Receiver, SocketAddr>,
    /// Whether those that refuse are closed now.
    closed: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    verifier: watch::Receiver<Option<Arc<Verifier>>>,
    receipts: Arc<Receipts>,
    /// How often each task came to its receiver.
    times: Mutex<HashMap<u64, u32>>,
}

impl Receivers {
    /// Opens a port for each kind. The verifier may come later, when the daemon has made its keys.
    ///
    /// # Errors
    /// No port is free.
    pub(crate) async fn start(
        receipts: Arc<Receipts>,
        verifier: watch::Receiver<Option<Arc<Verifier>>>,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { verifier, receipts, times: Mutex::default() });
        let (closed, _) = watch::channel(false);
        let (mut addresses, mut tasks) = (HashMap::new(), Vec::new());
        for receiver in Receiver::LISTENING {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("open a receiver's port")?;
            addresses.insert(receiver, listener.local_addr()?);
            let is_closed = closed.subscribe();
            tasks.push(tokio::spawn(listen(listener, receiver, Arc::clone(&shared), is_closed)));
        }
        Ok(Self { addresses, closed, tasks })
    }

    pub(crate) fn urls(&self) -> HashMap<Receiver, String> {
        self.addresses.iter().map(|(receiver, address)| (*receiver, format!("http://{address}/callbacks"))).collect()
    }

    /// Closes the port of the receiver that refuses at times, with its connections, or opens it again.
    pub(crate) fn set_closed(&self, is_closed: bool) {
        self.closed.send_replace(is_closed);
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn listen(first: TcpListener, receiver: Receiver, shared: Arc<Shared>, mut is_closed: watch::Receiver<bool>) {
    let Ok(address) = first.local_addr() else { return };
    let mut listener = Some(first);
    let mut connections = JoinSet::new();
    loop {
        let Some(open) = &listener else {
            drop(is_closed.wait_for(|closed| !closed).await);
            listener = TcpListener::bind(address).await.ok();
            continue;
        };
        tokio::select! {
            accepted = open.accept() => if let Ok((stream, _)) = accepted {
                let shared = Arc::clone(&shared);
                connections.spawn(async move { serve(stream, receiver, &shared).await });
            },
            Ok(()) = is_closed.changed(), if receiver == Receiver::Refuses => if *is_closed.borrow() {
                listener = None;
                connections.shutdown().await;
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Answers the requests of one connection, until it ends.
async fn serve(mut stream: TcpStream, receiver: Receiver, shared: &Shared) {
    stream.set_nodelay(true).ok();
    let mut bytes = Vec::new();
    while let Some(request) = read(&mut stream, &mut bytes).await {
        let Some(receipt) = shared.receipt(&request, receiver) else {
            if answer(&mut stream, "401 Unauthorized").await.is_err() {
                return;
            }
            continue;
        };
        let task = receipt.task;
        let open = OpenExchange { shared, number: shared.receipts.came(receipt) };
        if !reply(&mut stream, shared.reply(receiver, task), &open).await {
            return;
        }
    }
}

/// Records that the exchange was cut, if nothing else is recorded when this is dropped.
struct OpenExchange<'s> {
    shared: &'s Shared,
    number: usize,
}

impl OpenExchange<'_> {
    fn ended(&self, end: End) {
        self.shared.receipts.ended(self.number, end);
    }
}

impl Drop for OpenExchange<'_> {
    fn drop(&mut self) {
        self.ended(End::Cut(Instant::now()));
    }
}

/// How a request is answered.
enum Answer {
    Accept(Duration),
    Refuse,
    Reset,
    Hang,
}

/// Answers, or does not. False if the connection is over.
async fn reply(stream: &mut TcpStream, how: Answer, open: &OpenExchange<'_>) -> bool {
    match how {
        Answer::Accept(after) => {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            let written = answer(stream, "200 OK").await.is_ok();
            if written {
                open.ended(End::Accepted(Instant::now()));
            }
            written
        }
        Answer::Refuse => {
            let written = answer(stream, "500 Internal Server Error").await.is_ok();
            open.ended(End::Refused(Instant::now()));
            written
        }
        Answer::Reset => {
            open.ended(End::Cut(Instant::now()));
            stream.set_zero_linger().ok();
            false
        }
        Answer::Hang => {
            // The sender closes the connection at its deadline, or when it dies.
            let mut byte = [0];
            drop(tokio::time::timeout(HANG, stream.read(&mut byte)).await);
            false
        }
    }
}

async fn answer(stream: &mut TcpStream, status: &str) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await
}

impl Shared {
    /// `None` if the request does not verify, or is of no event.
    fn receipt(&self, request: &Request, receiver: Receiver) -> Option<Receipt> {
        let came = Instant::now();
        let verifier = self.verifier.borrow().clone()?;
        let verified = match verifier.verify(&request.headers, &request.body) {
            Ok(verified) => verified,
            Err(error) => {
                self.receipts.refuse(error.code().to_owned());
                return None;
            }
        };
        let task_id = verified.callback().map(|callback| callback.task_id().to_owned()).unwrap_or_default();
        let Some(task) = number_of(&task_id) else {
            self.receipts.refuse(format!("a callback of task {task_id:?}, which nobody produced"));
            return None;
        };
        let mut body = DefaultHasher::new();
        request.body.hash(&mut body);
        Some(Receipt {
            id: verified.id().into(),
            task,
            attempt: request.number_after("scale-callback-attempt", "").unwrap_or(0),
            run: request.number_after("user-agent", "run=").unwrap_or(0),
            receiver,
            body: body.finish(),
            came,
            end: End::Open,
        })
    }

    fn reply(&self, receiver: Receiver, task: u64) -> Answer {
        let before = {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            let count = times.entry(task).or_default();
            *count += 1;
            *count - 1
        };
        match receiver {
            Receiver::Slow => Answer::Accept(Duration::from_millis(200 + task.wrapping_mul(7_919) % (SLOW - 200))),
            Receiver::Hangs if before == 0 => Answer::Hang,
            Receiver::Resets if before == 0 => Answer::Reset,
            Receiver::Fails if before == 0 => Answer::Refuse,
            Receiver::Never => Answer::Refuse,
            _ => Answer::Accept(Duration::ZERO),
        }
    }
}

struct Request {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    /// The number after this mark in a header.
    fn number_after(&self, header: &str, mark: &str) -> Option<u32> {
        let value = self.headers.get(header)?.to_str().ok()?;
        let (_, rest) = value.split_once(mark)?;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    }
}

/// The next request of a connection. `None` at its end, or if it is not one that the daemon could have sent.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if bytes.len() > HEAD || stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut headers = HeaderMap::new();
    for line in std::str::from_utf8(&bytes[..end]).ok()?.lines().skip(1).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    let length: usize = headers.get("content-length")?.to_str().ok()?.parse().ok()?;
    if length > BODY {
        return None;
    }
    while bytes.len() < end + length {
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = bytes[end..end + length].to_vec();
    bytes.drain(..end + length);
    Some(Request { headers, body })
}
