//! The API's JSON: snake_case, times RFC 3339 with milliseconds in UTC. Customers' bytes are shown as text, with what
//! is no text escaped.

mod callbacks;
mod dead_letters;
mod endpoints;
pub mod names;
mod status;
mod teams;
mod tokens;

pub use callbacks::{AttemptShape, AttemptsShape, CallbackShape, TaskShape};
pub use dead_letters::DeadLetterShape;
pub use endpoints::{EndpointShape, OutcomeCount};
pub use status::{Acceptance, InstanceShape, LogLevelShape, OffsetsShape, StartedShape, StatusShape};
pub use teams::{
    AuthSwitch, CheckShape, KeyShape, NewKeyShape, OriginForm, Promotion, RevealedKey, Revocation, StepShape,
    SwitchShape, TeamCheck, TeamPatch, TeamShape,
};
pub use tokens::{AuditShape, NewTokenShape, TokenShape};

use serde::Serialize;
use utoipa::ToSchema;

use crate::base::clock::Timestamp;

/// A page of a list. Give `next_token` back to go on; it belongs to the query that it came from.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub docs: Vec<T>,
    /// More may follow. A search that finds little ends in time with what it found, so a page may be short, or empty.
    pub has_more: bool,
    pub next_token: Option<String>,
    /// How many documents a page of this answer holds at most.
    pub limit: usize,
}

impl<T> Page<T> {
    /// A list that is never long enough for pages.
    pub fn whole(docs: Vec<T>) -> Self {
        let limit = docs.len();
        Self { docs, has_more: false, next_token: None, limit }
    }
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
