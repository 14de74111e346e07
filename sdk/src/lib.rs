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
//! | `conformance` | the corpus of some seven hundred requests that every receiver is held to |
//!
//! Each reads at most 12 MiB (a framework's own limit is often less than a callback), and answers 401, 413 or 400
//! without a word more.
//!
#![cfg_attr(
    feature = "axum",
    doc = r#"
## axum

An argument of the handler verifies; what does not verify never reaches it.

```
use std::sync::Arc;
use axum::{Router, http::StatusCode, routing::post};
use scale_callback_auth::{EnvError, ProvenCallback, Verifier};

async fn done(callback: ProvenCallback) -> StatusCode {
    match callback.callback() {
        Ok(callback) => { println!("task {} is done", callback.task_id()); StatusCode::NO_CONTENT }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

# fn app() -> Result<Router, EnvError> {
let verifier = Arc::new(Verifier::from_env()?);
Ok(Router::new().route("/callbacks", post(done)).with_state(verifier))
# }
```
"#
)]
#![cfg_attr(
    feature = "tower",
    doc = r#"
## tower

A layer for any service whose requests have a body: [`tower::VerifyLayer`]. The service finds a [`ProvenCallback`] among the
request's extensions.

```
use std::sync::Arc;
use scale_callback_auth::{Verifier, tower::VerifyLayer};
# fn layer<B>(verifier: Verifier) -> VerifyLayer<B> {
VerifyLayer::new(Arc::new(verifier)) // ServiceBuilder::new().layer(...)
# }
```
"#
)]
//!
//! ## actix, and any other
//!
//! Read the body with a limit, give all headers and the bytes as they came, and answer by the error's kind:
//!
//! ```
//! # use scale_callback_auth::Verifier;
//! fn status(verifier: &Verifier, headers: &[(&str, &[u8])], body: &[u8]) -> u16 {
//!     let Ok(verified) = verifier.verify(headers, body) else { return 401 };
//!     let Ok(callback) = verified.callback() else { return 400 };
//!     println!("task {} is done", callback.task_id());
//!     204
//! }
//! ```
//!
//! # Repeats
//!
//! A repeat of a callback carries the same `webhook-id` and the same body. The platform retries over 24 hours: only a
//! claim of the id in the handler's own transaction stops double handling. [`replay`] keeps captured requests that are
//! sent again away from it:
//!
//! ```
//! use scale_callback_auth::{Verified, Verifier, replay::{Claim, MemoryGuard, ReplayGuard, Token}};
//!
//! fn answer(guard: &MemoryGuard, verifier: &Verifier, verified: &Verified<'_>) -> u16 {
//!     let Some(credential) = verifier.credential(verified) else { return 401 };
//!     match guard.claim(credential, verified) {
//!         Claim::Fresh(token) => { /* the work; where it fails, drop the token */ token.done(); 204 }
//!         Claim::Done => 200,
//!         Claim::InFlight | Claim::Full => 503, // with retry-after
//!     }
//! }
//! ```
//!
//! # Order
//!
//! Callbacks of one task may come in any order. Keep the [`EventTime`] of the newest that was handled, and let
//! [`Verified::is_older_than`] say when one comes late:
//!
//! ```
//! # use scale_callback_auth::{EventTime, Verified};
//! fn is_news(verified: &Verified<'_>, newest_handled: Option<EventTime>) -> bool {
//!     newest_handled.is_none_or(|newest| !verified.is_older_than(newest))
//! }
//! ```
//!
//! # Rotation
//!
//! Signing secrets overlap: both sign while they rotate, so add the new one with [`Verifier::and`] before or after the
//! platform does. The plain key of `scale-callback-auth` can't overlap: the header carries one value. Accept both
//! (two credentials) until the platform sends the new one.
//!
//! ```
//! # use scale_callback_auth::{Credential, KeyError, Mode, Verifier};
//! # fn rotating(secret: &str, next_secret: &str) -> Result<Verifier, KeyError> {
//! Ok(Verifier::new(Credential::signed("live", Mode::Live, secret)?)
//!     .and(Credential::signed("live", Mode::Live, next_secret)?))
//! # }
//! ```
//!
//! # Testing your handler
//!
//! With the feature `testing`, `testing::Platform` makes requests as the platform sends them, and as it never would (tampered,
//! stale, rotated, of another form), in a line each; `testing::FakeClock` is turned by hand.
//!
//! # Coming from the plain header
//!
//! Whoever compares `scale-callback-auth` with a key knows that the sender has the key, and nothing of the body. Take
//! the signing secret and [`Credential::signed`]; the header no longer matters then. Where only a header can be compared, the
//! platform can send the `hmac` form in it: install [`Credential::hmac_header`] beside the key, have the operator switch the
//! form, then remove the key.

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
mod steps;
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
pub use steps::Steps;
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
