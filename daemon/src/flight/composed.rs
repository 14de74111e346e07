//! The life of a batch, as types: a composed batch can only be written, and only a written batch counts as durable.
//!
//! Nothing else makes a [`Durable`], so code that reports a callback as recorded before its batch is written does not
//! compile.

use std::sync::Arc;

use crate::model::event::PartitionKey;
use crate::model::settlement::{Change, Verdict};
use crate::store::batch::{BatchWriter, Written};
use crate::store::{PartitionWatermark, StoreError};

/// A batch that is ready to be written: changes, and the watermarks that become true when they are durable.
#[derive(Debug)]
#[must_use = "a composed batch becomes durable only by being written"]
pub struct Composed {
    changes: Vec<Change>,
    watermarks: Vec<PartitionWatermark>,
}

/// A batch that the store has.
#[derive(Debug)]
#[must_use = "the callbacks of a written batch stay under way until it is confirmed"]
pub struct Durable(Written);

impl Composed {
    pub(super) fn new(changes: Vec<Change>, watermarks: Vec<PartitionWatermark>) -> Self {
        Self { changes, watermarks }
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.watermarks.is_empty()
    }

    /// Removes the watermarks. Only a fault switch of the tests does this.
    pub fn without_watermarks(self) -> Self {
        Self { watermarks: Vec::new(), ..self }
    }

    /// Writes the batch. Waits as long as the store is unavailable.
    ///
    /// # Errors
    /// The store is broken.
    pub async fn write(self, writer: &mut BatchWriter) -> Result<Durable, StoreError> {
        writer.write(self.changes, self.watermarks).await.map(Durable)
    }
}

impl Durable {
    /// Each change with its verdict, in the order in which they were composed.
    pub fn changes(&self) -> &[(Change, Verdict)] {
        &self.0.changes
    }

    /// The changes, in the same order.
    pub fn into_changes(self) -> Vec<(Change, Verdict)> {
        self.0.changes
    }

    /// Partitions that have a newer epoch than the batch named.
    pub fn fenced(&self) -> &[(Arc<PartitionKey>, i64)] {
        &self.0.lost
    }

    /// The watermarks that the store accepted. It refuses a watermark whose epoch is over.
    pub(super) fn watermarks(&self) -> impl Iterator<Item = &PartitionWatermark> {
        let refused = |taken: &PartitionWatermark| {
            self.0.lost.iter().any(|(partition, epoch)| *partition == taken.partition && *epoch == taken.epoch)
        };
        self.0.watermarks.iter().filter(move |taken| !refused(taken))
    }
}

/// For the tests of the table, which play the store's part.
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
