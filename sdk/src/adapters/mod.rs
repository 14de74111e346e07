//! Adapters by feature. Each reads the body to its limit, verifies, and rejects with the right status and no word more:
//! whoever forges learns nothing.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "tower")]
pub mod tower;

#[cfg(feature = "tower")]
pub use proven::{BODY_LIMIT, ProvenCallback, Rejection};

#[cfg(feature = "tower")]
mod proven;
