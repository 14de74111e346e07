//! The gate: a proxy that lets verified callbacks through and nothing else, for receivers in any language.
//!
//! No header map is ever forwarded: the upstream request is made from what was verified and a short list of header names.
//! No request is tried twice, and no caller hears why its request was refused, but for the status.
//!
//! [`Gate`] listens. Each request goes through `proxy`: `admission` judges its form, `body` reads it within the `room` that
//! all bodies share and the places that its sender has (`waiting`, by their `rate`), the SDK verifies it, and `upstream`
//! passes it on.

mod admin;
mod admission;
mod awake;
mod body;
mod config;
mod detach_on_drop;
mod error;
mod listening;
mod log_limiter;
mod metrics;
mod pieces;
mod proxy;
mod rate;
mod response;
mod room;
mod upstream;
mod waiting;
mod warning;

pub use config::{Bounds, Config};
pub use error::GateError;
pub use listening::Gate;
pub use upstream::{Place, UpstreamAt, UpstreamSetupError, UpstreamUrlError};
pub use warning::{Warning, warnings};
