//! Adapters for frameworks, each behind a feature. An adapter reads the body up to a limit and verifies the request. A
//! rejection carries only a status, so that an attacker learns nothing from it.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "tower")]
pub mod tower;

#[cfg(feature = "tower")]
pub use verified_callback::{BODY_LIMIT, Rejection, VerifiedCallback};

#[cfg(feature = "tower")]
mod verified_callback;
