//! Dead letters: task events that can't become a callback.

use super::callbacks::malformed;
use super::names::check_range;
use super::policy::Operation;
use super::{Inner, OpsError, Session};
use crate::model::callback::CallbackId;
use crate::store::reads::{BuriedLetter, DeadLetterFilter, Found, Page};

impl Session {
    /// Dead letters that match, newest first. They may name a team that does not exist; only a team that neither exists nor
    /// is named by any dead letter is an error.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, or the store's.
    pub async fn dead_letters(&self, filter: DeadLetterFilter, page: Page) -> Result<Found<BuriedLetter>, OpsError> {
        self.allow(Operation::DeadLetters)?;
        check_range(filter.since, filter.until)?;
        let team = filter.team.clone();
        let found = self.parts().reads.dead_letters(filter, page).await?;
        if let Some(team) = team.filter(|_| found.docs.is_empty() && found.next.is_none())
            && !self.inner.is_named_by_a_letter(&team).await?
        {
            self.inner.check_team_exists(&team).await?;
        }
        Ok(found)
    }

    /// One dead letter, with its bytes.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, or the store's.
    pub async fn dead_letter(&self, id: &str) -> Result<BuriedLetter, OpsError> {
        self.allow(Operation::DeadLetter)?;
        let parsed = CallbackId::parse_dead_letter(id).ok_or_else(|| malformed("dead letter", "dl_", id))?;
        let found = self.parts().reads.dead_letter(parsed).await?;
        found.ok_or_else(|| OpsError::NotFound(format!("there is no dead letter {id}")))
    }
}

impl Inner {
    async fn is_named_by_a_letter(&self, team: &str) -> Result<bool, OpsError> {
        let filter = DeadLetterFilter { team: Some(team.to_owned()), ..DeadLetterFilter::default() };
        let found = self.parts.reads.dead_letters(filter, Page { before: None, limit: 1 }).await?;
        Ok(!found.docs.is_empty() || found.next.is_some())
    }
}
