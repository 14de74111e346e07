//! A receiver that verifies every callback with the SDK before it looks at it. The demo and the tests receive with it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use scale_callback_auth::{Mode, Verifier, VerifyError};
use tokio::sync::watch;

use crate::body::whole;
use crate::server::{Limits, Listener, serve};

/// The largest callback: an event of 5 MiB repeats its response in the body.
pub const BODY_LIMIT: usize = 12 << 20;

/// What came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// The request's path and query.
    pub path: String,
    /// Every header.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Whether it is from the platform.
    pub verdict: Result<Proven, VerifyError>,
}

/// What the verifier proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// `webhook-id`.
    pub id: String,
    /// The task's id.
    pub task_id: String,
    /// Live or test.
    pub mode: Mode,
}

/// How to answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Further headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Wait this long first; longer than the sender's patience, it is a hang.
    pub delay: Duration,
}

impl Reply {
    /// A status and nothing else.
    #[must_use]
    pub fn status(code: u16) -> Self {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), delay: Duration::ZERO }
    }

    /// With `retry-after`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        self
    }

    /// After `delay`.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// With a body.
    #[must_use]
    pub fn saying(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// What a verified callback is answered with.
pub type Handler = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// Serves `handler` on `listener` until `stop`. What does not verify is answered 401 and handed to `handler` as well,
/// whose reply is then not used.
pub async fn run(listener: Listener, verifier: Verifier, handler: Handler, stop: watch::Receiver<bool>) {
    let verifier = Arc::new(verifier);
    let limits = Limits { connections: 8_192, ..Limits::default() };
    let make = move |_| {
        let (verifier, handler) = (Arc::clone(&verifier), Arc::clone(&handler));
        service_fn(move |request| respond(request, Arc::clone(&verifier), Arc::clone(&handler)))
    };
    serve(listener, limits, make, stop).await;
}

type Responding = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

fn respond(request: Request<Incoming>, verifier: Arc<Verifier>, handler: Handler) -> Responding {
    Box::pin(async move {
        let (head, body) = request.into_parts();
        let Ok(body) = whole(body, BODY_LIMIT).await else {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
        };
        let verdict = verify(&verifier, &head.headers, &body);
        let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let received = Received { path, headers: head.headers, body, verdict };
        let reply = handler(&received);
        if received.verdict.is_err() {
            return Ok(plain(StatusCode::UNAUTHORIZED));
        }
        if !reply.delay.is_zero() {
            tokio::time::sleep(reply.delay).await;
        }
        let mut response = Response::new(Full::new(reply.body));
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        Ok(response)
    })
}

fn verify(verifier: &Verifier, headers: &HeaderMap, body: &[u8]) -> Result<Proven, VerifyError> {
    let verified = verifier.verify(headers, body)?;
    let task_id = verified.callback().map(|callback| callback.task_id().to_owned()).unwrap_or_default();
    Ok(Proven { id: verified.id().to_owned(), task_id, mode: verified.mode() })
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
