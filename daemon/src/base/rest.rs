//! A time in which something is not tried again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Rest(Mutex<Option<Instant>>);

impl Rest {
    /// From now on for so long.
    pub fn begin(&self, time: Duration) {
        *self.until() = Some(Instant::now() + time);
    }

    pub fn lasts(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_ends() {
        let rest = Rest::default();
        assert!(!rest.lasts());
        rest.begin(Duration::from_secs(3_600));
        assert!(rest.lasts());
        rest.begin(Duration::ZERO);
        assert!(!rest.lasts());
    }
}
