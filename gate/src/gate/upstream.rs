//! The way to the receiver behind the gate: requests made from scratch, kept connections, one attempt each.

use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use scale_callback_auth::Mode;
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use crate::client::host_and_port;

/// Connections that are kept for the next request, and for how long: many servers close an idle one after 5 s.
const KEPT: usize = 64;
const KEPT_FOR: Duration = Duration::from_secs(4);
/// How long a kept connection may take to say that it is ready.
const SOON: Duration = Duration::from_millis(20);
/// For a connection to come about.
const CONNECT: Duration = Duration::from_secs(3);
/// The largest answer that is passed back.
const ANSWER: usize = 1 << 20;
/// What is passed on of a verified request. Everything else stays here.
static PASSED_ON: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static(scale_callback_auth::header::ID),
    HeaderName::from_static(scale_callback_auth::header::TIMESTAMP),
    SIGNATURE,
    HeaderName::from_static(scale_callback_auth::header::ATTEMPT),
    HeaderName::from_static("traceparent"),
];
const SIGNATURE: HeaderName = HeaderName::from_static(scale_callback_auth::header::SIGNATURE);
const AUTH: HeaderName = HeaderName::from_static(scale_callback_auth::header::AUTH);
/// A longer value is not passed on; signatures have a bound of their own.
const LONGEST: usize = 1024;
/// What an answer's connection is about, and never its end.
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Where the receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAt {
    /// `host:port`, or a socket in the file system.
    pub place: Place,
    /// Path and query; those of the gate where there are none.
    pub path: Option<String>,
}

/// How the receiver is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// TCP, in clear: on this machine or a network of one's own.
    Tcp(String),
    /// A socket in the file system, which nobody else can reach.
    Unix(PathBuf),
}

impl UpstreamAt {
    /// Reads `http://HOST:PORT[/PATH[?QUERY]]` or `unix:PATH`.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self { place: Place::Unix(PathBuf::from(path)), path: None });
        }
        let wrong =
            || format!("{text:?} is no upstream; write http://HOST:PORT, with a path if it is another, or unix:PATH");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let place = uri.authority().and_then(|authority| host_and_port(authority, 80)).ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let path = uri.path_and_query().map(ToString::to_string).filter(|path| path != "/");
        Ok(Self { place: Place::Tcp(place), path })
    }
}

/// Why there is no answer of the receiver to pass back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Unreachable,
    Timeout,
    Broken,
    /// It switched protocols, or said something before its answer.
    Unasked,
}

impl Failure {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable | Self::Broken | Self::Unasked => StatusCode::BAD_GATEWAY,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Unasked => "unasked",
        }
    }
}

/// A connection's own work; none once it has ended.
type Connection = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// A connection, driven by whoever waits for something on it. Dropped, it is closed.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection,
    /// It has brought an answer before.
    served: bool,
}

impl Link {
    /// Whether it can take a request still.
    async fn is_ready(&mut self) -> bool {
        // Most are at once: no timer for them.
        drive(&mut self.connection, pin!(std::future::ready(()))).await;
        if self.sender.is_ready() {
            return true;
        }
        let ready = pin!(poll_fn(|cx| self.sender.poll_ready(cx)));
        matches!(tokio::time::timeout(SOON, drive(&mut self.connection, ready)).await, Ok(Ok(())))
    }
}

/// Waits for something that a connection brings about.
async fn drive<T>(connection: &mut Connection, mut what: Pin<&mut impl Future<Output = T>>) -> T {
    poll_fn(|cx| {
        // How it ends is seen by what is waited for.
        if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            *connection = None;
        }
        what.as_mut().poll(cx)
    })
    .await
}

struct Kept {
    link: Link,
    since: Instant,
}

/// The headers that are verified or passed on. Copied, they leave nothing of what else came with them while a body is
/// waited for.
pub(super) fn wanted(headers: &HeaderMap, copied: bool) -> HeaderMap {
    let mut own = HeaderMap::with_capacity(PASSED_ON.len() + 5);
    let mut copies = BytesMut::new();
    for name in PASSED_ON.iter().chain([&AUTH]) {
        // Signatures may stand in several lines; of anything else the first is passed on.
        let several = *name == SIGNATURE;
        let values = headers.get_all(name).iter().take(if several { usize::MAX } else { 1 });
        for value in values.filter(|value| several || value.len() <= LONGEST) {
            if !copied {
                own.append(name, value.clone());
                continue;
            }
            copies.extend_from_slice(value.as_bytes());
            if let Ok(copy) = HeaderValue::from_maybe_shared(copies.split().freeze()) {
                own.append(name, copy);
            }
        }
    }
    own
}

pub(super) struct Upstream {
    place: Place,
    path: Uri,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    keep_auth: bool,
    timeout: Duration,
    kept: Mutex<Vec<Kept>>,
}

impl Upstream {
    pub(super) fn new(
        at: UpstreamAt,
        path: &str,
        token: Option<Zeroizing<String>>,
        keep_auth: bool,
        timeout: Duration,
    ) -> Result<Self, String> {
        let host = match &at.place {
            Place::Tcp(host) => host.clone(),
            Place::Unix(_) => "localhost".to_owned(),
        };
        let wrong = |_| format!("{} can't be called", at.path.as_deref().unwrap_or(path));
        let authorization = token.map(|token| {
            let value = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", token.as_str())));
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        Ok(Self {
            path: at.path.as_deref().unwrap_or(path).parse().map_err(wrong)?,
            host: HeaderValue::from_str(&host).map_err(|_| format!("{host:?} is no host"))?,
            authorization: authorization.transpose().map_err(|_| "the upstream's token can't be sent".to_owned())?,
            place: at.place,
            keep_auth,
            timeout,
            kept: Mutex::default(),
        })
    }

    /// A request of our own, with what was verified.
    pub(super) fn request(&self, headers: HeaderMap, mode: Mode, body: Bytes) -> Request<Full<Bytes>> {
        let length = HeaderValue::from(body.len());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        request.uri_mut().clone_from(&self.path);
        let own = request.headers_mut();
        *own = headers;
        if !self.keep_auth {
            own.remove(AUTH);
        }
        own.insert(header::HOST, self.host.clone());
        own.insert(header::CONTENT_LENGTH, length);
        own.insert(HeaderName::from_static("scale-callback-verified"), HeaderValue::from_static(mode.name()));
        if let Some(authorization) = &self.authorization {
            own.insert(header::AUTHORIZATION, authorization.clone());
        }
        request
    }

    /// Takes a request, sends it once, and reads the whole answer.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<Full<Bytes>>>,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        tokio::time::timeout(self.timeout, self.exchange(request)).await.map_err(|_| Failure::Timeout)?
    }

    async fn exchange(&self, request: &mut Option<Request<Full<Bytes>>>) -> Result<Response<Full<Bytes>>, Failure> {
        let unasked = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&unasked);
        if let Some(request) = request {
            hyper::ext::on_informational(request, move |_| seen.store(true, Ordering::Relaxed));
        }
        let mut link = match self.take().await {
            Some(link) => link,
            None => self.connect_boxed().await?,
        };
        let response = match ask(&mut link, request).await? {
            Some(response) => response,
            // A kept connection that was closed meanwhile gave the request back, unsent: that is no attempt. One fresh
            // connection is tried; a fresh one that does the same has no HTTP server behind it.
            None if link.served => {
                link = self.connect_boxed().await?;
                ask(&mut link, request).await?.ok_or(Failure::Broken)?
            }
            None => return Err(Failure::Broken),
        };
        let (mut head, mut body) = response.into_parts();
        if head.status.is_informational() || unasked.load(Ordering::Relaxed) {
            return Err(Failure::Unasked);
        }
        let mut whole = BytesMut::new();
        let mut complete = true;
        while let Some(frame) = drive(&mut link.connection, pin!(body.frame())).await {
            let Ok(data) = frame.map_err(|_| Failure::Broken)?.into_data() else { continue };
            let room = ANSWER.saturating_sub(whole.len());
            whole.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                complete = false;
                break;
            }
        }
        // A connection serves again only once its answer was read to the end, and its request taken whole.
        if complete && !link.sender.is_ready() {
            drive(&mut link.connection, pin!(std::future::ready(()))).await;
        }
        if complete && link.sender.is_ready() {
            link.served = true;
            self.keep(link);
        }
        end_to_end(&mut head.headers);
        head.version = http::Version::HTTP_11;
        Ok(Response::from_parts(head, Full::new(whole.freeze())))
    }

    /// A kept connection that can still take a request, the one used last first.
    async fn take(&self) -> Option<Link> {
        loop {
            let Kept { mut link, since } = self.kept().pop()?;
            if since.elapsed() < KEPT_FOR && link.is_ready().await {
                return Some(link);
            }
        }
    }

    fn keep(&self, link: Link) {
        let mut kept = self.kept();
        if link.connection.is_some() && kept.len() < KEPT {
            kept.push(Kept { link, since: Instant::now() });
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes connections that nobody needed for a while: nobody looks at them, also where their other end is gone.
    pub(super) async fn sweep(&self) {
        loop {
            tokio::time::sleep(KEPT_FOR).await;
            self.kept().retain(|kept| kept.since.elapsed() < KEPT_FOR);
        }
    }

    /// Rare, and large: kept out of the way of the others.
    async fn connect_boxed(&self) -> Result<Link, Failure> {
        Box::pin(self.connect()).await
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let connecting = async {
            match &self.place {
                Place::Tcp(host) => {
                    let stream = TcpStream::connect(host).await.map_err(|_| Failure::Unreachable)?;
                    stream.set_nodelay(true).map_err(|_| Failure::Unreachable)?;
                    shake_hands(TokioIo::new(stream)).await
                }
                Place::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|_| Failure::Unreachable)?;
                    shake_hands(TokioIo::new(stream)).await
                }
            }
        };
        tokio::time::timeout(CONNECT, connecting).await.map_err(|_| Failure::Unreachable)?
    }
}

/// Sends a request; gives the head of its answer, or puts the request back where none of it was sent.
async fn ask(
    link: &mut Link,
    request: &mut Option<Request<Full<Bytes>>>,
) -> Result<Option<Response<Incoming>>, Failure> {
    let asked = pin!(link.sender.try_send_request(request.take().ok_or(Failure::Broken)?));
    match drive(&mut link.connection, asked).await {
        Ok(response) => Ok(Some(response)),
        Err(mut error) => {
            *request = error.take_message();
            if request.is_some() { Ok(None) } else { Err(Failure::Broken) }
        }
    }
}

async fn shake_hands<I>(io: I) -> Result<Link, Failure>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(|_| Failure::Unreachable)?;
    let connection = async move {
        let _ = connection.await;
    };
    Ok(Link { sender, connection: Some(Box::pin(connection)), served: false })
}

/// Leaves what is for the sender of the callback.
fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::CONTENT_LENGTH);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_read_and_others_refused() {
        let read = |text: &str| UpstreamAt::parse(text).map(|at| (at.place, at.path));
        let tcp = |host: &str| Place::Tcp(host.to_owned());
        assert_eq!(read("http://127.0.0.1:3000"), Ok((tcp("127.0.0.1:3000"), None)));
        assert_eq!(read("http://app/hooks?x=1"), Ok((tcp("app:80"), Some("/hooks?x=1".to_owned()))));
        assert_eq!(read("unix:/run/app.sock"), Ok((Place::Unix(PathBuf::from("/run/app.sock")), None)));
        for wrong in [
            "",
            "unix:",
            "127.0.0.1:3000",
            "https://a",
            "http://u:p@a",
            "ftp://a",
            "/path",
            "http://a:99999",
            "http://a:",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
