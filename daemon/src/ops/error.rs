//! Why an operation did nothing.

use super::policy::Denied;
use crate::store::StoreError;

/// A kind for programs, and a sentence for people.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    #[error("{0}")]
    InvalidRequest(String),
    #[error("{0}")]
    UrlRefused(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    KeyState(String),
    /// It would end callbacks, so it is done only if it is asked for again, with a confirmation.
    #[error("{0}")]
    ConfirmationNeeded(String),
    /// It is about more than what was asked for, so it is done only with a confirmation.
    #[error("{0}")]
    TooManyRows(String),
    /// It existed, but is not kept any longer.
    #[error("{0}")]
    Pruned(String),
    #[error("this Idempotency-Key came with another request before")]
    IdempotencyMismatch,
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller is known, but does not have the right.
    #[error(transparent)]
    Forbidden(#[from] Denied),
    #[error("{0}")]
    NotReady(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpsError {
    pub fn invalid(sentence: impl Into<String>) -> Self {
        Self::InvalidRequest(sentence.into())
    }
}
