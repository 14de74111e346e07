//! What is paused.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::pause::Pause;
use crate::ops::pauses::Paused;

/// Why something is paused.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// One line, at most 500 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A pause: while it lasts, attempts that are under way end, no other begins, and nothing is given up.
#[derive(Debug, Serialize, ToSchema)]
pub struct PauseShape {
    /// Null while the deliveries of all teams are paused.
    pub team_id: Option<String>,
    /// Null while all endpoints of the team are paused.
    pub origin: Option<String>,
    pub since: String,
    /// Who paused it, as the audit names them.
    pub paused_by: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl PauseShape {
    pub fn new(pause: &Pause) -> Self {
        Self {
            team_id: pause.scope.team().map(|team| team.to_string()),
            origin: pause.scope.origin().map(ToString::to_string),
            since: pause.since.to_string(),
            paused_by: pause.paused_by.clone(),
            reason: Some(pause.reason.clone()).filter(|reason| !reason.is_empty()),
        }
    }
}

/// Whether callbacks are delivered, and what is paused.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryShape {
    /// running, or paused: then no callback of any team is sent.
    pub state: &'static str,
    /// What is paused: everything, teams, and endpoints.
    pub pauses: Vec<PauseShape>,
}

impl DeliveryShape {
    pub fn new(paused: &Paused) -> Self {
        Self {
            state: if paused.all { "paused" } else { "running" },
            pauses: paused.pauses.iter().map(PauseShape::new).collect(),
        }
    }
}

/// What goes on again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResumedShape {
    /// Null for the deliveries of all teams.
    pub team_id: Option<String>,
    /// Null for all endpoints of the team.
    pub origin: Option<String>,
    /// False while it is held back by another pause, of its team or of everything.
    pub is_delivering: bool,
}
