//! Changes of many pending callbacks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names::{ModeName, OutcomeName};

/// Which pending callbacks. Every given filter must match.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PendingShape {
    /// Only callbacks of this team.
    pub team: Option<String>,
    /// Only callbacks of this task.
    pub task: Option<String>,
    /// Only callbacks to this origin (scheme, host and port), only those that follow a team's default URL (default:live,
    /// default:test), or only those whose task has an invalid URL of its own (none).
    pub endpoint: Option<String>,
    /// Only callbacks whose last attempt had this outcome.
    #[schema(inline, value_type = Option<OutcomeName>)]
    pub outcome: Option<String>,
    /// Only callbacks whose last attempt was answered with this HTTP status.
    #[schema(minimum = 100, maximum = 999)]
    pub status: Option<u16>,
    /// Only callbacks of live tasks, or of test tasks.
    #[schema(inline, value_type = Option<ModeName>)]
    pub mode: Option<String>,
    /// Only callbacks whose event is of this time or later: RFC 3339, or a date, which means its midnight in UTC.
    pub since: Option<String>,
    /// Only callbacks whose event is older than this time.
    pub until: Option<String>,
    /// Only callbacks with an attempt that failed at this time or later. It needs failed_until.
    pub failed_since: Option<String>,
    /// Only callbacks with an attempt that failed before this time. It needs failed_since.
    pub failed_until: Option<String>,
    /// Nothing is done if more callbacks match. 100 unless given.
    pub at_most: Option<u64>,
    /// The next_token of the last answer, to go on where it ended. Then at_most does not count.
    pub next_token: Option<String>,
}

/// What one request changed. With a next_token, more callbacks may match: send the request again with it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkShape {
    pub changed: u64,
    /// An attempt of theirs was under way, or they ended meanwhile.
    pub left_alone: u64,
    pub next_token: Option<String>,
}
