//! What an operator does with a store while no daemon runs on it: inspect it, check it, migrate it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::report::{BackedUp, Info, Looked};
use super::{Config, OpenError, Options, open, postgres, sqlite};
use crate::base::clock::{Clock, Timestamp};

/// Checks everything that could keep a daemon from using this store. Changes nothing.
pub async fn check(config: &Config, now: Timestamp) -> Looked {
    match config {
        Config::Directory(directory) => sqlite::tools::check::check(directory, now),
        Config::Postgres(url) => postgres::tools::check(url, now).await,
    }
}

/// Every migration that this program knows, and whether it is applied; where there is no store yet, none is.
///
/// # Errors
/// [`OpenError`].
pub async fn migrations(config: &Config) -> Result<Vec<(&'static str, bool)>, OpenError> {
    match config {
        Config::Directory(directory) => sqlite::tools::inspect::migrations(directory),
        Config::Postgres(url) => patiently(|| postgres::tools::migrations(url)).await,
    }
}

/// Applies the migrations that the store lacks, and makes the store where there is none.
///
/// # Errors
/// [`OpenError`].
pub async fn migrate(config: &Config, clock: Arc<dyn Clock>) -> Result<(), OpenError> {
    patiently(|| open(config, Options::default(), Arc::clone(&clock))).await.map(drop)
}

/// How long somebody else may hold the store's lock: a daemon that waits for a migration takes it for a moment, again and again, and the
/// sessions of a process that has just ended last a moment longer than the process.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const NEXT_TRY: Duration = Duration::from_millis(50);

async fn patiently<T>(mut work: impl AsyncFnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match work().await {
            Err(OpenError::DatabaseInUse { .. } | OpenError::DatabaseHeld { .. } | OpenError::InUse { .. })
                if Instant::now() < end =>
            {
                tokio::time::sleep(NEXT_TRY).await;
            }
            other => return other,
        }
    }
}

/// What the store is and holds. Changes nothing.
///
/// # Errors
/// [`OpenError`].
pub async fn info(config: &Config) -> Result<Info, OpenError> {
    match config {
        Config::Directory(directory) => sqlite::tools::inspect::info(directory),
        Config::Postgres(url) => patiently(|| postgres::tools::info(url)).await,
    }
}

/// Copies the store, which may be in use, into a new directory. It blocks.
///
/// # Errors
/// [`OpenError`]; a store on a server is backed up there.
pub fn backup(config: &Config, to: &Path) -> Result<BackedUp, OpenError> {
    match config {
        Config::Directory(directory) => sqlite::tools::backup::backup(directory, to),
        Config::Postgres(url) => Err(OpenError::Database {
            url: url.to_string(),
            reason: "a database is backed up with PostgreSQL's own tools, for example pg_dump --format=custom; see docs/scaling.md"
                .to_owned(),
        }),
    }
}

/// Reads all of the store: a sentence for each thing that is wrong. Changes nothing.
///
/// # Errors
/// [`OpenError`].
pub async fn verify(config: &Config) -> Result<Vec<String>, OpenError> {
    match config {
        Config::Directory(directory) => sqlite::tools::inspect::verify(directory),
        Config::Postgres(url) => patiently(|| postgres::tools::verify(url)).await,
    }
}
