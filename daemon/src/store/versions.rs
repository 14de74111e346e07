//! Programs of several versions on one store: what a migration means for older ones, which of them may write, and what they leave
//! to newer ones.
//!
//! A schema's number is that of its last migration. A store also records the oldest schema that a program must know to write to it.
//! So an older program may work on a newer store, as long as the migrations that it does not know are additive.

use std::time::Duration;

use super::OpenError;
use crate::faults::{self, Fault};

/// One step of a schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    /// The oldest schema that a program must know to write to the store afterwards, if that is a later one than before.
    pub(super) oldest_writer: Option<usize>,
}

impl Migration {
    /// Programs that do not know it may write all the same. CONTRIBUTING.md says what that means.
    pub(super) const fn additive(name: &'static str, sql: &'static str) -> Self {
        Self { name, sql, oldest_writer: None }
    }

    /// Only programs that know the schema `oldest_writer` may write afterwards. It is applied when no older one lives.
    pub(super) const fn raising(name: &'static str, sql: &'static str, oldest_writer: usize) -> Self {
        Self { name, sql, oldest_writer: Some(oldest_writer) }
    }
}

/// The migration of the next version, where a fault switch lets a test's program pretend to be that one. `known` is how many there are
/// without it.
pub(super) fn pretended(known: usize) -> Option<Migration> {
    let sql = "ALTER TABLE settled ADD COLUMN pretended text; ALTER TABLE pending ADD COLUMN pretended text;
               CREATE TABLE pretended (id bigint PRIMARY KEY)";
    if faults::is_on(Fault::NextSchema) {
        Some(Migration::additive("pretended", sql))
    } else if faults::is_on(Fault::NextSchemaAlone) {
        Some(Migration::raising("pretended", sql, known.saturating_add(1)))
    } else {
        None
    }
}

/// What a store says of its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schema {
    /// How many migrations are applied.
    pub(super) applied: usize,
    /// The oldest schema that a program must know to write to this store.
    pub(super) oldest_writer: usize,
}

impl Schema {
    /// A store that does not record its oldest writer takes only programs that know all of its migrations.
    pub(super) fn new(applied: usize, oldest_writer: Option<usize>) -> Self {
        Self { applied, oldest_writer: oldest_writer.unwrap_or(applied) }
    }

    /// Whether a program that knows so many migrations may write to the store.
    ///
    /// # Errors
    /// It must not; `at` names the store.
    pub(super) fn admits(self, known: usize, at: impl Into<String>) -> Result<(), OpenError> {
        if self.applied <= known || self.oldest_writer <= known {
            return Ok(());
        }
        Err(OpenError::Newer { at: at.into(), found: self.applied, needed: self.oldest_writer, known })
    }

    /// How many migrations a program that knows so many has to apply.
    pub(super) fn missing(self, known: usize) -> usize {
        known.saturating_sub(self.applied)
    }

    /// The schema in words, by the names of the migrations that this program knows.
    pub(super) fn name(self, known: &[Migration]) -> String {
        match self.applied.checked_sub(1).map(|last| known.get(last)) {
            None => "none".to_owned(),
            Some(Some(last)) => last.name.to_owned(),
            Some(None) => format!("{:04}, newer than this program", self.applied),
        }
    }
}

/// The programs of the living instances of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Programs {
    /// How many of them know fewer migrations than this one.
    pub older: usize,
    /// The newest code that joins bodies and that all of them know.
    pub builder: u8,
}

/// What a claim could not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAside {
    /// Rows and queues that can't be read. They wait for a minute, and the log names each one.
    pub unreadable: usize,
    /// Due rows whose bodies were joined by code that this program does not know. They are left as they are, for a newer program.
    pub unknown_builder: usize,
}

/// A queue whose first due row is for a newer program is looked at again after this time, so that the newer program finds it soon,
/// and no claim of ours looks at it all the time.
pub(super) const NEWER_LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_writes_to_a_newer_store_up_to_its_oldest_writer() {
        for (applied, oldest, known, may) in [
            (0, None, 8, true),
            (7, None, 8, true),
            (8, Some(7), 8, true),
            (9, Some(7), 8, true),
            (9, Some(8), 8, true),
            (9, Some(9), 8, false),
            (12, Some(9), 8, false),
            // It does not say who may write.
            (9, None, 8, false),
        ] {
            let admitted = Schema::new(applied, oldest).admits(known, "here");
            assert_eq!(admitted.is_ok(), may, "schema {applied}, {oldest:?}, program {known}");
        }
        let error = Schema::new(12, Some(9)).admits(8, "store.path: /store").unwrap_err();
        assert_eq!(
            error.to_string(),
            "store.path: /store: it was written by a newer callbackd (schema 12): it needs one that knows schema 9, and this \
             one knows schema 8"
        );
    }

    #[test]
    fn a_schema_has_the_name_of_its_last_migration() {
        let known = [Migration::raising("0001_a", "", 1), Migration::additive("0002_b", "")];
        let name = |applied| Schema::new(applied, None).name(&known);
        assert_eq!(
            (name(0).as_str(), name(2).as_str(), name(3).as_str()),
            ("none", "0002_b", "0003, newer than this program")
        );
        assert_eq!((Schema::new(1, None).missing(2), Schema::new(3, None).missing(2)), (1, 0));
    }
}
