//! What wakes the feed of due rows, and the tokens that its leases carry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::clock::{Clock, Timestamp};
use crate::model::lease::Token;

/// The longest that the feed sleeps between two looks.
pub const LOOK: Duration = Duration::from_secs(1);

/// Wakes the feed; cheap to clone.
#[derive(Clone)]
pub struct FeedBell {
    bell: Arc<Notify>,
    clock: Arc<dyn Clock>,
}

impl FeedBell {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { bell: Arc::default(), clock }
    }

    /// Comes back at the next ring.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Rings where something is due before the feed would look by itself.
    pub fn ring_at(&self, due: Timestamp) {
        if due.since(self.clock.now()) < LOOK {
            self.ring();
        }
    }
}

/// Makes tokens that no other process makes: a random begin, then one by one.
pub struct Tokens(AtomicU64);

impl Tokens {
    pub fn new() -> Self {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
        Self(AtomicU64::new(u64::from_ne_bytes(bytes)))
    }

    /// The first of `count` tokens in a row.
    pub fn take(&self, count: usize) -> Token {
        Token(self.0.fetch_add(count as u64, Ordering::Relaxed))
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new()
    }
}
