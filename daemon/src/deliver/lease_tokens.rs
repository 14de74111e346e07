//! The tokens that name leases.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::lease::Token;

/// Makes lease tokens that no other instance makes: it starts at a random number and counts up.
pub struct LeaseTokens(AtomicU64);

impl LeaseTokens {
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

impl Default for LeaseTokens {
    fn default() -> Self {
        Self::new()
    }
}
