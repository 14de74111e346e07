//! What a credential demands of a request: a signature, a key, or both.
//!
//! The time that a comparison takes never shows where two values differ.

use core::fmt;

use crate::mac::{RunningHmac, equal};
use crate::request::Request;
use crate::{CallbackAuthKey, HmacKey, SigningSecret, VerifyError};

#[derive(Clone)]
pub(crate) enum Proof {
    Signed(SigningSecret),
    SignedAndKeyed(SigningSecret, CallbackAuthKey),
    HmacHeader(HmacKey),
    StaticKey(CallbackAuthKey),
}

impl Proof {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Signed(_) => "signed",
            Self::SignedAndKeyed(..) => "signed_and_keyed",
            Self::HmacHeader(_) => "hmac_header",
            Self::StaticKey(_) => "static_key",
        }
    }

    /// Checks the whole request.
    pub(crate) fn accepts(&self, request: &Request<'_, '_>) -> Result<(), VerifyError> {
        let (id, timestamp, body) = (request.id, request.timestamp, request.body);
        match self {
            Self::Signed(secret) | Self::SignedAndKeyed(secret, _) => {
                self.accepts_with(request, || secret.0.signing(id, timestamp, body))
            }
            Self::HmacHeader(key) => self.accepts_with(request, || key.keyed.authenticating(id, timestamp, body)),
            Self::StaticKey(key) => check_key(request, key),
        }
    }

    /// Checks everything that does not depend on the body.
    pub(crate) fn could_accept(&self, request: &Request<'_, '_>) -> Result<(), VerifyError> {
        match self {
            Self::Signed(_) => request.signatures().map(drop),
            Self::SignedAndKeyed(_, key) => {
                request.signatures()?;
                check_key(request, key)
            }
            Self::HmacHeader(_) => request.hmac_form().map(drop),
            Self::StaticKey(key) => check_key(request, key),
        }
    }

    /// Begins this proof's HMAC over everything before the body. `None` for a proof that needs no HMAC.
    ///
    /// # Errors
    /// The proof fails, whatever the body is.
    pub(crate) fn begin(&self, request: &Request<'_, '_>) -> Result<Option<RunningHmac>, VerifyError> {
        match self {
            Self::Signed(secret) | Self::SignedAndKeyed(secret, _) => {
                request.signatures()?;
                Ok(Some(secret.0.signing(request.id, request.timestamp, b"")))
            }
            Self::HmacHeader(key) => {
                request.hmac_form()?;
                Ok(Some(key.keyed.authenticating(request.id, request.timestamp, b"")))
            }
            Self::StaticKey(_) => Ok(None),
        }
    }

    /// Checks the whole request with an HMAC over all of it. `hmac` is called only if the result depends on it.
    pub(crate) fn accepts_with(
        &self,
        request: &Request<'_, '_>,
        hmac: impl FnOnce() -> RunningHmac,
    ) -> Result<(), VerifyError> {
        match self {
            Self::Signed(_) => check_signature(request, hmac),
            Self::SignedAndKeyed(_, key) => {
                check_signature(request, hmac)?;
                check_key(request, key)
            }
            Self::HmacHeader(_) => check_hmac_header(request, hmac),
            Self::StaticKey(key) => check_key(request, key),
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn check_signature(request: &Request<'_, '_>, hmac: impl FnOnce() -> RunningHmac) -> Result<(), VerifyError> {
    let given = request.signatures()?;
    let expected = hmac().base64();
    // Compare every signature, so that the time does not show the position of the right one.
    let matches = given.iter().fold(false, |found, given| found | equal(&expected, given));
    if matches { Ok(()) } else { Err(VerifyError::SignatureMismatch) }
}

fn check_key(request: &Request<'_, '_>, key: &CallbackAuthKey) -> Result<(), VerifyError> {
    if key.is(request.auth()?) { Ok(()) } else { Err(VerifyError::AuthMismatch) }
}

fn check_hmac_header(request: &Request<'_, '_>, hmac: impl FnOnce() -> RunningHmac) -> Result<(), VerifyError> {
    let form = request.hmac_form()?;
    let expected = hmac().hex();
    let matches = equal(&expected, form.first) | form.second.is_some_and(|second| equal(&expected, second));
    if matches { Ok(()) } else { Err(VerifyError::AuthMismatch) }
}
