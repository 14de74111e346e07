//! The way to the receiver behind the gate: requests made from scratch, kept connections, and one attempt each. A request of
//! which a byte was sent is never sent again.

mod at;
mod error;
mod head_bound;
mod headers;
mod link;

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use scale_callback_auth::Mode;
use zeroize::Zeroizing;

pub use at::{Place, UpstreamAt, UpstreamUrlError};
pub(super) use error::UpstreamError;
pub use error::UpstreamSetupError;
pub(super) use headers::wanted;
use link::Link;

/// Connections that are kept for the next request.
const KEPT: usize = 64;
/// How long a connection is kept. Many servers close an idle connection after 5 s.
const KEPT_FOR: Duration = Duration::from_secs(4);
/// The largest answer that is passed back, in bytes. A longer one is cut.
const LARGEST_ANSWER: usize = 1 << 20;

pub(super) struct Upstream {
    place: Place,
    path: Uri,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    keep_auth: bool,
    timeout: Duration,
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    link: Link,
    since: Instant,
}

impl Upstream {
    /// `path` is the gate's own, for an upstream that names none.
    pub(super) fn new(
        at: UpstreamAt,
        path: &str,
        token: Option<Zeroizing<String>>,
        keep_auth: bool,
        timeout: Duration,
    ) -> Result<Self, UpstreamSetupError> {
        let host = match &at.place {
            Place::Tcp(host) => host.clone(),
            Place::Unix(_) => "localhost".to_owned(),
        };
        let path = at.path.as_deref().unwrap_or(path);
        Ok(Self {
            path: path.parse().map_err(|_| UpstreamSetupError::Path(path.to_owned()))?,
            host: HeaderValue::from_str(&host).map_err(|_| UpstreamSetupError::Host(host))?,
            authorization: token.map(|token| bearer(&token)).transpose()?,
            place: at.place,
            keep_auth,
            timeout,
            kept: Mutex::default(),
        })
    }

    /// A request of the gate's own, with what was verified.
    pub(super) fn request(&self, headers: HeaderMap, mode: Mode, body: Bytes) -> Request<Full<Bytes>> {
        let length = HeaderValue::from(body.len());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        request.uri_mut().clone_from(&self.path);
        let own = request.headers_mut();
        *own = headers;
        if !self.keep_auth {
            own.remove(headers::AUTH);
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
    ) -> Result<Response<Full<Bytes>>, UpstreamError> {
        tokio::time::timeout(self.timeout, self.exchange(request)).await.map_err(|_| UpstreamError::Timeout)?
    }

    async fn exchange(
        &self,
        request: &mut Option<Request<Full<Bytes>>>,
    ) -> Result<Response<Full<Bytes>>, UpstreamError> {
        let mut link = match self.take_kept().await {
            Some(link) => link,
            None => self.connect().await?,
        };
        let response = match link.ask(request).await? {
            Some(response) => response,
            // A kept connection that was closed meanwhile gave the request back unsent, which is no attempt. One fresh
            // connection is tried; a fresh connection that does the same has no HTTP server behind it.
            None if link.has_served => {
                link = self.connect().await?;
                link.ask(request).await?.ok_or(UpstreamError::Broken)?
            }
            None => return Err(UpstreamError::Broken),
        };
        let (mut head, body) = response.into_parts();
        // The library passes over every other response that comes before the final one.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::Unasked);
        }
        let is_clear = headers::ends_clearly(head.status, &head.headers);
        let (body, is_complete) = read_answer(&mut link, body).await?;
        // A connection serves again only if its answer was read to an end that nobody can read otherwise, and its request was
        // taken whole.
        if is_complete && is_clear && link.may_serve_again().await {
            link.has_served = true;
            self.keep(link);
        }
        headers::remove_hop_by_hop(&mut head.headers);
        head.version = http::Version::HTTP_11;
        Ok(Response::from_parts(head, Full::new(body)))
    }

    /// A kept connection that can still take a request, the one used last first.
    async fn take_kept(&self) -> Option<Link> {
        loop {
            let Kept { mut link, since } = self.kept().pop()?;
            if since.elapsed() < KEPT_FOR && link.is_ready().await {
                return Some(link);
            }
        }
    }

    fn keep(&self, link: Link) {
        let mut kept = self.kept();
        if !link.has_ended() && kept.len() < KEPT {
            kept.push(Kept { link, since: Instant::now() });
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes connections that were not needed for a while. Nothing drives a kept connection, so this is also how one is
    /// closed whose other end is gone.
    pub(super) async fn sweep(&self) {
        loop {
            tokio::time::sleep(KEPT_FOR).await;
            self.kept().retain(|kept| kept.since.elapsed() < KEPT_FOR);
        }
    }

    /// Boxed, because connecting is rare and every exchange would carry the size of its future.
    async fn connect(&self) -> Result<Link, UpstreamError> {
        Box::pin(Link::connect(&self.place)).await
    }
}

fn bearer(token: &Zeroizing<String>) -> Result<HeaderValue, UpstreamSetupError> {
    let value = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", token.as_str())));
    let mut value = value.map_err(|_| UpstreamSetupError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The answer's body, and whether that is all of it.
async fn read_answer(link: &mut Link, mut body: Incoming) -> Result<(Bytes, bool), UpstreamError> {
    let mut read = BytesMut::new();
    while let Some(frame) = link.wait_for(pin!(body.frame())).await {
        let Ok(data) = frame.map_err(|_| UpstreamError::Broken)?.into_data() else { continue };
        let room = LARGEST_ANSWER.saturating_sub(read.len());
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((read.freeze(), false));
        }
    }
    Ok((read.freeze(), true))
}
