//! What the adapters pass on: a verified callback that owns its body.

use core::future::poll_fn;
use core::task::Poll;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::verified::VerifiedFacts;
use crate::{Callback, ParseError, Verified, Verifier};

/// How many bytes of a body an adapter reads. A task event can have 5 MiB, and a callback repeats its task's response.
pub const BODY_LIMIT: usize = 12 << 20;

/// How many bytes are verified before other tasks get a turn. This takes about 40 us.
const STEP: usize = 64 * 1024;

/// A callback that was verified, together with its body. Only an adapter can make one.
#[derive(Debug, Clone)]
pub struct VerifiedCallback {
    body: Bytes,
    facts: VerifiedFacts,
}

impl VerifiedCallback {
    /// The result of the verification, as [`Verifier::verify`] returns it.
    #[must_use]
    pub fn verified(&self) -> Verified<'_> {
        Verified::new(&self.body, self.facts)
    }

    /// The bytes that were verified.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Reads the body as a callback.
    ///
    /// # Errors
    /// [`ParseError`]: answer 400.
    pub fn callback(&self) -> Result<Callback<'_>, ParseError> {
        Callback::read(&self.body)
    }

    /// Reads a request's body and verifies it.
    pub(super) async fn read<B>(
        headers: &http::HeaderMap,
        body: B,
        verifier: &Verifier,
        limit: usize,
    ) -> Result<Self, Rejection>
    where
        B: Body,
        B::Error: Into<Box<dyn core::error::Error + Send + Sync>>,
    {
        // If the headers alone are reason enough to refuse the request, do not read its body.
        verifier.check_headers(headers).map_err(|_| Rejection::Unauthenticated)?;
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let whole = Limited::new(body, limit).collect().await;
        let body = whole.map(http_body_util::Collected::to_bytes).map_err(|error| match error {
            error if error.is::<LengthLimitError>() => Rejection::TooLarge,
            _ => Rejection::Broken,
        })?;
        let mut verification = verifier.begin_incremental(headers, &body).map_err(|_| Rejection::Unauthenticated)?;
        let facts = loop {
            match verification.step(STEP) {
                Some(verdict) => break *verdict.map_err(|_| Rejection::Unauthenticated)?.facts(),
                None => yield_now().await,
            }
        };
        Ok(Self { body, facts })
    }
}

/// Gives the runtime's other tasks a turn.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Why a request was rejected. The answer carries only the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The request is not known to come from the platform, or it is too old: 401.
    Unauthenticated,
    /// The body is larger than the limit: 413.
    TooLarge,
    /// The body ended early: 400.
    Broken,
}

impl Rejection {
    /// The status to answer with.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

impl core::fmt::Display for Rejection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unauthenticated => "the request is not known to come from the platform",
            Self::TooLarge => "the body is larger than the limit",
            Self::Broken => "the body ended early",
        })
    }
}

impl core::error::Error for Rejection {}
