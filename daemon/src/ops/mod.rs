//! What a person or another program may ask. API, CLI and dashboards call these functions and no other logic; each
//! takes an [`Caller`], and each change writes an audit row.

pub mod audit;
pub mod callbacks;
pub mod checks;
pub mod endpoints;
pub mod keys;
pub mod offsets;
pub mod retention;
pub mod status;
pub mod switch;
pub mod teams;
pub mod tokens;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::base::telemetry::LogLevel;
use crate::deliver::Engine;
use crate::deliver::directory::Directory;
use crate::intake::KafkaState;
use crate::intake::consumer::Ask;
use crate::keyring::Keyring;
use crate::schedule::Lanes;
use crate::store::StoreError;
use crate::store::admin::{Admin, AuditEntry, Made};
use crate::store::reads::Reads;

/// Who asks, and from where: for the audit.
#[derive(Debug, Clone)]
pub struct Caller {
    pub name: String,
    pub origin: String,
}

impl Caller {
    fn entry(&self, action: &'static str, object: impl Into<String>, change: impl Into<String>) -> AuditEntry {
        AuditEntry {
            caller: self.name.clone(),
            origin: self.origin.clone(),
            action,
            object: object.into(),
            change: change.into(),
        }
    }
}

/// Why an operation did nothing: a kind for programs and a sentence for people.
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
    /// It was there, and is kept no longer.
    #[error("{0}")]
    Pruned(String),
    #[error("this Idempotency-Key came with another request before")]
    IdempotencyMismatch,
    #[error("{0}")]
    Unauthenticated(String),
    #[error("{0}")]
    NotReady(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a reload changes and operations look at.
#[derive(Debug, Clone)]
pub struct Settings {
    pub keep: retention::Retention,
    /// Names that API requests may be made to.
    pub hosts: Vec<String>,
}

/// What a request to make something came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation<T> {
    New(T),
    /// The same request, told by its `Idempotency-Key`, made it before; this is how it stands now.
    Repeated(T),
}

impl<T> Creation<T> {
    pub fn into_inner(self) -> T {
        match self {
            Self::New(value) | Self::Repeated(value) => value,
        }
    }
}

/// What the store says of a making: nothing where it is new, else the object that the same request made before.
fn created(made: Made, exists: impl FnOnce() -> String) -> Result<Option<String>, OpsError> {
    match made {
        Made::Done => Ok(None),
        Made::Repeated(object) => Ok(Some(object)),
        Made::Exists => Err(OpsError::Conflict(exists())),
        Made::Mismatch => Err(OpsError::IdempotencyMismatch),
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Everything that operations work on.
#[derive(Clone)]
pub struct Ops {
    pub admin: Admin,
    pub reads: Arc<dyn Reads>,
    pub keyring: Arc<Keyring>,
    pub directory: Arc<Directory>,
    pub engine: Arc<Engine>,
    pub lanes: Arc<Lanes>,
    pub tokens: Arc<tokens::TokenBook>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub kafka: watch::Receiver<KafkaState>,
    pub store_up: watch::Receiver<bool>,
    pub asks: mpsc::Sender<Ask>,
    pub store_id: String,
    pub settings: watch::Receiver<Settings>,
    pub log_level: LogLevel,
    pub backlog: Arc<status::Backlog>,
    /// Why the daemon does not deliver though it runs, if so.
    pub draining: Stop,
}
