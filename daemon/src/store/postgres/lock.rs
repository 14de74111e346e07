//! The lock of a store on PostgreSQL: one daemon at a time uses a database. It holds an advisory lock on a connection of its
//! own. If that connection ends, nothing is written until the lock is held again. If another daemon has taken the lock meanwhile,
//! the store is broken for this one: its process ends and begins anew as one that waits.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::server::{POOLED, Unfit};
use super::session::{Dialler, Limit};
use super::url::PostgresUrl;
use crate::base::pace::Pace;
use crate::store::OpenError;

/// The advisory lock of a store. Locks of this kind belong to one database.
const LOCK: (i32, i32) = (0x6361_6c6c, 1);
/// The waits before the lock is asked for again.
const PACE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The lock of the store. Dropping it gives the lock back.
pub(super) struct Lock {
    state: watch::Receiver<LockState>,
    /// Dropped with the lock: the task ends and closes its connection.
    _ends: oneshot::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockState {
    Held,
    /// Its connection ended, and it is asked for again.
    Away,
    /// Another one has it.
    Lost,
}

#[derive(Debug)]
pub(super) enum LockError {
    Held,
    Unfit(Unfit),
}

impl LockError {
    /// What it means for the store at this URL.
    pub(super) fn of(self, url: &PostgresUrl) -> OpenError {
        let url = url.to_string();
        match self {
            Self::Held => OpenError::DatabaseInUse { url },
            Self::Unfit(Unfit { reason, passes: true }) => OpenError::DatabaseAway { url, reason },
            Self::Unfit(Unfit { reason, passes: false }) => OpenError::Database { url, reason },
        }
    }
}

impl From<Unfit> for LockError {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

impl Lock {
    pub(super) async fn take(url: &PostgresUrl, dialler: Dialler) -> Result<Self, LockError> {
        let held = Held::take(url, &dialler).await?;
        let (state, told) = watch::channel(LockState::Held);
        let (ends, ended) = oneshot::channel();
        tokio::spawn(keep(url.clone(), dialler, state, held, ended));
        Ok(Self { state: told, _ends: ends })
    }

    pub(super) fn state(&self) -> LockState {
        *self.state.borrow()
    }
}

/// A connection that holds the lock.
struct Held {
    /// Dropping it closes the connection.
    _client: Client,
    connection: JoinHandle<()>,
}

impl Held {
    async fn take(url: &PostgresUrl, dialler: &Dialler) -> Result<Self, LockError> {
        let (client, connection) = dialler.session(&url.config, Limit::Write).await?;
        let taken = client.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCK.0, &LOCK.1]).await;
        if !taken.map_err(|error| Unfit::from(&error))?.get::<_, bool>(0) {
            return Err(LockError::Held);
        }
        if !is_still_its_session(url, dialler, &client).await? {
            return Err(Unfit::for_good(POOLED).into());
        }
        Ok(Self { _client: client, connection })
    }
}

/// Whether the connection still has the server's session that took the lock, while another connection is in a transaction. A
/// pooler in transaction mode gives the session that was used last to whoever asks next.
async fn is_still_its_session(url: &PostgresUrl, dialler: &Dialler, client: &Client) -> Result<bool, LockError> {
    let failed = |error: tokio_postgres::Error| Unfit::from(&error);
    let (other, _connection) = dialler.session(&url.config, Limit::Write).await?;
    other.batch_execute("BEGIN").await.map_err(failed)?;
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
                              AND classid::bigint = $1 AND objid::bigint = $2 AND granted)";
    let has_it: bool = client.query_one(sql, &[&i64::from(LOCK.0), &i64::from(LOCK.1)]).await.map_err(failed)?.get(0);
    if !has_it {
        // It is the other one that has it now, and the pooler would keep it.
        other.batch_execute("SELECT pg_advisory_unlock_all()").await.map_err(failed)?;
    }
    other.batch_execute("ROLLBACK").await.map_err(failed)?;
    Ok(has_it)
}

/// Holds the lock, and takes it again after its connection ended.
async fn keep(
    url: PostgresUrl,
    dialler: Dialler,
    state: watch::Sender<LockState>,
    held: Held,
    mut ended: oneshot::Receiver<()>,
) {
    let mut held = Some(held);
    let mut pace = Pace::new(PACE.0, PACE.1);
    let mut told = String::new();
    loop {
        if let Some(held) = held.take() {
            state.send_replace(LockState::Held);
            tokio::select! {
                _ = &mut ended => return,
                _ = held.connection => {
                    state.send_replace(LockState::Away);
                    tracing::warn!("the connection that holds the store's lock ended; nothing is written until it is back");
                }
            }
        }
        tokio::select! {
            _ = &mut ended => return,
            () = tokio::time::sleep(pace.next_wait()) => {}
        }
        match Held::take(&url, &dialler).await {
            Ok(again) => {
                tracing::info!("the store's lock is held again");
                pace.succeeded();
                told.clear();
                held = Some(again);
            }
            Err(LockError::Held) => {
                state.send_replace(LockState::Lost);
                return;
            }
            // One line for each reason.
            Err(LockError::Unfit(unfit)) if unfit.reason != told => {
                tracing::warn!(
                    error = unfit.reason,
                    "the store's lock can't be taken now; it is tried again and again"
                );
                told = unfit.reason;
            }
            Err(LockError::Unfit(_)) => {}
        }
    }
}
