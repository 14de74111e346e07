//! The kit of these tests: a gate, a receiver that records the bytes that reach it, and a client that writes raw bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use scale_callback::gate::{Bounds, Config, Gate, UpstreamAt};
use scale_callback::keys::KeySource;
use scale_callback_auth::sign::{AuthHeader, Signer};
use scale_callback_auth::{CallbackAuthKey, SigningSecret};
use scale_callback_serve::forwarded::ForwardedHeader;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub const AUTH: &str = "live_auth_0123456789abcdef0123456789abcdef";
pub const BODY: &str = r#"{"task":{"task_id":"t1"},"response":{},"task_id":"t1"}"#;

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// Writes these bytes and serves the next request.
    Say(&'static str),
    /// Writes these bytes and closes.
    SayAndClose(&'static str),
    /// Never answers.
    Hang,
    /// Works for this long, then answers 200.
    After(Duration),
}

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

type Script = Arc<dyn Fn(usize) -> Act + Send + Sync>;

/// A receiver that keeps every request's bytes.
#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<(usize, String)>>>,
    pub connections: Arc<AtomicUsize>,
}

impl Recorder {
    pub async fn start(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder =
            Self { address: listener.local_addr().unwrap(), seen: Arc::default(), connections: Arc::default() };
        let (own, script): (_, Script) = (recorder.clone(), Arc::new(script));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let connection = own.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(own.clone().converse(stream, connection, Arc::clone(&script)));
            }
        });
        recorder
    }

    async fn converse(self, mut stream: TcpStream, connection: usize, script: Script) {
        let mut buffer = Vec::new();
        loop {
            let length = loop {
                if let Some(length) = whole(&buffer) {
                    break length;
                }
                let mut chunk = [0; 65_536];
                match stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => {
                        if !buffer.is_empty() {
                            let rest = format!("INCOMPLETE {}", String::from_utf8_lossy(&buffer));
                            self.seen.lock().unwrap().push((connection, rest));
                        }
                        return;
                    }
                    Ok(count) => buffer.extend_from_slice(&chunk[..count]),
                }
            };
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            buffer.drain(..length);
            let number = {
                let mut seen = self.seen.lock().unwrap();
                seen.push((connection, request));
                seen.len() - 1
            };
            match script(number) {
                // The gate may have closed the connection meanwhile, here and below.
                Act::Say(text) => drop(stream.write_all(text.as_bytes()).await),
                Act::SayAndClose(text) => {
                    drop(stream.write_all(text.as_bytes()).await);
                    return;
                }
                Act::Hang => std::future::pending().await,
                Act::After(time) => {
                    tokio::time::sleep(time).await;
                    drop(stream.write_all(OK.as_bytes()).await);
                }
            }
        }
    }

    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(_, request)| request.clone()).collect()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// The length of the request that `buffer` begins with, once all of it is there. It accepts one form of a request only.
fn whole(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
    assert!(!text.contains("transfer-encoding"), "{text}");
    let lengths: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("content-length: ")).collect();
    assert_eq!(lengths.len(), 1, "{text}");
    let length = head + lengths[0].parse::<usize>().unwrap();
    (buffer.len() >= length).then_some(length)
}

pub struct Running {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub reload: Box<dyn Fn() + Send + Sync>,
    pub keys: tempfile::NamedTempFile,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// What a test may change of a usual gate.
pub struct Setup {
    pub config: Config,
    pub keys: tempfile::NamedTempFile,
}

impl Setup {
    pub fn new(upstream: &str) -> Self {
        let keys = tempfile::NamedTempFile::new().unwrap();
        let text = format!("SCALE_CALLBACK_SIGNING_SECRET={SECRET}\nSCALE_CALLBACK_AUTH_KEY={AUTH}\n");
        std::fs::write(keys.path(), text).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            admin: Some("127.0.0.1:0".parse().unwrap()),
            path: "/callbacks".to_owned(),
            upstream: UpstreamAt::parse(upstream).unwrap(),
            upstream_token: None,
            keys: KeySource { file: Some(keys.path().to_owned()), static_key: false },
            keep_auth_header: false,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            proxy_protocol: false,
            bounds: Bounds { drain: Duration::from_secs(1), ..Bounds::default() },
        };
        Self { config, keys }
    }

    pub fn before(recorder: &Recorder) -> Self {
        Self::new(&format!("http://{}", recorder.address))
    }

    pub async fn start(self) -> Running {
        let gate = Gate::bind(self.config).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let (address, admin) = (gate.address, gate.admin_address.unwrap());
        let reload = Box::new(gate.reloader());
        let task = tokio::spawn(gate.run(stopped));
        Running { address, admin, reload, keys: self.keys, stop, task }
    }
}

impl Running {
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }

    /// The requests that were refused, by reason.
    pub async fn refusals(&self) -> Vec<(String, u64)> {
        let page = exchange(self.admin, b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let counted = page.lines().filter_map(|line| line.strip_prefix("scale_callback_gate_refused_total{reason=\""));
        let counted = counted.filter_map(|line| line.split_once("\"} "));
        counted.map(|(reason, count)| (reason.to_owned(), count.parse().unwrap())).filter(|(_, n)| *n > 0).collect()
    }

    /// The value of a metric.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = exchange(self.admin, b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} is not in {page}")).parse().unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "requests are signed for the real time")]
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

static IDS: AtomicUsize = AtomicUsize::new(0);

/// An id that no other request of this process has.
pub fn fresh_id() -> String {
    format!("cb_{:026}", IDS.fetch_add(1, Ordering::SeqCst))
}

/// The lines of headers that prove `body`.
pub fn proof(id: &str, body: &str) -> String {
    let auth = AuthHeader::Key(CallbackAuthKey::parse(AUTH).unwrap());
    let signer = Signer::new(vec![SigningSecret::parse(SECRET).unwrap()], auth);
    let pairs = signer.sign(id, now(), body.as_bytes()).to_pairs(id);
    pairs.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// A whole good request.
pub fn good(id: &str) -> String {
    with(id, "")
}

/// A good request with further header lines.
pub fn with(id: &str, lines: &str) -> String {
    let proof = proof(id, BODY);
    format!(
        "POST /callbacks HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\n{proof}{lines}content-length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

/// Writes bytes and reads until the other end closes, or says nothing for a while.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The gate may refuse the request before it was written whole.
    drop(stream.write_all(bytes).await);
    read_all(&mut stream).await.0
}

/// A connection from one of this machine's own addresses, which stand for different senders.
pub async fn connect_from(address: &str, gate: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0))?;
    socket.connect(gate).await
}

/// An open connection on which nothing comes for this long has nothing more to say.
const SILENCE: Duration = Duration::from_millis(700);

/// What comes, and whether the other end closed.
pub async fn read_all(stream: &mut TcpStream) -> (String, bool) {
    let mut answer = Vec::new();
    let mut chunk = [0; 8_192];
    loop {
        match tokio::time::timeout(SILENCE, stream.read(&mut chunk)).await {
            Err(_) => return (String::from_utf8_lossy(&answer).into_owned(), false),
            Ok(Ok(0) | Err(_)) => return (String::from_utf8_lossy(&answer).into_owned(), true),
            Ok(Ok(count)) => answer.extend_from_slice(&chunk[..count]),
        }
    }
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.unwrap_or_else(|| panic!("no answer: {answer:?}")).parse().unwrap()
}

/// Waits until a condition holds, for at most ten seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_some(what, async || holds().then_some(())).await;
}

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until an attempt gives something, for at most ten seconds.
pub async fn until_some<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    found.unwrap_or_else(|_| panic!("this did not happen within ten seconds: {what}"))
}

/// A connection that the gate keeps open; `None` if the gate closes it, because every place is taken.
pub async fn kept_open(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0; 1])).await.is_err().then_some(stream)
}
