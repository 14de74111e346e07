//! How `listen` answers one request, and what it prints about it.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use scale_callback_auth::Verified;
use scale_callback_serve::body::whole;
use scale_callback_serve::client;
use scale_callback_serve::text::printable;
use tokio::sync::watch;

use super::super::output::say;
use super::keys::Keys;
use super::line::{accepted, line, refused};
use crate::receiver::BODY_LIMIT;
use crate::receiver_at::ReceiverAt;

/// How much of a body is printed, in bytes.
const SHOWN: usize = 4_096;
/// How many ids are remembered, to recognise repeats.
const REMEMBERED: usize = 10_000;
/// The time for a whole body.
const BODY_TIME: Duration = Duration::from_secs(60);
/// The time for the answer of the server that callbacks are sent on to: as long as the platform waits.
const FORWARD_TIME: Duration = scale_callback_auth::ANSWER_DEADLINE;

pub(super) struct Listening {
    keys: Keys,
    answers: Answers,
    print_body: bool,
    /// Counts the verified callbacks.
    verified: watch::Sender<u64>,
    ids: Mutex<HashSet<String>>,
}

/// How verified callbacks are answered.
pub(super) struct Answers {
    status: StatusCode,
    /// How many more times `status` is used; 204 from then on.
    times: AtomicU64,
    delay: Duration,
    forward: Option<ReceiverAt>,
}

impl Listening {
    pub(super) fn new(keys: Keys, answers: Answers, print_body: bool, verified: watch::Sender<u64>) -> Self {
        Self { keys, answers, print_body, verified, ids: Mutex::default() }
    }

    pub(super) async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let Ok(Ok(body)) = tokio::time::timeout(BODY_TIME, whole(body, BODY_LIMIT)).await else {
            say(&line("REFUSED", "the body is longer than 12 MiB, too slow, or broke off"));
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
        };
        if head.method != Method::POST {
            let method = printable(head.method.as_str().as_bytes(), 16);
            say(&line("REFUSED", &format!("a {method} request; callbacks are POST")));
            return Ok(plain(StatusCode::METHOD_NOT_ALLOWED));
        }
        match self.keys.verifier().verify(&head.headers, &body) {
            Err(why) => {
                say(&line("REFUSED", &refused(&head.headers, why, &body)));
                self.show(&body);
                Ok(plain(StatusCode::UNAUTHORIZED))
            }
            Ok(verified) => Ok(self.accept(&verified, &head, &body).await),
        }
    }

    async fn accept(&self, verified: &Verified<'_>, head: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
        let what = accepted(verified, &head.headers);
        if let Err(why) = verified.callback() {
            say(&line("REFUSED", &format!("{what}: it is signed, but {why}, answered 400")));
            self.show(body);
            return plain(StatusCode::BAD_REQUEST);
        }
        let repeat = if self.came_before(verified.id()) { ", a repeat" } else { "" };
        let delay = self.answers.delay;
        if !delay.is_zero() {
            say(&line("valid", &format!("{what}{repeat}, to be answered after {delay:?}")));
        }
        let answer = self.answers.answer(head, body).await;
        say(&line("valid", &format!("{what}{repeat}, answered {}", answer.status())));
        self.show(body);
        self.verified.send_modify(|count| *count += 1);
        answer
    }

    fn show(&self, body: &[u8]) {
        if self.print_body {
            say(&format!("          {}", printable(body, SHOWN)));
        }
    }

    /// Whether a callback of this id came before, as far as ids are remembered.
    fn came_before(&self, id: &str) -> bool {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= REMEMBERED {
            ids.clear();
        }
        !ids.insert(id.to_owned())
    }
}

impl Answers {
    /// `times` limits how often `status` is used.
    pub(super) fn new(status: StatusCode, times: Option<u64>, delay: Duration, forward: Option<ReceiverAt>) -> Self {
        Self { status, times: AtomicU64::new(times.unwrap_or(u64::MAX)), delay, forward }
    }

    async fn answer(&self, head: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
        if let Some(at) = &self.forward {
            return forward(at, head, body).await;
        }
        tokio::time::sleep(self.delay).await;
        let left = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        plain(if left.is_ok() { self.status } else { StatusCode::NO_CONTENT })
    }
}

/// Sends a verified callback on, and gives the answer.
async fn forward(at: &ReceiverAt, head: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
    let headers = forwarded_headers(&head.headers);
    match client::call(&at.remote, Method::POST, &at.path, headers, body.clone(), FORWARD_TIME).await {
        Ok(answer) => {
            let mut response = Response::new(Full::new(answer.body));
            *response.status_mut() = answer.status;
            for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
                if let Some(value) = answer.headers.get(&name) {
                    response.headers_mut().insert(name, value.clone());
                }
            }
            response
        }
        Err(error) => {
            say(&line("FAILED", &format!("{}: {error}", at.remote)));
            plain(StatusCode::BAD_GATEWAY)
        }
    }
}

/// The headers that are verified and those that describe the body, without those that concern this connection.
fn forwarded_headers(headers: &HeaderMap) -> HeaderMap {
    let mut forwarded = HeaderMap::new();
    for (name, value) in headers {
        let passes = name == header::CONTENT_TYPE
            || name == header::USER_AGENT
            || name.as_str().starts_with("webhook-")
            || name.as_str().starts_with("scale-callback-");
        if passes {
            forwarded.append(name, value.clone());
        }
    }
    forwarded
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
