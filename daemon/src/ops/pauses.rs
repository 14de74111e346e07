//! Pauses: all deliveries, those of a team, or those of one endpoint stop and go on again. Nothing is lost or given up meanwhile.

use std::sync::Arc;

use super::policy::Operation;
use super::teams::{no_team, origin};
use super::{OpsError, Session};
use crate::model::endpoint::Origin;
use crate::model::pause::{Pause, PauseScope};

/// The longest text that says why something is paused.
const MAX_REASON: usize = 500;

/// What is paused, as its caller may see it.
#[derive(Debug, Clone)]
pub struct Paused {
    /// All deliveries are paused.
    pub all: bool,
    /// Every pause, also those of teams and endpoints.
    pub pauses: Vec<Pause>,
}

impl Session {
    /// What is paused.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn delivery(&self) -> Result<Paused, OpsError> {
        self.allow(Operation::Delivery)?;
        let mut pauses = self.parts().admin.pauses().await?;
        let all = pauses.iter().any(|pause| pause.scope == PauseScope::All);
        pauses.retain(|pause| pause.scope.team().is_none_or(|team| self.sees(team)));
        Ok(Paused { all, pauses })
    }

    /// Pauses all deliveries. What is paused already stays as it is, here and in the next two.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, or the store's.
    pub async fn pause_delivery(&self, reason: String) -> Result<Pause, OpsError> {
        self.allow(Operation::PauseDelivery)?;
        self.pause(Operation::PauseDelivery, PauseScope::All, reason).await
    }

    /// Ends the pause of all deliveries. Teams and endpoints that are paused by themselves stay so.
    ///
    /// # Errors
    /// `forbidden`, `conflict` if deliveries are not paused, or the store's.
    pub async fn resume_delivery(&self) -> Result<(), OpsError> {
        self.allow(Operation::ResumeDelivery)?;
        self.resume(Operation::ResumeDelivery, PauseScope::All).await
    }

    /// Pauses the deliveries of a team.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid_request`, or the store's.
    pub async fn pause_team(&self, team: &str, reason: String) -> Result<Pause, OpsError> {
        self.allow_team(Operation::PauseTeam, team)?;
        let scope = PauseScope::Team(self.living_team(team).await?);
        self.pause(Operation::PauseTeam, scope, reason).await
    }

    /// Ends the pause of a team. Its endpoints that are paused by themselves stay so.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` if the team is not paused, or the store's.
    pub async fn resume_team(&self, team: &str) -> Result<(), OpsError> {
        self.allow_team(Operation::ResumeTeam, team)?;
        let scope = PauseScope::Team(self.living_team(team).await?);
        self.resume(Operation::ResumeTeam, scope).await
    }

    /// Pauses the deliveries of a team to one endpoint.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid_request`, or the store's.
    pub async fn pause_endpoint(&self, team: &str, endpoint: &str, reason: String) -> Result<Pause, OpsError> {
        self.allow_team(Operation::PauseEndpoint, team)?;
        let scope = PauseScope::Endpoint(self.living_team(team).await?, origin(endpoint)?);
        self.pause(Operation::PauseEndpoint, scope, reason).await
    }

    /// Ends the pause of an endpoint.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid_request`, `conflict` if the endpoint is not paused, or the store's.
    pub async fn resume_endpoint(&self, team: &str, endpoint: &str) -> Result<Origin, OpsError> {
        self.allow_team(Operation::ResumeEndpoint, team)?;
        let origin = origin(endpoint)?;
        let scope = PauseScope::Endpoint(self.living_team(team).await?, origin.clone());
        self.resume(Operation::ResumeEndpoint, scope).await?;
        Ok(origin)
    }

    async fn living_team(&self, id: &str) -> Result<Arc<str>, OpsError> {
        let team = self.parts().directory.team(id).await?.ok_or_else(|| no_team(id))?;
        Ok(Arc::clone(&team.team.id))
    }

    async fn pause(&self, operation: Operation, scope: PauseScope, reason: String) -> Result<Pause, OpsError> {
        if reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(OpsError::invalid(format!("a reason is a text of one line, of at most {MAX_REASON} bytes")));
        }
        let parts = self.parts();
        let change = match scope.origin() {
            Some(origin) => format!("{origin} {reason}"),
            None => reason.clone(),
        };
        let audit = self.caller.entry(operation, object(&scope), change.trim());
        let paused_by = self.caller.name.clone();
        let pause = parts.admin.pause(Pause { scope, since: parts.clock.now(), paused_by, reason }, audit).await?;
        // Other instances see it within half a second.
        parts.directory.read_pauses().await?;
        Ok(pause)
    }

    async fn resume(&self, operation: Operation, scope: PauseScope) -> Result<(), OpsError> {
        let parts = self.parts();
        let audit =
            self.caller.entry(operation, object(&scope), scope.origin().map(ToString::to_string).unwrap_or_default());
        if !parts.admin.end_pause(scope.clone(), audit).await? {
            return Err(OpsError::Conflict(not_paused(&scope)));
        }
        parts.directory.read_pauses().await?;
        parts.waker.wake();
        Ok(())
    }
}

/// Whether no pause holds this team, or this endpoint of it, as far as this instance knows.
pub fn is_delivering(session: &Session, team: &str, origin: Option<&Origin>) -> bool {
    !session.parts().directory.pauses().hold(&team.into(), origin)
}

/// The pause of this team as a whole, as this instance knows it.
pub fn of_team(session: &Session, team: &Arc<str>) -> Option<Pause> {
    session.parts().directory.pauses().of(&PauseScope::Team(Arc::clone(team))).cloned()
}

fn object(scope: &PauseScope) -> String {
    scope.team().map_or_else(|| "delivery".to_owned(), ToString::to_string)
}

fn not_paused(scope: &PauseScope) -> String {
    match scope {
        PauseScope::All => {
            "deliveries are not paused as a whole; delivery status shows which teams and endpoints are".to_owned()
        }
        PauseScope::Team(team) => {
            format!("team {team} is not paused as a whole; delivery status shows whether its endpoints are")
        }
        PauseScope::Endpoint(team, origin) => format!("the endpoint {origin} of team {team} is not paused by itself"),
    }
}
