//! For customers' own tests (feature `testing`): requests as the platform sends them, and requests that it never sends,
//! in one line each.
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

/// A clock that shows the unix time that a test sets.
#[derive(Debug)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// Makes a clock that shows a time in 2026 and never moves by itself.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU64::new(1_790_000_000))
    }

    /// The time that the clock shows.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves the clock forward.
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
    /// The headers as names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl TestRequest {
    /// The value of a header, for a test to read or change.
    #[must_use]
    pub fn header_mut(&mut self, name: &str) -> Option<&mut String> {
        self.headers.iter_mut().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Makes requests as the platform does, with keys that are only for tests.
#[derive(Debug, Clone, Copy)]
pub struct Platform {
    mode: Mode,
}

impl Platform {
    /// A platform that sends live callbacks.
    #[must_use]
    pub fn live() -> Self {
        Self { mode: Mode::Live }
    }

    /// A platform that sends test callbacks.
    #[must_use]
    pub fn test() -> Self {
        Self { mode: Mode::Test }
    }

    /// The signing secret that it uses.
    #[must_use]
    pub fn signing_secret(&self) -> &'static str {
        SECRET
    }

    /// The signing secret that it uses next, for tests of a rotation.
    #[must_use]
    pub fn next_signing_secret(&self) -> &'static str {
        NEXT_SECRET
    }

    /// The callback auth key that it uses.
    #[must_use]
    pub fn callback_auth_key(&self) -> String {
        format!("{}_auth_{}", self.mode.name(), "0123456789abcdef".repeat(2))
    }

    /// The key that it uses for the `hmac` form.
    #[must_use]
    pub fn hmac_key(&self) -> String {
        format!("{}_hmac_{}", self.mode.name(), "0123456789abcdef".repeat(4))
    }

    /// A verifier that checks the signature and the callback auth key.
    ///
    /// # Panics
    /// Never, because its keys are well formed.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        let credential = Credential::signed_and_keyed(self.mode.name(), SECRET, &self.callback_auth_key());
        Verifier::new(credential.expect("the keys of this file are well formed"))
    }

    /// A verifier that checks the `hmac` form.
    ///
    /// # Panics
    /// Never, because its key is well formed.
    #[must_use]
    pub fn hmac_verifier(&self) -> Verifier {
        Verifier::new(
            Credential::hmac_header(self.mode.name(), &self.hmac_key()).expect("the keys of this file are well formed"),
        )
    }

    /// A valid callback, with the `key` form of the header.
    #[must_use]
    pub fn signed(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.sent(&[SECRET], self.key(), body, clock.now())
    }

    /// A valid callback, with the `hmac` form of the header.
    #[must_use]
    pub fn signed_with_hmac(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        let key = HmacKey::parse(&self.hmac_key()).expect("the keys of this file are well formed");
        self.sent(&[SECRET], AuthHeader::Hmac(key, None), body, clock.now())
    }

    /// A valid callback during a rotation. It has two signatures: first that of the next secret, then that of the old one.
    #[must_use]
    pub fn rotated(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.sent(&[NEXT_SECRET, SECRET], self.key(), body, clock.now())
    }

    /// A callback that was signed correctly and then changed in one bit of its body.
    #[must_use]
    pub fn tampered(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        let mut request = self.signed(body, clock);
        match request.body.last_mut() {
            Some(last) => *last ^= 1,
            None => request.body.push(b' '),
        }
        request
    }

    /// A callback that was signed correctly 301 seconds ago.
    #[must_use]
    pub fn stale(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.sent(&[SECRET], self.key(), body, clock.now().saturating_sub(301))
    }

    /// A callback that is signed with a secret of somebody else.
    #[must_use]
    pub fn forged(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.sent(&[OTHER_SECRET], self.key(), body, clock.now())
    }

    /// A callback that is signed correctly but carries the plain key in `scale-callback-auth`. A verifier that expects
    /// the `hmac` form must refuse it, and never accept the key instead.
    #[must_use]
    pub fn wrong_form(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        self.signed(body, clock)
    }

    /// A callback without any signature or key.
    #[must_use]
    pub fn unsigned(&self, body: &[u8], clock: &FakeClock) -> TestRequest {
        let mut request = self.signed(body, clock);
        request.headers.retain(|(name, _)| *name != header::SIGNATURE && *name != header::AUTH);
        request
    }

    fn key(&self) -> AuthHeader {
        AuthHeader::Key(
            CallbackAuthKey::parse(&self.callback_auth_key()).expect("the keys of this file are well formed"),
        )
    }

    fn sent(&self, secrets: &[&str], auth: AuthHeader, body: &[u8], now: u64) -> TestRequest {
        let secrets = secrets
            .iter()
            .map(|secret| SigningSecret::parse(secret).expect("the secrets of this file are well formed"));
        let id = "cb_01kav9ft00zkek0kfes3qvf608";
        let headers = Signer::new(secrets.collect(), auth).sign(id, now, body).to_pairs(id);
        TestRequest { headers, body: body.to_vec() }
    }
}
