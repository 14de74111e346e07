//! The order of callbacks: by the time of their event, which stands inside `webhook-id` and is signed.

use crate::Verified;

/// Seconds that an event may lie after its attempt before its time is not believed.
const AHEAD: u64 = 300;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// When a callback's event happened. Store the newest one of a task, and compare the next with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(u64);

impl EventTime {
    /// From milliseconds since 1970, as they were stored.
    #[must_use]
    pub fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970, to be stored.
    #[must_use]
    pub fn as_unix_millis(self) -> u64 {
        self.0
    }
}

impl Verified<'_> {
    /// When its event happened. `None` where that is not known, or lies more than 300 s after `webhook-timestamp`:
    /// it orders nothing then.
    ///
    /// The platform promises no order between callbacks: a retry of an older one may come after a newer one.
    #[must_use]
    pub fn event_time(&self) -> Option<EventTime> {
        let millis = time_inside(self.id()).filter(|millis| *millis > 0)?;
        let latest = self.timestamp().saturating_add(AHEAD).saturating_mul(1_000).saturating_add(999);
        (millis <= latest).then_some(EventTime(millis))
    }

    /// Whether its event is older than one that was handled already, so that it must not overwrite what that one said.
    /// False where its time is not known.
    #[must_use]
    pub fn is_older_than(&self, handled: EventTime) -> bool {
        self.event_time().is_some_and(|own| own < handled)
    }
}

/// The first ten characters behind `cb_`, as in a ULID: 48 bits of milliseconds.
fn time_inside(id: &str) -> Option<u64> {
    let digits = id.strip_prefix("cb_")?.as_bytes();
    if digits.len() != 26 {
        return None;
    }
    let mut value = 0_u64;
    for (at, digit) in digits.iter().enumerate() {
        let place = ALPHABET.iter().position(|known| known == digit)?;
        if at == 0 && place > 7 {
            return None;
        }
        if at < 10 {
            value = value << 5 | u64::try_from(place).ok()?;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_daemons_own_vector() {
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
