//! Verify the callbacks that a data-labelling platform sends, and sign callbacks in tests.
//!
//! For every finished task the platform sends one HTTP POST, the *callback*, to the customer's server. Before the
//! server trusts anything in that request, it must know that the platform sent it, that nobody changed it, and that it
//! is recent. This crate answers that question. It uses no network, no async runtime and no procedural macros, and
//! verifying allocates no memory.
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
//! The verifier checks, in this order: that `webhook-id` and `webhook-timestamp` each occur once and are well formed;
//! that the timestamp is at most 300 s before or after now; and then, for each credential, the signature, the key, or
//! both. The headers follow [Standard Webhooks 1.0](https://www.standardwebhooks.com), plus the platform's own
//! `scale-callback-auth` header.
//!
//! # Keys from the environment
//!
//! [`Verifier::from_env`] reads the keys from environment variables or files. Live and test keys have separate
//! variables, and each variable can hold several keys during a rotation.
//!
//! # With a framework
//!
//! | feature | what it adds |
//! |---|---|
//! | `http` | [`Headers`] for the header maps of the `http` crate |
//! | `tower` | a layer for any `tower` service |
//! | `axum` | an extractor for `axum` 0.8, and the layer with axum's body type |
//! | `testing` | signed, changed, old and forged requests in one line each, and a clock that a test sets |
//! | `conformance` | the conformance corpus: more than seven hundred requests with the verdict that every receiver must give |
//!
//! Each adapter reads at most 12 MiB of body, because a framework's own limit is often smaller than a callback. It
//! rejects a request with status 401, 413 or 400 and an empty body.
//!
#![cfg_attr(
    feature = "axum",
    doc = r#"
## axum

A handler that takes a [`VerifiedCallback`] as an argument runs only for verified requests.

```
use std::sync::Arc;
use axum::{Router, http::StatusCode, routing::post};
use scale_callback_auth::{EnvError, VerifiedCallback, Verifier};

async fn done(verified: VerifiedCallback) -> StatusCode {
    match verified.callback() {
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

[`tower::VerifyLayer`] is a layer for any service whose requests have a body. The service finds a [`VerifiedCallback`]
in the request's extensions.

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
//! ## actix, and any other framework
//!
//! Read the body with a limit, pass all headers and the body's bytes unchanged, and choose the status by the kind of
//! error:
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
//! The platform may send a callback again, for up to 24 hours, with the same `webhook-id` and the same body. To handle
//! it only once, the handler must claim the id in its own database transaction. The guards of [`replay`] stop a
//! different problem: somebody who recorded a request and sends it again within minutes.
//!
//! ```
//! use scale_callback_auth::{Verified, Verifier, replay::{Claim, MemoryGuard, ReplayGuard, Token}};
//!
//! fn answer(guard: &MemoryGuard, verifier: &Verifier, verified: &Verified<'_>) -> u16 {
//!     let Some(credential) = verifier.credential(verified) else { return 401 };
//!     match guard.claim(credential, verified) {
//!         Claim::Fresh(token) => { /* do the work; if it fails, drop the token */ token.done(); 204 }
//!         Claim::Done => 200,
//!         Claim::InFlight | Claim::Full => 503, // with retry-after
//!     }
//! }
//! ```
//!
//! # Order
//!
//! The callbacks of one task may arrive in any order. For each task, store the [`EventTime`] of the newest callback
//! that was handled, and ask [`Verified::is_older_than`] whether the next one is older:
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
//! While a signing secret rotates, the platform signs with both secrets. Add the new secret with
//! [`Verifier::or_credential`] before or after the platform adds it. The plain key of `scale-callback-auth` can't
//! overlap in this way, because the header carries one value. Add a second credential with the new key first, and
//! remove the old one after the platform has switched.
//!
//! ```
//! # use scale_callback_auth::{Credential, KeyError, Mode, Verifier};
//! # fn rotating(secret: &str, next_secret: &str) -> Result<Verifier, KeyError> {
//! Ok(Verifier::new(Credential::signed("live", Mode::Live, secret)?)
//!     .or_credential(Credential::signed("live", Mode::Live, next_secret)?))
//! # }
//! ```
//!
//! # Testing your handler
//!
//! With the feature `testing`, `testing::Platform` makes requests as the platform sends them, and requests that it
//! never sends (changed, too old, forged, or with the other form of the header), in one line each. A test sets the time
//! of `testing::FakeClock`.
//!
//! # Moving from the plain header
//!
//! A receiver that only compares `scale-callback-auth` with a key learns that the sender knows the key. It learns
//! nothing about the body. Take the signing secret and use [`Credential::signed`]; then the header no longer matters.
//! If a receiver can only compare a header, the platform can send the `hmac` form in it: add
//! [`Credential::hmac_header`] beside the key, ask the platform's operator to switch the form, and then remove the key.

#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::arithmetic_side_effects, clippy::incompatible_msrv)]

#[cfg(feature = "http")]
mod adapters;
mod callback;
#[cfg(feature = "conformance")]
pub mod conformance;
mod credential;
mod env;
mod error;
mod headers;
mod incremental;
mod key;
mod mac;
#[doc(hidden)]
pub mod members;
mod order;
mod proof;
pub mod replay;
mod request;
pub mod sign;
#[cfg(feature = "testing")]
pub mod testing;
mod verified;
mod verifier;

#[cfg(feature = "axum")]
pub use adapters::axum;
#[cfg(feature = "tower")]
pub use adapters::{BODY_LIMIT, Rejection, VerifiedCallback, tower};

pub use callback::Callback;
pub use credential::{Credential, Mode};
pub use env::{EnvError, EnvProblem};
pub use error::{KeyError, ParseError, VerifyError};
pub use headers::Headers;
pub use incremental::IncrementalVerification;
pub use key::{CallbackAuthKey, HmacKey, SigningSecret};
pub use order::EventTime;
pub use verified::Verified;
pub use verifier::Verifier;

/// How long a receiver has to answer a callback: from the begin of an attempt until the whole head of its answer has
/// arrived. The platform gives up an attempt after this time and tries again later.
pub const ANSWER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(15);

/// The names of the headers that a callback carries, in lower case.
pub mod header {
    /// The callback's id, which is the same for every attempt.
    pub const ID: &str = "webhook-id";
    /// When this attempt was made, in unix seconds.
    pub const TIMESTAMP: &str = "webhook-timestamp";
    /// One or more `v1,<base64>` signatures, separated by spaces.
    pub const SIGNATURE: &str = "webhook-signature";
    /// The callback auth key itself, or the `t=...,v1=...` form.
    pub const AUTH: &str = "scale-callback-auth";
    /// The number of the attempt. It is only a hint, because no signature covers it.
    pub const ATTEMPT: &str = "scale-callback-attempt";
}
