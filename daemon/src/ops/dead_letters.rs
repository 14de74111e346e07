//! Dead letters: task events that can't become a callback.

use super::names::{check_range, malformed};
use super::policy::{self, Operation};
use super::{Inner, OpsError, Session};
use crate::model::callback::CallbackId;
use crate::store::reads::{BuriedLetter, DeadLetterFilter, Found, Page};

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
        let parsed = CallbackId::parse_dead_letter(id).ok_or_else(|| malformed("dead letter", "dl_", id))?;
        let found = self.parts().reads.dead_letter(parsed).await?;
        // A letter that names no team exists only for callers without a limit.
        let own = |row: &BuriedLetter| self.sees(row.letter.team.as_deref().unwrap_or_default());
        let found = found.filter(own).ok_or_else(|| OpsError::NotFound(format!("there is no dead letter {id}")))?;
        Ok(LetterReport { row: found, shows_value: policy::sees_urls(&self.caller) })
    }

    pub(super) fn letters(&self, rows: Vec<BuriedLetter>) -> Vec<LetterReport> {
        let shows_value = policy::sees_urls(&self.caller);
        rows.into_iter().map(|row| LetterReport { row, shows_value }).collect()
    }
}

impl Inner {
    async fn is_named_by_a_letter(&self, team: &str) -> Result<bool, OpsError> {
        let filter = DeadLetterFilter { team: Some(team.to_owned()), ..DeadLetterFilter::default() };
        let found = self.parts.reads.dead_letters(filter, Page { before: None, limit: 1 }).await?;
        Ok(!found.docs.is_empty() || found.next.is_some())
    }
}
