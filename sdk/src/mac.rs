//! The HMACs behind every form, and their encodings on the stack. A key is set up once and cloned for each use.

use base64::engine::{Engine as _, general_purpose::STANDARD};
use ctutils::CtEq;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The length of a base64 signature.
pub(crate) const BASE64_LEN: usize = 44;
/// The length of a hexadecimal HMAC.
pub(crate) const HEX_LEN: usize = 64;

#[derive(Clone)]
pub(crate) struct KeyedHmac(Hmac<Sha256>);

impl KeyedHmac {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    pub(crate) fn over(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.begin(parts).tag()
    }

    /// The HMAC of the Standard Webhooks signature, over `id.timestamp.body`. If the body comes later, pass an empty
    /// one and add it with [`RunningHmac::update`].
    pub(crate) fn signing(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> RunningHmac {
        self.begin(&[id, b".", timestamp, b".", body])
    }

    /// The HMAC of the `hmac` form, over `scale-callback-auth;v1` LF T LF id LF body. The body can be added later, as
    /// with [`signing`](Self::signing).
    pub(crate) fn authenticating(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> RunningHmac {
        self.begin(&[b"scale-callback-auth;v1\n", timestamp, b"\n", id, b"\n", body])
    }

    fn begin(&self, parts: &[&[u8]]) -> RunningHmac {
        let mut hmac = self.0.clone();
        for part in parts {
            hmac.update(part);
        }
        RunningHmac(hmac)
    }
}

/// An HMAC that still accepts parts of its message.
pub(crate) struct RunningHmac(Hmac<Sha256>);

impl RunningHmac {
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The result as a signature, without the prefix `v1,`.
    pub(crate) fn base64(self) -> [u8; BASE64_LEN] {
        let mut out = [0; BASE64_LEN];
        STANDARD.encode_slice(self.tag(), &mut out).expect("32 bytes are 44 characters of base64");
        out
    }

    pub(crate) fn hex(self) -> [u8; HEX_LEN] {
        let mut out = [0; HEX_LEN];
        for (pair, byte) in out.chunks_exact_mut(2).zip(self.tag()) {
            pair.copy_from_slice(&hex(byte));
        }
        out
    }

    fn tag(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Whether two byte strings are equal. The time that this takes depends only on their lengths.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).to_bool()
}
