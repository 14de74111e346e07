//! What an operator changes about one callback: its next attempt is made at once, or there is none any more.

use super::callbacks::CallbackReport;
use super::policy::Operation;
use super::{OpsError, Session};
use crate::model::amendment::{Amended, Amendment, amend};
use crate::model::state::State;

impl Session {
    /// Makes the next attempt of a pending callback due now. It takes the place of the planned one, so the callback gets no
    /// attempt more than before.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `not_found`; `conflict` while an attempt is under way or after the callback has ended;
    /// or the store's.
    pub async fn retry_callback(&self, id: &str) -> Result<CallbackReport, OpsError> {
        self.allow(Operation::RetryCallback)?;
        self.amend(Operation::RetryCallback, id, Amendment::RetryNow).await
    }

    /// Ends a pending callback as abandoned (`cancelled`). An attempt that is under way goes on, and if the receiver accepts
    /// it, the callback is delivered all the same.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `not_found`; `conflict` after the callback has ended; or the store's.
    pub async fn cancel_callback(&self, id: &str) -> Result<CallbackReport, OpsError> {
        self.allow(Operation::CancelCallback)?;
        self.amend(Operation::CancelCallback, id, Amendment::Cancel).await
    }

    async fn amend(&self, operation: Operation, id: &str, amendment: Amendment) -> Result<CallbackReport, OpsError> {
        let callback = self.own_callback(id).await?;
        let parts = self.parts();
        // What can't be done leaves no audit row. The store decides once more, since the rows may change meanwhile.
        refused(&callback, amend(&callback.rows, amendment, self.now()).1, amendment)?;
        let team = callback.team().unwrap_or_default();
        parts.admin.note(self.caller.entry(operation, team, callback.id.to_string())).await?;
        let amended = parts.store.amend(callback.id, amendment).await?;
        refused(&callback, amended, amendment)?;
        if amendment == Amendment::Cancel {
            parts.metrics.callbacks_total.with_label_values(&[State::Abandoned.name()]).inc();
        }
        self.own_callback(id).await
    }
}

fn refused(callback: &CallbackReport, amended: Amended, amendment: Amendment) -> Result<(), OpsError> {
    let id = callback.id;
    let done = match amendment {
        Amendment::RetryNow => "retried",
        Amendment::Cancel => "cancelled",
    };
    match amended {
        Amended::Changed => Ok(()),
        Amended::Unknown => Err(OpsError::NotFound(format!("there is no callback {id}"))),
        Amended::InFlight => Err(OpsError::Conflict(format!("an attempt of {id} is under way already"))),
        Amended::Ended(ended) => {
            let state = ended.name();
            Err(OpsError::Conflict(format!("{id} has ended ({state}); only a pending callback can be {done}")))
        }
    }
}
