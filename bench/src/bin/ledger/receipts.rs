//! The second record: every request that arrived and verified, and when its answer was written.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::event::Receiver;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    /// `webhook-id`.
    pub(crate) id: Box<str>,
    pub(crate) task: u64,
    /// The number of the attempt, as the request says.
    pub(crate) attempt: u32,
    /// The run of the daemon that sent it.
    pub(crate) run: u32,
    pub(crate) receiver: Receiver,
    /// A hash of the body.
    pub(crate) body: u64,
    pub(crate) came: Instant,
    pub(crate) end: End,
}

/// How an exchange ended, as the receiver knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// No answer was written yet, or ever.
    Open,
    /// A 2xx was written.
    Accepted(Instant),
    /// Another answer was written.
    Refused(Instant),
    /// The connection ended without an answer: the receiver reset it, or the sender closed it.
    Cut(Instant),
}

impl Receipt {
    /// When a 2xx was written.
    pub(crate) fn accepted(&self) -> Option<Instant> {
        if let End::Accepted(at) = self.end { Some(at) } else { None }
    }
}

#[derive(Default)]
pub(crate) struct Receipts {
    all: Mutex<Vec<Receipt>>,
    refused: Mutex<Vec<String>>,
}

impl Receipts {
    fn all(&self) -> MutexGuard<'_, Vec<Receipt>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request. Returns its number, under which its end is recorded.
    pub(crate) fn came(&self, receipt: Receipt) -> usize {
        let mut all = self.all();
        all.push(receipt);
        all.len() - 1
    }

    pub(crate) fn ended(&self, number: usize, end: End) {
        if let Some(receipt) = self.all().get_mut(number)
            && receipt.end == End::Open
        {
            receipt.end = end;
        }
    }

    /// A request that did not verify, or that no event could have caused.
    pub(crate) fn refuse(&self, why: String) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }

    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All receipts, in the order in which they came.
    pub(crate) fn taken(&self) -> Vec<Receipt> {
        self.all().clone()
    }
}
