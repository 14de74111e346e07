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
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::output::Output;
use super::keys::Keys;
use super::line::{accepted, accepted_members, line, object, refused, refused_members, with};
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
    out: Arc<Output>,
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
    pub(super) fn new(
        keys: Keys,
        answers: Answers,
        print_body: bool,
        out: Arc<Output>,
        verified: watch::Sender<u64>,
    ) -> Self {
        Self { keys, answers, print_body, out, verified, ids: Mutex::default() }
    }

    pub(super) async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let Ok(Ok(body)) = tokio::time::timeout(BODY_TIME, whole(body, BODY_LIMIT)).await else {
            let what = "the body is longer than 12 MiB, too slow, or broke off";
            self.tell_refused(what, || json!({ "reason": "body", "detail": what, "answered": 413 }), &[]);
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
        };
        if head.method != Method::POST {
            let what = format!("a {} request; callbacks are POST", printable(head.method.as_str().as_bytes(), 16));
            self.tell_refused(&what, || json!({ "reason": "method", "detail": what, "answered": 405 }), &[]);
            return Ok(plain(StatusCode::METHOD_NOT_ALLOWED));
        }
        match self.keys.verifier().verify(&head.headers, &body) {
            Err(why) => {
                let members = || refused_members(&head.headers, why, &body);
                self.tell_refused(&refused(&head.headers, why, &body), members, &body);
                Ok(plain(StatusCode::UNAUTHORIZED))
            }
            Ok(verified) => Ok(self.accept(&verified, &head, &body).await),
        }
    }

    async fn accept(&self, verified: &Verified<'_>, head: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
        let what = accepted(verified, &head.headers);
        let members = || accepted_members(verified, &head.headers);
        if let Err(why) = verified.callback() {
            let told = format!("{what}: it is signed, but {why}, answered 400");
            let more = || json!({ "reason": why.code(), "detail": why.to_string(), "answered": 400 });
            self.tell_refused(&told, || with(members(), more()), body);
            return plain(StatusCode::BAD_REQUEST);
        }
        let is_repeat = self.came_before(verified.id());
        let repeat = if is_repeat { ", a repeat" } else { "" };
        let delay = self.answers.delay;
        if !delay.is_zero() {
            self.out.remark(|| line("valid", &format!("{what}{repeat}, to be answered after {delay:?}")));
        }
        let answer = self.answers.answer(head, body, &self.out).await;
        let answered = answer.status();
        self.out.tell(
            || line("valid", &format!("{what}{repeat}, answered {answered}")),
            || {
                let more = json!({ "repeat": is_repeat, "answered": answered.as_u16(), "body": self.shown(body) });
                object("valid", with(members(), more))
            },
        );
        self.show(body);
        self.verified.send_modify(|count| *count += 1);
        answer
    }

    fn tell_refused(&self, what: &str, members: impl FnOnce() -> Value, body: &[u8]) {
        let with_body = || with(members(), json!({ "body": self.shown(body) }));
        self.out.tell(|| line("REFUSED", what), || object("refused", with_body()));
        self.show(body);
    }

    fn show(&self, body: &[u8]) {
        if self.print_body && !body.is_empty() {
            self.out.remark(|| format!("          {}", printable(body, SHOWN)));
        }
    }

    /// The body for a program, if the user wants it.
    fn shown(&self, body: &[u8]) -> Option<String> {
        self.print_body.then(|| String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).into_owned())
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

    async fn answer(&self, head: &Parts, body: &Bytes, out: &Output) -> Response<Full<Bytes>> {
        if let Some(at) = &self.forward {
            return forward(at, head, body, out).await;
        }
        tokio::time::sleep(self.delay).await;
        let left = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        plain(if left.is_ok() { self.status } else { StatusCode::NO_CONTENT })
    }
}

/// Sends a verified callback on, and gives the answer.
async fn forward(at: &ReceiverAt, head: &Parts, body: &Bytes, out: &Output) -> Response<Full<Bytes>> {
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
            out.tell(
                || line("FAILED", &format!("{}: {error}", at.remote)),
                || json!({ "event": "forward_failed", "to": at.remote.to_string(), "why": error.to_string() }),
            );
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
