//! Verifying a large body in pieces, so that other work on the same thread gets a turn between them.

use crate::mac::RunningHmac;
use crate::request::Request;
use crate::{Headers, Verified, Verifier, VerifyError};

/// A verification in progress, made by [`Verifier::begin_incremental`].
///
/// Verifying the largest callback takes milliseconds. On an asynchronous server, everything else on the same thread
/// would wait that long:
///
/// ```
/// # use scale_callback_auth::{Verified, Verifier, VerifyError};
/// # async fn yield_now() {}
/// async fn verify<'b>(
///     verifier: &Verifier, headers: &[(String, String)], body: &'b [u8],
/// ) -> Result<Verified<'b>, VerifyError> {
///     let mut verification = verifier.begin_incremental(headers, body)?;
///     loop {
///         match verification.step(64 * 1024) {
///             Some(verdict) => return verdict,
///             None => yield_now().await, // your runtime's function
///         }
///     }
/// }
/// ```
pub struct IncrementalVerification<'v, 'r, 'b> {
    verifier: &'v Verifier,
    request: Request<'r, 'b>,
    timestamp: u64,
    /// The index of the credential that is tried now.
    index: usize,
    /// The HMAC of that credential, over the first `position` bytes of the body.
    hmac: Option<RunningHmac>,
    position: usize,
    refusal: VerifyError,
}

impl core::fmt::Debug for IncrementalVerification<'_, '_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IncrementalVerification")
            .field("credential", &self.index)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl<'v, 'r, 'b> IncrementalVerification<'v, 'r, 'b> {
    pub(crate) fn new<H: Headers + ?Sized>(
        verifier: &'v Verifier,
        headers: &'r H,
        body: &'b [u8],
        now: u64,
    ) -> Result<Self, VerifyError> {
        let request = Request::read(headers, body)?;
        let timestamp = request.fresh_at(now)?;
        let refusal = VerifyError::SignatureMismatch;
        Ok(Self { verifier, request, timestamp, index: 0, hmac: None, position: 0, refusal })
    }

    /// Reads at most `bytes` more bytes, and at least one. A byte counts once for every credential that reads it.
    ///
    /// Returns `None` while there is more to read, and then the verdict of [`Verifier::verify_at`]. After the verdict
    /// it returns only errors.
    pub fn step(&mut self, bytes: usize) -> Option<Result<Verified<'b>, VerifyError>> {
        let mut left = bytes.max(1);
        while let Some(credential) = self.verifier.credentials().get(self.index) {
            let hmac = match self.hmac.take() {
                Some(hmac) => Ok(Some(hmac)),
                None => credential.proof.begin(&self.request),
            };
            let verdict = match hmac {
                Err(refusal) => Err(refusal),
                Ok(None) => credential.proof.accepts(&self.request),
                Ok(Some(mut hmac)) => {
                    let rest = &self.request.body[self.position..];
                    let piece = &rest[..rest.len().min(left)];
                    hmac.update(piece);
                    self.position = self.position.saturating_add(piece.len());
                    left = left.saturating_sub(piece.len());
                    if piece.len() < rest.len() {
                        self.hmac = Some(hmac);
                        return None;
                    }
                    credential.proof.accepts_with(&self.request, || hmac)
                }
            };
            let index = self.index;
            (self.index, self.position) = (index.saturating_add(1), 0);
            if self.verifier.lets_in(index, credential.mode, verdict, &mut self.refusal) {
                self.index = usize::MAX;
                return Some(Ok(self.request.verified(self.timestamp, credential.mode, index)));
            }
        }
        Some(Err(self.refusal))
    }
}
