//! The admin store of every database that runs jobs over [`Sql`].

use super::{
    AdminStore, AuditEntry, AuditFilter, AuditRow, DecideKey, DecideNewKey, DecideResend, DecideTeam, IdempotencyKey,
    KeyRow, Made, Refusal, SOME_TEAMS, TokenRow, Used, audit, idempotency, keys, pauses, resends, sent_with, teams,
    tokens, usage,
};
use crate::base::clock::Timestamp;
use crate::model::attempt::SentWithId;
use crate::model::pause::{Pause, PauseScope};
use crate::model::sent_with::SentWith;
use crate::model::team::Team;
use crate::store::resends::ResendRow;
use crate::store::sql::{Database, End, Reader, Sql, readable};
use crate::store::{Answer, InstanceId, StoreError};

impl<D: Database> AdminStore for D {
    fn version(&self) -> Answer<'_, i64> {
        self.read(Reader::Delivery, |sql| {
            let rows = sql.query("SELECT version FROM admin_version", &[])?;
            readable(rows.first(), "the version")?.integer(0)
        })
    }

    fn team(&self, id: &str) -> Answer<'_, Option<Team>> {
        let id = id.to_owned();
        self.read(Reader::People, move |sql| teams::load(sql, &id))
    }

    fn teams(&self, after: Option<String>, limit: usize) -> Answer<'_, Vec<Team>> {
        self.read(Reader::People, move |sql| teams::list(sql, after.as_deref(), limit))
    }

    fn team_with_keys(&self, id: &str) -> Answer<'_, Option<(Team, Vec<KeyRow>)>> {
        let id = id.to_owned();
        self.read(Reader::Delivery, move |sql| {
            let team = teams::load(sql, &id)?.filter(|team| team.deleted_at.is_none());
            team.map(|team| Ok((team, keys::list(sql, &id)?))).transpose()
        })
    }

    fn made_before(&self, caller: &str, once: IdempotencyKey) -> Answer<'_, Option<Made>> {
        let caller = caller.to_owned();
        // A transaction that writes nothing: only it knows the store's time.
        self.transaction(move |sql, now| idempotency::find(sql, &caller, &once, now).map(End::RollBack))
    }

    fn create_team(
        &self,
        team: Team,
        team_keys: Vec<KeyRow>,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
    ) -> Answer<'_, Made> {
        change(self, move |sql, now| {
            create(sql, Request { object: &team.id, once: once.as_ref(), audit: &audit, now }, |sql| {
                if !teams::insert(sql, &team, now)? {
                    return Ok(false);
                }
                team_keys.iter().try_for_each(|key| keys::insert(sql, key))?;
                Ok(true)
            })
        })
    }

    fn decide_team(
        &self,
        id: &str,
        audit: AuditEntry,
        decide: DecideTeam,
    ) -> Answer<'_, Option<Result<Team, Refusal>>> {
        let id = id.to_owned();
        change(self, move |sql, now| {
            let Some(before) = teams::load(sql, &id)? else { return Ok(End::RollBack(None)) };
            let (after, change) = match decide(before) {
                Ok(decided) => decided,
                Err(refusal) => return Ok(End::RollBack(Some(Err(refusal)))),
            };
            teams::update(sql, &after, now)?;
            audit::insert(sql, &AuditEntry { change, ..audit }, now)?;
            Ok(End::Commit(Some(Ok(after))))
        })
    }

    fn delete_team(&self, id: &str, audit: AuditEntry) -> Answer<'_, Option<Team>> {
        let id = id.to_owned();
        change(self, move |sql, now| {
            teams::delete(sql, &id, now)?;
            let Some(team) = teams::load(sql, &id)? else { return Ok(End::RollBack(None)) };
            keys::revoke_all(sql, &id, now)?;
            pauses::delete_of_team(sql, &id)?;
            audit::insert(sql, &audit, now)?;
            Ok(End::Commit(Some(team)))
        })
    }

    fn deleted_teams(&self, since: Timestamp) -> Answer<'_, Vec<String>> {
        self.read(Reader::Delivery, move |sql| teams::deleted(sql, since))
    }

    fn pauses(&self) -> Answer<'_, Vec<Pause>> {
        self.read(Reader::Delivery, pauses::list)
    }

    fn pause(&self, pause: Pause, audit: AuditEntry) -> Answer<'_, Pause> {
        change(self, move |sql, now| {
            let pause = pauses::insert(sql, &Pause { since: now, ..pause })?;
            audit::insert(sql, &audit, now)?;
            Ok(End::Commit(pause))
        })
    }

    fn end_pause(&self, scope: PauseScope, audit: AuditEntry) -> Answer<'_, bool> {
        change(self, move |sql, now| {
            if !pauses::delete(sql, &scope)? {
                return Ok(End::RollBack(false));
            }
            audit::insert(sql, &audit, now)?;
            Ok(End::Commit(true))
        })
    }

    fn keys(&self, team: &str) -> Answer<'_, Vec<KeyRow>> {
        let team = team.to_owned();
        self.read(Reader::People, move |sql| keys::list(sql, &team))
    }

    fn decide_new_key(
        &self,
        key: KeyRow,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
        decide: DecideNewKey,
    ) -> Answer<'_, Result<Made, Refusal>> {
        change(self, move |sql, now| {
            let mut refused = None;
            let request = Request { object: &key.id, once: once.as_ref(), audit: &audit, now };
            let end = create(sql, request, |sql| {
                if let Err(refusal) = decide(keys::list(sql, &key.team)?) {
                    refused = Some(refusal);
                    return Ok(false);
                }
                keys::insert(sql, &key)?;
                Ok(true)
            })?;
            Ok(match (refused, end) {
                (Some(refusal), _) => End::RollBack(Err(refusal)),
                (None, End::Commit(made)) => End::Commit(Ok(made)),
                (None, End::RollBack(made)) => End::RollBack(Ok(made)),
            })
        })
    }

    fn decide_key(&self, team: &str, audit: AuditEntry, decide: DecideKey) -> Answer<'_, Result<KeyRow, Refusal>> {
        let team = team.to_owned();
        change(self, move |sql, now| {
            let key = match decide(keys::list(sql, &team)?, now) {
                Ok(key) => key,
                Err(refusal) => return Ok(End::RollBack(Err(refusal))),
            };
            keys::update(sql, &key)?;
            audit::insert(sql, &audit, now)?;
            Ok(End::Commit(Ok(key)))
        })
    }

    fn some_keys(&self) -> Answer<'_, Vec<KeyRow>> {
        self.read(Reader::Delivery, some_keys)
    }

    fn tokens(&self) -> Answer<'_, Vec<TokenRow>> {
        self.read(Reader::Delivery, tokens::list)
    }

    fn create_token(&self, token: TokenRow, once: Option<IdempotencyKey>, audit: AuditEntry) -> Answer<'_, Made> {
        change(self, move |sql, now| {
            let request = Request { object: &token.id, once: once.as_ref(), audit: &audit, now };
            create(sql, request, |sql| tokens::insert(sql, &token, now))
        })
    }

    fn revoke_token(&self, id: &str, audit: AuditEntry) -> Answer<'_, Option<TokenRow>> {
        let id = id.to_owned();
        change(self, move |sql, now| {
            let Some(row) = tokens::revoke(sql, &id, now)? else { return Ok(End::RollBack(None)) };
            audit::insert(sql, &audit, now)?;
            Ok(End::Commit(Some(row)))
        })
    }

    fn create_resend(&self, row: ResendRow, once: Option<IdempotencyKey>, audit: AuditEntry) -> Answer<'_, Made> {
        change(self, move |sql, now| {
            let request = Request { object: &row.id, once: once.as_ref(), audit: &audit, now };
            create(sql, request, |sql| resends::insert(sql, &row))
        })
    }

    fn resend(&self, id: &str) -> Answer<'_, Option<ResendRow>> {
        let id = id.to_owned();
        self.read(Reader::People, move |sql| resends::load(sql, &id))
    }

    fn resends(&self, before: Option<String>, limit: usize) -> Answer<'_, Vec<ResendRow>> {
        self.read(Reader::People, move |sql| resends::list(sql, before.as_deref(), limit))
    }

    fn decide_resend(
        &self,
        id: &str,
        audit: AuditEntry,
        decide: DecideResend,
    ) -> Answer<'_, Option<Result<ResendRow, Refusal>>> {
        let id = id.to_owned();
        change(self, move |sql, now| {
            resends::lock(sql, &id, now)?;
            let Some(before) = resends::load(sql, &id)? else { return Ok(End::RollBack(None)) };
            let after = match decide(before) {
                Ok(after) => after,
                Err(refusal) => return Ok(End::RollBack(Some(Err(refusal)))),
            };
            resends::update(sql, &after, now)?;
            audit::insert(sql, &audit, now)?;
            Ok(End::Commit(Some(Ok(ResendRow { changed_at: now, ..after }))))
        })
    }

    fn hold_resends(&self, instance: InstanceId, until: Timestamp) -> Answer<'_, Vec<ResendRow>> {
        Box::pin(async move {
            // Nearly always there is none, and then nothing is written.
            if !self.read(Reader::Delivery, resends::any_runs).await? {
                return Ok(Vec::new());
            }
            self.transaction(move |sql, now| resends::hold(sql, instance, until, now).map(End::Commit)).await
        })
    }

    fn mark_used(&self, used: Vec<(Used, Timestamp)>) -> Answer<'_, ()> {
        self.transaction(move |sql, _| usage::mark(sql, &used).map(End::Commit))
    }

    fn note_sent_with(&self, used: Vec<SentWith>) -> Answer<'_, ()> {
        self.transaction(move |sql, now| sent_with::note(sql, &used, now).map(End::Commit))
    }

    fn sent_with(&self, ids: Vec<SentWithId>) -> Answer<'_, Vec<SentWith>> {
        self.read(Reader::People, move |sql| sent_with::find(sql, &ids))
    }

    fn prune_sent_with(&self, before: Timestamp) -> Answer<'_, usize> {
        self.transaction(move |sql, _| sent_with::prune(sql, before).map(End::Commit))
    }

    fn note(&self, audit: AuditEntry) -> Answer<'_, ()> {
        self.transaction(move |sql, now| audit::insert(sql, &audit, now).map(End::Commit))
    }

    fn audit(&self, filter: AuditFilter, before: Option<i64>, limit: usize) -> Answer<'_, Vec<AuditRow>> {
        self.read(Reader::People, move |sql| audit::list(sql, &filter, before, limit))
    }
}

/// The keys of a few teams: enough to see whether a keyring opens them.
pub(in crate::store) fn some_keys(sql: &mut dyn Sql) -> Result<Vec<KeyRow>, StoreError> {
    let mut found = Vec::new();
    for team in teams::list(sql, None, SOME_TEAMS)? {
        found.extend(keys::list(sql, &team.id)?);
    }
    Ok(found)
}

/// One change. The version is raised first: its row is the lock that puts changes in an order on a database that
/// writes with several connections, so that a decision sees everything that was committed before it.
fn change<T: Send + 'static>(
    database: &impl Database,
    job: impl FnOnce(&mut dyn Sql, Timestamp) -> Result<End<T>, StoreError> + Send + 'static,
) -> Answer<'_, T> {
    database.transaction(move |sql, now| {
        sql.execute("UPDATE admin_version SET version = version + 1", &[])?;
        job(sql, now)
    })
}

/// A request to create an object.
struct Request<'r> {
    object: &'r str,
    once: Option<&'r IdempotencyKey>,
    audit: &'r AuditEntry,
    now: Timestamp,
}

/// Creates one object with its audit row, or finds what the same request made before. `insert` answers false where
/// the object can't be created.
fn create(
    sql: &mut dyn Sql,
    request: Request<'_>,
    insert: impl FnOnce(&mut dyn Sql) -> Result<bool, StoreError>,
) -> Result<End<Made>, StoreError> {
    let Request { object, once, audit, now } = request;
    if let Some(once) = once
        && let Some(found) = idempotency::find(sql, &audit.caller, once, now)?
    {
        return Ok(End::RollBack(found));
    }
    if !insert(sql)? {
        return Ok(End::RollBack(Made::Exists));
    }
    if let Some(once) = once {
        idempotency::keep(sql, &audit.caller, once, object, now)?;
    }
    audit::insert(sql, audit, now)?;
    Ok(End::Commit(Made::Done))
}
