//! The room that all bodies share. Room is taken for bytes that arrived, and never for bytes that were announced: an
//! announcement costs its sender nothing.

use std::sync::Arc;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::pieces::SMALL;
use super::rate;

/// Room is counted in units of this many bytes.
const UNIT: usize = 4096;
/// The room of a request head that waits with its body, or of the buffer that both arrived in.
const HEAD: usize = 12 * 1024;

#[derive(Clone)]
pub(super) struct Room {
    units: Arc<Semaphore>,
    /// Units that only small bodies may take, a quarter of all, so that a few large bodies cannot keep everybody out.
    for_small: usize,
    all: usize,
    freed: Arc<Notify>,
}

/// The room that one body holds; dropping it gives the room back.
#[derive(Default)]
pub(super) struct Share(Option<Held>);

struct Held {
    units: OwnedSemaphorePermit,
    /// Dropped behind the units, so that whoever waits for room finds them.
    _freed: TellOnDrop,
}

struct TellOnDrop(Arc<Notify>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

/// There is no room left for the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        let units = bytes / UNIT;
        Self { units: Arc::new(Semaphore::new(units)), for_small: units / 4, all: units, freed: Arc::default() }
    }

    /// Waits until a body gives its room back after this call.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// The least rate at which a large body must come now, in bytes a second.
    pub(super) fn least_rate(&self) -> f64 {
        rate::least(self.all.saturating_sub(self.units.available_permits()), self.all)
    }

    /// Grows a share to hold a head and `body` bytes. A share never shrinks.
    pub(super) fn grow(&self, share: &mut Share, body: usize) -> Result<(), NoRoom> {
        let bytes = HEAD + body;
        let has = share.0.as_ref().map_or(0, |held| held.units.num_permits());
        let more = bytes.div_ceil(UNIT).saturating_sub(has);
        if more == 0 {
            return Ok(());
        }
        let left = self.units.available_permits().saturating_sub(more);
        if body > SMALL && left < self.for_small {
            return Err(NoRoom);
        }
        let more = u32::try_from(more).map_err(|_| NoRoom)?;
        let permit = Arc::clone(&self.units).try_acquire_many_owned(more).map_err(|_| NoRoom)?;
        match &mut share.0 {
            Some(held) => held.units.merge(permit),
            None => share.0 = Some(Held { units: permit, _freed: TellOnDrop(Arc::clone(&self.freed)) }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_leave_a_quarter_to_small_ones_and_all_room_comes_back() {
        let room = Room::new(1 << 20);
        let mut large = Share::default();
        assert_eq!(room.grow(&mut large, 700 * 1024), Ok(()));
        assert_eq!(room.grow(&mut large, 800 * 1024), Err(NoRoom), "the last quarter is for small bodies");
        let mut small = Share::default();
        assert_eq!(room.grow(&mut small, SMALL), Ok(()));
        assert_eq!(room.grow(&mut Share::default(), SMALL + 1), Err(NoRoom));
        let mut shares: Vec<Share> = Vec::new();
        loop {
            let mut share = Share::default();
            if room.grow(&mut share, 0).is_err() {
                break;
            }
            shares.push(share);
        }
        assert!(room.units.available_permits() * UNIT < HEAD, "small bodies may take all of it");
        drop((large, small, shares));
        assert_eq!(room.units.available_permits(), 256);
    }
}
