//! How far a partition is recorded.

use super::hash::Hash;

/// In place of the hash of a record that nobody could read.
pub const UNREAD: Hash = [0; 32];

/// How far one partition is recorded in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Every record below this offset is durable.
    pub upto: i64,
    /// The highest offset with a row, plus 1.
    pub seen_upto: i64,
    /// The last data record below `upto`, and the hash of its timestamp and value, or [`UNREAD`].
    pub last: Option<(i64, Hash)>,
}
