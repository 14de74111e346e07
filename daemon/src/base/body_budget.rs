//! One budget of memory for all bodies: those of fresh callbacks, which come from Kafka, and those of due ones, which
//! come from the store. Each kind has a share that the other can't use up, so that neither waits for the other.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whose bodies they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Fresh,
    Due,
}

/// The budget. Clones share it.
#[derive(Clone)]
pub struct BodyBudget {
    all: Arc<Semaphore>,
    fresh: Arc<Semaphore>,
    due: Arc<Semaphore>,
    bytes: usize,
}

/// Room for some bytes. Dropping it gives the room back.
#[derive(Debug)]
pub struct Room {
    all: OwnedSemaphorePermit,
    share: OwnedSemaphorePermit,
}

impl BodyBudget {
    /// A budget of so many bytes. Fresh bodies may use three quarters of it, and due ones a half.
    pub fn new(bytes: usize) -> Self {
        let of = |share| Arc::new(Semaphore::new(largest(bytes, share)));
        Self { all: Arc::new(Semaphore::new(bytes)), fresh: of(Share::Fresh), due: of(Share::Due), bytes }
    }

    fn share(&self, share: Share) -> &Arc<Semaphore> {
        match share {
            Share::Fresh => &self.fresh,
            Share::Due => &self.due,
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.bytes.saturating_sub(self.all.available_permits())
    }

    /// Bytes that this share may take now.
    pub fn free(&self, share: Share) -> usize {
        self.all.available_permits().min(self.share(share).available_permits())
    }

    /// The most that this share can use.
    pub fn largest(&self, share: Share) -> usize {
        largest(self.bytes, share)
    }

    /// Takes room for so many bytes, if it is free. A body that is larger than the share takes the whole share, so that
    /// it goes alone.
    pub fn try_take(&self, share: Share, bytes: usize) -> Option<Room> {
        let permits = u32::try_from(bytes.min(self.largest(share))).unwrap_or(u32::MAX);
        let of_share = Arc::clone(self.share(share)).try_acquire_many_owned(permits).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(permits).ok()?;
        Some(Room { all, share: of_share })
    }

    /// Waits until so much room is free. Another may take it before the caller does.
    pub async fn freed(&self, share: Share, bytes: usize) {
        let permits = u32::try_from(bytes.min(self.largest(share))).unwrap_or(u32::MAX);
        // Neither semaphore is ever closed.
        let of_share = self.share(share).acquire_many(permits).await;
        drop(self.all.acquire_many(permits).await);
        drop(of_share);
    }
}

fn largest(bytes: usize, share: Share) -> usize {
    match share {
        Share::Fresh => bytes - bytes / 4,
        Share::Due => (bytes / 2).max(1),
    }
}

impl Room {
    /// Splits off room for at most so many bytes.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.share.num_permits());
        let part = |permit: &mut OwnedSemaphorePermit| permit.split(bytes).expect("the room has so many bytes");
        Self { all: part(&mut self.all), share: part(&mut self.share) }
    }

    /// The same bytes, which take this room for as long as any copy of them lives.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_share_can_use_up_the_budget() {
        let budget = BodyBudget::new(100);
        let fresh = budget.try_take(Share::Fresh, 75).expect("three quarters");
        assert!(budget.try_take(Share::Fresh, 1).is_none());
        assert_eq!((budget.free(Share::Fresh), budget.free(Share::Due), budget.used()), (0, 25, 75));
        assert!(budget.try_take(Share::Due, 26).is_none());
        assert_eq!(budget.free(Share::Due), 25, "what was refused took nothing");
        drop(fresh);
        let due = budget.try_take(Share::Due, 50).expect("a half");
        assert!(budget.try_take(Share::Due, 1).is_none());
        assert_eq!(budget.free(Share::Fresh), 50);
        drop(due);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_body_larger_than_its_share_goes_alone() {
        let budget = BodyBudget::new(100);
        let small = budget.try_take(Share::Due, 1).expect("room");
        assert!(budget.try_take(Share::Due, 1_000).is_none());
        drop(small);
        assert!(budget.try_take(Share::Due, 1_000).is_some());
    }

    #[test]
    fn room_is_given_back_with_the_last_copy() {
        let budget = BodyBudget::new(100);
        let mut room = budget.try_take(Share::Fresh, 30).expect("room");
        let value = room.split(10).hold(Bytes::from_static(b"0123456789"));
        let body = room.hold(Bytes::from_static(b"01234567890123456789"));
        let copy = body.clone();
        drop(body);
        assert_eq!(budget.used(), 30);
        drop(value);
        assert_eq!(budget.used(), 20);
        drop(copy);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_when_there_is_room() {
        let budget = BodyBudget::new(100);
        let taken = budget.try_take(Share::Fresh, 60).expect("room");
        tokio::select! {
            biased;
            () = budget.freed(Share::Fresh, 40) => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        let waiting = budget.clone();
        let waits = tokio::spawn(async move { waiting.freed(Share::Fresh, 40).await });
        drop(taken);
        waits.await.expect("it was woken");
        assert_eq!(budget.used(), 0, "waiting takes nothing");
    }
}
