//! The order of callbacks, by the time of their event. That time is part of `webhook-id`, which is signed.

use crate::Verified;

/// How many seconds after its attempt an event may be. A later time is not believed.
const AHEAD: u64 = 300;
/// The digits of a ULID, in lower case.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// When a callback's event happened. Store the newest time of each task, and compare the next callback with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(u64);

impl EventTime {
    /// Makes a time from milliseconds since 1970, as you stored them.
    #[must_use]
    pub fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The time in milliseconds since 1970, for you to store.
    #[must_use]
    pub fn as_unix_millis(self) -> u64 {
        self.0
    }
}

impl Verified<'_> {
    /// When the event of this callback happened. `None` if the id holds no time, or if the time is more than 300 s
    /// after `webhook-timestamp`; then the callback can't be put in order.
    ///
    /// The platform promises no order between callbacks: a retry of an older one may arrive after a newer one.
    #[must_use]
    pub fn event_time(&self) -> Option<EventTime> {
        let millis = time_inside(self.id()).filter(|millis| *millis > 0)?;
        let latest = self.timestamp().saturating_add(AHEAD).saturating_mul(1_000).saturating_add(999);
        (millis <= latest).then_some(EventTime(millis))
    }

    /// Whether the event of this callback is older than an event that was handled already. If so, the callback must
    /// not overwrite what the newer one said. False if the time is not known.
    #[must_use]
    pub fn is_older_than(&self, handled: EventTime) -> bool {
        self.event_time().is_some_and(|own| own < handled)
    }
}

/// The milliseconds in the first ten characters after `cb_`. They have 48 bits, as in a ULID.
fn time_inside(id: &str) -> Option<u64> {
    let digits = id.strip_prefix("cb_")?.as_bytes();
    if digits.len() != 26 {
        return None;
    }
    let mut value = 0_u64;
    for (position, digit) in digits.iter().enumerate() {
        let digit = ALPHABET.iter().position(|known| known == digit)?;
        if position == 0 && digit > 7 {
            return None;
        }
        if position < 10 {
            value = value << 5 | u64::try_from(digit).ok()?;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_read_as_the_daemon_writes_it() {
        assert_eq!(time_inside("cb_01kav9ft00zkek0kfes3qvf608"), Some(1_764_000_000_000));
        for wrong in [
            "cb_01KAV9FT00ZKEK0KFES3QVF608",
            "cb_81kav9ft00zkek0kfes3qvf608",
            "cb_1",
            "",
            "msg_01kav9ft00zkek0kfes3qvf608",
        ] {
            assert_eq!(time_inside(wrong), None, "{wrong}");
        }
    }
}
