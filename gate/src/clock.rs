//! The real time, by which callbacks are signed and verified.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 for a clock that stands before it.
#[expect(clippy::disallowed_methods, reason = "callbacks are signed and verified by the real time")]
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    unix_millis() / 1_000
}
