//! Dead letters that become callbacks after all, and the headers of dead letters as they are stored in every database.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::IdentityHeaders;
use crate::model::endpoint::CallbackUrl;
use crate::model::lease::{Facts, Token};
use crate::model::settlement::{Park, Rows};

/// A dead letter that became an event after all, as a callback that is due.
#[derive(Debug, Clone)]
pub struct LetterResend {
    pub letter: CallbackId,
    pub facts: Arc<Facts>,
    pub url: Option<CallbackUrl>,
    pub body: Bytes,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterResent {
    Parked,
    /// There is a callback of this event already.
    Known,
    /// There is a callback of this id, but with another content.
    Reused,
    /// There is no such dead letter.
    Unknown,
}

impl LetterResent {
    /// For a callback that has rows already, or none.
    pub(super) fn of(rows: &Rows, facts: &Facts) -> Self {
        let pending = rows.pending.as_ref().map(|row| &row.facts);
        match pending.or(rows.settled.as_ref().map(|row| &row.facts)) {
            None => Self::Parked,
            Some(known) if known.content_hash == facts.content_hash => Self::Known,
            Some(_) => Self::Reused,
        }
    }
}

impl LetterResend {
    /// The row of the callback. Nobody holds a lease of it.
    pub(super) fn park(&self, now: Timestamp) -> Park {
        Park {
            facts: Arc::clone(&self.facts),
            epoch: 0,
            url: self.url.clone(),
            body: self.body.clone(),
            due: now,
            token: Token(0),
            lease_until: None,
        }
    }
}

pub(super) fn written(headers: &IdentityHeaders) -> String {
    serde_json::to_string(headers).expect("texts and bytes can be written")
}

/// `None` where no headers were written like this.
pub(super) fn read(text: &str) -> Option<IdentityHeaders> {
    serde_json::from_str(text).ok()
}
