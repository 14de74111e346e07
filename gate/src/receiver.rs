//! A receiver that verifies every callback with the SDK before its handler's answer counts. The demo and the tests receive
//! with it. Customers should not copy it: it remembers no `webhook-id`, so it handles a repeat again.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use scale_callback_auth::{Mode, Verifier, VerifyError};
use scale_callback_serve::body::whole;
use scale_callback_serve::server::{Limits, Listener, serve};
use tokio::sync::watch;

/// The largest body of a callback, in bytes: a task event has at most 5 MiB, and the callback holds its response twice.
pub const BODY_LIMIT: usize = 12 << 20;

/// One request that came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// The request's path and query.
    pub path: String,
    /// Every header.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// What the verifier found, or why it refused the request.
    pub verdict: Result<VerifiedFacts, VerifyError>,
}

/// What the verifier found in a request that it accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedFacts {
    /// `webhook-id`.
    pub id: String,
    /// The task's id; empty where the body is not a callback.
    pub task_id: String,
    /// Whether live or test keys signed it.
    pub mode: Mode,
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Further headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long the answer waits. A delay that is longer than the sender's time limit looks like a receiver that hangs.
    pub delay: Duration,
}

impl Reply {
    /// An answer with a status and nothing else.
    #[must_use]
    pub fn status(code: u16) -> Self {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), delay: Duration::ZERO }
    }

    /// The same answer with `retry-after`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        self
    }

    /// The same answer after `delay`.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same answer with a body.
    #[must_use]
    pub fn saying(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// Decides how a verified callback is answered.
pub type Handler = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// Serves on `listener` until `stop`. A request that does not verify is handed to `handler` as well, so that it can be
/// counted, but its answer is always 401.
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

fn verify(verifier: &Verifier, headers: &HeaderMap, body: &[u8]) -> Result<VerifiedFacts, VerifyError> {
    let verified = verifier.verify(headers, body)?;
    let task_id = verified.callback().map(|callback| callback.task_id().to_owned()).unwrap_or_default();
    Ok(VerifiedFacts { id: verified.id().to_owned(), task_id, mode: verified.mode() })
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
