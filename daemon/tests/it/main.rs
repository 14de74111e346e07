//! The integration tests: one binary.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a test may")]

mod delivery;
mod harness;
mod kafka;
mod outcomes;
mod store_contract;
mod tidy;
