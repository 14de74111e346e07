//! The trait of the admin side: teams, their keys, tokens, jobs, idempotency keys and the audit.
//!
//! Every change is one transaction that raises the version, changes the rows and writes an audit row, or does nothing
//! at all. If a change depends on rows in the store, the caller passes a decision: a pure function that
//! runs inside the transaction and may refuse. The rows' SQL is written once, over [`super::sql::Sql`].

pub(in crate::store) mod audit;
pub(in crate::store) mod idempotency;
mod keys;
mod over_sql;
mod pauses;
pub(in crate::store) mod resends;
mod sent_with;
mod teams;
pub(in crate::store) mod tokens;
mod usage;

use std::any::Any;

pub use audit::{AuditEntry, AuditFilter, AuditRow, TeamRows};
pub use idempotency::{IdempotencyKey, Made};
pub use keys::KeyRow;
pub use tokens::TokenRow;
pub use usage::Used;

pub(in crate::store) use over_sql::some_keys;

use super::resends::ResendRow;
use super::{Answer, InstanceId};
use crate::base::clock::Timestamp;
use crate::model::attempt::SentWithId;
use crate::model::pause::{Pause, PauseScope};
use crate::model::sent_with::SentWith;
use crate::model::team::Team;

/// The keys of this many teams show whether a keyring opens them.
pub(in crate::store) const SOME_TEAMS: usize = 10;

/// The caller's own error, carried out of the transaction in which its decision refused.
pub type Refusal = Box<dyn Any + Send>;
/// Takes a team, and returns the team after the change and the text for the audit.
pub type DecideTeam = Box<dyn FnOnce(Team) -> Result<(Team, String), Refusal> + Send>;
/// Takes all keys of the team, and decides whether one more may be added.
pub type DecideNewKey = Box<dyn FnOnce(Vec<KeyRow>) -> Result<(), Refusal> + Send>;
/// Takes a job, and returns it with another state or rate.
pub type DecideResend = Box<dyn FnOnce(ResendRow) -> Result<ResendRow, Refusal> + Send>;
/// Takes all keys of the team and the store's time, and returns the changed key.
pub type DecideKey = Box<dyn FnOnce(Vec<KeyRow>, Timestamp) -> Result<KeyRow, Refusal> + Send>;

/// The admin side's store. The methods whose names begin with `decide` take boxed decisions, so that the trait is
/// object-safe; callers use `update_team`, `create_key` and `change_key`, which keep the type of their refusals.
pub trait AdminStore: Send + Sync {
    /// Rises with every change.
    fn version(&self) -> Answer<'_, i64>;

    fn team(&self, id: &str) -> Answer<'_, Option<Team>>;

    /// Teams in the order of their ids, after `after`.
    fn teams(&self, after: Option<String>, limit: usize) -> Answer<'_, Vec<Team>>;

    /// A team with its keys, as delivery needs it; `None` for a deleted one, too.
    fn team_with_keys(&self, id: &str) -> Answer<'_, Option<(Team, Vec<KeyRow>)>>;

    /// What the same request of this caller created before, or that the key came with another request; `None` if it is new.
    fn made_before(&self, caller: &str, once: IdempotencyKey) -> Answer<'_, Option<Made>>;

    /// Creates a team with its first keys. `Exists`: there is a team of that id.
    fn create_team(
        &self,
        team: Team,
        keys: Vec<KeyRow>,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
    ) -> Answer<'_, Made>;

    /// Changes a team; `None` where there is no such team.
    fn decide_team(&self, id: &str, audit: AuditEntry, decide: DecideTeam)
    -> Answer<'_, Option<Result<Team, Refusal>>>;

    /// Deletes a team: its keys are revoked, its pauses end, and its row stays. The team after it; `None` where there is none.
    fn delete_team(&self, id: &str, audit: AuditEntry) -> Answer<'_, Option<Team>>;

    /// The ids of teams that were deleted at this time or later.
    fn deleted_teams(&self, since: Timestamp) -> Answer<'_, Vec<String>>;

    /// All pauses, by team and origin.
    fn pauses(&self) -> Answer<'_, Vec<Pause>>;

    /// Pauses what is not paused. The pause as it is then.
    fn pause(&self, pause: Pause, audit: AuditEntry) -> Answer<'_, Pause>;

    /// Ends a pause. False if there was none.
    fn end_pause(&self, scope: PauseScope, audit: AuditEntry) -> Answer<'_, bool>;

    /// The keys of a team by age, then mode, kind and id.
    fn keys(&self, team: &str) -> Answer<'_, Vec<KeyRow>>;

    /// Adds a key. A key of an unknown team is refused as data.
    fn decide_new_key(
        &self,
        key: KeyRow,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
        decide: DecideNewKey,
    ) -> Answer<'_, Result<Made, Refusal>>;

    /// Changes the state and the times of one key.
    fn decide_key(&self, team: &str, audit: AuditEntry, decide: DecideKey) -> Answer<'_, Result<KeyRow, Refusal>>;

    /// The keys of a few teams: enough to see whether a keyring opens them.
    fn some_keys(&self) -> Answer<'_, Vec<KeyRow>>;

    /// All tokens, revoked and expired ones included, newest first; a bounded number.
    fn tokens(&self) -> Answer<'_, Vec<TokenRow>>;

    /// `Exists`: there are as many valid tokens as there may be.
    fn create_token(&self, token: TokenRow, once: Option<IdempotencyKey>, audit: AuditEntry) -> Answer<'_, Made>;

    /// Revokes a token; the row after it, or `None` where there is no such token. The first revocation counts.
    fn revoke_token(&self, id: &str, audit: AuditEntry) -> Answer<'_, Option<TokenRow>>;

    /// Creates a job. `Exists`: there are as many as there may be that have not ended.
    fn create_resend(&self, row: ResendRow, once: Option<IdempotencyKey>, audit: AuditEntry) -> Answer<'_, Made>;

    fn resend(&self, id: &str) -> Answer<'_, Option<ResendRow>>;

    /// Jobs below the id `before`, newest first.
    fn resends(&self, before: Option<String>, limit: usize) -> Answer<'_, Vec<ResendRow>>;

    /// Changes the state and the rate of a job; `None` where there is no such job.
    fn decide_resend(
        &self,
        id: &str,
        audit: AuditEntry,
        decide: DecideResend,
    ) -> Answer<'_, Option<Result<ResendRow, Refusal>>>;

    /// Takes running jobs for this instance, a few of the oldest, until the given time. Those that another instance holds are
    /// left out. It writes no audit row.
    fn hold_resends(&self, instance: InstanceId, until: Timestamp) -> Answer<'_, Vec<ResendRow>>;

    /// Records when tokens and keys were last used. It is no change: it raises no version and writes no audit row. What
    /// was used later already, or does not exist, stays as it is.
    fn mark_used(&self, used: Vec<(Used, Timestamp)>) -> Answer<'_, ()>;

    /// Notes that requests are sent with these settings. It is no change: it raises no version and writes no audit row.
    fn note_sent_with(&self, used: Vec<SentWith>) -> Answer<'_, ()>;

    /// The settings of these ids, as far as they are known.
    fn sent_with(&self, ids: Vec<SentWithId>) -> Answer<'_, Vec<SentWith>>;

    /// Forgets settings that were used last before this time. How many they were.
    fn prune_sent_with(&self, before: Timestamp) -> Answer<'_, usize>;

    /// Writes an audit row alone, for an operation that reads a secret. No team, key or token changes, so it raises no
    /// version: delivery does not read its teams again.
    fn note(&self, audit: AuditEntry) -> Answer<'_, ()>;

    /// The newest audit rows below the id `before`.
    fn audit(&self, filter: AuditFilter, before: Option<i64>, limit: usize) -> Answer<'_, Vec<AuditRow>>;
}

impl dyn AdminStore {
    /// Changes a team, which is read inside the transaction. `decide` returns the team after the change and the text
    /// for the audit. `None` if there is no such team.
    pub fn update_team<E: Send + 'static>(
        &self,
        id: &str,
        audit: AuditEntry,
        decide: impl FnOnce(Team) -> Result<(Team, String), E> + Send + 'static,
    ) -> Answer<'_, Option<Result<Team, E>>> {
        let answer = self.decide_team(id, audit, Box::new(|team| decide(team).map_err(boxed)));
        Box::pin(async move { Ok(answer.await?.map(|decided| decided.map_err(typed))) })
    }

    /// Adds a key, unless `refuse` returns a reason. It gets all keys of the team, read inside the transaction.
    pub fn create_key<E: Send + 'static>(
        &self,
        key: KeyRow,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
        refuse: impl FnOnce(Vec<KeyRow>) -> Option<E> + Send + 'static,
    ) -> Answer<'_, Result<Made, E>> {
        let decide: DecideNewKey = Box::new(|keys| refuse(keys).map_or(Ok(()), |refusal| Err(boxed(refusal))));
        let answer = self.decide_new_key(key, once, audit, decide);
        Box::pin(async move { Ok(answer.await?.map_err(typed)) })
    }

    /// Changes a job, which is read inside the transaction. `None` if there is no such job.
    pub fn change_resend<E: Send + 'static>(
        &self,
        id: &str,
        audit: AuditEntry,
        decide: impl FnOnce(ResendRow) -> Result<ResendRow, E> + Send + 'static,
    ) -> Answer<'_, Option<Result<ResendRow, E>>> {
        let answer = self.decide_resend(id, audit, Box::new(|row| decide(row).map_err(boxed)));
        Box::pin(async move { Ok(answer.await?.map(|decided| decided.map_err(typed))) })
    }

    /// Changes one key. The decision gets all keys of the team, read inside the transaction.
    pub fn change_key<E: Send + 'static>(
        &self,
        team: &str,
        audit: AuditEntry,
        decide: impl FnOnce(Vec<KeyRow>, Timestamp) -> Result<KeyRow, E> + Send + 'static,
    ) -> Answer<'_, Result<KeyRow, E>> {
        let answer = self.decide_key(team, audit, Box::new(|keys, now| decide(keys, now).map_err(boxed)));
        Box::pin(async move { Ok(answer.await?.map_err(typed)) })
    }
}

fn boxed<E: Send + 'static>(refusal: E) -> Refusal {
    Box::new(refusal)
}

fn typed<E: 'static>(refusal: Refusal) -> E {
    *refusal.downcast().expect("a refusal has the type with which its own decision made it")
}
