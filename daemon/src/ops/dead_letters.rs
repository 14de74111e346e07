//! Dead letters: task events that can't become a callback.

use super::callbacks::malformed;
use super::policy::Operation;
use super::{OpsError, Session};
use crate::model::callback::CallbackId;
use crate::store::reads::{BuriedLetter, DeadLetterFilter, Found, Page};

impl Session {
    /// Dead letters that match, newest first.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn dead_letters(&self, filter: DeadLetterFilter, page: Page) -> Result<Found<BuriedLetter>, OpsError> {
        self.allow(Operation::DeadLetters)?;
        Ok(self.parts().reads.dead_letters(filter, page).await?)
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
