//! Opening the store on a server, and the pools of connections.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};

use super::error::PostgresError;
use super::lock::{Lock, LockError, LockState};
use super::migrations;
use super::numbers::Numbers;
use super::server::Unfit;
use super::session::{self, Dialler, Limit, Warnings};
use super::transaction::{Tx, commit_watched};
use super::url::PostgresUrl;
use crate::base::clock::{Clock, SystemClock};
use crate::model::dead_letter::ValueBudget;
use crate::model::keeping::Keeping;
use crate::store::{OpenError, Options, StoreError};

/// Connections that write, that read for delivery, and that read for people. They are separate, so that delivery never waits
/// for a read for people.
const WRITERS: usize = 4;
const DELIVERY_READERS: usize = 2;
const PEOPLE_READERS: usize = 2;
/// How long a call waits for a connection.
const TURN: Duration = Duration::from_secs(5);

/// The one store of a database.
pub(in crate::store) struct PostgresStore {
    for_writes: Pool,
    for_delivery: Pool,
    for_people: Pool,
    pub(super) clock: Arc<dyn Clock>,
    /// Bounds what is kept of dead letters.
    pub(super) values: ValueBudget,
    pub(super) keeping: Keeping,
    pub(super) numbers: Numbers,
    lock: Lock,
    pub(super) warnings: Warnings,
}

impl PostgresStore {
    /// Connects, takes the store's lock, and makes or migrates the schema.
    pub(in crate::store) async fn open(
        url: &PostgresUrl,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let store = Self::connect(url, options, clock).await.map_err(|error| error.of(url))?;
        let mut client = store.writer().await.map_err(|error| error.at_open(url))?;
        migrations::migrate(&mut client, url, options.migrate, store.clock.now()).await?;
        drop(client);
        Ok(store)
    }

    /// Takes the store's lock, and makes the pools.
    async fn connect(url: &PostgresUrl, options: Options, clock: Arc<dyn Clock>) -> Result<Self, LockError> {
        let warnings = Warnings::default();
        let dialler = || Dialler::new(url, warnings.clone()).map_err(Unfit::for_good);
        let pool = |size, limit| pool(url, dialler()?, size, limit).map_err(Unfit::for_good);
        Ok(Self {
            lock: Lock::take(url, dialler()?).await?,
            for_writes: pool(WRITERS, Limit::Write)?,
            for_delivery: pool(DELIVERY_READERS, Limit::Read)?,
            for_people: pool(PEOPLE_READERS, Limit::Read)?,
            clock,
            values: options.values,
            keeping: options.keeping,
            numbers: Numbers::default(),
            warnings,
        })
    }

    /// A connection that writes.
    pub(super) async fn writer(&self) -> Result<Object, PostgresError> {
        let error = match self.lock.state() {
            LockState::Held => return Ok(self.for_writes.get().await?),
            LockState::Away => StoreError::Unavailable(
                "the connection that holds the store's lock ended, and the lock is not held again yet".to_owned(),
            ),
            LockState::Lost => StoreError::Broken(
                "another callbackd took the store's lock while the connection that held it was away".to_owned(),
            ),
        };
        Err(PostgresError::Store(error))
    }

    /// Commits what others rely on at once.
    pub(super) async fn commit(&self, transaction: Tx<'_>) -> Result<(), PostgresError> {
        commit_watched(transaction, &self.warnings).await
    }

    pub(super) async fn delivery_reader(&self) -> Result<Object, PostgresError> {
        Ok(self.for_delivery.get().await?)
    }

    pub(super) async fn people_reader(&self) -> Result<Object, PostgresError> {
        Ok(self.for_people.get().await?)
    }
}

/// The store as it is, under its lock, for tools that only look.
pub(super) async fn look(url: &PostgresUrl) -> Result<PostgresStore, LockError> {
    PostgresStore::connect(url, Options::default(), Arc::new(SystemClock)).await
}

fn pool(url: &PostgresUrl, dialler: Dialler, size: usize, limit: Limit) -> Result<Pool, String> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_connect(url.config.clone(), dialler, recycling);
    let timeouts = Timeouts { wait: Some(TURN), create: Some(TURN), recycle: Some(TURN) };
    let fit = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        Box::pin(async move {
            let fit = session::prepare(client, limit).await;
            fit.map_err(|unfit| HookError::message(unfit.reason))
        })
    });
    let builder = Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1).timeouts(timeouts).post_create(fit);
    builder.build().map_err(|error| error.to_string())
}
