//! The first record: what the producer was told of each event, and where Kafka has it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

/// What is known of an event's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Said {
    NotSent,
    /// Kafka has not said anything yet, or never did: the record may be there or not.
    Unknown,
    Acknowledged,
    /// Its transaction was aborted: no consumer may get it.
    Aborted,
}

/// A topic's partition and an offset in it.
pub(crate) type Place = (i32, i64);

pub(crate) struct Produced {
    said: Vec<AtomicU8>,
    places: Mutex<HashMap<Place, u64>>,
}

impl Produced {
    pub(crate) fn new(events: u64) -> Self {
        let said = (0..events).map(|_| AtomicU8::new(Said::NotSent as u8)).collect();
        Self { said, places: Mutex::default() }
    }

    pub(crate) fn note(&self, n: u64, said: Said) {
        if let Some(cell) = usize::try_from(n).ok().and_then(|n| self.said.get(n)) {
            cell.store(said as u8, Ordering::SeqCst);
        }
    }

    pub(crate) fn said(&self, n: u64) -> Said {
        let cell = usize::try_from(n).ok().and_then(|n| self.said.get(n));
        match cell.map(|cell| cell.load(Ordering::SeqCst)) {
            Some(1) => Said::Unknown,
            Some(2) => Said::Acknowledged,
            Some(3) => Said::Aborted,
            _ => Said::NotSent,
        }
    }

    pub(crate) fn lies_at(&self, n: u64, place: Place) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(place, n);
    }

    /// The event at a place.
    pub(crate) fn event_at(&self, place: Place) -> Option<u64> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).get(&place).copied()
    }

    pub(crate) fn events(&self) -> u64 {
        self.said.len() as u64
    }

    /// How many events have this said of them.
    pub(crate) fn count(&self, said: Said) -> u64 {
        (0..self.events()).filter(|n| self.said(*n) == said).count() as u64
    }
}
