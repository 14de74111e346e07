//! The API's JSON: names in snake_case, times as in RFC 3339 with milliseconds in UTC. Customers' bytes are shown as text;
//! what is not text is escaped.

mod bulk;
mod callbacks;
mod dead_letters;
mod endpoints;
mod filtered;
pub mod names;
mod pauses;
mod resends;
mod resets;
mod status;
mod teams;
mod tokens;

pub use bulk::{BulkShape, PendingShape};
pub use callbacks::{
    AttemptShape, AttemptsShape, CallbackResend, CallbackShape, DeliveringShape, RequestShape, TaskShape, UnderWayShape,
};
pub use dead_letters::DeadLetterShape;
pub use endpoints::{EndpointRetry, EndpointShape, OutcomeCount};
pub use pauses::{DeliveryShape, PauseRequest, PauseShape, ResumedShape};
pub use resends::{NewResendShape, ResendFilterShape, ResendPreview, ResendResume, ResendShape};
pub use resets::{PartitionResetShape, ResetShape, RewindShape, SkipShape};
pub use status::{Acceptance, ClockShape, InstanceShape, LogLevelShape, OffsetsShape, StartedShape, StatusShape};
pub use teams::{
    AuthSwitch, CheckShape, KeyShape, NewKeyShape, OriginForm, Promotion, RevealedKey, Revocation, StepShape,
    SwitchShape, TeamCheck, TeamPatch, TeamShape,
};
pub use tokens::{AuditShape, NewTokenShape, TokenShape};

use serde::Serialize;
use utoipa::ToSchema;

use crate::base::clock::Timestamp;

/// A page of a list. To get the next page, send the same query again with `next_token`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub docs: Vec<T>,
    /// More may follow. A search that finds little ends within its time with what it found, so that a page may be short
    /// or empty.
    pub has_more: bool,
    pub next_token: Option<String>,
    /// The most documents that a page of this list holds.
    pub limit: usize,
}

impl<T> Page<T> {
    /// A whole list that is never long enough for pages.
    pub fn whole(docs: Vec<T>) -> Self {
        let limit = docs.len();
        Self { docs, has_more: false, next_token: None, limit }
    }
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
