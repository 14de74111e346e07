//! How far a partition is recorded.

use super::callback::Hash;

/// How far one partition is recorded in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Every record below this offset is durable.
    pub upto: i64,
    /// The highest offset with a row, plus 1.
    pub seen_upto: i64,
    /// The last data record below `upto`, and the hash of its timestamp and value.
    pub last: Option<(i64, Hash)>,
}
