//! What an operator changes about all pending callbacks that match a filter: their next attempts are made at once, or there are none
//! any more. A request changes a number of them, and tells where the next one goes on; it can be repeated at any time.

use super::amendments::counted_as_ended;
use super::policy::Operation;
use super::{Inner, OpsError, Session};
use crate::model::amendment::{Amended, Amendment};
use crate::model::callback::CallbackId;
use crate::model::retry::Reason;
use crate::model::settlement::Rows;
use crate::model::state::State;
use crate::store::reads::{CallbackFilter, Page};

/// Callbacks that one request changes.
const ROWS: usize = 1_000;

/// Which pending callbacks.
#[derive(Debug, Clone)]
pub struct Which {
    pub filter: CallbackFilter,
    /// An origin, `default:live`, `default:test` or `none`; it takes the place of the filter's queues.
    pub endpoint: Option<String>,
    /// Nothing is done if more callbacks match.
    pub at_most: u64,
    /// Where the last request ended.
    pub before: Option<CallbackId>,
}

/// What one request did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bulk {
    pub changed: u64,
    /// An attempt of theirs was under way, or they ended meanwhile.
    pub left_alone: u64,
    /// More may follow below this id.
    pub next: Option<CallbackId>,
}

impl Session {
    /// Makes the next attempts of pending callbacks due now, newest event first. No callback gets an attempt more than before.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found` for the filter's team, `too_many_rows`, or the store's.
    pub async fn retry_callbacks(&self, which: Which) -> Result<Bulk, OpsError> {
        self.allow(Operation::RetryCallbacks)?;
        self.change_all(Operation::RetryCallbacks, which, &Amendment::RetryNow).await
    }

    /// Ends pending callbacks as abandoned (`cancelled`), and rounds of callbacks that are sent again, newest event first.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found` for the filter's team, `too_many_rows`, or the store's.
    pub async fn cancel_callbacks(&self, which: Which) -> Result<Bulk, OpsError> {
        self.allow(Operation::CancelCallbacks)?;
        self.change_all(Operation::CancelCallbacks, which, &Amendment::Cancel(Reason::Cancelled)).await
    }

    async fn change_all(&self, operation: Operation, which: Which, amendment: &Amendment) -> Result<Bulk, OpsError> {
        let parts = self.parts();
        let filter = self.pending_filter(operation, which.filter, which.endpoint.as_deref()).await?;
        if which.before.is_none() {
            let matched = self.count(&filter, which.at_most).await?;
            matched.check(which.at_most)?;
        }
        let team = filter.team.clone().unwrap_or_default();
        let found = parts.reads.callbacks(filter, Page { before: which.before, limit: ROWS }).await?;
        let mut bulk = Bulk { next: found.next, ..Bulk::default() };
        if found.docs.is_empty() {
            return Ok(bulk);
        }
        let change = format!("{} callbacks that match", found.docs.len());
        parts.admin.note(self.caller.entry(operation, team, change)).await?;
        bulk.changed = self.inner.amend_each(&found.docs, amendment).await?;
        bulk.left_alone = (found.docs.len() as u64).saturating_sub(bulk.changed);
        parts.waker.wake();
        Ok(bulk)
    }

    /// Which pending callbacks a filter means.
    async fn pending_filter(
        &self,
        operation: Operation,
        filter: CallbackFilter,
        endpoint: Option<&str>,
    ) -> Result<CallbackFilter, OpsError> {
        if filter.reason.is_some() || filter.state.is_some_and(|state| state != State::Pending) {
            return Err(OpsError::invalid(
                "only pending callbacks can be retried or cancelled; to send ended ones again, say resend",
            ));
        }
        let (team, teams) = self.asked_teams(operation, filter.team.as_deref())?;
        let filter = CallbackFilter { team, teams, state: Some(State::Pending), ..filter };
        self.inner.checked(filter, endpoint).await
    }
}

impl Inner {
    /// Does the same to all of these callbacks. Answers with how many it changed.
    pub(super) async fn amend_each(
        &self,
        mut left: &[(CallbackId, Rows)],
        amendment: &Amendment,
    ) -> Result<u64, OpsError> {
        let mut changed = 0;
        while !left.is_empty() {
            let changes = left.iter().map(|(id, _)| (*id, amendment.clone())).collect();
            let amended = self.parts.store.amend(changes).await?;
            let (done, rest) = left.split_at(amended.len().clamp(1, left.len()));
            for ((_, rows), _) in done.iter().zip(amended).filter(|(_, answer)| *answer == Amended::Changed) {
                changed += 1;
                counted_as_ended(&self.parts.metrics, amendment, rows);
            }
            left = rest;
        }
        Ok(changed)
    }
}
