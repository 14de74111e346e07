//! The verifier: one pass over the headers, then one HMAC per secret.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::credential::Proof;
use crate::mac::{HEX_LEN, Running, equal};
use crate::steps::Steps;
use crate::{Callback, Credential, Headers, Mode, ParseError, VerifyError, header};

/// Signatures looked at in one request.
const MAX_SIGNATURES: usize = 16;
/// Bytes of `webhook-signature` in one request.
const MAX_SIGNATURE_BYTES: usize = 4096;
/// Bytes of `scale-callback-auth`.
const MAX_AUTH_BYTES: usize = 256;
/// The bytes that an id is made of.
const IN_IDS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        byte = byte.saturating_add(1);
    }
    table
};
/// Seconds that `webhook-timestamp` may lie from now, each way.
pub(crate) const TOLERANCE: u64 = 300;

/// Decides whether a request is a callback from the platform.
#[derive(Debug, Clone)]
pub struct Verifier {
    credentials: Vec<Credential>,
    live_only: bool,
}

/// A body that was proven to come from the platform. There is no other way to make one.
///
/// ```compile_fail
/// let forged = scale_callback_auth::Verified { id: "cb_1", body: b"{}" };
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Verified<'b> {
    body: &'b [u8],
    stamp: Stamp,
}

/// A proof apart from its body: what adapters keep beside a body that they own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    id: [u8; 64],
    id_len: usize,
    timestamp: u64,
    mode: Mode,
    credential: usize,
}

impl Verifier {
    /// A verifier that accepts what `credential` proves.
    #[must_use]
    pub fn new(credential: Credential) -> Self {
        Self { credentials: vec![credential], live_only: false }
    }

    /// Accepts what another credential proves as well: the new secret while rotating, or the test keys.
    #[must_use]
    pub fn and(mut self, credential: Credential) -> Self {
        self.credentials.push(credential);
        self
    }

    /// Refuses test callbacks, whatever proves them.
    #[must_use]
    pub fn require_live(mut self) -> Self {
        self.live_only = true;
        self
    }

    /// Verifies against this machine's clock.
    ///
    /// # Errors
    /// [`VerifyError`]: answer 401.
    pub fn verify<'b, H: Headers + ?Sized>(&self, headers: &H, body: &'b [u8]) -> Result<Verified<'b>, VerifyError> {
        self.verify_at(headers, body, now())
    }

    /// Verifies as if the clock showed `now`, in unix seconds.
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
        let (index, mode) = self.judge(|proof| request.satisfies(proof))?;
        Ok(request.verified(timestamp, mode, index))
    }

    /// Verifies against this machine's clock, a piece of the body at a time: for large bodies among other work.
    ///
    /// # Errors
    /// [`VerifyError`]: the headers alone refuse it; answer 401.
    pub fn in_steps<'v, 'r, 'b, H: Headers + ?Sized>(
        &'v self,
        headers: &'r H,
        body: &'b [u8],
    ) -> Result<Steps<'v, 'r, 'b>, VerifyError> {
        self.in_steps_at(headers, body, now())
    }

    /// The same, as if the clock showed `now`, in unix seconds.
    ///
    /// # Errors
    /// As [`in_steps`](Self::in_steps).
    pub fn in_steps_at<'v, 'r, 'b, H: Headers + ?Sized>(
        &'v self,
        headers: &'r H,
        body: &'b [u8],
        now: u64,
    ) -> Result<Steps<'v, 'r, 'b>, VerifyError> {
        Steps::new(self, headers, body, now)
    }

    /// Whether a request could be accepted, by its headers alone: what can be refused before a body is read should be.
    /// It proves nothing; [`verify`](Self::verify) does.
    ///
    /// # Errors
    /// [`VerifyError`]: `verify` would refuse it as well, whatever the body is.
    pub fn check_headers<H: Headers + ?Sized>(&self, headers: &H) -> Result<(), VerifyError> {
        self.check_headers_at(headers, now())
    }

    /// The same, as if the clock showed `now`, in unix seconds.
    ///
    /// # Errors
    /// As [`check_headers`](Self::check_headers).
    pub fn check_headers_at<H: Headers + ?Sized>(&self, headers: &H, now: u64) -> Result<(), VerifyError> {
        let request = Request::read(headers, b"")?;
        request.fresh_at(now)?;
        self.judge(|proof| request.could_satisfy(proof)).map(drop)
    }

    /// The first credential, by its place, that `satisfies`.
    fn judge(&self, satisfies: impl Fn(&Proof) -> Result<(), VerifyError>) -> Result<(usize, Mode), VerifyError> {
        let mut refusal = VerifyError::SignatureMismatch;
        for (index, credential) in self.credentials.iter().enumerate() {
            if self.weigh(index, credential.mode, satisfies(&credential.proof), &mut refusal) {
                return Ok((index, credential.mode));
            }
        }
        Err(refusal)
    }

    /// Whether what a credential says lets a request in; otherwise `refusal` is the reason to tell so far.
    pub(crate) fn weigh(
        &self,
        index: usize,
        mode: Mode,
        outcome: Result<(), VerifyError>,
        refusal: &mut VerifyError,
    ) -> bool {
        match outcome {
            Ok(()) if self.live_only && mode == Mode::Test => *refusal = VerifyError::TestRefused,
            Ok(()) => return true,
            // The first credential's reason is the one to tell, unless a later one knew better.
            Err(error) if index == 0 => *refusal = error,
            Err(_) => {}
        }
        false
    }

    pub(crate) fn credentials(&self) -> &[Credential] {
        &self.credentials
    }

    /// Each credential as a verifier of its own: for tools that explain a refusal.
    #[must_use]
    pub fn singles(&self) -> Vec<Self> {
        let single =
            |credential: &Credential| Self { credentials: vec![credential.clone()], live_only: self.live_only };
        self.credentials.iter().map(single).collect()
    }

    /// What each credential proves: `signed`, `signed_and_keyed`, `hmac_header` or `static_key`.
    pub fn forms(&self) -> impl Iterator<Item = &'static str> {
        self.credentials.iter().map(|credential| credential.proof.name())
    }

    /// Whether it takes callbacks of this mode at all.
    #[cfg(feature = "tower")]
    pub(crate) fn admits(&self, mode: Mode) -> bool {
        mode == Mode::Live || !self.live_only
    }

    /// The credential that accepted a request.
    #[must_use]
    pub fn credential(&self, verified: &Verified<'_>) -> Option<&Credential> {
        self.credentials.get(verified.stamp.credential)
    }
}

/// Unix seconds. A clock before 1970 reads as 0: every callback is then too new, and refused.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock; `verify_at` is given it")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl<'b> Verified<'b> {
    /// The bytes that were verified.
    #[must_use]
    pub fn body(&self) -> &'b [u8] {
        self.body
    }

    /// `webhook-id`: the same for every attempt of one callback.
    #[must_use]
    pub fn id(&self) -> &str {
        core::str::from_utf8(&self.stamp.id[..self.stamp.id_len]).expect("an id is ASCII")
    }

    /// `webhook-timestamp`: unix seconds of this attempt.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.stamp.timestamp
    }

    /// Live or test, by the credential that accepted it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.stamp.mode
    }

    #[cfg(feature = "tower")]
    pub(crate) fn with(body: &'b [u8], stamp: Stamp) -> Self {
        Self { body, stamp }
    }

    #[cfg(feature = "tower")]
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Reads the body as a callback; the task and its response stay opaque.
    ///
    /// # Errors
    /// [`ParseError`]: answer 400.
    pub fn callback(&self) -> Result<Callback<'b>, ParseError> {
        Callback::read(self.body)
    }
}

/// The parts of a request that take part in a proof, each checked for its form.
pub(crate) struct Request<'r, 'b> {
    id: &'r [u8],
    timestamp: &'r [u8],
    signatures: [&'r [u8]; MAX_SIGNATURES],
    signature_count: usize,
    signature_seen: bool,
    auth: Option<&'r [u8]>,
    pub(crate) body: &'b [u8],
}

impl<'r, 'b> Request<'r, 'b> {
    #[inline]
    pub(crate) fn read<H: Headers + ?Sized>(headers: &'r H, body: &'b [u8]) -> Result<Self, VerifyError> {
        use VerifyError as E;
        let id = only(headers, header::ID, E::IdDuplicate)?.ok_or(E::IdMissing)?;
        // No early end: a loop without one costs a fraction.
        let in_alphabet = |id: &[u8]| id.iter().fold(true, |all, byte| all & IN_IDS[usize::from(*byte)]);
        if id.is_empty() || id.len() > 64 || !in_alphabet(id) {
            return Err(E::IdInvalid);
        }
        let timestamp = only(headers, header::TIMESTAMP, E::TimestampDuplicate)?.ok_or(E::TimestampMissing)?;
        let auth = only(headers, header::AUTH, E::AuthDuplicate)?;
        if auth.is_some_and(|value| value.len() > MAX_AUTH_BYTES) {
            return Err(E::HeaderTooLong);
        }
        let mut request = Request {
            id,
            timestamp,
            signatures: [b""; MAX_SIGNATURES],
            signature_count: 0,
            signature_seen: false,
            auth,
            body,
        };
        request.collect_signatures(headers)?;
        Ok(request)
    }

    fn collect_signatures<H: Headers + ?Sized>(&mut self, headers: &'r H) -> Result<(), VerifyError> {
        let mut bytes = 0_usize;
        let mut seen = 0_usize;
        for value in headers.values(header::SIGNATURE) {
            self.signature_seen = true;
            bytes = bytes.saturating_add(value.len());
            if bytes > MAX_SIGNATURE_BYTES {
                return Err(VerifyError::HeaderTooLong);
            }
            // Most hold one, which needs no splitting.
            let several = value.iter().fold(false, |found, byte| found | (*byte == b' '));
            let mut rest = Some(value);
            while let Some(left) = rest {
                let end = if several { left.iter().position(|byte| *byte == b' ') } else { None };
                let (entry, behind) = match end {
                    Some(end) => (&left[..end], left.get(end.saturating_add(1)..)),
                    None => (left, None),
                };
                rest = behind;
                if entry.is_empty() {
                    continue;
                }
                seen = seen.saturating_add(1);
                if seen > MAX_SIGNATURES {
                    return Err(VerifyError::TooManySignatures);
                }
                // Other versions are somebody else's business; they count, but prove nothing.
                if let Some(encoded) = entry.strip_prefix(b"v1,") {
                    self.signatures[self.signature_count] = encoded;
                    self.signature_count = self.signature_count.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn satisfies(&self, proof: &Proof) -> Result<(), VerifyError> {
        let (id, timestamp, body) = (self.id, self.timestamp, self.body);
        match proof {
            Proof::Signed(secret) | Proof::SignedAndKeyed(secret, _) => {
                self.satisfies_by(proof, || secret.0.signing(id, timestamp, body))
            }
            Proof::HmacHeader(key) => self.satisfies_by(proof, || key.keyed.authenticating(id, timestamp, body)),
            Proof::StaticKey(key) => self.keyed_by(key),
        }
    }

    /// A proof's HMAC up to where the body begins; none for a proof that takes none.
    ///
    /// # Errors
    /// The proof fails whatever the body is.
    pub(crate) fn begin(&self, proof: &Proof) -> Result<Option<Running>, VerifyError> {
        match proof {
            Proof::Signed(secret) | Proof::SignedAndKeyed(secret, _) => {
                self.has_signatures()?;
                Ok(Some(secret.0.signing(self.id, self.timestamp, b"")))
            }
            Proof::HmacHeader(key) => {
                self.hmac_form()?;
                Ok(Some(key.keyed.authenticating(self.id, self.timestamp, b"")))
            }
            Proof::StaticKey(_) => Ok(None),
        }
    }

    /// What a proof says, with its HMAC over the whole request, which is asked for only where it decides.
    pub(crate) fn satisfies_by(&self, proof: &Proof, hmac: impl FnOnce() -> Running) -> Result<(), VerifyError> {
        match proof {
            Proof::Signed(_) => self.signed_by(hmac),
            Proof::SignedAndKeyed(_, key) => {
                self.signed_by(hmac)?;
                self.keyed_by(key)
            }
            Proof::HmacHeader(_) => self.authenticated_by(hmac),
            Proof::StaticKey(key) => self.keyed_by(key),
        }
    }

    /// What does not depend on the body.
    fn could_satisfy(&self, proof: &Proof) -> Result<(), VerifyError> {
        match proof {
            Proof::Signed(_) => self.has_signatures(),
            Proof::SignedAndKeyed(_, key) => {
                self.has_signatures()?;
                self.keyed_by(key)
            }
            Proof::HmacHeader(_) => self.hmac_form().map(drop),
            Proof::StaticKey(key) => self.keyed_by(key),
        }
    }

    fn has_signatures(&self) -> Result<(), VerifyError> {
        match (self.signature_seen, self.signature_count) {
            (false, _) => Err(VerifyError::SignatureMissing),
            (true, 0) => Err(VerifyError::SignatureMismatch),
            _ => Ok(()),
        }
    }

    fn signed_by(&self, hmac: impl FnOnce() -> Running) -> Result<(), VerifyError> {
        self.has_signatures()?;
        let expected = hmac().base64();
        let given = &self.signatures[..self.signature_count];
        // No early end: how many signatures stand before the right one does not show in the time.
        let matches = given.iter().fold(false, |found, given| found | equal(&expected, given));
        if matches { Ok(()) } else { Err(VerifyError::SignatureMismatch) }
    }

    fn keyed_by(&self, key: &crate::CallbackAuthKey) -> Result<(), VerifyError> {
        let given = self.auth.ok_or(VerifyError::AuthMissing)?;
        if key.is(given) { Ok(()) } else { Err(VerifyError::AuthMismatch) }
    }

    /// The one or two HMACs, where the rest of the header is right.
    fn hmac_form(&self) -> Result<(&'r [u8], Option<&'r [u8]>), VerifyError> {
        let given = self.auth.ok_or(VerifyError::AuthMissing)?;
        let (timestamp, first, second) = hmac_form(given).ok_or(VerifyError::AuthMalformed)?;
        if timestamp != self.timestamp {
            return Err(VerifyError::AuthTimestampDiffers);
        }
        Ok((first, second))
    }

    fn authenticated_by(&self, hmac: impl FnOnce() -> Running) -> Result<(), VerifyError> {
        let (first, second) = self.hmac_form()?;
        let expected = hmac().hex();
        let matches = equal(&expected, first) | second.is_some_and(|second| equal(&expected, second));
        if matches { Ok(()) } else { Err(VerifyError::AuthMismatch) }
    }

    /// The time it was signed at, where that is near enough to `now`.
    pub(crate) fn fresh_at(&self, now: u64) -> Result<u64, VerifyError> {
        let timestamp = plain_number(self.timestamp).ok_or(VerifyError::TimestampInvalid)?;
        if now.saturating_sub(timestamp) > TOLERANCE {
            return Err(VerifyError::TimestampTooOld);
        }
        if timestamp.saturating_sub(now) > TOLERANCE {
            return Err(VerifyError::TimestampTooNew);
        }
        Ok(timestamp)
    }

    pub(crate) fn verified(&self, timestamp: u64, mode: Mode, credential: usize) -> Verified<'b> {
        let mut id = [0; 64];
        id[..self.id.len()].copy_from_slice(self.id);
        Verified { body: self.body, stamp: Stamp { id, id_len: self.id.len(), timestamp, mode, credential } }
    }
}

/// The time and one or two HMACs, as they stand in the header.
type HmacForm<'v> = (&'v [u8], &'v [u8], Option<&'v [u8]>);

/// `t=T,v1=H[,v1=H]`, nothing else.
fn hmac_form(value: &[u8]) -> Option<HmacForm<'_>> {
    let mut parts = value.split(|b| *b == b',');
    let timestamp = parts.next()?.strip_prefix(b"t=")?;
    plain_number(timestamp)?;
    let first = hex_of(parts.next()?)?;
    let second = match parts.next() {
        Some(part) => Some(hex_of(part)?),
        None => None,
    };
    parts.next().is_none().then_some((timestamp, first, second))
}

fn hex_of(part: &[u8]) -> Option<&[u8]> {
    let digits = part.strip_prefix(b"v1=")?;
    let well_formed = digits.len() == HEX_LEN && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then_some(digits)
}

fn only<'h, H: Headers + ?Sized>(
    headers: &'h H,
    name: &'static str,
    duplicate: VerifyError,
) -> Result<Option<&'h [u8]>, VerifyError> {
    let mut values = headers.values(name);
    let first = values.next();
    if values.next().is_some() { Err(duplicate) } else { Ok(first) }
}

/// `[1-9][0-9]{0,11}`.
fn plain_number(text: &[u8]) -> Option<u64> {
    if !(1..=12).contains(&text.len()) || text[0] == b'0' {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(digit & 15)))
    })
}
