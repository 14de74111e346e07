//! Opening the store on a server, and the pools of connections.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};

use super::error::PostgresError;
use super::migrations;
use super::numbers::Numbers;
use super::parked::Parked;
use super::presence::{Presence, PresenceError, Role};
use super::server::Unfit;
use super::session::{self, Dialler, Limit, Warnings};
use super::timeline::Timeline;
use super::transaction::{Tx, commit_watched};
use super::url::PostgresUrl;
use crate::base::clock::{Clock, SystemClock};
use crate::base::rest::Rest;
use crate::model::dead_letter::ValueBudget;
use crate::model::keeping::Keeping;
use crate::model::notice::Notices;
use crate::store::{OpenError, Options};

/// Connections that write, that read for delivery, and that read for people. They are separate, so that delivery never waits
/// for a read for people.
const WRITERS: usize = 4;
const DELIVERY_READERS: usize = 2;
const PEOPLE_READERS: usize = 2;
/// How long a call waits for a connection.
const TURN: Duration = Duration::from_secs(5);

/// The store of a database, as one process of several uses it.
pub(in crate::store) struct PostgresStore {
    for_writes: Pool,
    for_delivery: Pool,
    for_people: Pool,
    pub(super) clock: Arc<dyn Clock>,
    /// Bounds what is kept of dead letters.
    pub(super) values: ValueBudget,
    pub(super) keeping: Keeping,
    pub(super) notices: Notices,
    pub(super) numbers: Numbers,
    pub(super) parked: Parked,
    pub(super) presence: Presence,
    pub(super) warnings: Warnings,
    pub(super) timeline: Timeline,
    /// No day of ended callbacks is made meanwhile.
    pub(super) days_rest: Rest,
    /// The name of this daemon in its configuration.
    pub(super) name: Option<Arc<str>>,
}

impl PostgresStore {
    /// Connects, takes the locks of a daemon, and makes or migrates the schema.
    pub(in crate::store) async fn open(
        url: &PostgresUrl,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let (migrate, role) = (options.migrate, Role::Daemon(options.name.clone()));
        let store = Self::connect(url, options, role, clock).await.map_err(|error| error.of(url))?;
        let mut client = store.writer().await.map_err(|error| error.at_open(url))?;
        migrations::refuse_unfinished(&client, url).await?;
        migrations::migrate(&mut client, url, migrate, store.clock.now()).await?;
        drop(client);
        Ok(store)
    }

    /// Takes the locks, and makes the pools.
    pub(super) async fn connect(
        url: &PostgresUrl,
        options: Options,
        role: Role,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PresenceError> {
        let (warnings, timeline) = (Warnings::default(), Timeline::default());
        let dialler = || Dialler::new(url, warnings.clone(), timeline.clone()).map_err(Unfit::for_good);
        let pool = |size, limit| pool(url, (dialler()?, timeline.clone()), size, limit).map_err(Unfit::for_good);
        Ok(Self {
            presence: Presence::take(url, dialler()?, role, migrations::KNOWN.len()).await?,
            for_writes: pool(WRITERS, Limit::Write)?,
            for_delivery: pool(DELIVERY_READERS, Limit::Read)?,
            for_people: pool(PEOPLE_READERS, Limit::Read)?,
            clock,
            values: options.values,
            keeping: options.keeping,
            notices: options.notices,
            name: options.name,
            numbers: Numbers::default(),
            parked: Parked::default(),
            warnings,
            timeline,
            days_rest: Rest::default(),
        })
    }

    /// A connection that writes.
    pub(super) async fn writer(&self) -> Result<Object, PostgresError> {
        self.presence.check()?;
        let client = self.for_writes.get().await?;
        // A standby that was promoted may lack rows that were read before, and give their numbers to others.
        if self.timeline.take_change() {
            self.numbers.forget();
        }
        Ok(client)
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

/// The store as it is, for a tool that is alone and only looks.
pub(super) async fn look(url: &PostgresUrl) -> Result<PostgresStore, PresenceError> {
    PostgresStore::connect(url, Options::default(), Role::Alone, Arc::new(SystemClock)).await
}

/// The same for a tool that looks while daemons work.
pub(super) async fn look_beside(url: &PostgresUrl) -> Result<PostgresStore, PresenceError> {
    PostgresStore::connect(url, Options::default(), Role::Daemon(None), Arc::new(SystemClock)).await
}

fn pool(
    url: &PostgresUrl,
    (dialler, timeline): (Dialler, Timeline),
    size: usize,
    limit: Limit,
) -> Result<Pool, String> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_connect(url.config.clone(), dialler, recycling);
    let create = TURN.saturating_add(url.connect_patience());
    let timeouts = Timeouts { wait: Some(TURN), create: Some(create), recycle: Some(TURN) };
    // A session from before a failover may still be that of the earlier primary, if it runs on.
    let of_before = timeline.clone();
    let current = Hook::sync_fn(move |_: &mut deadpool_postgres::ClientWrapper, session| {
        if of_before.changed_since(session.created) {
            return Err(HookError::message("another server is the primary by now"));
        }
        Ok(())
    });
    let fit = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let timeline = timeline.clone();
        Box::pin(async move {
            let fit = session::prepare(client, limit, &timeline).await;
            fit.map_err(|unfit| HookError::message(unfit.reason))
        })
    });
    let builder = Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1).timeouts(timeouts);
    builder.post_create(fit).pre_recycle(current).build().map_err(|error| error.to_string())
}
