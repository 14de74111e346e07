//! Which bodies are kept after their callbacks have ended, so that they can be sent again.

use super::settlement::{Ended, Rows};
use crate::base::named::named;

named! {
    /// Whose bodies are kept.
    pub enum KeepBodies {
        None = "none",
        /// Of callbacks that were exhausted or abandoned.
        Failed = "failed",
        All = "all",
    }
}

/// Whose bodies are kept, and how many bytes of them, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    pub of: KeepBodies,
    pub bytes: u64,
    /// No body is kept while the disk has less than this left, if the store knows its disk.
    pub least_free: u64,
}

impl Keeping {
    pub const NOTHING: Self = Self { of: KeepBodies::None, bytes: 0, least_free: 0 };

    /// The same, where the disk has so much left. What is kept already stays.
    #[must_use]
    pub fn with_free(self, free_bytes: Option<u64>) -> Self {
        match free_bytes {
            Some(free) if free < self.least_free => Self { bytes: 0, ..self },
            _ => self,
        }
    }

    /// Whether the body of a callback with these rows is kept as that of an ended one. The body of a pending one is there anyway.
    pub fn keeps(&self, rows: &Rows) -> bool {
        let settled = rows.settled.as_ref().filter(|_| rows.pending.is_none());
        settled.is_some_and(|settled| self.keeps_ended(settled.ended))
    }

    /// Whether the body of a callback that ended like this is kept.
    pub fn keeps_ended(&self, ended: Ended) -> bool {
        match self.of {
            KeepBodies::None => false,
            KeepBodies::Failed => ended != Ended::Delivered,
            KeepBodies::All => true,
        }
    }
}
