//! Verify the callbacks that a data-labelling platform sends, and sign them in tests.
//!
//! Every finished task owes its customer one HTTP POST, the *callback*. This crate answers the one
//! question a receiver must ask before it believes a byte of it: is it from the platform, whole and
//! fresh? It has no network, no runtime and no procedural macros; verifying allocates nothing.
//!
//! ```
//! # use scale_callback_auth::{Credential, Verifier, Mode, sign::{AuthHeader, Signer}, SigningSecret};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
//! # let body = br#"{"task":{"task_id":"t1"},"task_id":"t1"}"#;
//! # let signer = Signer::new(vec![SigningSecret::parse(secret)?], AuthHeader::Absent);
//! # let headers = signer.sign("cb_1", 1_700_000_000, body).to_pairs("cb_1");
//! # let now = 1_700_000_000;
//! let verifier = Verifier::new(Credential::signed("live", Mode::Live, secret)?);
//! let callback = verifier.verify_at(&headers[..], body, now)?.callback()?; // `verify` reads the clock itself
//! println!("task {} is done", callback.task_id());
//! # Ok(()) }
//! ```
//!
//! What is checked, in this order: the form of `webhook-id` and `webhook-timestamp` (one of each), the age
//! (300 s each way), then for each credential its signature, its key, or both. The wire forms are those of
//! [Standard Webhooks 1.0](https://www.standardwebhooks.com) plus the platform's `scale-callback-auth` header.
//!
//! # Keys from the environment
//!
//! [`Verifier::from_env`] reads them from variables or files, live and test apart, several while they rotate.
//!
//! # With a framework
//!
//! | feature | what |
//! |---|---|
//! | `http` | [`Headers`] for header maps of the `http` crate |
//! | `tower` | a layer for any `tower` service |
//! | `axum` | an extractor and the layer for `axum` 0.8 |
//! | `testing` | signed, tampered, stale, forged requests in one line, and a clock to turn by hand |
//! | `conformance` | the corpus of some six hundred requests that every receiver is held to |
//!
//! Each reads at most 12 MiB (a framework's own limit is often less than a callback), and answers 401, 413 or 400
//! without a word more.
//!
//! # Repeats
//!
//! A repeat of a callback carries the same `webhook-id` and the same body. The platform retries over 24 hours: only a
//! claim of the id in the handler's own transaction stops double handling. [`replay`] keeps captured requests that are
//! sent again away from it.
//!
//! # Order
//!
//! Callbacks of one task may come in any order. Keep the [`EventTime`] of the newest that was handled, and let
//! [`Verified::is_older_than`] say when one comes late.
//!
//! # Rotation
//!
//! Signing secrets overlap: both sign while they rotate, so add the new one with [`Verifier::and`] before or after the
//! platform does. The plain key of `scale-callback-auth` can't overlap: the header carries one value. Accept both
//! (two credentials) until the platform sends the new one.
//!
//! # Coming from the plain header
//!
//! Whoever compares `scale-callback-auth` with a key knows that the sender has the key, and nothing of the body. Take
//! the signing secret and [`Credential::signed`]; the header no longer matters then.

#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::arithmetic_side_effects)]

#[cfg(feature = "http")]
mod adapters;
mod callback;
#[cfg(feature = "conformance")]
pub mod conformance;
mod credential;
mod env;
mod error;
mod headers;
mod key;
mod mac;
mod order;
pub mod replay;
pub mod sign;
#[cfg(feature = "testing")]
pub mod testing;
mod verify;

#[cfg(feature = "axum")]
pub use adapters::axum;
#[cfg(feature = "tower")]
pub use adapters::{BODY_LIMIT, ProvenCallback, Rejection, tower};

pub use callback::Callback;
pub use credential::{Credential, Mode};
pub use env::{EnvError, EnvProblem};
pub use error::{KeyError, ParseError, VerifyError};
pub use headers::Headers;
pub use key::{CallbackAuthKey, HmacKey, SigningSecret};
pub use order::EventTime;
pub use verify::{Verified, Verifier};

/// Names of the headers a callback carries, in lower case.
pub mod header {
    /// The callback's id: the same for every attempt.
    pub const ID: &str = "webhook-id";
    /// Unix seconds of this attempt.
    pub const TIMESTAMP: &str = "webhook-timestamp";
    /// Space-separated `v1,<base64>` signatures.
    pub const SIGNATURE: &str = "webhook-signature";
    /// The callback auth key, or the `t=...,v1=...` form.
    pub const AUTH: &str = "scale-callback-auth";
    /// The number of the attempt, a hint that nothing signs.
    pub const ATTEMPT: &str = "scale-callback-attempt";
}
