//! The findings of a check of a store, for every database.

use super::admin::KeyRow;
use crate::base::clock::Timestamp;
use crate::base::finding::Finding;

/// The findings of a check, and whether a daemon runs on the store now.
pub struct Looked {
    pub findings: Vec<Finding>,
    pub in_use: bool,
    /// A few of the keys in the store, where it exists and no daemon runs on it.
    pub keys: Vec<KeyRow>,
}

/// What a store is and holds.
#[derive(Debug, Clone)]
pub struct Info {
    pub store_id: String,
    pub created_at: Timestamp,
    pub schema: String,
    pub file_bytes: u64,
    pub pending: u64,
    pub settled: u64,
    pub attempts: u64,
    pub dead_letters: u64,
    pub teams: u64,
}

/// A copy of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    pub store_id: String,
    pub bytes: u64,
}
