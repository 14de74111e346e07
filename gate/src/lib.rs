//! The customers' side of the callbacks, and what the daemon shares with it.
//!
//! [`gate`] is the verifying proxy; [`cli`] has it and the smaller commands as the binary `scale-callback` runs them, and
//! the daemon's binary too. Beneath them: one HTTP server shell with limits and a drain, one plain HTTP client, a
//! receiver that verifies everything it is sent, and sample tasks.

#![deny(missing_docs)]

pub mod body;
pub mod cli;
pub mod client;
pub mod conformance;
pub mod diagnosis;
pub mod gate;
pub mod keys;
pub mod pace;
pub mod receiver;
pub mod samples;
pub mod server;
mod stall;
pub mod text;
pub mod tls;
mod wire;
