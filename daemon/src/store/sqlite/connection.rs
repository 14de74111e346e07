//! Opening the store, its lock and its files; the writer thread, and the connections that read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::error::SqliteError;
use super::id_cache::IdCache;
use super::migrations::migrate;
use super::no_room;
use crate::base::clock::{Clock, Timestamp};
use crate::model::dead_letter::ValueBudget;
use crate::model::keeping::Keeping;
use crate::model::notice::Notices;
use crate::store::{Answer, OpenError, Options, StoreError};

/// How long one read may run: a longer one would keep checkpoints from finishing.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// The numbers of reading connections for delivery and for people. They are separate, so that delivery never waits for
/// a read for people.
const DELIVERY_READERS: usize = 2;
const PEOPLE_READERS: usize = 2;
/// How long a read for people waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// Jobs that wait for the writer.
const WRITER_QUEUE: usize = 64;

pub(super) const FILE: &str = "callbackd.db";
const LOCK: &str = "callbackd.lock";
/// How often, and at which distance, a lock is tried again that another process holds.
const LOCK_TRIES: usize = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// The one store of a directory. Dropping it ends the writer thread and gives the lock back.
pub(in crate::store) struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    for_delivery: Arc<Readers>,
    for_people: Arc<Readers>,
    /// Held while the process lives. The kernel releases it when the process ends in any way.
    _lock: File,
    pub(super) directory: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    /// The name of this daemon in its configuration.
    pub(super) name: Option<Arc<str>>,
    /// Bounds what is kept of dead letters.
    pub(super) values: ValueBudget,
    pub(super) keeping: Keeping,
    pub(super) notices: Notices,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) connection: Connection,
    directory: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    ids: IdCache,
}

impl SqliteStore {
    /// Opens the store in `directory`, or makes it, migrates it, and starts its writer thread.
    pub(in crate::store) fn open(directory: &Path, options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let lock = prepare_directory(directory)?;
        let path = directory.join(FILE);
        let unusable = |error: rusqlite::Error| OpenError::Unusable { path: path.clone(), reason: error.to_string() };
        let mut connection = Connection::open(&path).map_err(unusable)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
        configure(&connection).map_err(unusable)?;
        migrate(&mut connection, &path, options.migrate, clock.as_ref())?;
        let (jobs, queue) = mpsc::channel(WRITER_QUEUE);
        let writer =
            Writer { connection, directory: directory.to_owned(), clock: Arc::clone(&clock), ids: IdCache::default() };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run_writer(writer, queue))
            .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
        let for_delivery = Readers::new(path.clone(), DELIVERY_READERS);
        Ok(Self {
            jobs,
            for_delivery,
            for_people: Readers::new(path, PEOPLE_READERS),
            _lock: lock,
            directory: directory.to_owned(),
            clock,
            name: options.name,
            values: options.values,
            keeping: options.keeping,
            notices: options.notices,
        })
    }

    /// Runs `job` on the writer thread, after the jobs that came before it.
    pub(super) fn on_writer<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let ended = || StoreError::Broken("its writer ended".to_owned());
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let job: Job = Box::new(move |writer| {
                // If the caller was dropped, nobody reads the answer. What was committed stays committed.
                answer.send(job(writer)).ok();
            });
            self.jobs.send(job).await.map_err(|_| ended())?;
            answered.await.map_err(|_| ended())?
        })
    }

    /// Runs `job` on the writer thread, in a transaction that commits if it answers well.
    pub(super) fn in_transaction<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>, &mut IdCache, Timestamp) -> Result<T, SqliteError> + Send + 'static,
    ) -> Answer<'_, T> {
        self.on_writer(move |writer| Ok(writer.transact(job)?))
    }

    /// Runs `job` on one of delivery's reading connections, for at most [`READ_LIMIT`].
    pub(super) fn read_for_delivery<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Answer<'_, T> {
        let readers = Arc::clone(&self.for_delivery);
        Box::pin(async move {
            let permit = readers.permits.acquire().await.map_err(|_| closed())?;
            let result = readers.run_apart(job).await;
            drop(permit);
            result
        })
    }

    /// Runs `job` on one of people's reading connections, for at most [`READ_LIMIT`], after at most [`TURN`].
    pub(super) fn read_for_people<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Answer<'_, T> {
        let readers = Arc::clone(&self.for_people);
        Box::pin(async move {
            let turn = tokio::time::timeout(TURN, readers.permits.acquire()).await;
            let busy = |_| StoreError::Unavailable("too much is asked of it at once".to_owned());
            let permit = turn.map_err(busy)?.map_err(|_| closed())?;
            let result = readers.run_apart(job).await;
            drop(permit);
            result
        })
    }
}

fn closed() -> StoreError {
    StoreError::Broken("it is closed".to_owned())
}

impl Readers {
    fn new(path: PathBuf, count: usize) -> Arc<Self> {
        Arc::new(Self { path, idle: Mutex::default(), permits: Semaphore::new(count) })
    }

    async fn run_apart<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let own = Arc::clone(self);
        let ended = |_| StoreError::Unavailable("a read was given up".to_owned());
        let result = tokio::task::spawn_blocking(move || own.run(job)).await.map_err(ended)?;
        result.map_err(StoreError::from)
    }

    fn run<T>(&self, job: impl FnOnce(&Connection) -> Result<T, SqliteError>) -> Result<T, SqliteError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let deadline = Instant::now() + READ_LIMIT;
        connection.progress_handler(10_000, Some(move || Instant::now() >= deadline))?;
        let result = job(&connection);
        // If the time limit of this read can't be removed, it would break off the next read, so the connection is
        // closed.
        if connection.progress_handler(0, None::<fn() -> bool>).is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = open_to_read(&self.path)?;
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }
}

impl Writer {
    fn transact<T>(
        &mut self,
        job: impl FnOnce(&Transaction<'_>, &mut IdCache, Timestamp) -> Result<T, SqliteError>,
    ) -> Result<T, SqliteError> {
        let now = self.clock.now();
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let result = begun.map_err(SqliteError::from).and_then(|transaction| {
            let value = job(&transaction, &mut self.ids, now)?;
            transaction.commit()?;
            Ok(value)
        });
        if result.is_err() {
            // Numbers learned inside a transaction that was rolled back may be wrong.
            self.ids = IdCache::default();
        }
        match result {
            Err(SqliteError::Sql(error)) if no_room::may_be_no_room(&error) && no_room::is_full(&self.directory) => {
                Err(SqliteError::NoRoom)
            }
            result => result,
        }
    }
}

fn run_writer(mut writer: Writer, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        job(&mut writer);
    }
    // A last checkpoint makes the next start quick; without it nothing is lost.
    if let Err(error) = writer.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE") {
        tracing::debug!(%error, "the last checkpoint of the store failed; the next start repeats it");
    }
}

fn prepare_directory(directory: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    lock(directory)
}

/// Takes the lock of a store: while it is held, no other process opens that store.
pub(super) fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.map_err(|source| OpenError::Directory { path, source })?;
    // A process that is just ending, or a child that it is just starting, may hold the lock for a moment longer.
    let mut pauses = std::iter::repeat_n(LOCK_PAUSE, LOCK_TRIES);
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(std::fs::TryLockError::WouldBlock) => match pauses.next() {
                Some(pause) => std::thread::sleep(pause),
                None => return Err(OpenError::InUse { path: directory.to_owned() }),
            },
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(OpenError::Directory { path: directory.to_owned(), source });
            }
        }
    }
}

/// A connection without the right to write: not even the write-ahead log is folded into the file.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    // The admin tables have foreign keys; the engine's have none, so its writes check nothing.
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    #[tokio::test]
    async fn the_end_of_the_writer_breaks_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Options::default(), Arc::new(SystemClock)).unwrap();
        for _ in 0..2 {
            let ended = store.on_writer(|_| -> Result<(), StoreError> { panic!("a defect") }).await;
            assert!(matches!(ended, Err(StoreError::Broken(_))), "{ended:?}");
        }
    }
}
