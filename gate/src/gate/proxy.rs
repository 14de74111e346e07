//! The way of one request through the gate: its form is judged, its body is read, it is verified, its `webhook-id` is
//! claimed, and only then is there an upstream request. A request that fails a step never reaches the next one.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use scale_callback_auth::replay::{Claim, MemoryGuard, ReplayGuard as _, Token as _};
use scale_callback_auth::{Verified, Verifier, VerifyError};
use scale_callback_serve::forwarded::{self, ForwardedHeader};
use scale_callback_serve::nets::{Net, Sender};
use scale_callback_serve::refusal_pace::RefusalPace;
use scale_callback_serve::text::printable;
use tokio::sync::Semaphore;

use super::admission::{self, Refusal};
use super::body::{self, BodyBounds, Held, Reading, STRETCH};
use super::detach_on_drop::DetachOnDrop;
use super::log_limiter::LogLimiter;
use super::metrics::Metrics;
use super::response::plain;
use super::upstream::{self, Upstream, UpstreamError};
use crate::clock::unix_seconds;
use crate::keys::LiveKeys;

/// How much of an id is logged, in bytes.
const LOGGED_ID: usize = 64;

pub(super) struct Proxy {
    pub(super) path: String,
    pub(super) trusted_proxies: Vec<Net>,
    pub(super) forwarded_header: ForwardedHeader,
    pub(super) keys: LiveKeys,
    pub(super) guard: MemoryGuard,
    pub(super) upstream: Upstream,
    pub(super) bodies: BodyBounds,
    /// A place for each callback that is being passed on, whether its client is still there or not.
    pub(super) forwards: Arc<Semaphore>,
    pub(super) refusals: Arc<RefusalPace>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: LogLimiter,
}

/// A request that was read to its end and has the form of a callback.
struct Candidate {
    verifier: Arc<Verifier>,
    headers: HeaderMap,
    held: Held,
}

impl Proxy {
    /// Answers a request that came over a connection of `peer`.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let mut bytes_read = 0;
        Ok(match self.read(request, peer, &mut bytes_read).await {
            Err(refusal) => refusal.response(false, bytes_read),
            Ok(candidate) => self.pass_on(candidate).await.unwrap_or_else(|refusal| refusal.response(true, bytes_read)),
        })
    }

    /// Reads a request that may be a callback. `bytes_read` counts the bytes of its body, also for a refusal.
    async fn read(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        bytes_read: &mut usize,
    ) -> Result<Candidate, Refusal> {
        let (head, body) = request.into_parts();
        let verifier = self.keys.verifier();
        let announced = body::announced(&head.headers);
        let reading = Reading::new(body, announced, bytes_read, &self.bodies);
        let mut reading = reading.map_err(|refusal| self.report(refusal, &head.headers))?;
        // Polling the body makes hyper send 100 Continue, so judge an Expect request first.
        let asks_first = head.headers.contains_key(header::EXPECT);
        let mut is_complete = false;
        let mut judged = admission::shape(&head, &self.path);
        if judged.is_ok() && !asks_first {
            is_complete = reading.is_complete().await.map_err(|refusal| self.report(refusal, &head.headers))?;
        }
        if judged.is_ok() && !is_complete {
            judged = verifier.check_headers(&head.headers).map_err(Refusal::NotVerified);
        }
        if let Err(refusal) = judged {
            let refusal = self.report(refusal, &head.headers);
            if !asks_first {
                Box::pin(reading.discard()).await;
            }
            return Err(refusal);
        }
        let headers = upstream::wanted(&head.headers, !is_complete);
        let sender = Sender::of(forwarded::sender(&head.headers, self.forwarded_header, peer, &self.trusted_proxies));
        drop(head);
        if !is_complete {
            // Boxed, so that only a request that waits for its body carries the size of this future.
            Box::pin(reading.finish(sender)).await.map_err(|refusal| self.report(refusal, &headers))?;
        }
        Ok(Candidate { verifier, headers, held: reading.into_held() })
    }

    /// Verifies a request and passes it on.
    async fn pass_on(self: &Arc<Self>, candidate: Candidate) -> Result<Response<Full<Bytes>>, Refusal> {
        let Candidate { verifier, headers, held } = candidate;
        // Verification and claim use the same time, so a callback that still verifies is still remembered.
        let now = unix_seconds();
        let verified = if held.bytes.len() > STRETCH {
            self.verify_in_stretches(&verifier, &headers, &held.bytes, now).await
        } else {
            verifier.verify_at(&headers, &held.bytes, now)
        };
        let refused = |refusal| self.report(refusal, &headers);
        let verified = verified.map_err(|why| refused(Refusal::NotVerified(why)))?;
        // Every verified request names the credential that accepted it.
        let credential = verifier.credential(&verified).ok_or_else(|| refused(Refusal::Overloaded))?;
        let token = match self.guard.claim_at(credential, &verified, now) {
            Claim::Fresh(token) => token,
            Claim::Done => {
                self.metrics.repeats.inc();
                return Ok(Response::new(Full::default()));
            }
            Claim::InFlight => return Err(refused(Refusal::InFlight)),
            Claim::Full => return Err(refused(Refusal::Full)),
        };
        let place = Arc::clone(&self.forwards).try_acquire_owned().map_err(|_| refused(Refusal::Overloaded))?;
        let id = headers.get(scale_callback_auth::header::ID).cloned();
        let mut forward = Some(self.upstream.request(headers, verified.mode(), held.bytes.clone()));
        let own = Arc::clone(self);
        let forwarding = DetachOnDrop::new(async move {
            let answer = own.upstream.send(&mut forward).await;
            own.count(&answer, id.as_ref());
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                token.done();
            }
            drop((held, place));
            answer
        });
        // A client that leaves now changes nothing: the receiver's answer is awaited, and it decides about the claim.
        Ok(forwarding.await.unwrap_or_else(|error| plain(error.status())))
    }

    /// Verifies a large body, which takes milliseconds, in stretches: other requests must not wait for all of it.
    async fn verify_in_stretches<'b>(
        &self,
        verifier: &Verifier,
        headers: &HeaderMap,
        body: &'b [u8],
        now: u64,
    ) -> Result<Verified<'b>, VerifyError> {
        let mut verification = verifier.begin_incremental_at(headers, body, now)?;
        loop {
            if let Some(verdict) = verification.step(STRETCH) {
                return verdict;
            }
            self.refusals.rest().await;
        }
    }

    /// Counts a refusal and logs it. The caller gets a status.
    fn report(&self, refusal: Refusal, headers: &HeaderMap) -> Refusal {
        self.metrics.refused(refusal.reason());
        if let Some(skipped) = self.log.allow() {
            let id = shown(headers.get(scale_callback_auth::header::ID));
            tracing::warn!(reason = refusal.reason(), id, skipped, "refused");
        }
        refusal
    }

    /// Counts what the upstream said, and logs it if that is nothing.
    fn count(&self, answer: &Result<Response<Full<Bytes>>, UpstreamError>, id: Option<&HeaderValue>) {
        match answer {
            Ok(answer) => self.metrics.forwarded(answer.status()),
            Err(error) => {
                self.metrics.failed(error.name());
                if let Some(skipped) = self.log.allow() {
                    tracing::warn!(failure = error.name(), id = shown(id), skipped, "your server gave no answer");
                }
            }
        }
    }
}

/// An id for the log.
fn shown(id: Option<&HeaderValue>) -> String {
    printable(id.map_or(&b"-"[..], HeaderValue::as_bytes), LOGGED_ID)
}
