//! Publishes what became of events to Kafka topics: how callbacks ended, and dead letters.
//!
//! The store keeps a notice in the transaction that makes it true. This room reads notices, makes messages of what the store knows
//! then, and deletes the notices when Kafka has taken the messages. So each message is published at least once, and one that is
//! published twice has the same revision.

pub mod check;
mod message;
mod producer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;

use self::message::Message;
use self::producer::Producer;
use crate::base::metrics::Metrics;
use crate::base::pace::Pace;
use crate::base::stop::Stop;
use crate::intake;
use crate::model::callback::CallbackId;
use crate::model::notice::Notice;
use crate::store::outbox::{Outbox, OutboxRow};
use crate::store::reads::Reads;
use crate::store::{InstanceId, StoreError};

/// Rows of the outbox that are published together, and the notices in them that are, too: a row more may come.
const ROWS: usize = 64;
/// Callbacks that are read at once.
const CALLBACKS: usize = 1_000;
/// The wait after everything was published. Outcomes are seen this much later.
const LOOK: Duration = Duration::from_millis(200);
/// How long a stop waits for the last messages. What is left is published after the next start.
const LAST: Duration = Duration::from_secs(3);

/// Where messages go; `None` publishes none of the kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topics {
    pub outcomes: Option<String>,
    pub dead_letters: Option<String>,
}

impl Topics {
    fn is_empty(&self) -> bool {
        self.outcomes.is_none() && self.dead_letters.is_none()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.outcomes, &self.dead_letters].into_iter().flatten().map(String::as_str)
    }
}

pub struct Deps {
    pub outbox: Arc<dyn Outbox>,
    pub reads: Arc<dyn Reads>,
    pub instance: InstanceId,
    pub kafka: intake::Config,
    pub metrics: Arc<Metrics>,
}

/// Why messages are not published now.
#[derive(Debug, thiserror::Error)]
enum Unpublished {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("Kafka did not take {failed} of {sent} messages: {why}")]
    NotTaken { failed: usize, sent: usize, why: KafkaError },
    #[error("a producer can't be made: {0}")]
    Producer(KafkaError),
}

/// Publishes until `stop`, and then what is left, for a short time.
pub async fn run(topics: Topics, deps: Deps, mut stop: Stop) {
    let mut publisher = Publisher { topics, deps, producer: None };
    let mut pace = Pace::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut is_told = false;
    loop {
        let wait = match publisher.publish().await {
            Ok(more) => {
                if is_told {
                    tracing::info!("Kafka takes messages about outcomes again");
                }
                is_told = false;
                pace.succeeded();
                if more { Duration::ZERO } else { LOOK }
            }
            Err(error) => {
                if !is_told {
                    tracing::warn!(%error, "outcomes and dead letters can't be published now; they wait in the store");
                }
                is_told = true;
                pace.next_wait()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.stopped() => break,
        }
    }
    let last = async { while publisher.publish().await.is_ok_and(|more| more) {} };
    if tokio::time::timeout(LAST, last).await.is_err() {
        tracing::info!("some outcomes are published after the next start");
    }
}

struct Publisher {
    topics: Topics,
    deps: Deps,
    /// It is made with the first message.
    producer: Option<Producer>,
}

impl Publisher {
    /// Publishes some rows of the outbox. True if more may follow.
    async fn publish(&mut self) -> Result<bool, Unpublished> {
        let rows = self.deps.outbox.outbox(self.deps.instance, ROWS).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let messages = self.messages(&rows).await?;
        if self.topics.is_empty() {
            tracing::warn!(rows = rows.len(), "outcomes are not published any more: those that waited are dropped");
        }
        if !messages.is_empty() {
            self.send(messages).await?;
        }
        let more = rows.len() == ROWS;
        self.deps.outbox.published(rows.into_iter().map(|row| row.id).collect()).await?;
        Ok(more)
    }

    async fn send(&mut self, messages: Vec<Message>) -> Result<(), Unpublished> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => Producer::new(&self.deps.kafka).map_err(Unpublished::Producer)?,
        };
        let producer = self.producer.insert(producer);
        let sent = messages.len();
        let taken = producer.send(messages).await;
        for (about, count) in [("outcome", taken.outcomes), ("dead_letter", taken.dead_letters)] {
            self.deps.metrics.published_total.with_label_values(&[about]).inc_by(count);
        }
        match taken.failure {
            None => Ok(()),
            Some((failed, why)) => {
                self.deps.metrics.publish_failures_total.inc_by(failed as u64);
                Err(Unpublished::NotTaken { failed, sent, why })
            }
        }
    }

    /// What the store knows now about these notices. Two revisions of one callback may become one message, of the newer one.
    async fn messages(&self, rows: &[OutboxRow]) -> Result<Vec<Message>, StoreError> {
        let mut messages = Vec::new();
        let notices: BTreeSet<Notice> = rows.iter().flat_map(|row| row.notices.iter().copied()).collect();
        if let Some(topic) = &self.topics.outcomes {
            let mut ended: Vec<CallbackId> = notices.iter().filter_map(ended).collect();
            ended.dedup();
            for ids in ended.chunks(CALLBACKS) {
                let endings = self.deps.outbox.endings(ids.to_vec()).await?;
                messages.extend(endings.iter().flatten().map(|settled| Message::of_outcome(topic, settled)));
            }
        }
        if let Some(topic) = &self.topics.dead_letters {
            for notice in &notices {
                if let Notice::Buried(id) = notice
                    && let Some(letter) = self.deps.reads.dead_letter(*id).await?
                {
                    messages.push(Message::of_dead_letter(topic, &letter));
                }
            }
        }
        Ok(messages)
    }
}

fn ended(notice: &Notice) -> Option<CallbackId> {
    match notice {
        Notice::Ended(id, _) => Some(*id),
        Notice::Buried(_) => None,
    }
}
