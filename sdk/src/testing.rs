//! For customers' own tests (feature `testing`): requests as the platform sends them, and as it never would, in one
//! line each.
//!
//! ```
//! use scale_callback_auth::testing::{FakeClock, Platform};
//!
//! let (platform, clock) = (Platform::live(), FakeClock::new());
//! let body = br#"{"task":{"task_id":"t1"},"response":{},"task_id":"t1"}"#;
//! let good = platform.signed(body, &clock);
//! assert!(platform.verifier().verify_at(&good.headers[..], &good.body, clock.now()).is_ok());
//! let bad = platform.tampered(body, &clock);
//! assert!(platform.verifier().verify_at(&bad.headers[..], &bad.body, clock.now()).is_err());
//! ```

use core::sync::atomic::{AtomicU64, Ordering};

use crate::sign::{AuthHeader, Signer};
use crate::{CallbackAuthKey, Credential, HmacKey, Mode, SigningSecret, Verifier, header};

const SECRET: &str = "whsec_dGVzdGluZy1vbmx5LXRlc3Rpbmctb25seS0wMDE=";
const NEXT_SECRET: &str = "whsec_dGVzdGluZy1vbmx5LXRlc3Rpbmctb25seS0wMDI=";
const OTHER_SECRET: &str = "whsec_dGVzdGluZy1vbmx5LXRlc3Rpbmctb25seS0wMDM=";

/// A clock that a test turns by hand, in unix seconds.
#[derive(Debug)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// A clock that stands at some moment of 2026.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU64::new(1_790_000_000))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Turns it on.
    pub fn advance(&self, seconds: u64) {
        self.0.store(self.now().saturating_add(seconds), Ordering::Relaxed);
    }
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

/// A request as a server sees it.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl TestRequest {
    /// The value of a header, to look at or to change.
    #[must_use]
    pub fn header_mut(&mut self, name: &str) -> Option<&mut String> {
        self.headers.iter_mut().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// The platform's side, with keys that are for tests alone.
#[derive(Debug, Clone, Copy)]
pub struct Platform {
    mode: Mode,
}

impl Platform {
    /// Sends live callbacks.
    #[must_use]
    pub fn live() -> Self {
        Self { mode: Mode::Live }
    }

    /// Sends test callbacks.
    #[must_use]
    pub fn test() -> Self {
        Self { mode: Mode::Test }
    }

    /// Its signing secret.
    #[must_use]
    pub fn signing_secret(&self) -> &'static str {
        SECRET
    }

    /// The secret that it rotates to.
    #[must_use]
    pub fn next_signing_secret(&self) -> &'static str {
        NEXT_SECRET
    }

    /// Its callback auth key.
    #[must_use]
    pub fn callback_auth_key(&self) -> String {
        format!("{}_auth_{}", self.mode.name(), "0123456789abcdef".repeat(2))
    }

    /// Its key of the `hmac` form.
    #[must_use]
    pub fn hmac_key(&self) -> String {
        format!("{}_hmac_{}", self.mode.name(), "0123456789abcdef".repeat(4))
    }

    /// A verifier of the signature and the key.
    ///
    /// # Panics
    /// Never: its keys are well formed.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        let credential = Credential::signed_and_keyed(self.mode.name(), SECRET, &self.callback_auth_key());
        Verifier::new(credential.expect("keys of this file"))
    }

    /// A verifier of the `hmac` form.
    ///
    /// # Panics
    /// Never: its key is well formed.
    #[must_use]
    pub fn hmac_verifier(&self) -> Verifier {
        Verifier::new(Credential::hmac_header(self.mode.name(), &self.hmac_key()).expect("a key of this file"))
    }

    /// A good callback, in the `key` form.
    #[must_use]
    pub fn signed(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.sent(&[SECRET], self.key(), body, clock.now())
    }

    /// A good callback, in the `hmac` form.
    #[must_use]
    pub fn signed_with_hmac(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        let key = HmacKey::parse(&self.hmac_key()).expect("a key of this file");
        self.sent(&[SECRET], AuthHeader::Hmac(key, None), body, clock.now())
    }

    /// A good callback while the signing secret rotates: the next one's signature first, then the old one's.
    #[must_use]
    pub fn rotated(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.sent(&[NEXT_SECRET, SECRET], self.key(), body, clock.now())
    }

    /// Signed well, then changed by one bit of its body.
    #[must_use]
    pub fn tampered(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        let mut request = self.signed(body, clock);
        match request.body.last_mut() {
            Some(last) => *last ^= 1,
            None => request.body.push(b' '),
        }
        request
    }

    /// Signed well, 301 seconds ago.
    #[must_use]
    pub fn stale(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.sent(&[SECRET], self.key(), body, clock.now().saturating_sub(301))
    }

    /// Signed with a secret of somebody else's.
    #[must_use]
    pub fn forged(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.sent(&[OTHER_SECRET], self.key(), body, clock.now())
    }

    /// Signed well, with `scale-callback-auth` in the form that is not expected: the plain key where the `hmac` form
    /// is, as a verifier must never fall back to.
    #[must_use]
    pub fn wrong_form(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.signed(body, clock)
    }

    /// Without any signature or key.
    #[must_use]
    pub fn unsigned(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        let mut request = self.signed(body, clock);
        request.headers.retain(|(name, _)| *name != header::SIGNATURE && *name != header::AUTH);
        request
    }

    fn key(&self) -> AuthHeader {
        AuthHeader::Key(CallbackAuthKey::parse(&self.callback_auth_key()).expect("a key of this file"))
    }

    fn sent(&self, secrets: &[&str], auth: AuthHeader, body: &[u8], now: u64) -> TestRequest {
        let secrets = secrets.iter().map(|secret| SigningSecret::parse(secret).expect("a secret of this file"));
        let id = "cb_01kav9ft00zkek0kfes3qvf608";
        let headers = Signer::new(secrets.collect(), auth).sign(id, now, body).to_pairs(id);
        TestRequest { headers, body: body.to_vec() }
    }
}
