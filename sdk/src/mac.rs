//! The HMACs behind every form, keyed once and cloned per use, and their encodings on the stack.

use base64::engine::{Engine as _, general_purpose::STANDARD};
use ctutils::CtEq;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Length of a base64 signature.
pub(crate) const BASE64_LEN: usize = 44;
/// Length of a hex HMAC.
pub(crate) const HEX_LEN: usize = 64;

#[derive(Clone)]
pub(crate) struct Keyed(Hmac<Sha256>);

impl Keyed {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    pub(crate) fn over(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The Standard Webhooks signature over `id.timestamp.body`, without its `v1,`.
    pub(crate) fn signature(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> [u8; BASE64_LEN] {
        let tag = self.over(&[id, b".", timestamp, b".", body]);
        let mut out = [0; BASE64_LEN];
        STANDARD.encode_slice(tag, &mut out).expect("32 bytes are 44 characters of base64");
        out
    }

    /// The HMAC of the `hmac` form over `scale-callback-auth;v1` LF T LF id LF body.
    pub(crate) fn auth(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> [u8; HEX_LEN] {
        let tag = self.over(&[b"scale-callback-auth;v1\n", timestamp, b"\n", id, b"\n", body]);
        let mut out = [0; HEX_LEN];
        for (pair, byte) in out.chunks_exact_mut(2).zip(tag) {
            pair.copy_from_slice(&hex(byte));
        }
        out
    }
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Whether two byte strings are equal, in a time that depends on their lengths alone.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).to_bool()
}
