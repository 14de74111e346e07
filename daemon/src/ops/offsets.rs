//! Partitions: how far each one was read, and where to start if another store wrote Kafka's offsets.

use std::time::Duration;

use tokio::sync::oneshot;

use super::policy::Operation;
use super::{Inner, OpsError, Session};
use crate::base::clock::Timestamp;
use crate::base::named::Named;
use crate::intake::Ask;
use crate::intake::partition::AcceptFrom;
use crate::store::reads::PartitionOffsets;

/// How long an operator waits for the consumer's thread. It looks at its questions more often than that, unless a
/// rebalance holds it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A partition as the store knows it, and as this daemon reads it.
#[derive(Debug, Clone)]
pub struct PartitionReport {
    pub row: PartitionOffsets,
    /// Records between its watermark and its end; `None` for a partition that this daemon does not read.
    pub lag: Option<i64>,
    pub recorded_upto: Option<Timestamp>,
    pub held_since: Option<Timestamp>,
}

impl Session {
    /// Every partition that the store knows.
    ///
    /// # Errors
    /// `forbidden`, or the store's.
    pub async fn offsets(&self) -> Result<Vec<PartitionReport>, OpsError> {
        self.allow(Operation::Offsets)?;
        let rows = self.parts().reads.offsets().await?;
        let kafka = self.parts().kafka.borrow();
        let report = |row: PartitionOffsets| {
            let read = kafka.partitions.iter().find(|read| *read.partition == row.partition);
            PartitionReport {
                row,
                lag: read.map(|read| read.lag),
                recorded_upto: read.and_then(|read| read.recorded_upto),
                held_since: read.and_then(|read| read.held_since),
            }
        };
        Ok(rows.into_iter().map(report).collect())
    }

    /// Starts the partitions that wait for an operator. Answers how many started.
    ///
    /// # Errors
    /// `forbidden`, `conflict` when no partition waits, `not_ready` when Kafka does not answer, or the store's.
    pub async fn accept_offsets(&self, from: AcceptFrom) -> Result<usize, OpsError> {
        self.allow(Operation::AcceptOffsets)?;
        if self.parts().kafka.borrow().blocked.is_none() {
            return Err(OpsError::Conflict("no partition waits for its offsets to be accepted".to_owned()));
        }
        // The audit row is written first, because the request counts even if it fails.
        self.parts().admin.note(self.caller.entry(Operation::AcceptOffsets, Named::name(from), "")).await?;
        let started = self.inner.ask_consumer(|answer| Ask::Accept(from, answer), PATIENCE).await?;
        started.map_err(OpsError::NotReady)
    }
}

impl Inner {
    /// Asks the consumer's thread, and waits for its answer.
    pub(super) async fn ask_consumer<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
        patience: Duration,
    ) -> Result<T, OpsError> {
        let silent = || OpsError::NotReady("the Kafka consumer does not answer; see /readyz".to_owned());
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.parts.asks.send(ask(answer)).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(patience, asked).await.ok().flatten().ok_or_else(silent)
    }
}
