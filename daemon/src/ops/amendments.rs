//! What an operator changes about one callback: its next attempt is made at once, there is none any more, or it is sent again
//! after it has ended.

use std::sync::Arc;

use bytes::Bytes;

use super::callbacks::CallbackReport;
use super::policy::Operation;
use super::{Inner, OpsError, Session};
use crate::base::clock::Timestamp;
use crate::base::metrics::Metrics;
use crate::deliver::directory::TeamEntry;
use crate::deliver::resolve::queue_of;
use crate::intake;
use crate::model::amendment::{Amended, Amendment, Resend, amend};
use crate::model::lease::Facts;
use crate::model::retry::Reason;
use crate::model::settlement::Rows;
use crate::model::state::State;
use crate::store::resends::ResendForm;

impl Session {
    /// Makes the next attempt of a pending callback due now. It takes the place of the planned one, so the callback gets no
    /// attempt more than before.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `not_found`; `conflict` while an attempt is under way or after the callback has ended;
    /// or the store's.
    pub async fn retry_callback(&self, id: &str) -> Result<CallbackReport, OpsError> {
        self.allow(Operation::RetryCallback)?;
        let callback = self.own_callback(id).await?;
        self.amend(Operation::RetryCallback, callback, Amendment::RetryNow).await
    }

    /// Ends a pending callback as abandoned (`cancelled`), or ends the round of one that is sent again. An attempt that is under
    /// way goes on, and if the receiver accepts it, the callback is delivered all the same.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `not_found`; `conflict` after the callback has ended; or the store's.
    pub async fn cancel_callback(&self, id: &str) -> Result<CallbackReport, OpsError> {
        self.allow(Operation::CancelCallback)?;
        let callback = self.own_callback(id).await?;
        self.amend(Operation::CancelCallback, callback, Amendment::Cancel(Reason::Cancelled)).await
    }

    /// Sends a callback that has ended once more, as a round with tries and a horizon of its own: the same id and the same body,
    /// signed with the keys of now, to the URL of now. A delivery in any round makes it delivered for good; a round that fails
    /// changes nothing.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `not_found`; `conflict` if it has not ended, if it is being sent again already, or if it
    /// would go to a new origin without consent; `pruned` if its body is not kept; or the store's.
    pub async fn resend_callback(&self, id: &str, form: ResendForm) -> Result<CallbackReport, OpsError> {
        self.allow(Operation::ResendCallback)?;
        let callback = self.own_callback(id).await?;
        let Some(settled) = callback.rows.settled.as_ref().filter(|_| callback.rows.live().is_none()) else {
            let open = callback.rows.live().map(|row| row.round).filter(|round| *round > 0);
            return Err(refusal(&callback, open.map_or(Amended::Pending, Amended::Open), "sent again"));
        };
        let facts = Arc::clone(&settled.facts);
        self.inner.check_team_lives(&facts.team).await?;
        let body = self.inner.body_of(&facts).await?;
        let resend = self.inner.destination(&facts, form, body, None).await?;
        self.amend(Operation::ResendCallback, callback, Amendment::Resend(Box::new(resend))).await
    }

    async fn amend(
        &self,
        operation: Operation,
        callback: CallbackReport,
        amendment: Amendment,
    ) -> Result<CallbackReport, OpsError> {
        let parts = self.parts();
        let done = done(&amendment);
        let refused = |amended| match amended {
            Amended::Changed => Ok(()),
            other => Err(refusal(&callback, other, done)),
        };
        // What can't be done leaves no audit row. The store decides once more, since the rows may change meanwhile.
        refused(amend(&callback.rows, &amendment, self.now()).1)?;
        let team = callback.team().unwrap_or_default();
        let change = format!("{}{}", callback.id, where_to(&amendment));
        parts.admin.note(self.caller.entry(operation, team, change)).await?;
        let amended = parts.store.amend(vec![(callback.id, amendment.clone())]).await?;
        refused(amended.into_iter().next().unwrap_or(Amended::Unknown))?;
        parts.waker.wake();
        counted_as_ended(&parts.metrics, &amendment, &callback.rows);
        self.own_callback(&callback.id.to_string()).await
    }
}

impl Inner {
    /// The round of a callback that is sent again.
    ///
    /// # Errors
    /// `conflict` if there is no URL to send it to, or if that is a new origin without consent; or the store's.
    /// The team, if callbacks may still be sent for it.
    async fn check_team_lives(&self, team: &str) -> Result<Arc<TeamEntry>, OpsError> {
        let entry = self.parts.directory.team(team).await?;
        entry.ok_or_else(|| OpsError::Conflict(format!("there is no team {team} any more")))
    }

    pub(super) async fn destination(
        &self,
        facts: &Facts,
        form: ResendForm,
        body: Bytes,
        ended_before: Option<Timestamp>,
    ) -> Result<Resend, OpsError> {
        let own = intake::decode::own_url(&body);
        let new_id = form.new_id;
        let team = self.check_team_lives(&facts.team).await?;
        if !form.to_default {
            let queue = queue_of(&facts.team, own.as_deref(), facts.mode);
            return Ok(Resend { ended_before, new_id, url: own, queue, body });
        }
        let Some(default) = team.team.default_url(facts.mode) else {
            return Err(OpsError::Conflict(format!("team {} has no default URL", facts.team)));
        };
        let target = |url: &str| queue_of(&facts.team, Some(url), facts.mode).target;
        let is_new = own.is_some_and(|own| target(&own) != target(default));
        if is_new && !form.allow_new_origin {
            return Err(OpsError::Conflict(format!(
                "the default URL of team {} leads to {}, where this callback never went; allow that with allow_new_origin \
                 (--allow-new-origin)",
                facts.team,
                target(default).name()
            )));
        }
        let queue = queue_of(&facts.team, None, facts.mode);
        Ok(Resend { ended_before, new_id, url: None, queue, body })
    }
}

/// Counts a callback that its operator ended. `rows` are those before.
pub(super) fn counted_as_ended(metrics: &Metrics, amendment: &Amendment, rows: &Rows) {
    if matches!(amendment, Amendment::Cancel(_)) && rows.settled.is_none() {
        metrics.callbacks_total.with_label_values(&[State::Abandoned.name()]).inc();
    }
}

/// Where a callback goes when it is sent again, for the audit.
fn where_to(amendment: &Amendment) -> String {
    match amendment {
        Amendment::Resend(resend) => {
            let under = if resend.new_id { " with a new id" } else { "" };
            format!(" to {}{under}", resend.queue.target.name())
        }
        Amendment::RetryNow | Amendment::Cancel(_) => String::new(),
    }
}

fn done(amendment: &Amendment) -> &'static str {
    match amendment {
        Amendment::RetryNow => "retried",
        Amendment::Cancel(_) => "cancelled",
        Amendment::Resend(_) => "sent again",
    }
}

/// Why nothing was changed, and what to do instead.
fn refusal(callback: &CallbackReport, amended: Amended, done: &str) -> OpsError {
    let id = callback.id;
    match amended {
        Amended::Changed | Amended::Unknown => OpsError::NotFound(format!("there is no callback {id}")),
        Amended::InFlight => OpsError::Conflict(format!("an attempt of {id} is under way already")),
        Amended::Pending => OpsError::Conflict(format!(
            "{id} has not ended, so it can't be sent again; to make its next attempt now, say retry"
        )),
        Amended::Open(round) => OpsError::Conflict(format!("{id} is being sent again already (round {round})")),
        Amended::EndedLater => OpsError::Conflict(format!("{id} has just ended")),
        Amended::Ended(ended) => OpsError::Conflict(format!(
            "{id} has ended ({}); only a pending callback can be {done}; to send it once more, say resend",
            ended.name()
        )),
    }
}
