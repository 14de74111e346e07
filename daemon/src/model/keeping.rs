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
}

impl Keeping {
    pub const NOTHING: Self = Self { of: KeepBodies::None, bytes: 0 };

    /// Whether the body of a callback with these rows is kept as that of an ended one. The body of a pending one is there anyway.
    pub fn keeps(&self, rows: &Rows) -> bool {
        let Some(settled) = rows.settled.as_ref().filter(|_| rows.pending.is_none()) else { return false };
        match self.of {
            KeepBodies::None => false,
            KeepBodies::Failed => settled.ended != Ended::Delivered,
            KeepBodies::All => true,
        }
    }
}
