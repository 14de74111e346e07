//! The integration tests: one binary.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::type_complexity,
    unreachable_pub,
    reason = "a test may"
)]

mod api;
mod backup;
mod binary;
mod bounds;
mod cli;
mod clock;
mod crash;
mod databases;
mod delivery;
mod failover;
mod fuzzed;
mod harness;
mod http2;
mod inflated;
mod kafka;
mod letters;
mod limits;
mod log_watch;
mod memory;
mod outcomes;
mod packaging;
mod pauses;
mod people;
mod postgres;
mod probes;
mod process;
mod processes;
mod prometheus;
mod protocol;
mod published;
mod receivers;
mod requests;
mod resend;
mod resends;
mod resets;
mod rights;
mod rotation;
mod secrets;
mod store;
mod store_copy;
mod suspects;
mod thin;
mod tidy;
mod turns;
mod twin;
mod upgrade;
