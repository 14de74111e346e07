//! The SQLite store: one writer thread that owns the writing connection, a few reading connections bounded in time,
//! and a file lock that keeps other processes out.
//!
//! WAL with `synchronous=FULL`: a commit that was answered is on the disk. Files are 0600 in a 0700 directory.

pub mod check;
mod claim;
pub mod inspect;
mod lists;
mod partition_offsets;
mod rows;
mod scan;
mod upkeep;
mod write;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{
    Answer, Applied, Batch, Begun, ClaimAsk, Claimed, EventClaim, InstanceId, Known, PruneAsk, Pruned, Store,
    StoreError, Taken,
};
use crate::base::clock::Clock;
use crate::model::callback::CallbackId;
use crate::model::event::PartitionKey;
use rows::IdCache;

/// How long one read may run: a longer one would keep checkpoints from finishing.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Reading connections of the engine, and of people: whatever people ask, delivery never waits for it.
const READERS: usize = 2;
const ASKERS: usize = 2;
/// How long a question waits for its turn behind others.
const TURN: Duration = Duration::from_secs(5);
/// Jobs that wait for the writer.
const WRITER_QUEUE: usize = 64;

const FILE: &str = "callbackd.db";
const LOCK: &str = "callbackd.lock";

const MIGRATIONS: [(&str, &str); 4] = [
    ("0001_engine", include_str!("../../../migrations/sqlite/0001_engine.sql")),
    ("0002_people", include_str!("../../../migrations/sqlite/0002_people.sql")),
    ("0003_surface", include_str!("../../../migrations/sqlite/0003_surface.sql")),
    ("0004_words", include_str!("../../../migrations/sqlite/0004_words.sql")),
];

#[derive(Debug, Clone)]
pub struct Config {
    /// The directory of the store's files.
    pub directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("store.path: {path}: {source}", path = path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("store.path: {path} is in use by another callbackd; stop that one, or give this one a store of its own", path = path.display())]
    InUse { path: PathBuf },
    #[error("store.path: {path} can't be used as a store: {reason}", path = path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("store.path: {path} was written by a newer callbackd (schema {found}, this one knows {known})", path = path.display())]
    Newer { path: PathBuf, found: usize, known: usize },
}

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// Opens the one store of a directory, and everything that goes with it.
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    readers: Arc<Readers>,
    askers: Arc<Readers>,
    /// Held while the process lives; the kernel lets go of it at any death.
    _lock: File,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: tokio::sync::Semaphore,
}

/// What the writer thread owns.
pub(crate) struct Writer {
    connection: Connection,
    books: IdCache,
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens, or makes, the store in `config.directory`, migrates it, and starts its writer thread.
    ///
    /// # Errors
    /// [`OpenError`], a sentence for a person.
    pub fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let lock = prepare_directory(&config.directory)?;
        let path = config.directory.join(FILE);
        let unusable = |error: rusqlite::Error| OpenError::Unusable { path: path.clone(), reason: error.to_string() };
        let mut connection = Connection::open(&path).map_err(unusable)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
        configure(&connection).map_err(unusable)?;
        migrate(&mut connection, &path, clock.as_ref())?;
        let (jobs, queue) = mpsc::channel(WRITER_QUEUE);
        let writer = Writer { connection, books: IdCache::default(), clock };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run_writer(writer, queue))
            .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
        let (readers, askers) = (Readers::new(path.clone(), READERS), Readers::new(path, ASKERS));
        Ok(Self { jobs, readers, askers, _lock: lock })
    }

    /// Runs `job` on the writer thread, in a transaction that commits if it answers well.
    pub(crate) fn in_transaction<T: Send + 'static>(
        &self,
        job: impl FnOnce(&rusqlite::Transaction<'_>, &mut IdCache, crate::base::clock::Timestamp) -> Result<T, Failure>
        + Send
        + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let job: Job = Box::new(move |writer| {
                let _ = answer.send(writer.transact(job));
            });
            self.jobs.send(job).await.map_err(|_| StoreError::Broken("its writer ended".to_owned()))?;
            answered.await.map_err(|_| StoreError::Broken("its writer ended".to_owned()))?
        })
    }

    /// Runs `job` on one of the engine's reading connections, for at most [`READ_LIMIT`].
    pub(crate) fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Answer<'_, T> {
        let readers = Arc::clone(&self.readers);
        Box::pin(async move {
            let permit = readers.permits.acquire().await.map_err(|_| StoreError::Broken("it is closed".to_owned()))?;
            let result = readers.run_apart(job).await;
            drop(permit);
            result
        })
    }

    /// Runs `job` on one of the people's reading connections, for at most [`READ_LIMIT`], after at most [`TURN`].
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Answer<'_, T> {
        let askers = Arc::clone(&self.askers);
        Box::pin(async move {
            let turn = tokio::time::timeout(TURN, askers.permits.acquire()).await;
            let busy = || StoreError::Unavailable("too much is asked of it at once".to_owned());
            let permit = turn.map_err(|_| busy())?.map_err(|_| StoreError::Broken("it is closed".to_owned()))?;
            let result = askers.run_apart(job).await;
            drop(permit);
            result
        })
    }
}

impl Readers {
    fn new(path: PathBuf, count: usize) -> Arc<Self> {
        Arc::new(Self { path, idle: Mutex::default(), permits: tokio::sync::Semaphore::new(count) })
    }

    async fn run_apart<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let own = Arc::clone(self);
        let ended = |_| StoreError::Unavailable("a read was given up".to_owned());
        tokio::task::spawn_blocking(move || own.run(job)).await.map_err(ended)?
    }

    fn run<T>(&self, job: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().map_err(Failure::from).map_err(StoreError::from)?,
        };
        let deadline = Instant::now() + READ_LIMIT;
        let limited = connection.progress_handler(10_000, Some(move || Instant::now() >= deadline));
        let result = limited.map_err(Failure::from).and_then(|()| job(&connection));
        let _ = connection.progress_handler(0, None::<fn() -> bool>);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result.map_err(StoreError::from)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }
}

impl Writer {
    fn transact<T>(
        &mut self,
        job: impl FnOnce(&rusqlite::Transaction<'_>, &mut IdCache, crate::base::clock::Timestamp) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let now = self.clock.now();
        let result =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Failure::from).and_then(
                |transaction| {
                    let value = job(&transaction, &mut self.books, now)?;
                    transaction.commit()?;
                    Ok(value)
                },
            );
        if result.is_err() {
            // Numbers learned inside a transaction that was rolled back may be wrong.
            self.books = IdCache::default();
        }
        result.map_err(StoreError::from)
    }
}

fn run_writer(mut writer: Writer, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        job(&mut writer);
    }
    // A last checkpoint makes the next start quick; without it nothing is lost.
    let _ = writer.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE");
}

fn prepare_directory(directory: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    lock(directory)
}

/// The lock of a store: whoever holds it is alone.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.map_err(|source| OpenError::Directory { path, source })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(OpenError::Directory { path: directory.to_owned(), source }),
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(connection: &mut Connection, path: &Path, clock: &dyn Clock) -> Result<(), OpenError> {
    let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
    let found: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| unusable(error.to_string()))?;
    let known = MIGRATIONS.len();
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    for (index, (name, sql)) in MIGRATIONS.iter().enumerate().skip(found) {
        let apply = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(sql)?;
            if index == 0 {
                let id = format!("st_{}", scale_callback_serve::text::hex(&random_bytes()));
                transaction.execute(
                    "INSERT INTO store (one, id, generation, created_at) VALUES (1, ?1, 1, ?2)",
                    (id, clock.now().millis()),
                )?;
            }
            transaction.pragma_update(None, "user_version", index + 1)?;
            transaction.commit()
        };
        apply(connection).map_err(|error| unusable(format!("migration {name}: {error}")))?;
    }
    Ok(())
}

fn random_bytes() -> [u8; 8] {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Why a job did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    Sql(rusqlite::Error),
    /// A row that this program could not have written.
    Corrupt(&'static str),
    Refused(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let error = match failure {
            Failure::Corrupt(what) => return Self::Broken(format!("a row can't be read: {what}")),
            Failure::Refused(why) => return Self::Refused(why),
            Failure::Sql(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Unavailable("another program holds its lock".to_owned())
            }
            Some(ErrorCode::DiskFull) => Self::Unavailable("the disk is full".to_owned()),
            // The index of the write-ahead log could not grow, or a file could not be opened: resources, not data.
            Some(ErrorCode::CannotOpen) => Self::Unavailable("its files can't be opened now".to_owned()),
            Some(ErrorCode::SystemIoFailure) if is_shared_memory(&error) => {
                Self::Unavailable("the disk is full".to_owned())
            }
            Some(ErrorCode::OperationInterrupted) => Self::Unavailable("the read took too long".to_owned()),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Broken(error.to_string()),
        }
    }
}

fn is_shared_memory(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE};
    let code = error.sqlite_error().map(|error| error.extended_code);
    code.is_some_and(|code| [SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE].contains(&code))
}

impl Store for SqliteStore {
    fn begin(&self) -> Answer<'_, Begun> {
        self.in_transaction(|transaction, _, now| upkeep::begin(transaction, now))
    }

    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied> {
        self.in_transaction(move |transaction, books, now| write::write(transaction, books, &batch, now))
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, Claimed> {
        self.in_transaction(move |transaction, books, now| claim::claim(transaction, books, &ask, now))
    }

    fn known(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Known>>> {
        self.read(move |connection| rows::known(connection, &ids))
    }

    fn claim_event_ids(&self, claims: Vec<EventClaim>) -> Answer<'_, Vec<CallbackId>> {
        self.in_transaction(move |transaction, _, now| write::claim_event_ids(transaction, &claims, now))
    }

    fn take(&self, instance: InstanceId, partition: Arc<PartitionKey>) -> Answer<'_, Taken> {
        self.in_transaction(move |transaction, books, now| {
            partition_offsets::take(transaction, books, instance, &partition, None, now)
        })
    }

    fn start_anew(
        &self,
        instance: InstanceId,
        partition: Arc<PartitionKey>,
        start: i64,
        log_end: i64,
        accepted: Option<String>,
    ) -> Answer<'_, Taken> {
        let anew = partition_offsets::Anew { start, log_end, accepted };
        self.in_transaction(move |transaction, books, now| {
            partition_offsets::take(transaction, books, instance, &partition, Some(&anew), now)
        })
    }

    fn sweep(&self) -> Answer<'_, usize> {
        Box::pin(async move {
            // With more pending rows than one read may look at, leases are freed all the same.
            let found = self.read(upkeep::look_at_queues).await.unwrap_or_default();
            self.in_transaction(move |transaction, _, now| upkeep::sweep(transaction, now, &found)).await
        })
    }

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned> {
        self.in_transaction(move |transaction, _, _| upkeep::prune(transaction, &ask))
    }

    fn end(&self, instance: InstanceId) -> Answer<'_, ()> {
        self.in_transaction(move |transaction, _, _| upkeep::end(transaction, instance))
    }
}
