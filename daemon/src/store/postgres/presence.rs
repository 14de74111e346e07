//! The presence of a process in its database: advisory locks on a connection of its own, which last as long as the process and
//! that connection.
//!
//! Daemons share the lock of the store; a tool that must be alone takes it for itself. Besides, a daemon holds the lock of its
//! name, if it has one, and that of its instance: by this one the others know that it lives. If the connection ends, nothing is
//! written until the locks are held again. If another one has taken them meanwhile, this process must begin anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::PostgresError;
use super::schema;
use super::server::{POOLED, Unfit};
use super::session::{Dialler, Limit};
use super::turns::{self, Turn};
use super::url::PostgresUrl;
use crate::base::pace::Pace;
use crate::store::{OpenError, StoreError};

/// The kinds of advisory locks with two numbers. All of them belong to one database.
const STORE: i32 = 0x6361_6c6c;
const NAME: i32 = 0x6361_6c6e;
/// The waits before the locks are asked for again.
const PACE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a connection must be found with its own session before it counts as one of a server or of a pooler of sessions.
const LOOKS: usize = 3;

/// The instances whose processes hold their locks now. Their numbers are random, so no other program's lock is one of them.
pub(super) const LIVING: &str = "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
     WHERE locktype = 'advisory' AND objsubid = 1 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// What a process does with the store.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// A daemon among others, with the name of its configuration.
    Daemon(Option<Arc<str>>),
    /// A tool that must be alone.
    Alone,
}

/// The locks of this process. Dropping it gives them back.
pub(super) struct Presence {
    state: watch::Receiver<State>,
    held: Arc<Mutex<Connection>>,
    /// Dropped with the presence: the task ends and closes the connection.
    _ends: oneshot::Sender<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Here,
    /// The connection ended, and the locks are asked for again.
    Away,
    /// Another process has them. Why, as a sentence.
    Lost(String),
}

/// The connection that holds the locks now, and the instance that it must hold.
#[derive(Default)]
struct Connection {
    client: Option<Arc<Client>>,
    instance: Option<i64>,
}

#[derive(Debug)]
pub(super) enum PresenceError {
    /// A tool holds the store, or an older callbackd, which is alone on its store.
    Held,
    /// Daemons use the store.
    InUse,
    /// Another daemon has the name.
    NameInUse {
        name: Arc<str>,
    },
    /// While the locks were away, the store was given a schema that this program does not know well enough to write.
    Outdated(OpenError),
    Unfit(Unfit),
}

impl PresenceError {
    /// What it means for the store at this URL.
    pub(super) fn of(self, url: &PostgresUrl) -> OpenError {
        let url = url.to_string();
        match self {
            Self::Held => OpenError::DatabaseHeld { url },
            Self::InUse => OpenError::DatabaseInUse { url },
            Self::NameInUse { name } => OpenError::NameInUse { url, name: name.to_string() },
            Self::Outdated(error) => error,
            Self::Unfit(Unfit { reason, passes: true }) => OpenError::DatabaseAway { url, reason },
            Self::Unfit(Unfit { reason, passes: false }) => OpenError::Database { url, reason },
        }
    }
}

impl From<Unfit> for PresenceError {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

impl Presence {
    pub(super) async fn take(
        url: &PostgresUrl,
        dialler: Dialler,
        role: Role,
        known: usize,
    ) -> Result<Self, PresenceError> {
        let place = Place { url: url.clone(), dialler, role, known };
        let (client, connection) = place.enter(None).await?;
        let held = Arc::new(Mutex::new(Connection { client: Some(client), instance: None }));
        let (state, told) = watch::channel(State::Here);
        let (ends, ended) = oneshot::channel();
        tokio::spawn(keep(place, Arc::clone(&held), state, connection, ended));
        Ok(Self { state: told, held, _ends: ends })
    }

    fn held(&self) -> MutexGuard<'_, Connection> {
        lock(&self.held)
    }

    /// # Errors
    /// Nothing may be written now.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &*self.state.borrow() {
            State::Here => Ok(()),
            State::Away => Err(away()),
            State::Lost(why) => Err(StoreError::Superseded(why.clone())),
        }
    }

    /// The connection that holds the locks: it answers while batches wait for each other.
    pub(super) fn client(&self) -> Result<Arc<Client>, StoreError> {
        self.check()?;
        self.held().client.clone().ok_or_else(away)
    }

    /// From now on this process is this instance. What it was before has ended.
    pub(super) async fn be(&self, instance: i64) -> Result<(), PostgresError> {
        let client = self.client()?;
        client.query_one("SELECT pg_advisory_lock($1)", &[&instance]).await?;
        let before = self.held().instance.replace(instance);
        if let Some(before) = before {
            client.query_one("SELECT pg_advisory_unlock($1)", &[&before]).await?;
        }
        Ok(())
    }
}

fn lock(held: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn away() -> StoreError {
    StoreError::Unavailable(
        "the connection that holds this process's locks ended, and they are not held again yet".to_owned(),
    )
}

/// Where the locks are, and which ones are needed.
struct Place {
    url: PostgresUrl,
    dialler: Dialler,
    role: Role,
    /// How many migrations this program knows.
    known: usize,
}

impl Place {
    /// A new connection that holds the locks, and the task that drives it.
    async fn enter(&self, instance: Option<i64>) -> Result<(Arc<Client>, JoinHandle<()>), PresenceError> {
        let (client, connection) = self.dialler.session(&self.url, Limit::Write).await?;
        // A commit here is lost with the server at most, and then every lock is lost, too.
        client.batch_execute("SET synchronous_commit = off").await.map_err(|error| Unfit::from(&error))?;
        let is_taken = async |sql: &str, numbers: &[&(dyn tokio_postgres::types::ToSql + Sync)]| {
            let taken = client.query_one(sql, numbers).await.map_err(|error| Unfit::from(&error));
            taken.map(|row| row.get::<_, bool>(0))
        };
        let (of_store, name) = match &self.role {
            Role::Daemon(name) => ("SELECT pg_try_advisory_lock_shared($1, 1)", name.as_ref()),
            Role::Alone => ("SELECT pg_try_advisory_lock($1, 1)", None),
        };
        if !is_taken(of_store, &[&STORE]).await? {
            return Err(if matches!(self.role, Role::Alone) { PresenceError::InUse } else { PresenceError::Held });
        }
        if !self.is_still_its_session(&client).await? {
            return Err(Unfit::for_good(POOLED).into());
        }
        // While the server holds an earlier session of this process, its name is taken as well.
        if let Some(instance) = instance {
            if !is_taken("SELECT pg_try_advisory_lock($1)", &[&instance]).await? {
                let reason = "the server has not noticed yet that the earlier connection of this process ended";
                return Err(Unfit::for_now(reason).into());
            }
            self.may_still_write(&client).await?;
        }
        if let Some(name) = name
            && !is_taken("SELECT pg_try_advisory_lock($1, $2)", &[&NAME, &number_of(name)]).await?
        {
            return Err(PresenceError::NameInUse { name: Arc::clone(name) });
        }
        Ok((Arc::new(client), connection))
    }

    /// While the locks were away, a migration may have taken this instance for one that is gone. One that looks for living instances
    /// now sees this one, or has the turn until it is applied.
    async fn may_still_write(&self, client: &Client) -> Result<(), PresenceError> {
        let failed = |error: tokio_postgres::Error| Unfit::from(&error);
        turns::let_pass(client, Turn::Begin).await.map_err(failed)?;
        let schema = schema::of(&client.query_one(schema::SELECT, &[]).await.map_err(failed)?);
        schema.admits(self.known, format!("store.url: {}", self.url)).map_err(PresenceError::Outdated)
    }

    /// Whether the connection keeps the server's session that took the lock, while another connection has transactions.
    /// A pooler in transaction mode gives the session that was used last to whoever asks next. It takes a moment until a session
    /// is back in the pool, so one look may find the right session by chance.
    async fn is_still_its_session(&self, client: &Client) -> Result<bool, PresenceError> {
        let failed = |error: tokio_postgres::Error| Unfit::from(&error);
        let (other, _connection) = self.dialler.session(&self.url, Limit::Write).await?;
        for _ in 0..LOOKS {
            other.batch_execute("BEGIN").await.map_err(failed)?;
            let has_it = has_lock(client).await.map_err(failed)?;
            if !has_it {
                // It is the other one that has it now, and the pooler would keep it.
                other.batch_execute("SELECT pg_advisory_unlock_all()").await.map_err(failed)?;
            }
            other.batch_execute("ROLLBACK").await.map_err(failed)?;
            // Now the session of the other one was used last.
            if !has_it || !has_lock(client).await.map_err(failed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether the server's session that this connection has now holds the lock of the store. It prepares nothing: a statement that is
/// given back later would use a session, too.
async fn has_lock(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let sql = format!(
        "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
         AND classid::bigint = {STORE} AND objid::bigint = 1 AND objsubid = 2 AND granted"
    );
    let answer = client.simple_query(&sql).await?;
    Ok(answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))))
}

/// The number of a name's lock.
fn number_of(name: &str) -> i32 {
    let hash = Sha256::digest(name.as_bytes());
    i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Holds the locks, and takes them again after their connection ended.
async fn keep(
    place: Place,
    held: Arc<Mutex<Connection>>,
    state: watch::Sender<State>,
    mut connection: JoinHandle<()>,
    mut ended: oneshot::Receiver<()>,
) {
    let mut pace = Pace::new(PACE.0, PACE.1);
    loop {
        tokio::select! {
            _ = &mut ended => return,
            _ = &mut connection => {
                state.send_replace(State::Away);
                lock(&held).client = None;
                tracing::warn!("the connection that holds this process's locks ended; nothing is written until they are held again");
            }
        }
        let mut told = String::new();
        connection = loop {
            tokio::select! {
                _ = &mut ended => return,
                () = tokio::time::sleep(pace.next_wait()) => {}
            }
            let instance = lock(&held).instance;
            let error = match place.enter(instance).await {
                Ok((client, connection)) => {
                    lock(&held).client = Some(client);
                    break connection;
                }
                Err(error) => error,
            };
            let reason = match error {
                PresenceError::Unfit(unfit) => unfit.reason,
                error @ (PresenceError::NameInUse { .. } | PresenceError::Outdated(_)) => {
                    state.send_replace(State::Lost(error.of(&place.url).to_string()));
                    return;
                }
                // A tool looks at the store. It writes nothing as a daemon would.
                error @ (PresenceError::Held | PresenceError::InUse) => error.of(&place.url).to_string(),
            };
            // One line for each reason.
            if reason != told {
                tracing::warn!(
                    error = reason,
                    "this process's locks can't be taken now; they are tried again and again"
                );
                told = reason;
            }
        };
        tracing::info!("this process's locks are held again");
        pace.succeeded();
        state.send_replace(State::Here);
    }
}
