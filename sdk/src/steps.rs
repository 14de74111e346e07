//! Verifying a large body a piece at a time, so that whoever else shares the thread gets a turn in between.

use crate::mac::Running;
use crate::verify::Request;
use crate::{Headers, Verified, Verifier, VerifyError};

/// A verification under way, made by [`Verifier::in_steps`].
///
/// The largest callback takes milliseconds to verify, long enough to be felt by everything else that an asynchronous
/// server does on the same thread:
///
/// ```
/// # use scale_callback_auth::{Verified, Verifier, VerifyError};
/// # async fn yield_now() {}
/// async fn verify<'b>(
///     verifier: &Verifier, headers: &[(String, String)], body: &'b [u8],
/// ) -> Result<Verified<'b>, VerifyError> {
///     let mut steps = verifier.in_steps(headers, body)?;
///     loop {
///         match steps.step(64 * 1024) {
///             Some(verdict) => return verdict,
///             None => yield_now().await, // your runtime's
///         }
///     }
/// }
/// ```
pub struct Steps<'v, 'r, 'b> {
    verifier: &'v Verifier,
    request: Request<'r, 'b>,
    timestamp: u64,
    /// The credential that is tried, by its place.
    index: usize,
    /// Its HMAC, over the body up to `at`.
    running: Option<Running>,
    at: usize,
    refusal: VerifyError,
}

impl core::fmt::Debug for Steps<'_, '_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Steps").field("credential", &self.index).field("at", &self.at).finish_non_exhaustive()
    }
}

impl<'v, 'r, 'b> Steps<'v, 'r, 'b> {
    pub(crate) fn new<H: Headers + ?Sized>(
        verifier: &'v Verifier,
        headers: &'r H,
        body: &'b [u8],
        now: u64,
    ) -> Result<Self, VerifyError> {
        let request = Request::read(headers, body)?;
        let timestamp = request.fresh_at(now)?;
        let refusal = VerifyError::SignatureMismatch;
        Ok(Self { verifier, request, timestamp, index: 0, running: None, at: 0, refusal })
    }

    /// Goes on over at most so many bytes (one at the least), each counted once for every credential that reads them.
    /// Gives the verdict of [`Verifier::verify_at`] once it is there; called again, it says no.
    pub fn step(&mut self, bytes: usize) -> Option<Result<Verified<'b>, VerifyError>> {
        let mut left = bytes.max(1);
        while let Some(credential) = self.verifier.credentials().get(self.index) {
            let running = match self.running.take() {
                Some(running) => Ok(Some(running)),
                None => self.request.begin(&credential.proof),
            };
            let outcome = match running {
                Err(refusal) => Err(refusal),
                Ok(None) => self.request.satisfies(&credential.proof),
                Ok(Some(mut running)) => {
                    let rest = &self.request.body[self.at..];
                    let piece = &rest[..rest.len().min(left)];
                    running.update(piece);
                    (self.at, left) = (self.at.saturating_add(piece.len()), left.saturating_sub(piece.len()));
                    if piece.len() < rest.len() {
                        self.running = Some(running);
                        return None;
                    }
                    self.request.satisfies_by(&credential.proof, || running)
                }
            };
            let index = self.index;
            (self.index, self.at) = (index.saturating_add(1), 0);
            if self.verifier.weigh(index, credential.mode, outcome, &mut self.refusal) {
                self.index = usize::MAX;
                return Some(Ok(self.request.verified(self.timestamp, credential.mode, index)));
            }
        }
        Some(Err(self.refusal))
    }
}
