//! The gate over raw sockets, before a receiver that records every byte.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, clippy::too_many_lines, reason = "tests may")]

mod kit;

mod admission;
mod crowd;
mod forwarding;
mod keys;
mod pace;
mod secure;
mod strict;
