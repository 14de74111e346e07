//! The way of a batch, as types: what is composed can only be written, and only what was written counts as durable.
//!
//! Nothing else makes a [`Durable`], so code that reports a callback as recorded before its batch is written does not
//! compile.

use std::sync::Arc;

use crate::model::event::PartitionKey;
use crate::model::settlement::{Change, Verdict};
use crate::store::batch::{BatchWriter, Written};
use crate::store::{PartitionWatermark, StoreError};

/// A batch that is ready to be written: changes, and the watermarks that hold once they are durable.
#[derive(Debug)]
#[must_use = "a composed batch becomes durable only by being written"]
pub struct Composed {
    changes: Vec<Change>,
    watermarks: Vec<PartitionWatermark>,
}

/// A batch that the store has.
#[derive(Debug)]
#[must_use = "the flights of a written batch wait to be told"]
pub struct Durable(Written);

impl Composed {
    pub(super) fn new(changes: Vec<Change>, watermarks: Vec<PartitionWatermark>) -> Self {
        Self { changes, watermarks }
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.watermarks.is_empty()
    }

    /// Leaves the watermarks out: what a broken build does that writes them in another transaction.
    pub fn without_watermarks(self) -> Self {
        Self { watermarks: Vec::new(), ..self }
    }

    /// Writes the batch, however long the store is away.
    ///
    /// # Errors
    /// The store is broken.
    pub async fn write(self, writer: &mut BatchWriter) -> Result<Durable, StoreError> {
        writer.write(self.changes, self.watermarks).await.map(Durable)
    }
}

impl Durable {
    /// Each change with what it came to, in the order in which they were composed.
    pub fn changes(&self) -> &[(Change, Verdict)] {
        &self.0.changes
    }

    /// Gives the changes away, in the same order.
    pub fn into_changes(self) -> Vec<(Change, Verdict)> {
        self.0.changes
    }

    /// Partitions that the batch named under an epoch that is no longer theirs.
    pub fn fenced(&self) -> &[(Arc<PartitionKey>, i64)] {
        &self.0.lost
    }

    /// The watermarks that the store took. One that was refused, since its epoch is gone, is not among them.
    pub(super) fn watermarks(&self) -> impl Iterator<Item = &PartitionWatermark> {
        let refused = |taken: &PartitionWatermark| {
            self.0.lost.iter().any(|(partition, epoch)| *partition == taken.partition && *epoch == taken.epoch)
        };
        self.0.watermarks.iter().filter(move |taken| !refused(taken))
    }
}

/// For the tests of the table, which stand in for the store.
#[cfg(test)]
impl Composed {
    pub(super) fn into_parts(self) -> (Vec<Change>, Vec<PartitionWatermark>) {
        (self.changes, self.watermarks)
    }
}

#[cfg(test)]
impl Durable {
    pub(super) fn of(written: Written) -> Self {
        Self(written)
    }
}
