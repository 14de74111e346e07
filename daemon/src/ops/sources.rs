//! Partitions: how far they were read, and from where to start when Kafka's offsets speak of another store.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Actor, Ops, OpsError};
use crate::intake::consumer::Ask;
use crate::intake::partitions::AcceptFrom;
use crate::store::reads::SourceRow;

/// The consumer's thread looks at questions at least this often, unless a rebalance holds it.
const PATIENCE: Duration = Duration::from_secs(20);

impl Ops {
    /// Every partition that the store knows.
    ///
    /// # Errors
    /// The store's.
    pub async fn sources(&self) -> Result<Vec<SourceRow>, OpsError> {
        Ok(self.reads.sources().await?)
    }

    /// Starts the partitions that wait for it. Answers how many did.
    ///
    /// # Errors
    /// `invalid_request`, `conflict` when none waits, `not_ready` when Kafka does not answer, or the store's.
    pub async fn accept_offsets(&self, actor: &Actor, from: &str) -> Result<usize, OpsError> {
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
        let (answer, answered) = oneshot::channel();
        let silent = || OpsError::NotReady("the Kafka consumer does not answer; see /readyz".to_owned());
        self.asks.send(Ask::Accept(place, answer)).await.map_err(|_| silent())?;
        let started = tokio::time::timeout(PATIENCE, answered)
            .await
            .map_err(|_| silent())?
            .map_err(|_| silent())?
            .map_err(OpsError::NotReady)?;
        self.people.note(actor.entry("offsets.accept", from, format!("{started} partitions"))).await?;
        Ok(started)
    }
}
