//! What happened to a callback, a task, a dead letter.

use super::{Ops, OpsError};
use crate::model::callback::CallbackId;
use crate::model::settlement::{NumberedAttempt, Rows};
use crate::store::reads::{BuriedLetter, CallbackFilter, Page};

const PAGE: usize = 50;
const PAGE_AT_MOST: usize = 1_000;

/// Everything that is known of one task.
pub struct TaskHistory {
    pub callbacks: Vec<(CallbackId, Rows)>,
    pub dead_letters: Vec<BuriedLetter>,
}

/// A page of a list and whether more follow.
pub struct Listed<T> {
    pub docs: Vec<T>,
    pub has_more: bool,
    pub limit: usize,
}

impl Ops {
    /// Callbacks that match, newest event first.
    ///
    /// # Errors
    /// `invalid_request`, or the store's.
    pub async fn callbacks(
        &self,
        filter: CallbackFilter,
        before: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Listed<(CallbackId, Rows)>, OpsError> {
        let known = ["pending", "delivered", "exhausted", "abandoned"];
        if let Some(state) = filter.state.as_deref().filter(|state| !known.contains(state)) {
            return Err(OpsError::InvalidRequest(format!("state is one of {}, not {state:?}", known.join(", "))));
        }
        let before = before.map(callback_id).transpose()?;
        let limit = limit.unwrap_or(PAGE).clamp(1, PAGE_AT_MOST);
        let docs = self.reads.callbacks(filter, Page { before, limit: limit + 1 }).await?;
        Ok(listed(docs, limit))
    }

    /// One callback and its attempts.
    ///
    /// # Errors
    /// `invalid_request`, `not_found`, or the store's.
    pub async fn callback(&self, id: &str) -> Result<(CallbackId, Rows, Vec<NumberedAttempt>), OpsError> {
        let id = callback_id(id)?;
        let rows = self.reads.rows(id).await?;
        if rows == Rows::default() {
            return Err(OpsError::NotFound(format!("there is no callback {id}")));
        }
        let attempts = self.reads.attempts(id).await?;
        Ok((id, rows, attempts))
    }

    /// Every callback and dead letter of a task.
    ///
    /// # Errors
    /// The store's.
    pub async fn task(&self, task: &str) -> Result<TaskHistory, OpsError> {
        let page = || Page { before: None, limit: PAGE_AT_MOST };
        let filter = CallbackFilter { task: Some(task.to_owned()), ..CallbackFilter::default() };
        let callbacks = self.reads.callbacks(filter, page()).await?;
        let dead_letters = self.reads.dead_letters(Some(task.to_owned()), page()).await?;
        Ok(TaskHistory { callbacks, dead_letters })
    }

    /// Dead letters, newest first.
    ///
    /// # Errors
    /// `invalid_request`, or the store's.
    pub async fn dead_letters(
        &self,
        task: Option<String>,
        before: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Listed<BuriedLetter>, OpsError> {
        let before = before.map(dead_letter_id).transpose()?;
        let limit = limit.unwrap_or(PAGE).clamp(1, PAGE_AT_MOST);
        let docs = self.reads.dead_letters(task, Page { before, limit: limit + 1 }).await?;
        Ok(listed(docs, limit))
    }

    /// One dead letter, with its bytes.
    ///
    /// # Errors
    /// `invalid_request`, `not_found`, or the store's.
    pub async fn dead_letter(&self, id: &str) -> Result<BuriedLetter, OpsError> {
        let found = self.reads.dead_letter(dead_letter_id(id)?).await?;
        found.ok_or_else(|| OpsError::NotFound(format!("there is no dead letter {id}")))
    }
}

fn listed<T>(mut docs: Vec<T>, limit: usize) -> Listed<T> {
    let has_more = docs.len() > limit;
    docs.truncate(limit);
    Listed { docs, has_more, limit }
}

fn callback_id(text: &str) -> Result<CallbackId, OpsError> {
    CallbackId::parse(text).ok_or_else(|| malformed("callback", "cb_", text))
}

fn dead_letter_id(text: &str) -> Result<CallbackId, OpsError> {
    CallbackId::parse_dead_letter(text).ok_or_else(|| malformed("dead letter", "dl_", text))
}

fn malformed(what: &str, prefix: &str, text: &str) -> OpsError {
    let shown = crate::base::text::printable(text.as_bytes(), 64);
    OpsError::InvalidRequest(format!("{shown:?} is no {what} id; one is {prefix} and 26 characters"))
}
