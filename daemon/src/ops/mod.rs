//! What a person or another program may ask. API, CLI and dashboards call these functions and no other logic; each
//! takes an [`Actor`], and each change writes an audit row.

pub mod callbacks;
pub mod keys;
pub mod retention;
pub mod sources;
pub mod status;
pub mod teams;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::deliver::Engine;
use crate::deliver::directory::Directory;
use crate::intake::KafkaState;
use crate::intake::consumer::Ask;
use crate::keyring::Keyring;
use crate::store::StoreError;
use crate::store::people::{AuditEntry, People};
use crate::store::reads::Reads;

/// Who asks, and from where: for the audit.
#[derive(Debug, Clone)]
pub struct Actor {
    pub name: String,
    pub origin: String,
}

impl Actor {
    fn entry(&self, action: &'static str, object: impl Into<String>, change: impl Into<String>) -> AuditEntry {
        AuditEntry {
            actor: self.name.clone(),
            origin: self.origin.clone(),
            action,
            object: object.into(),
            change: change.into(),
        }
    }
}

/// Why an operation did nothing. Each has a code for programs and a sentence for people.
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
    #[error("{0}")]
    NotReady(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpsError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::UrlRefused(_) => "url_refused",
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::KeyState(_) => "key_state",
            Self::NotReady(_) => "not_ready",
            Self::Store(StoreError::Refused(_)) => "invalid_request",
            Self::Store(_) => "store_unavailable",
        }
    }
}

/// Everything that operations work on.
#[derive(Clone)]
pub struct Ops {
    pub people: People,
    pub reads: Arc<dyn Reads>,
    pub keyring: Arc<Keyring>,
    pub directory: Arc<Directory>,
    pub engine: Arc<Engine>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub kafka: watch::Receiver<KafkaState>,
    pub store_up: watch::Receiver<bool>,
    pub asks: mpsc::Sender<Ask>,
    pub store_id: String,
    pub backlog: Arc<status::Backlog>,
    /// Why the daemon does not deliver though it runs, if so.
    pub draining: Stop,
}
