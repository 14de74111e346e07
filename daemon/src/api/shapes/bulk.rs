//! Changes of many pending callbacks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::filtered::filtered;
use super::names::{ModeName, OutcomeName};

filtered! {
    /// Which pending callbacks. Every given filter must match.
    pub struct PendingShape {
        /// Nothing is done if more callbacks match. 100 unless given.
        pub at_most: Option<u64>,
        /// The next_token of the last answer, to go on where it ended. Then at_most does not count.
        pub next_token: Option<String>,
    }
}

/// What one request changed. With a next_token, more callbacks may match: send the request again with it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkShape {
    pub changed: u64,
    /// An attempt of theirs was under way, or they ended meanwhile.
    pub left_alone: u64,
    pub next_token: Option<String>,
}
