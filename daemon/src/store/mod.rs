//! Everything that outlives memory. Four object-safe traits describe it: [`EngineStore`] for the hot path, [`Reads`]
//! for people, [`AdminStore`] for teams, keys, tokens and the audit, and [`Outbox`] for what is published. The rest of the daemon holds them as
//! `Arc<dyn ...>` and does not know which database it is.
//!
//! Only this room contains SQL. Every implementer merges rows by `model::settlement::apply`, and for each trait one
//! contract suite in `tests/it/store` runs over every implementer. Times that are compared (due, leases, horizons) are
//! made and compared with the store's clock.

pub mod admin;
pub mod batch;
mod copied;
pub mod copy;
mod endpoint_histories;
mod engine;
mod failed_between;
pub mod faulty;
mod filter;
mod letters;
pub mod memory;
pub mod outbox;
mod packed;
mod postgres;
mod queue_changes;
pub mod reads;
mod report;
pub mod resends;
mod search;
mod space;
pub mod sql;
mod sqlite;
pub mod tools;
mod versions;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use crate::base::clock::{Clock, Timestamp};
use crate::model::dead_letter::ValueBudget;
use crate::model::keeping::Keeping;
use crate::model::notice::Notices;
use admin::AdminStore;
pub use engine::{
    Applied, Batch, Begun, ClaimAsk, Claimed, EngineStore, EventClaim, InstanceId, Known, NewLog, PartitionWatermark,
    PruneAsk, Pruned, Pulse, QueueOf, ResendStep, SetBack, Take, TakeAsk, Taken,
};
pub use letters::{LetterResend, LetterResent};
use outbox::Outbox;
pub use postgres::{PostgresUrl, UrlError};
use reads::Reads;
pub use space::{Space, SpaceAsk};
pub use versions::{Programs, SetAside};

/// The future that every call of the store returns. It is boxed, so that the traits are object-safe.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing happened, and it may work later: a full disk, a lock held by another, no connection.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It may have happened: write the same batch again.
    #[error("the store did not say whether the batch was applied: {0}")]
    Uncertain(String),
    /// The data itself was refused; nothing of the batch happened.
    #[error("the store refused the data: {0}")]
    Refused(String),
    /// The store does not know this instance as it is: the database went back to an earlier state, or another instance has
    /// its name. The instance must give everything up and begin anew.
    #[error("this instance must begin anew: {0}")]
    Superseded(String),
    /// Nothing can be trusted any more: the process must end.
    #[error("the store is broken: {0}")]
    Broken(String),
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// SQLite, in a directory of this machine, which one process holds at a time.
    Directory(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(Box<PostgresUrl>),
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => write!(f, "{url}"),
        }
    }
}

/// How a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The name of this daemon among those that share the store; at most one has it at a time.
    pub name: Option<Arc<str>>,
    pub migrate: Migrate,
    /// Bounds what is kept of dead letters.
    pub values: ValueBudget,
    /// Which bodies are kept after their callbacks have ended.
    pub keeping: Keeping,
    /// What is to be published.
    pub notices: Notices,
}

impl Default for Options {
    fn default() -> Self {
        let (values, keeping) = (ValueBudget::UNBOUNDED, Keeping::NOTHING);
        Self { name: None, migrate: Migrate::Auto, values, keeping, notices: Notices::default() }
    }
}

/// Who applies the migrations that a store lacks, and makes a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrate {
    /// Whoever opens it.
    Auto,
    /// An operator, with `callbackd migrate`.
    Manual,
}

/// Why a store can't be opened: a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("store.path: {path}: {source}", path = path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("store.path: {path} is in use by another callbackd; stop that one, or give this one a store of its own", path = path.display())]
    InUse { path: PathBuf },
    #[error("store.path: {path} can't be used as a store: {reason}", path = path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error(
        "{at}: it was written by a newer callbackd (schema {found}): it needs one that knows schema {needed}, and this one knows schema {known}"
    )]
    Newer { at: String, found: usize, needed: usize, known: usize },
    #[error(
        "{at}: migration {migration} waits until these older callbackd have ended, because they could not write to the store after it: {older}"
    )]
    OlderLive { at: String, migration: &'static str, older: String },
    #[error(
        "store.path: the store {path} was copied to {to} at {at} and is sealed, so that nothing is sent twice; start the daemon with that store.url",
        path = path.display()
    )]
    Sealed { path: PathBuf, to: String, at: Timestamp },
    #[error(
        "store.url: {url} holds a copy of a store that is not finished; run callbackd store copy again with the configuration of the old store"
    )]
    Unfinished { url: String },
    #[error("store.url: {url}: {reason}")]
    Database { url: String, reason: String },
    #[error("store.url: {url}: {reason}")]
    DatabaseAway { url: String, reason: String },
    #[error("the store {at} lacks {missing} migrations, and store.migrate is \"manual\"; run: callbackd migrate")]
    Unmigrated { at: String, missing: usize },
    #[error(
        "store.url: {url} is held by a tool, or by an older callbackd, which must be alone; wait for its end, or stop it"
    )]
    DatabaseHeld { url: String },
    #[error("store.url: {url} is in use by a callbackd that runs; stop all of them first")]
    DatabaseInUse { url: String },
    #[error(
        "instance.name: another callbackd runs under the name \"{name}\" on {url}; stop that one, or give this one a name of its own"
    )]
    NameInUse { url: String, name: String },
}

impl OpenError {
    /// It may be opened later, though nothing changes in the configuration.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::DatabaseAway { .. }
                | Self::DatabaseHeld { .. }
                | Self::NameInUse { .. }
                | Self::Unmigrated { .. }
                | Self::OlderLive { .. }
        )
    }
}

/// One open store, by what it is used for.
#[derive(Clone)]
pub struct Stores {
    pub engine: Arc<dyn EngineStore>,
    pub reads: Arc<dyn Reads>,
    pub admin: Arc<dyn AdminStore>,
    pub outbox: Arc<dyn Outbox>,
}

impl Stores {
    /// One implementer of all four traits.
    pub fn of<S: EngineStore + Reads + AdminStore + Outbox + 'static>(store: Arc<S>) -> Self {
        let (engine, reads, admin) = (Arc::clone(&store) as _, Arc::clone(&store) as _, Arc::clone(&store) as _);
        Self { engine, reads, admin, outbox: store }
    }
}

/// Opens the store that `config` names. Where `options` say so, it is made if there is none, and migrated.
///
/// # Errors
/// [`OpenError`].
pub async fn open(config: &Config, options: Options, clock: Arc<dyn Clock>) -> Result<Stores, OpenError> {
    Ok(match config {
        Config::Directory(directory) => Stores::of(Arc::new(sqlite::SqliteStore::open(directory, options, clock)?)),
        Config::Postgres(url) => Stores::of(Arc::new(postgres::PostgresStore::open(url, options, clock).await?)),
    })
}
