//! The replacement of a change whose data the store refused: the same callback or dead letter, without the customer's
//! bytes.

use std::time::Duration;

use bytes::Bytes;

use super::{Change, Park, Settle};
use crate::model::attempt::{Attempt, Outcome};
use crate::model::dead_letter::DeadLetter;
use crate::model::retry::{Next, Reason};

impl Change {
    /// The change without the bytes that the store may have refused. A callback ends as `store_rejected`, unless it was
    /// delivered; a dead letter keeps its place in the topic.
    #[must_use]
    pub fn rejected_by_store(self) -> Self {
        match self {
            Self::Settle(settle) => Self::Settle(Box::new(settle.rejected_by_store())),
            Self::Park(park) => Self::Settle(Box::new(park.rejected_by_store())),
            Self::Bury(letter, epoch) => Self::Bury(Box::new(letter.without_content()), epoch),
            release @ Self::Release { .. } => release,
        }
    }
}

impl Settle {
    fn rejected_by_store(self) -> Self {
        let (outcome, next) = match self.next {
            Next::Delivered => (self.attempt.outcome, Next::Delivered),
            _ => (Outcome::StoreRejected, Next::Abandoned(Reason::StoreRejected)),
        };
        let attempt = Attempt { outcome, snippet: Bytes::new(), ..self.attempt };
        Self { attempt, next, url: None, body: Bytes::new(), ..self }
    }
}

impl Park {
    /// The end of a callback that could not even be stored: as if its first attempt had been refused when it was due.
    fn rejected_by_store(self) -> Settle {
        let attempt = Attempt {
            outcome: Outcome::StoreRejected,
            sent: false,
            status: None,
            begun_at: self.due,
            took: Duration::ZERO,
            peer: None,
            redialed: false,
            sent_with: None,
            snippet: Bytes::new(),
        };
        Settle {
            facts: self.facts,
            token: self.token,
            epoch: Some(self.epoch),
            url: None,
            body: Bytes::new(),
            number: 1,
            attempt,
            next: Next::Abandoned(Reason::StoreRejected),
        }
    }
}

impl DeadLetter {
    fn without_content(self) -> Self {
        Self { value: Bytes::new(), detail: "the store refused its bytes".to_owned(), ..self }
    }
}
