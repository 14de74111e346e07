//! The parts of a request that a verification needs, each checked for its form but not yet for its truth.

use crate::mac::HEX_LEN;
use crate::verified::{Verified, VerifiedFacts};
use crate::{Headers, Mode, VerifyError, header};

/// How many signatures of one request are looked at.
const MAX_SIGNATURES: usize = 16;
/// How many bytes the `webhook-signature` headers of one request may have in all.
const MAX_SIGNATURE_BYTES: usize = 4096;
/// How many bytes `scale-callback-auth` may have.
const MAX_AUTH_BYTES: usize = 256;
/// For each byte, whether an id may contain it.
const IN_IDS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        byte = byte.saturating_add(1);
    }
    table
};
/// How many seconds `webhook-timestamp` may differ from now, in either direction.
pub(crate) const TOLERANCE: u64 = 300;

pub(crate) struct Request<'r, 'b> {
    pub(crate) id: &'r [u8],
    pub(crate) timestamp: &'r [u8],
    pub(crate) body: &'b [u8],
    signatures: [&'r [u8]; MAX_SIGNATURES],
    signature_count: usize,
    has_signature_header: bool,
    auth: Option<&'r [u8]>,
}

/// The `hmac` form of `scale-callback-auth`, taken apart.
pub(crate) struct HmacForm<'r> {
    timestamp: &'r [u8],
    pub(crate) first: &'r [u8],
    /// Present while the key rotates.
    pub(crate) second: Option<&'r [u8]>,
}

impl<'r, 'b> Request<'r, 'b> {
    #[inline]
    pub(crate) fn read<H: Headers + ?Sized>(headers: &'r H, body: &'b [u8]) -> Result<Self, VerifyError> {
        use VerifyError as E;
        let id = only(headers, header::ID, E::IdDuplicate)?.ok_or(E::IdMissing)?;
        // The loop never ends early, because the compiler makes faster code for a loop that always runs to the end.
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
            body,
            signatures: [b""; MAX_SIGNATURES],
            signature_count: 0,
            has_signature_header: false,
            auth,
        };
        request.collect_signatures(headers)?;
        Ok(request)
    }

    fn collect_signatures<H: Headers + ?Sized>(&mut self, headers: &'r H) -> Result<(), VerifyError> {
        let mut bytes = 0_usize;
        let mut entries = 0_usize;
        for value in headers.values(header::SIGNATURE) {
            self.has_signature_header = true;
            bytes = bytes.saturating_add(value.len());
            if bytes > MAX_SIGNATURE_BYTES {
                return Err(VerifyError::HeaderTooLong);
            }
            // Most headers hold one signature and need no splitting.
            let several = value.iter().fold(false, |found, byte| found | (*byte == b' '));
            let mut rest = Some(value);
            while let Some(left) = rest {
                let end = if several { left.iter().position(|byte| *byte == b' ') } else { None };
                let (entry, after) = match end {
                    Some(end) => (&left[..end], left.get(end.saturating_add(1)..)),
                    None => (left, None),
                };
                rest = after;
                if entry.is_empty() {
                    continue;
                }
                entries = entries.saturating_add(1);
                if entries > MAX_SIGNATURES {
                    return Err(VerifyError::TooManySignatures);
                }
                // Signatures of other versions count towards the limit, but they prove nothing here.
                if let Some(encoded) = entry.strip_prefix(b"v1,") {
                    self.signatures[self.signature_count] = encoded;
                    self.signature_count = self.signature_count.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// The base64 text of every `v1` signature, of which there is at least one.
    pub(crate) fn signatures(&self) -> Result<&[&'r [u8]], VerifyError> {
        match (self.has_signature_header, self.signature_count) {
            (false, _) => Err(VerifyError::SignatureMissing),
            (true, 0) => Err(VerifyError::SignatureMismatch),
            (true, count) => Ok(&self.signatures[..count]),
        }
    }

    /// The value of `scale-callback-auth`.
    pub(crate) fn auth(&self) -> Result<&'r [u8], VerifyError> {
        self.auth.ok_or(VerifyError::AuthMissing)
    }

    /// The `hmac` form of `scale-callback-auth`, if the header is well formed and names the time of `webhook-timestamp`.
    pub(crate) fn hmac_form(&self) -> Result<HmacForm<'r>, VerifyError> {
        let form = HmacForm::read(self.auth()?).ok_or(VerifyError::AuthMalformed)?;
        if form.timestamp == self.timestamp { Ok(form) } else { Err(VerifyError::AuthTimestampDiffers) }
    }

    /// The number in `webhook-timestamp`, if it is close enough to `now`.
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

    /// What a verification returns once the credential at the index `credential` has accepted this request.
    pub(crate) fn verified(&self, timestamp: u64, mode: Mode, credential: usize) -> Verified<'b> {
        let mut id = [0; 64];
        id[..self.id.len()].copy_from_slice(self.id);
        Verified::new(self.body, VerifiedFacts { id, id_len: self.id.len(), timestamp, mode, credential })
    }
}

impl<'r> HmacForm<'r> {
    /// Reads `t=T,v1=H[,v1=H]` and accepts nothing else.
    fn read(value: &'r [u8]) -> Option<Self> {
        let mut parts = value.split(|byte| *byte == b',');
        let timestamp = parts.next()?.strip_prefix(b"t=")?;
        plain_number(timestamp)?;
        let first = hex_in(parts.next()?)?;
        let second = match parts.next() {
            Some(part) => Some(hex_in(part)?),
            None => None,
        };
        parts.next().is_none().then_some(Self { timestamp, first, second })
    }
}

/// The digits in `v1=H`.
fn hex_in(part: &[u8]) -> Option<&[u8]> {
    let digits = part.strip_prefix(b"v1=")?;
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (digits.len() == HEX_LEN && digits.iter().all(is_hex)).then_some(digits)
}

/// The value of a header that may occur at most once.
fn only<'h, H: Headers + ?Sized>(
    headers: &'h H,
    name: &'static str,
    duplicate: VerifyError,
) -> Result<Option<&'h [u8]>, VerifyError> {
    let mut values = headers.values(name);
    let first = values.next();
    if values.next().is_some() { Err(duplicate) } else { Ok(first) }
}

/// Reads a number of the form `[1-9][0-9]{0,11}`.
fn plain_number(text: &[u8]) -> Option<u64> {
    if !(1..=12).contains(&text.len()) || text[0] == b'0' {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(digit & 15)))
    })
}
