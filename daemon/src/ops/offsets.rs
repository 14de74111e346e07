//! Partitions: how far they were read, and from where to start when Kafka's offsets speak of another store.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Caller, Ops, OpsError};
use crate::base::clock::Timestamp;
use crate::intake::Ask;
use crate::intake::partition::AcceptFrom;
use crate::store::reads::PartitionOffsets;

/// The consumer's thread looks at questions at least this often, unless a rebalance holds it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A partition as the store knows it, and as this daemon reads it.
#[derive(Debug, Clone)]
pub struct PartitionReport {
    pub row: PartitionOffsets,
    /// Records between its watermark and its end; `None` for a partition that this daemon does not read.
    pub lag: Option<i64>,
    pub recorded_upto: Option<Timestamp>,
}

impl Ops {
    /// Every partition that the store knows.
    ///
    /// # Errors
    /// The store's.
    pub async fn offsets(&self) -> Result<Vec<PartitionReport>, OpsError> {
        let rows = self.reads.offsets().await?;
        let kafka = self.kafka.borrow();
        let with_lag = rows.into_iter().map(|row| {
            let read = kafka.partitions.iter().find(|read| *read.partition == row.partition);
            PartitionReport {
                row,
                lag: read.map(|read| read.lag),
                recorded_upto: read.and_then(|read| read.recorded_upto),
            }
        });
        Ok(with_lag.collect())
    }

    /// Starts the partitions that wait for it. Answers how many did.
    ///
    /// # Errors
    /// `invalid_request`, `conflict` when none waits, `not_ready` when Kafka does not answer, or the store's.
    pub async fn accept_offsets(&self, caller: &Caller, from: &str) -> Result<usize, OpsError> {
        let place = match from {
            "earliest" => AcceptFrom::Earliest,
            "committed" => AcceptFrom::Committed,
            "end" => AcceptFrom::End,
            _ => {
                let sentence = "from is \"earliest\", \"committed\" or \"end\"";
                return Err(OpsError::InvalidRequest(sentence.to_owned()));
            }
        };
        if self.kafka.borrow().blocked.is_none() {
            return Err(OpsError::Conflict("no partition waits for its offsets to be accepted".to_owned()));
        }
        // Before it is done: whatever comes of it, someone asked for it.
        self.admin.note(caller.entry("offsets.accept", from, "")).await?;
        let (answer, answered) = oneshot::channel();
        let silent = || OpsError::NotReady("the Kafka consumer does not answer; see /readyz".to_owned());
        self.asks.send(Ask::Accept(place, answer)).await.map_err(|_| silent())?;
        let started = tokio::time::timeout(PATIENCE, answered)
            .await
            .map_err(|_| silent())?
            .map_err(|_| silent())?
            .map_err(OpsError::NotReady)?;
        Ok(started)
    }
}
