//! The customers' side of the callbacks, and what the daemon shares with it: one HTTP server shell with limits and a
//! drain, one plain HTTP client, a receiver that verifies everything it is sent, and sample tasks.

#![deny(missing_docs)]

pub mod body;
pub mod client;
pub mod receiver;
pub mod samples;
pub mod server;
pub mod tls;
