//! Opening the store on a server, its lock, and the pools of connections.
//!
//! One daemon at a time uses a database. It holds an advisory lock on a connection of its own. If that connection ends, nothing
//! is written until the lock is held again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls};

use super::error::{PostgresError, told};
use super::migrations;
use super::numbers::Numbers;
use super::server;
use super::tls::VerifyFull;
use super::url::{PostgresUrl, Tls};
use crate::base::clock::{Clock, SystemClock};
use crate::base::pace::Pace;
use crate::model::dead_letter::ValueBudget;
use crate::store::{OpenError, StoreError};

/// Connections that write, that read for delivery, and that read for people. They are separate, so that delivery never waits
/// for a read for people.
const WRITERS: usize = 4;
const DELIVERY_READERS: usize = 2;
const PEOPLE_READERS: usize = 2;
/// How long a call waits for a connection.
const TURN: Duration = Duration::from_secs(5);
/// What every session is set to: a frozen process can't hold others up, and a commit is on disk when it is acknowledged.
const SESSION: &str = "-c synchronous_commit=on -c lock_timeout=2s -c idle_in_transaction_session_timeout=5s";
const WRITES_AT_MOST: &str = "-c statement_timeout=30s";
/// How long one read may run.
const READS_AT_MOST: &str = "-c statement_timeout=2s";
/// The advisory lock of a store. Locks of this kind belong to one database.
const LOCK: (i32, i32) = (0x6361_6c6c, 1);

/// The one store of a database.
pub(in crate::store) struct PostgresStore {
    for_writes: Pool,
    for_delivery: Pool,
    for_people: Pool,
    pub(super) clock: Arc<dyn Clock>,
    /// Bounds what is kept of dead letters.
    pub(super) values: ValueBudget,
    pub(super) numbers: Numbers,
    lock: Lock,
}

impl PostgresStore {
    /// Connects, takes the store's lock, and makes or migrates the schema.
    pub(in crate::store) async fn open(
        url: &PostgresUrl,
        values: ValueBudget,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let store = Self::connect(url, values, clock).await.map_err(|error| error.of(url))?;
        let unusable = |error: PostgresError| OpenError::Database {
            url: url.to_string(),
            reason: StoreError::from(error).to_string(),
        };
        let mut client = store.writer().await.map_err(unusable)?;
        migrations::migrate(&mut client, url, store.clock.now()).await?;
        drop(client);
        Ok(store)
    }

    /// Takes the store's lock, and makes the pools.
    async fn connect(url: &PostgresUrl, values: ValueBudget, clock: Arc<dyn Clock>) -> Result<Self, LockError> {
        let lock = Lock::take(url).await?;
        let pool = |size, limit| pool(url, size, limit).map_err(LockError::Other);
        Ok(Self {
            for_writes: pool(WRITERS, WRITES_AT_MOST)?,
            for_delivery: pool(DELIVERY_READERS, READS_AT_MOST)?,
            for_people: pool(PEOPLE_READERS, READS_AT_MOST)?,
            clock,
            values,
            numbers: Numbers::default(),
            lock,
        })
    }

    /// A connection that writes.
    pub(super) async fn writer(&self) -> Result<Object, PostgresError> {
        if !self.lock.is_held.load(Ordering::SeqCst) {
            let why = "the connection that holds the store's lock ended, and the lock is not held again yet";
            return Err(PostgresError::Store(StoreError::Unavailable(why.to_owned())));
        }
        Ok(self.for_writes.get().await?)
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
    PostgresStore::connect(url, ValueBudget::UNBOUNDED, Arc::new(SystemClock)).await
}

fn pool(url: &PostgresUrl, size: usize, limit: &str) -> Result<Pool, String> {
    let mut config = url.config.clone();
    let more = config.get_options().unwrap_or_default().to_owned();
    config.options(format!("{SESSION} {limit} {more}"));
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &url.tls {
        Tls::Off => Manager::from_config(config, NoTls, recycling),
        Tls::VerifyFull(roots) => Manager::from_config(config, VerifyFull::new(roots.as_deref())?, recycling),
    };
    let timeouts = Timeouts { wait: Some(TURN), create: Some(TURN), recycle: Some(TURN) };
    let fit = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
        Box::pin(async move { server::check(client).await.map_err(HookError::message) })
    });
    let builder = Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1).timeouts(timeouts).post_create(fit);
    builder.build().map_err(|error| error.to_string())
}

/// The lock of the store. Dropping it gives the lock back.
struct Lock {
    is_held: Arc<AtomicBool>,
    /// Dropped with the lock: the task ends and closes its connection.
    _ends: oneshot::Sender<()>,
}

pub(super) enum LockError {
    Held,
    Other(String),
}

impl LockError {
    /// What it means for the store at this URL.
    pub(super) fn of(self, url: &PostgresUrl) -> OpenError {
        match self {
            Self::Held => OpenError::DatabaseInUse { url: url.to_string() },
            Self::Other(reason) => OpenError::Database { url: url.to_string(), reason },
        }
    }
}

impl Lock {
    async fn take(url: &PostgresUrl) -> Result<Self, LockError> {
        let (client, connection) = locked(url).await?;
        let is_held = Arc::new(AtomicBool::new(true));
        let (ends, ended) = oneshot::channel();
        tokio::spawn(keep(url.clone(), Arc::clone(&is_held), client, connection, ended));
        Ok(Self { is_held, _ends: ends })
    }
}

type Connection = std::pin::Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// Connects and takes the lock on this connection.
async fn locked(url: &PostgresUrl) -> Result<(Client, Connection), LockError> {
    let other = |error: tokio_postgres::Error| LockError::Other(told(&error));
    let (client, mut connection): (Client, Connection) = match &url.tls {
        Tls::Off => {
            let (client, connection) = url.config.connect(NoTls).await.map_err(other)?;
            (client, Box::pin(connection))
        }
        Tls::VerifyFull(roots) => {
            let tls = VerifyFull::new(roots.as_deref()).map_err(LockError::Other)?;
            let (client, connection) = url.config.connect(tls).await.map_err(other)?;
            (client, Box::pin(connection))
        }
    };
    let asked = async {
        server::check(&client).await.map_err(LockError::Other)?;
        let row = client.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCK.0, &LOCK.1]).await.map_err(other)?;
        if row.get(0) { Ok(()) } else { Err(LockError::Held) }
    };
    tokio::select! {
        answer = asked => answer?,
        ended = &mut connection => return Err(LockError::Other(ended.err().map_or_else(|| "it was closed".to_owned(), |error| told(&error)))),
    }
    Ok((client, connection))
}

/// Holds the lock, and takes it again after its connection ended.
async fn keep(
    url: PostgresUrl,
    is_held: Arc<AtomicBool>,
    client: Client,
    connection: Connection,
    mut ended: oneshot::Receiver<()>,
) {
    let mut held = Some((client, connection));
    let mut pace = Pace::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        if let Some((client, connection)) = held.take() {
            is_held.store(true, Ordering::SeqCst);
            tokio::select! {
                _ = &mut ended => return,
                error = connection => {
                    is_held.store(false, Ordering::SeqCst);
                    let error = error.err().map_or_else(|| "it was closed".to_owned(), |error| told(&error));
                    tracing::warn!(error, "the connection that holds the store's lock ended; nothing is written until it is back");
                }
            }
            drop(client);
        }
        tokio::select! {
            _ = &mut ended => return,
            () = tokio::time::sleep(pace.next_wait()) => {}
        }
        match locked(&url).await {
            Ok(again) => {
                tracing::info!("the store's lock is held again");
                pace = Pace::new(Duration::from_millis(100), Duration::from_secs(5));
                held = Some(again);
            }
            Err(LockError::Held) => tracing::error!("another callbackd holds the store's lock"),
            Err(LockError::Other(error)) => tracing::debug!(error, "the store's lock can't be taken now"),
        }
    }
}
