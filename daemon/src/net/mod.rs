//! One POST: takes a target and a signed body, and returns the answer's head and the first bytes of its body, or the
//! phase that failed. It knows nothing about keys of teams, retries or stores.

mod again;
pub mod check;
pub mod conn;
pub mod dial;
pub mod dns;
pub mod egress;
pub mod error;
pub mod exchange;
mod failed;
mod head_failure;
mod lenient_http2;
mod meter;
pub mod probe;
mod race;
mod recorded;
mod redact;
pub mod target;
pub mod tls;
