//! Moves a SQLite store to an empty PostgreSQL database.
//!
//! What is large is copied while a daemon works on the store, and what changes meanwhile is copied again. The end needs the store's lock, so
//! the daemon must be stopped: the last changes follow, then the small tables with the watermarks, everything is compared, the old store
//! is sealed, and only then the database is one that a daemon opens. So there is no moment at which both can be opened. A copy that was
//! broken off at any moment goes on when it is started again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::copied::{LARGE, compared};
use super::postgres::target::{Found, Target};
use super::sqlite::tools::source::{self, Source};
use super::{OpenError, PostgresUrl, StoreError};
use crate::base::clock::Clock;

/// How often the lock of a store is asked for that a daemon still has.
const NEXT_TRY: Duration = Duration::from_millis(100);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Wait for the end of the daemon, and finish the copy.
    pub finish: bool,
    /// Compare all rows at the end. It reads both stores.
    pub compare: bool,
}

/// How far a copy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// So many rows are copied of about so many.
    Rows { copied: u64, of: u64 },
    /// Rows that have changed were copied again.
    Changes,
    /// Everything is copied but what changes: now the daemon must stop.
    StopNow,
    /// The daemon has ended, and this is done now.
    Finishing(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub store_id: String,
    /// Rows of the large tables.
    pub rows: u64,
    /// How long the store was locked, if the copy is finished.
    pub finished_in: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}; run the same command again, and the copy goes on")]
    Store(#[from] StoreError),
    #[error("the copy differs from the store: {0}; the old store is not sealed and can be used as before")]
    Differs(String),
}

impl CopyError {
    /// The command was wrong, and the same command stays wrong.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Open(error) => !error.may_pass(),
            Self::Refused(_) => true,
            Self::Store(_) | Self::Differs(_) => false,
        }
    }
}

/// Copies the store in this directory, or goes on with it.
///
/// # Errors
/// [`CopyError`]. Nothing is lost, and the old store can be used until it is sealed.
pub async fn copy(
    from: &Path,
    to: &PostgresUrl,
    ask: Ask,
    clock: Arc<dyn Clock>,
    tell: impl FnMut(Told),
) -> Result<Copied, CopyError> {
    let source = Source::open(from)?;
    let target = alone(to, &clock).await?;
    let mut copy = Copy { from, to, source, target, clock, tell, rows: 0 };
    let store_id = copy.source.store_id()?;
    if copy.stand().await? == Standing::Sealed {
        copy.target.finish().await?;
        return Ok(Copied { store_id, rows: 0, finished_in: Some(Duration::ZERO) });
    }
    copy.large_tables().await?;
    let finished_in = if ask.finish { Some(copy.finish(ask.compare).await?) } else { None };
    Ok(Copied { store_id, rows: copy.rows, finished_in })
}

/// How long the server may take to notice that an earlier run of the command has ended.
const EARLIER: Duration = Duration::from_secs(5);

async fn alone(to: &PostgresUrl, clock: &Arc<dyn Clock>) -> Result<Target, OpenError> {
    let end = Instant::now() + EARLIER;
    loop {
        match Target::open(to, Arc::clone(clock)).await {
            Err(OpenError::DatabaseInUse { .. }) if Instant::now() < end => tokio::time::sleep(NEXT_TRY).await,
            other => return other,
        }
    }
}

/// Gives an unfinished copy up: the store logs its changes no more. The rows in the database stay.
///
/// # Errors
/// There is no store, or no copy that is unfinished.
pub fn cancel(from: &Path) -> Result<(), CopyError> {
    let mut source = Source::open(from)?;
    source.sealed()?;
    if source.begun()?.is_none() {
        return Err(CopyError::Refused("no copy of this store was begun".to_owned()));
    }
    Ok(source.cancel()?)
}

struct Copy<'a, T> {
    from: &'a Path,
    to: &'a PostgresUrl,
    source: Source,
    target: Target,
    clock: Arc<dyn Clock>,
    tell: T,
    rows: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Begun,
    /// Everything is done but the last step.
    Sealed,
}

impl<T: FnMut(Told)> Copy<'_, T> {
    /// Decides whether a copy begins, goes on or can't be, and begins it.
    async fn stand(&mut self) -> Result<Standing, CopyError> {
        let to = self.to;
        match (self.source.begun()?, self.target.found().await?) {
            (Some(begun), Found::Unfinished(mark)) if begun.copy == mark => {
                if begun.is_sealed {
                    return Ok(Standing::Sealed);
                }
                self.target.migrate().await?;
            }
            (Some(begun), _) if begun.is_sealed => self.source.sealed()?,
            (_, Found::Store(id)) => {
                return Err(CopyError::Refused(format!("{to} holds rows of the store {id}; name an empty database")));
            }
            (_, Found::Unfinished(_)) => {
                return Err(CopyError::Refused(format!(
                    "{to} holds an unfinished copy that this store does not know: it is of another store, or it was given up; name an empty database"
                )));
            }
            (_, Found::Nothing) => {
                self.target.migrate().await?;
                let mark = mark();
                // The log comes first: what changes from now on is in it.
                self.source.begin(&mark, &to.to_string(), self.clock.now())?;
                self.target.begin(&mark).await?;
            }
        }
        Ok(Standing::Begun)
    }

    /// The reads of SQLite hold the thread, so others get their turn here. A copy may be broken off here, too.
    async fn told(&mut self, told: Told) {
        (self.tell)(told);
        tokio::task::yield_now().await;
    }

    /// Copies the large tables, each from where it was left, and then what has changed meanwhile.
    async fn large_tables(&mut self) -> Result<(), CopyError> {
        let mut of = 0_u64;
        for table in &LARGE {
            of = of.saturating_add(self.source.count(table)?);
        }
        let mut is_new = false;
        for table in &LARGE {
            let cursor = self.target.cursor(table).await?;
            self.rows = self.rows.saturating_add(cursor.rows);
            let (mut after, mut is_done) = (cursor.after, cursor.is_done);
            while !is_done {
                let piece = self.source.after(table, after.as_deref())?;
                self.target.write(table, &piece).await?;
                self.rows = self.rows.saturating_add(piece.rows.len() as u64);
                (is_new, is_done) = (true, piece.is_end);
                after = piece.last.or(after);
                self.told(Told::Rows { copied: self.rows, of }).await;
            }
        }
        if is_new {
            self.target.analyze().await?;
        }
        self.changes().await
    }

    /// Copies again what has changed, until little is left.
    async fn changes(&mut self) -> Result<(), CopyError> {
        loop {
            let changes = self.source.changes()?;
            if changes.upto > 0 {
                self.target.replace(&changes.of).await?;
                self.told(Told::Changes).await;
                self.source.forget(changes.upto)?;
            }
            if !changes.is_full {
                return Ok(());
            }
        }
    }

    /// Waits for the lock, and does what only the holder of the lock may do. Returns how long it was held.
    async fn finish(&mut self, compare: bool) -> Result<Duration, CopyError> {
        let mut is_told = false;
        while !self.source.take_lock()? {
            if !std::mem::replace(&mut is_told, true) {
                self.told(Told::StopNow).await;
            }
            tokio::time::sleep(NEXT_TRY).await;
            self.changes().await?;
        }
        let begun = Instant::now();
        self.told(Told::Finishing("copying the last changes")).await;
        self.source.close_earlier()?;
        self.changes().await?;
        self.told(Told::Finishing("copying the small tables and the watermarks")).await;
        let source = &self.source;
        self.target.write_last(|table, after| source.after(table, after)).await?;
        if compare {
            self.told(Told::Finishing("comparing both")).await;
            self.compare().await?;
        }
        self.told(Told::Finishing("sealing the old store")).await;
        self.source.seal(self.clock.now())?;
        self.told(Told::Finishing("opening the new store")).await;
        self.target.finish().await?;
        Ok(begun.elapsed())
    }

    /// The counts and sums of all tables must be equal, and the rows of the copy fit together as those of the store do.
    async fn compare(&mut self) -> Result<(), CopyError> {
        for table in compared() {
            let directory = self.from.to_owned();
            let here = tokio::task::spawn_blocking(move || source::sums(&directory, table));
            let (here, there) = tokio::join!(here, self.target.sums(table));
            let here = here.map_err(|_| StoreError::Unavailable("a read was given up".to_owned()))??;
            let there = there?;
            if let Some(at) = here.iter().zip(&there).position(|(here, there)| here != there) {
                let columns = table.names();
                let what =
                    if at == 0 { "the number of rows" } else { columns.get(at - 1).copied().unwrap_or_default() };
                return Err(CopyError::Differs(format!("{}, {what}: {} and {}", table.name, here[at], there[at])));
            }
        }
        let misfits = self.target.misfits().await?;
        // What did not fit before is copied as it is.
        if !misfits.is_empty() && misfits != self.source.misfits()? {
            return Err(CopyError::Differs(misfits.join("; ")));
        }
        Ok(())
    }
}

/// The mark of a copy, by which the two find each other again.
fn mark() -> String {
    let mut random = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    format!("copy_{}", scale_callback_serve::text::hex(&random))
}
