//! Dead letters: task events that can't become a callback.

use std::sync::Arc;

use super::names::{check_range, malformed};
use super::policy::{self, Operation};
use super::{Inner, OpsError, Session};
use crate::intake::{callback_id, event_claim, facts_of};
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Fate};
use crate::model::event::TaskEvent;
use crate::store::reads::{BuriedLetter, DeadLetterFilter, Found, Page};
use crate::store::{LetterResend, LetterResent};

/// A dead letter, as far as its caller may see it.
pub struct LetterReport {
    pub row: BuriedLetter,
    /// Whether the caller may see the record's value, which may hold the task's URL.
    pub shows_value: bool,
}

impl Session {
    /// Dead letters that match, newest first. They may name a team that does not exist; only a team that neither exists nor
    /// is named by any dead letter is an error.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, or the store's.
    pub async fn dead_letters(&self, filter: DeadLetterFilter, page: Page) -> Result<Found<LetterReport>, OpsError> {
        self.allow(Operation::DeadLetters)?;
        let (team, teams) = self.asked_teams(Operation::DeadLetters, filter.team.as_deref())?;
        check_range(filter.since, filter.until)?;
        let asked = filter.team.clone();
        let found = self.parts().reads.dead_letters(DeadLetterFilter { team, teams, ..filter }, page).await?;
        if let Some(team) = asked.filter(|_| found.docs.is_empty() && found.next.is_none())
            && !self.inner.is_named_by_a_letter(&team).await?
        {
            self.inner.check_team_exists(&team).await?;
        }
        Ok(Found { docs: self.letters(found.docs), next: found.next })
    }

    /// One dead letter, with its bytes.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, or the store's.
    pub async fn dead_letter(&self, id: &str) -> Result<LetterReport, OpsError> {
        self.allow(Operation::DeadLetter)?;
        let row = self.own_letter(id).await?;
        Ok(LetterReport { row, shows_value: policy::sees_urls(&self.caller) })
    }

    /// Reads a dead letter once more, after what was wrong was mended: its team was created, or a bound was raised. If it can be
    /// read now, it becomes a callback that is due, as its event would have.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `not_found`; `conflict` if it still can't become a callback, or did before; `pruned` if its
    /// record is neither kept nor in Kafka any more; or the store's.
    pub async fn resend_dead_letter(&self, id: &str) -> Result<LetterReport, OpsError> {
        self.allow(Operation::ResendDeadLetter)?;
        let row = self.own_letter(id).await?;
        if let Fate::Resent(callback) = row.fate {
            return Err(OpsError::Conflict(format!("{id} became the callback {callback} before")));
        }
        let event = self.inner.event_of(&row.letter).await?;
        if !self.sees(&event.team) {
            return Err(no_letter(id));
        }
        let resend = self.inner.letter_resend(&row.letter, &event).await?;
        let callback = resend.facts.id;
        let parts = self.parts();
        let change = format!("{id} as {callback}");
        parts.admin.note(self.caller.entry(Operation::ResendDeadLetter, &*event.team, change)).await?;
        match parts.store.resend_letter(resend).await? {
            LetterResent::Parked | LetterResent::Known => parts.waker.wake(),
            LetterResent::Reused => {
                let sentence = format!("{id}: its event id was used for another content, by the callback {callback}");
                return Err(OpsError::Conflict(sentence));
            }
            LetterResent::Unknown => return Err(no_letter(id)),
        }
        let row = self.own_letter(id).await?;
        Ok(LetterReport { row, shows_value: policy::sees_urls(&self.caller) })
    }

    /// Sets a dead letter aside, so that lists of what is open do not show it. It can still be sent again.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, `conflict` if it became a callback, or the store's.
    pub async fn discard_dead_letter(&self, id: &str) -> Result<LetterReport, OpsError> {
        self.allow(Operation::DiscardDeadLetter)?;
        let row = self.own_letter(id).await?;
        if let Fate::Resent(callback) = row.fate {
            return Err(OpsError::Conflict(format!("{id} became the callback {callback} before")));
        }
        let parts = self.parts();
        let team = row.letter.team.as_deref().unwrap_or_default();
        parts.admin.note(self.caller.entry(Operation::DiscardDeadLetter, team, id.to_owned())).await?;
        if !parts.store.discard_letter(row.letter.id).await? {
            return Err(OpsError::Conflict(format!("{id} has just become a callback, or is gone")));
        }
        let row = BuriedLetter { fate: Fate::Discarded, ..row };
        Ok(LetterReport { row, shows_value: policy::sees_urls(&self.caller) })
    }

    /// A dead letter that exists for the caller.
    async fn own_letter(&self, id: &str) -> Result<BuriedLetter, OpsError> {
        let parsed = CallbackId::parse_dead_letter(id).ok_or_else(|| malformed("dead letter", "dl_", id))?;
        let found = self.parts().reads.dead_letter(parsed).await?;
        // A letter that names no team exists only for callers without a limit.
        let own = |row: &BuriedLetter| self.sees(row.letter.team.as_deref().unwrap_or_default());
        found.filter(own).ok_or_else(|| no_letter(id))
    }

    pub(super) fn letters(&self, rows: Vec<BuriedLetter>) -> Vec<LetterReport> {
        let shows_value = policy::sees_urls(&self.caller);
        rows.into_iter().map(|row| LetterReport { row, shows_value }).collect()
    }
}

fn no_letter(id: &str) -> OpsError {
    OpsError::NotFound(format!("there is no dead letter {id}"))
}

impl Inner {
    /// The event that a dead letter's record is by now.
    async fn event_of(&self, letter: &DeadLetter) -> Result<TaskEvent, OpsError> {
        let id = letter.id.to_dead_letter_id();
        let read = self.parts.rereader.read_letter(letter).await.map_err(|why| {
            let sentence = format!("the record of {id} is not kept as a whole, and {why}");
            if why.is_final() { OpsError::Pruned(sentence) } else { OpsError::NotReady(sentence) }
        })?;
        read.map_err(|still| {
            let detail = if still.detail.is_empty() { String::new() } else { format!(": {}", still.detail) };
            OpsError::Conflict(format!("{id} still can't become a callback ({}){detail}", still.reason.name()))
        })
    }

    /// The callback of an event that was a dead letter.
    async fn letter_resend(&self, letter: &DeadLetter, event: &TaskEvent) -> Result<LetterResend, OpsError> {
        if self.parts.directory.team(&event.team).await?.is_none() {
            let sentence = format!(
                "{} still can't become a callback (unknown_team): there is no team {}; create it first",
                letter.id.to_dead_letter_id(),
                event.team
            );
            return Err(OpsError::Conflict(sentence));
        }
        let mut id = callback_id(event);
        if let Some(claim) = event_claim(event, id) {
            let winners = self.parts.store.claim_event_ids(vec![claim]).await?;
            id = winners.into_iter().next().unwrap_or(id);
        }
        let facts = Arc::new(facts_of(event, id, self.parts.inflight.builder()));
        Ok(LetterResend { letter: letter.id, facts, url: event.callback_url.clone(), body: event.body.clone() })
    }

    async fn is_named_by_a_letter(&self, team: &str) -> Result<bool, OpsError> {
        let filter = DeadLetterFilter { team: Some(team.to_owned()), ..DeadLetterFilter::default() };
        let found = self.parts.reads.dead_letters(filter, Page { before: None, limit: 1 }).await?;
        Ok(!found.docs.is_empty() || found.next.is_some())
    }
}
