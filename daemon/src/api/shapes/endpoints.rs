//! Endpoints.

use serde::Serialize;
use utoipa::ToSchema;

use super::time;
use crate::ops::endpoints::Endpoint;

/// An endpoint in use lately, or with pending callbacks.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointShape {
    pub team_id: String,
    /// Scheme, host and port.
    pub origin: String,
    /// active; failing: its last attempts have all failed, at least five of them in at least a minute; or limited: callbacks
    /// wait because a limit on attempts is reached; or paused: an operator has paused it, its team, or everything.
    pub state: &'static str,
    /// Attempts under way.
    pub in_flight: usize,
    /// Callbacks in memory that wait for a slot.
    pub waiting: usize,
    /// Callbacks in the store that are not under way. Each queue of the endpoint is counted up to 1,000 in a list and in the status, and
    /// up to 100,000 in the answer about one endpoint.
    pub pending: u64,
    /// False if a queue has more than were counted.
    pub pending_is_all: bool,
    /// When the first of them became due, or will become due: a time ahead is that of the next retry.
    pub oldest_due: Option<String>,
    /// Bytes of the bodies that are stored for it.
    pub parked_bytes: u64,
    /// Attempts in a row that failed since the last success. It outlives a restart. Of an endpoint that was not used for
    /// long, it is the failures of the oldest callback that waits.
    pub consecutive_failures: u32,
    /// When the first of them ended.
    pub failing_since: Option<String>,
    pub last_outcome: Option<&'static str>,
    pub last_attempt_at: Option<String>,
    pub last_success_at: Option<String>,
    /// The last 20 attempts, counted by outcome.
    pub recent: Vec<OutcomeCount>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OutcomeCount {
    pub outcome: &'static str,
    pub count: usize,
}

impl EndpointShape {
    pub fn new(endpoint: &Endpoint) -> Self {
        let recent = &endpoint.recent;
        let counts = recent.counts();
        Self {
            team_id: endpoint.team.to_string(),
            origin: endpoint.origin.to_string(),
            state: endpoint.state.name(),
            in_flight: endpoint.in_flight,
            waiting: endpoint.waiting,
            pending: endpoint.pending,
            pending_is_all: endpoint.pending_is_all,
            oldest_due: time(endpoint.oldest_due),
            parked_bytes: endpoint.parked_bytes,
            consecutive_failures: endpoint.failures(),
            failing_since: time(recent.failing_since),
            last_outcome: endpoint.last_outcome().map(|outcome| outcome.name()),
            last_attempt_at: time(recent.last_at),
            last_success_at: time(recent.last_success_at),
            recent: counts
                .iter()
                .map(|(outcome, count)| OutcomeCount { outcome: outcome.name(), count: *count })
                .collect(),
        }
    }
}

/// What a retry of an endpoint did.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointRetry {
    pub team_id: String,
    pub origin: String,
    /// Callbacks that waited for a later time, and are due now.
    pub made_due: u64,
}
