//! What the adapters hand over: a verified callback that owns its body.

use core::future::poll_fn;
use core::task::Poll;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::verify::Stamp;
use crate::{Callback, ParseError, Verified, Verifier};

/// Bytes of a body that are read: a callback repeats its task's response, and events reach 5 MiB.
pub const BODY_LIMIT: usize = 12 << 20;

/// Bytes that are verified before others have their turn: about 40 us.
const STEP: usize = 64 * 1024;

/// A callback that was verified, with its body. There is no other way to make one.
#[derive(Debug, Clone)]
pub struct ProvenCallback {
    body: Bytes,
    stamp: Stamp,
}

impl ProvenCallback {
    /// The proof, as [`Verifier::verify`] gives it.
    #[must_use]
    pub fn verified(&self) -> Verified<'_> {
        Verified::with(&self.body, self.stamp)
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
        // What its headers alone refuse is not read.
        verifier.check_headers(headers).map_err(|_| Rejection::Unauthenticated)?;
        #[expect(clippy::disallowed_methods, reason = "it is limited")]
        let whole = Limited::new(body, limit).collect().await;
        let body = whole.map(http_body_util::Collected::to_bytes).map_err(|error| match error {
            error if error.is::<LengthLimitError>() => Rejection::TooLarge,
            _ => Rejection::Broken,
        })?;
        let mut steps = verifier.in_steps(headers, &body).map_err(|_| Rejection::Unauthenticated)?;
        let stamp = loop {
            match steps.step(STEP) {
                Some(verdict) => break verdict.map_err(|_| Rejection::Unauthenticated)?.stamp(),
                None => yield_now().await,
            }
        };
        Ok(Self { body, stamp })
    }
}

/// Lets the runtime's other tasks have their turn.
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

/// Why a request went no further. The status is all that the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// It is not from the platform, or too old: 401.
    Unauthenticated,
    /// Its body is larger than any callback's: 413.
    TooLarge,
    /// Its body broke off, or is no callback: 400.
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
            Self::Unauthenticated => "the request is not from the platform",
            Self::TooLarge => "the body is larger than any callback's",
            Self::Broken => "the body broke off, or is no callback",
        })
    }
}

impl core::error::Error for Rejection {}
