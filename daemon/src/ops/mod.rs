//! The operations that a person or another program may ask for. API, command line and dashboards authenticate somebody,
//! build a [`Caller`], and call the operations of a [`Session`]; they hold no other logic.
//!
//! An operation can't be reached without a caller: [`Ops`] keeps its parts to itself, and only [`Ops::as_caller`] gives
//! a session. Each operation first asks `policy` whether this caller may, reads too, and each change writes an audit
//! row.

pub mod amendments;
pub mod audit;
pub mod bulk;
pub mod callbacks;
mod caller;
pub mod checks;
pub mod clock;
pub mod dead_letters;
mod deletion;
pub mod delivering;
pub mod endpoints;
mod error;
mod impact;
pub mod keys;
mod names;
pub mod offsets;
pub mod pauses;
pub mod policy;
pub mod requests;
pub mod resends;
pub mod resets;
pub mod retention;
pub mod status;
pub mod switch;
pub mod teams;
pub mod tokens;
mod unauthenticated;

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};

pub use caller::{Caller, CallerKind};
pub use error::OpsError;
pub use names::{named, required};

use crate::base::clock::{Clock, Timestamp};
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::base::supervise::Supervisor;
use crate::base::telemetry::LogLevel;
use crate::deliver::Engine;
use crate::deliver::directory::Directory;
use crate::deliver::health::Health;
use crate::deliver::space_watch::SpaceShort;
use crate::flight::Inflight;
use crate::intake::{Ask, KafkaState, Rereader};
use crate::keyring::Keyring;
use crate::schedule::{ClaimWaker, Lanes};
use crate::store::admin::{AdminStore, Made};
use crate::store::reads::Reads;
use crate::store::{EngineStore, InstanceId};
use policy::Operation;

/// The settings that operations use and a reload can change.
#[derive(Debug, Clone)]
pub struct Settings {
    pub keep: retention::Retention,
    /// Names that API requests may be made to.
    pub hosts: Vec<String>,
}

/// Everything that operations work on.
pub struct Parts {
    pub admin: Arc<dyn AdminStore>,
    pub reads: Arc<dyn Reads>,
    pub store: Arc<dyn EngineStore>,
    /// This run of the daemon.
    pub instance: InstanceId,
    /// Tells the claims that rows have become due.
    pub waker: ClaimWaker,
    pub keyring: Arc<Keyring>,
    pub directory: Arc<Directory>,
    pub engine: Arc<Engine>,
    pub lanes: Arc<Lanes>,
    pub health: Arc<Health>,
    pub space_short: SpaceShort,
    pub inflight: Arc<Inflight>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub kafka: watch::Receiver<KafkaState>,
    pub store_up: watch::Receiver<bool>,
    pub asks: mpsc::Sender<Ask>,
    /// Reads bodies that are not kept.
    pub rereader: Rereader,
    pub store_id: String,
    pub settings: watch::Receiver<Settings>,
    pub supervisor: Supervisor,
    pub log_level: LogLevel,
    /// On while the daemon stops.
    pub draining: Stop,
}

/// The operations. [`Ops::as_caller`] gives a caller access to them.
#[derive(Clone)]
pub struct Ops(Arc<Inner>);

struct Inner {
    parts: Parts,
    tokens: tokens::TokenCache,
    backlog: status::Backlog,
    /// A job was created or resumed here.
    resend_made: Notify,
    /// A team was deleted here.
    team_deleted: Notify,
}

impl Ops {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            tokens: tokens::TokenCache::default(),
            backlog: status::Backlog::default(),
            resend_made: Notify::new(),
            team_deleted: Notify::new(),
        }))
    }

    /// The operations, as they are for this caller.
    pub fn as_caller(&self, caller: &Caller) -> Session {
        Session { inner: Arc::clone(&self.0), caller: caller.clone() }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.parts.metrics
    }

    pub fn store_id(&self) -> &str {
        &self.0.parts.store_id
    }

    /// Host names that API requests may be made to.
    pub fn hosts(&self) -> Vec<String> {
        self.0.parts.settings.borrow().hosts.clone()
    }

    pub fn kafka(&self) -> &watch::Receiver<KafkaState> {
        &self.0.parts.kafka
    }

    pub fn store_up(&self) -> bool {
        *self.0.parts.store_up.borrow()
    }
}

/// One team, or one of several teams, that the objects of a list must belong to.
type AskedTeams = (Option<String>, Option<Vec<String>>);

/// The operations for one caller.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
    caller: Caller,
}

impl Session {
    /// The present time, to which answers refer.
    pub fn now(&self) -> Timestamp {
        self.parts().clock.now()
    }

    /// Each operation begins with this.
    fn allow(&self, operation: Operation) -> Result<(), OpsError> {
        Ok(policy::check(&self.caller, operation)?)
    }

    /// Each operation that is about one team begins with this.
    fn allow_team(&self, operation: Operation, team: &str) -> Result<(), OpsError> {
        Ok(policy::check_team(&self.caller, operation, team)?)
    }

    /// Whether what belongs to this team exists for the caller.
    fn sees(&self, team: &str) -> bool {
        self.caller.teams.includes(team)
    }

    /// What limits a list: the one team that the caller asks for, or that is the only one for them; or else all the teams
    /// to which they are limited. Nothing for a list of all teams.
    fn asked_teams(&self, operation: Operation, asked: Option<&str>) -> Result<AskedTeams, OpsError> {
        if let Some(team) = asked {
            self.allow_team(operation, team)?;
            return Ok((Some(team.to_owned()), None));
        }
        let own = self.caller.teams.names().map(|teams| teams.iter().cloned().collect::<Vec<_>>());
        Ok(match own {
            Some(teams) if teams.len() == 1 => (teams.into_iter().next(), None),
            other => (None, other),
        })
    }

    fn parts(&self) -> &Parts {
        &self.inner.parts
    }
}

/// The result of a request to create something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation<T> {
    New(T),
    /// The same request, recognised by its `Idempotency-Key`, created it before. This is its present state.
    Repeated(T),
}

impl<T> Creation<T> {
    pub fn into_inner(self) -> T {
        match self {
            Self::New(value) | Self::Repeated(value) => value,
        }
    }
}

/// Reads the store's answer to a creation: nothing where the object is new, else the object that the same request
/// created before.
fn created(made: Made, exists: impl FnOnce() -> String) -> Result<Option<String>, OpsError> {
    match made {
        Made::Done => Ok(None),
        Made::Repeated(object) => Ok(Some(object)),
        Made::Exists => Err(OpsError::Conflict(exists())),
        Made::Mismatch => Err(OpsError::IdempotencyMismatch),
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}
