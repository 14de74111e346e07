//! The admin trait on the model. A transaction works on a copy of the maps, which takes their place at its end.

use std::sync::PoisonError;

use super::admin_state::AdminState;
use super::{MemoryStore, done};
use crate::base::clock::Timestamp;
use crate::model::attempt::SentWithId;
use crate::model::pause::{Pause, PauseScope};
use crate::model::sent_with::SentWith;
use crate::model::team::{KeyState, Team};
use crate::store::admin::{
    AdminStore, AuditEntry, AuditFilter, AuditRow, DecideKey, DecideNewKey, DecideResend, DecideTeam, IdempotencyKey,
    KeyRow, Made, Refusal, SOME_TEAMS, TokenRow, Used, resends,
};
use crate::store::resends::{ResendRow, ResendState};
use crate::store::sql::End;
use crate::store::{Answer, InstanceId, StoreError};

impl MemoryStore {
    fn look<T: Send + 'static>(&self, job: impl FnOnce(&AdminState) -> T) -> Answer<'_, T> {
        done(Ok(job(&self.admin.lock().unwrap_or_else(PoisonError::into_inner))))
    }

    fn change<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut AdminState, Timestamp) -> Result<End<T>, StoreError>,
    ) -> Answer<'_, T> {
        let now = self.clock.now();
        let mut state = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = state.clone();
        after.version += 1;
        done(job(&mut after, now).map(|end| match end {
            End::Commit(value) => {
                *state = after;
                value
            }
            End::RollBack(value) => value,
        }))
    }

    /// Creates one object, or finds what the same request made before. `insert` answers false where it can't be
    /// created.
    fn create(
        &self,
        object: String,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
        insert: impl FnOnce(&mut AdminState, Timestamp) -> Result<bool, StoreError>,
    ) -> Answer<'_, Made> {
        self.change(|state, now| {
            if let Some(found) = once.as_ref().and_then(|once| state.made_before(&audit.caller, once, now)) {
                return Ok(End::RollBack(found));
            }
            if !insert(state, now)? {
                return Ok(End::RollBack(Made::Exists));
            }
            if let Some(once) = once {
                state.idempotency_keys.insert((audit.caller.clone(), once.key), (once.fingerprint, object, now));
            }
            state.note(audit, now);
            Ok(End::Commit(Made::Done))
        })
    }
}

impl AdminStore for MemoryStore {
    fn version(&self) -> Answer<'_, i64> {
        self.look(|state| state.version)
    }

    fn team(&self, id: &str) -> Answer<'_, Option<Team>> {
        self.look(|state| state.teams.get(id).cloned())
    }

    fn teams(&self, after: Option<String>, limit: usize) -> Answer<'_, Vec<Team>> {
        self.look(|state| {
            let teams = state.teams.values().filter(|team| after.as_ref().is_none_or(|after| *team.id > **after));
            teams.take(limit).cloned().collect()
        })
    }

    fn team_with_keys(&self, id: &str) -> Answer<'_, Option<(Team, Vec<KeyRow>)>> {
        self.look(|state| {
            let team = state.teams.get(id).filter(|team| team.deleted_at.is_none());
            team.map(|team| (team.clone(), state.keys_of(id)))
        })
    }

    fn made_before(&self, caller: &str, once: IdempotencyKey) -> Answer<'_, Option<Made>> {
        let now = self.clock.now();
        self.look(|state| state.made_before(caller, &once, now))
    }

    fn create_team(
        &self,
        team: Team,
        keys: Vec<KeyRow>,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
    ) -> Answer<'_, Made> {
        self.create(team.id.to_string(), once, audit, |state, _| {
            if state.teams.contains_key(&*team.id) {
                return Ok(false);
            }
            state.teams.insert(team.id.to_string(), team);
            keys.into_iter().try_for_each(|key| state.insert_key(key))?;
            Ok(true)
        })
    }

    fn decide_team(
        &self,
        id: &str,
        audit: AuditEntry,
        decide: DecideTeam,
    ) -> Answer<'_, Option<Result<Team, Refusal>>> {
        self.change(|state, now| {
            let Some(before) = state.teams.get(id).cloned() else { return Ok(End::RollBack(None)) };
            let (after, change) = match decide(before) {
                Ok(decided) => decided,
                Err(refusal) => return Ok(End::RollBack(Some(Err(refusal)))),
            };
            state.teams.insert(id.to_owned(), after.clone());
            state.note(AuditEntry { change, ..audit }, now);
            Ok(End::Commit(Some(Ok(after))))
        })
    }

    fn delete_team(&self, id: &str, audit: AuditEntry) -> Answer<'_, Option<Team>> {
        self.change(|state, now| {
            let Some(team) = state.teams.get_mut(id) else { return Ok(End::RollBack(None)) };
            team.deleted_at.get_or_insert(now);
            let team = team.clone();
            for key in state.keys.values_mut().filter(|key| key.team == id && key.state != KeyState::Revoked) {
                (key.state, key.revoked_at) = (KeyState::Revoked, Some(now));
            }
            state.pauses.retain(|pause| pause.scope.team().is_none_or(|team| **team != *id));
            state.note(audit, now);
            Ok(End::Commit(Some(team)))
        })
    }

    fn deleted_teams(&self, since: Timestamp) -> Answer<'_, Vec<String>> {
        self.look(|state| {
            let deleted = |team: &&Team| team.deleted_at.is_some_and(|at| at >= since);
            let mut teams: Vec<_> = state.teams.values().filter(deleted).collect();
            teams.sort_by_key(|team| team.deleted_at);
            teams.into_iter().map(|team| team.id.to_string()).collect()
        })
    }

    fn pauses(&self) -> Answer<'_, Vec<Pause>> {
        self.look(|state| {
            let mut pauses = state.pauses.clone();
            let of = |scope: &PauseScope| (scope.team().cloned(), scope.origin().map(ToString::to_string));
            pauses.sort_by_key(|pause| of(&pause.scope));
            pauses
        })
    }

    fn pause(&self, pause: Pause, audit: AuditEntry) -> Answer<'_, Pause> {
        self.change(|state, now| {
            state.note(audit, now);
            if let Some(known) = state.pauses.iter().find(|known| known.scope == pause.scope) {
                return Ok(End::Commit(known.clone()));
            }
            let pause = Pause { since: now, ..pause };
            state.pauses.push(pause.clone());
            Ok(End::Commit(pause))
        })
    }

    fn end_pause(&self, scope: PauseScope, audit: AuditEntry) -> Answer<'_, bool> {
        self.change(|state, now| {
            let before = state.pauses.len();
            state.pauses.retain(|pause| pause.scope != scope);
            if state.pauses.len() == before {
                return Ok(End::RollBack(false));
            }
            state.note(audit, now);
            Ok(End::Commit(true))
        })
    }

    fn keys(&self, team: &str) -> Answer<'_, Vec<KeyRow>> {
        self.look(|state| state.keys_of(team))
    }

    fn decide_new_key(
        &self,
        key: KeyRow,
        once: Option<IdempotencyKey>,
        audit: AuditEntry,
        decide: DecideNewKey,
    ) -> Answer<'_, Result<Made, Refusal>> {
        let mut refused = None;
        let made = self.create(key.id.clone(), once, audit, |state, _| {
            if let Err(refusal) = decide(state.keys_of(&key.team)) {
                refused = Some(refusal);
                return Ok(false);
            }
            state.insert_key(key)?;
            Ok(true)
        });
        Box::pin(async move { made.await.map(|made| refused.map_or(Ok(made), Err)) })
    }

    fn decide_key(&self, team: &str, audit: AuditEntry, decide: DecideKey) -> Answer<'_, Result<KeyRow, Refusal>> {
        self.change(|state, now| {
            let key = match decide(state.keys_of(team), now) {
                Ok(key) => key,
                Err(refusal) => return Ok(End::RollBack(Err(refusal))),
            };
            state.keys.insert(key.id.clone(), key.clone());
            state.note(audit, now);
            Ok(End::Commit(Ok(key)))
        })
    }

    fn some_keys(&self) -> Answer<'_, Vec<KeyRow>> {
        self.look(|state| state.teams.keys().take(SOME_TEAMS).flat_map(|team| state.keys_of(team)).collect())
    }

    fn tokens(&self) -> Answer<'_, Vec<TokenRow>> {
        self.look(|state| {
            let mut all: Vec<_> = state.tokens.values().cloned().collect();
            all.sort_by_key(|token| (std::cmp::Reverse(token.created_at), token.id.clone()));
            all
        })
    }

    fn create_token(&self, token: TokenRow, once: Option<IdempotencyKey>, audit: AuditEntry) -> Answer<'_, Made> {
        self.create(token.id.clone(), once, audit, |state, now| Ok(state.insert_token(token, now)))
    }

    fn revoke_token(&self, id: &str, audit: AuditEntry) -> Answer<'_, Option<TokenRow>> {
        self.change(|state, now| {
            let Some(token) = state.tokens.get_mut(id) else { return Ok(End::RollBack(None)) };
            token.revoked_at.get_or_insert(now);
            let token = token.clone();
            state.note(audit, now);
            Ok(End::Commit(Some(token)))
        })
    }

    fn create_resend(&self, row: ResendRow, once: Option<IdempotencyKey>, audit: AuditEntry) -> Answer<'_, Made> {
        self.create(row.id.clone(), once, audit, |state, _| Ok(state.insert_resend(row)))
    }

    fn resend(&self, id: &str) -> Answer<'_, Option<ResendRow>> {
        self.look(|state| state.resends.get(id).map(|(row, _)| row.clone()))
    }

    fn resends(&self, before: Option<String>, limit: usize) -> Answer<'_, Vec<ResendRow>> {
        self.look(|state| {
            let rows = state.resends.values().rev().map(|(row, _)| row);
            let below = rows.filter(|row| before.as_ref().is_none_or(|before| row.id < *before));
            below.take(limit).cloned().collect()
        })
    }

    fn decide_resend(
        &self,
        id: &str,
        audit: AuditEntry,
        decide: DecideResend,
    ) -> Answer<'_, Option<Result<ResendRow, Refusal>>> {
        self.change(|state, now| {
            let Some((row, _)) = state.resends.get_mut(id) else { return Ok(End::RollBack(None)) };
            let after = match decide(row.clone()) {
                Ok(after) => ResendRow { changed_at: now, ..after },
                Err(refusal) => return Ok(End::RollBack(Some(Err(refusal)))),
            };
            *row = after.clone();
            state.note(audit, now);
            Ok(End::Commit(Some(Ok(after))))
        })
    }

    fn hold_resends(&self, instance: InstanceId, until: Timestamp) -> Answer<'_, Vec<ResendRow>> {
        let now = self.clock.now();
        let mut state = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = |held: &Option<(InstanceId, Timestamp)>| {
            held.is_none_or(|(holder, until)| holder == instance || until <= now)
        };
        let free = state.resends.values_mut().filter(|(row, held)| row.state == ResendState::Running && is_free(held));
        let taken = free.take(resends::AT_ONCE).map(|(row, held)| {
            *held = Some((instance, until));
            row.clone()
        });
        done(Ok(taken.collect()))
    }

    fn mark_used(&self, used: Vec<(Used, Timestamp)>) -> Answer<'_, ()> {
        let mut state = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, at) in used {
            let used_at = match what {
                Used::Token(id) => state.tokens.get_mut(&id).map(|token| &mut token.used_at),
                Used::Key(id) => state.keys.get_mut(&id).map(|key| &mut key.used_at),
            };
            if let Some(used_at) = used_at {
                *used_at = (*used_at).max(Some(at));
            }
        }
        done(Ok(()))
    }

    fn note_sent_with(&self, used: Vec<SentWith>) -> Answer<'_, ()> {
        let now = self.clock.now();
        let mut state = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        state.sent_with.extend(used.into_iter().map(|settings| (settings.id(), (settings, now))));
        done(Ok(()))
    }

    fn sent_with(&self, ids: Vec<SentWithId>) -> Answer<'_, Vec<SentWith>> {
        self.look(|state| {
            ids.iter().filter_map(|id| state.sent_with.get(id)).map(|(settings, _)| settings.clone()).collect()
        })
    }

    fn prune_sent_with(&self, before: Timestamp) -> Answer<'_, usize> {
        let mut state = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let count = state.sent_with.len();
        state.sent_with.retain(|_, (_, used_at)| *used_at >= before);
        done(Ok(count - state.sent_with.len()))
    }

    fn note(&self, audit: AuditEntry) -> Answer<'_, ()> {
        let now = self.clock.now();
        self.admin.lock().unwrap_or_else(PoisonError::into_inner).note(audit, now);
        done(Ok(()))
    }

    fn audit(&self, filter: AuditFilter, before: Option<i64>, limit: usize) -> Answer<'_, Vec<AuditRow>> {
        self.look(|state| {
            let matches = |row: &&AuditRow| {
                filter.object.as_ref().is_none_or(|object| *object == row.object)
                    && filter.caller.as_ref().is_none_or(|caller| *caller == row.caller)
                    && filter.of_teams.as_ref().is_none_or(|of_teams| of_teams.include(row))
                    && before.is_none_or(|before| row.id < before)
            };
            state.audit.iter().rev().filter(matches).take(limit).cloned().collect()
        })
    }
}
