//! What customers run to receive callbacks: a verifying proxy, and the tools to build and test a receiver.
//!
//! [`gate`] is the proxy. [`cli`] holds the commands that the binary `scale-callback` runs; the daemon's binary mounts the
//! same commands. [`receiver`] and [`samples`] are the kit of the demo and of tests: a receiver that verifies everything
//! it is sent, and sample tasks. The HTTP server shell and the HTTP client come from `scale-callback-serve`, verification
//! from `scale-callback-auth`. Nothing here knows the daemon.

#![deny(missing_docs)]

pub mod cli;
mod clock;
pub mod conformance;
pub mod diagnosis;
pub mod gate;
pub mod keys;
pub mod receiver;
pub mod receiver_at;
pub mod samples;
