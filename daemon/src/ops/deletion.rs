//! Teams that are deleted: their keys are revoked at once, and what is pending ends in steps. Their history stays for its time, and
//! their ids are never used again.

use std::time::Duration;

use super::policy::Operation;
use super::teams::{check_not_deleted, no_team};
use super::{Inner, Ops, OpsError, Session};
use crate::base::clock::Timestamp;
use crate::base::stop::Stop;
use crate::model::amendment::Amendment;
use crate::model::retry::Reason;
use crate::model::state::State;
use crate::model::team::Team;
use crate::store::reads::{CallbackFilter, Page};

/// Pending callbacks of one step.
const ROWS: usize = 256;
/// The time between two looks for deleted teams: attempts that were under way, or events that were read, may have left new
/// pending callbacks.
const LOOK: Duration = Duration::from_secs(30);
/// After the first look, only teams are looked at that were deleted within this time. Nothing new comes for others.
const LATELY: Duration = Duration::from_secs(24 * 3600);
/// Pending callbacks are counted up to here before a team is deleted.
const COUNTED: u64 = 100_000;

impl Session {
    /// Deletes a team for good. It is done only if it is `confirmed`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` if it is deleted already, `confirmation_needed`, or the store's.
    pub async fn delete_team(&self, id: &str, confirmed: bool) -> Result<Team, OpsError> {
        self.allow_team(Operation::DeleteTeam, id)?;
        let team = self.inner.team(id).await?;
        check_not_deleted(&team)?;
        if !confirmed {
            return Err(OpsError::ConfirmationNeeded(self.consequence(&team).await?));
        }
        let audit = self.caller.entry(Operation::DeleteTeam, id, "");
        let deleted = self.parts().admin.delete_team(id, audit).await?.ok_or_else(|| no_team(id))?;
        self.parts().directory.refresh();
        self.parts().directory.read_pauses().await?;
        self.inner.team_deleted.notify_one();
        Ok(deleted)
    }

    async fn consequence(&self, team: &Team) -> Result<String, OpsError> {
        let pending = self.count(&pending_of(&team.id), COUNTED).await?;
        let (count, least) = (pending.count, if pending.is_all { "" } else { "at least " });
        Ok(format!(
            "this deletes team {} ({:?}) for good: {least}{count} pending callbacks end as abandoned (team_deleted), its keys are \
             revoked, its new events become dead letters, and its id is never used again. Its history stays. Nothing was changed. \
             To delete the team all the same, add --yes to the command, or confirm=true to the request",
            team.id, team.name
        ))
    }
}

fn pending_of(team: &str) -> CallbackFilter {
    CallbackFilter { team: Some(team.to_owned()), state: Some(State::Pending), ..CallbackFilter::default() }
}

impl Ops {
    /// Ends what is pending of deleted teams, until `stop`.
    pub async fn run_deletion(self, mut stop: Stop) {
        let mut since = Timestamp::default();
        loop {
            let now = self.0.parts.clock.now();
            tokio::select! {
                ended = self.0.end_deleted(since) => match ended {
                    Ok(()) => since = now.minus(LATELY),
                    Err(error) => tracing::debug!(%error, "what is pending of deleted teams can't be ended now"),
                },
                () = stop.stopped() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.0.team_deleted.notified() => {}
                () = stop.stopped() => return,
            }
        }
    }
}

impl Inner {
    async fn end_deleted(&self, since: Timestamp) -> Result<(), OpsError> {
        for team in self.parts.admin.deleted_teams(since).await? {
            let mut ended = 0_u64;
            // What could not be changed is passed over, and looked at again the next time.
            let mut before = None;
            loop {
                let found = self.parts.reads.callbacks(pending_of(&team), Page { before, limit: ROWS }).await?;
                ended += self.amend_each(&found.docs, &Amendment::Cancel(Reason::TeamDeleted)).await?;
                before = found.next;
                if before.is_none() {
                    break;
                }
            }
            if ended > 0 {
                tracing::info!(team, ended, "pending callbacks of a deleted team were abandoned");
            }
        }
        Ok(())
    }
}
