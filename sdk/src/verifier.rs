//! The verifier: it reads the headers once, then computes one HMAC for each credential.
//!
//! It never looks inside a body before a credential has accepted it, and it reads the clock only in the methods that
//! take no `now`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::proof::Proof;
use crate::request::Request;
use crate::{Credential, Headers, IncrementalVerification, Mode, Verified, VerifyError};

/// Decides whether a request is a callback from the platform.
#[derive(Debug, Clone)]
pub struct Verifier {
    credentials: Vec<Credential>,
    live_only: bool,
}

impl Verifier {
    /// Makes a verifier that accepts the requests that `credential` accepts.
    #[must_use]
    pub fn new(credential: Credential) -> Self {
        Self { credentials: vec![credential], live_only: false }
    }

    /// Also accepts the requests that another credential accepts: the new secret during a rotation, or the test keys.
    #[must_use]
    pub fn or_credential(mut self, credential: Credential) -> Self {
        self.credentials.push(credential);
        self
    }

    /// Refuses test callbacks, whichever credential accepts them.
    #[must_use]
    pub fn require_live(mut self) -> Self {
        self.live_only = true;
        self
    }

    /// Verifies a request at the current time of this machine's clock.
    ///
    /// # Errors
    /// [`VerifyError`]: answer 401.
    pub fn verify<'b, H: Headers + ?Sized>(&self, headers: &H, body: &'b [u8]) -> Result<Verified<'b>, VerifyError> {
        self.verify_at(headers, body, now())
    }

    /// Verifies a request as if the clock showed `now`, in unix seconds.
    ///
    /// # Errors
    /// [`VerifyError`]: answer 401.
    pub fn verify_at<'b, H: Headers + ?Sized>(
        &self,
        headers: &H,
        body: &'b [u8],
        now: u64,
    ) -> Result<Verified<'b>, VerifyError> {
        let request = Request::read(headers, body)?;
        let timestamp = request.fresh_at(now)?;
        let (index, mode) = self.first_accepting(|proof| proof.accepts(&request))?;
        Ok(request.verified(timestamp, mode, index))
    }

    /// Begins a verification at the current time that reads the body in pieces. Use it for large bodies on a thread
    /// that also does other work.
    ///
    /// # Errors
    /// [`VerifyError`]: the headers alone are reason enough to refuse the request; answer 401.
    pub fn begin_incremental<'v, 'r, 'b, H: Headers + ?Sized>(
        &'v self,
        headers: &'r H,
        body: &'b [u8],
    ) -> Result<IncrementalVerification<'v, 'r, 'b>, VerifyError> {
        self.begin_incremental_at(headers, body, now())
    }

    /// Does the same as if the clock showed `now`, in unix seconds.
    ///
    /// # Errors
    /// The same as [`begin_incremental`](Self::begin_incremental).
    pub fn begin_incremental_at<'v, 'r, 'b, H: Headers + ?Sized>(
        &'v self,
        headers: &'r H,
        body: &'b [u8],
        now: u64,
    ) -> Result<IncrementalVerification<'v, 'r, 'b>, VerifyError> {
        IncrementalVerification::new(self, headers, body, now)
    }

    /// Checks whether a request could be accepted, by its headers alone, so that a server can refuse a request before
    /// it reads the body. Success proves nothing yet: [`verify`](Self::verify) must still accept the request.
    ///
    /// # Errors
    /// [`VerifyError`]: `verify` would refuse the request as well, whatever its body is.
    pub fn check_headers<H: Headers + ?Sized>(&self, headers: &H) -> Result<(), VerifyError> {
        self.check_headers_at(headers, now())
    }

    /// Does the same as if the clock showed `now`, in unix seconds.
    ///
    /// # Errors
    /// The same as [`check_headers`](Self::check_headers).
    pub fn check_headers_at<H: Headers + ?Sized>(&self, headers: &H, now: u64) -> Result<(), VerifyError> {
        let request = Request::read(headers, b"")?;
        request.fresh_at(now)?;
        self.first_accepting(|proof| proof.could_accept(&request)).map(drop)
    }

    /// The credential that accepted a request. `None` if another verifier verified the request.
    #[must_use]
    pub fn credential(&self, verified: &Verified<'_>) -> Option<&Credential> {
        self.credentials.get(verified.facts().credential)
    }

    /// One verifier for each credential, for tools that explain why a request was refused.
    #[must_use]
    pub fn singles(&self) -> Vec<Self> {
        let single =
            |credential: &Credential| Self { credentials: vec![credential.clone()], live_only: self.live_only };
        self.credentials.iter().map(single).collect()
    }

    /// What each credential checks: `signed`, `signed_and_keyed`, `hmac_header` or `static_key`.
    pub fn forms(&self) -> impl Iterator<Item = &'static str> {
        self.credentials.iter().map(|credential| credential.proof.name())
    }

    pub(crate) fn credentials(&self) -> &[Credential] {
        &self.credentials
    }

    /// Whether this verifier accepts callbacks of `mode` at all.
    #[cfg(feature = "axum")]
    pub(crate) fn admits(&self, mode: Mode) -> bool {
        mode == Mode::Live || !self.live_only
    }

    /// The index and mode of the first credential whose proof `accepts`.
    fn first_accepting(
        &self,
        accepts: impl Fn(&Proof) -> Result<(), VerifyError>,
    ) -> Result<(usize, Mode), VerifyError> {
        let mut refusal = VerifyError::SignatureMismatch;
        for (index, credential) in self.credentials.iter().enumerate() {
            if self.lets_in(index, credential.mode, accepts(&credential.proof), &mut refusal) {
                return Ok((index, credential.mode));
            }
        }
        Err(refusal)
    }

    /// Whether the credential at `index`, which is of `mode`, lets the request in, given the verdict of its proof. If
    /// not, this leaves in `refusal` the reason to report if no other credential lets the request in.
    pub(crate) fn lets_in(
        &self,
        index: usize,
        mode: Mode,
        verdict: Result<(), VerifyError>,
        refusal: &mut VerifyError,
    ) -> bool {
        match verdict {
            Ok(()) if self.live_only && mode == Mode::Test => *refusal = VerifyError::TestRefused,
            Ok(()) => return true,
            // Report the first credential's reason, unless a later credential proved that this is a test callback.
            Err(error) if index == 0 => *refusal = error,
            Err(_) => {}
        }
        false
    }
}

/// The current time in unix seconds. A clock that shows a time before 1970 counts as 0, so that every callback is too
/// new and is refused.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock; the `_at` methods are given the time"
)]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
