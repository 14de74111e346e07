//! Reads the body of one callback from Kafka again, to send a callback again whose body is not kept. A sandbox reads it: a
//! record beside it may be one that ends its reader.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::partition::Place;
use super::polled::Polled;
use super::sandbox::{Heard, Sandboxes};
use crate::model::lease::Facts;

/// Bodies that are read at once.
const AT_ONCE: usize = 1;
/// How long one reading may take, with the wait for its place.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks whether the sandbox has brought something.
const NEXT_LOOK: Duration = Duration::from_millis(20);

/// Why a body can't be had from Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBody {
    #[error("Kafka no longer has its record")]
    Gone,
    #[error("Kafka has another record in its place")]
    Changed,
    #[error("Kafka did not give its record in time")]
    Silent,
}

/// Reads bodies again.
#[derive(Clone)]
pub struct Rereader {
    sandboxes: Sandboxes,
    max_event_bytes: usize,
    places: Arc<Semaphore>,
}

impl Rereader {
    pub(super) fn new(client: &ClientConfig, max_event_bytes: usize) -> Self {
        let sandboxes = Sandboxes::to_read_again(client, max_event_bytes);
        Self { sandboxes, max_event_bytes, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The body of this callback, from the record that it came from.
    ///
    /// # Errors
    /// [`NoBody`].
    pub async fn read(&self, facts: &Facts) -> Result<Bytes, NoBody> {
        let end = Instant::now() + PATIENCE;
        let place = tokio::time::timeout_at(end, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(NoBody::Silent) };
        let partition = &facts.record.partition;
        let mut sandbox = self.sandboxes.sandbox(partition, Place::Offset(facts.record.offset));
        let mut looks = tokio::time::interval(NEXT_LOOK);
        loop {
            looks.tick().await;
            match sandbox.hear() {
                Some(Heard::Record(record)) => {
                    return self.body(facts, &Polled::in_sandbox(&partition.topic, partition.number, &record));
                }
                // The first thing that is there lies above it, or it can't be read any more.
                Some(Heard::Unread(_) | Heard::End(_)) => return Err(NoBody::Gone),
                Some(Heard::Lost) => return Err(NoBody::Silent),
                None if Instant::now() >= end => return Err(NoBody::Silent),
                None => {}
            }
        }
    }

    fn body(&self, facts: &Facts, polled: &Polled<'_>) -> Result<Bytes, NoBody> {
        if polled.offset != facts.record.offset {
            return Err(NoBody::Gone);
        }
        let event = polled.decode(&facts.record, self.max_event_bytes).map_err(|_| NoBody::Changed)?;
        let is_same = event.team == facts.team
            && event.event_id == facts.event_id
            && event.task_id == facts.task_id
            && event.content_hash == facts.content_hash;
        if is_same { Ok(event.body) } else { Err(NoBody::Changed) }
    }
}
