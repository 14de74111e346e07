//! Verify the callbacks that a data-labelling platform sends, and sign them in tests.
//!
//! Every finished task owes its customer one HTTP POST, the *callback*. This crate answers the one
//! question a receiver must ask before it believes a byte of it: is it from the platform, whole and
//! fresh? It has no network, no runtime and no procedural macros, and allocates nothing on success.
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
//! A repeat of a callback carries the same `webhook-id`: handle each id once, in your own transaction.

#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::arithmetic_side_effects)]

mod callback;
mod credential;
mod error;
mod headers;
mod key;
mod mac;
pub mod sign;
mod verify;

pub use callback::Callback;
pub use credential::{Credential, Mode};
pub use error::{KeyError, ParseError, VerifyError};
pub use headers::Headers;
pub use key::{CallbackAuthKey, HmacKey, SigningSecret};
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
