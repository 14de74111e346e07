//! The Kafka producer: sends messages and waits until Kafka has taken them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use super::message::{About, Message};
use crate::intake::{self, settings};

/// How long Kafka may take for a message. It is shorter than the time for which the outbox's rows belong to this instance.
const PATIENCE: &str = "10000";
/// The wait while the producer has no room for another message.
const NO_ROOM_WAIT: Duration = Duration::from_millis(20);

/// What became of messages that were sent together.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) outcomes: u64,
    pub(super) dead_letters: u64,
    /// How many were not taken, and why the first one was not.
    pub(super) failure: Option<(usize, KafkaError)>,
}

/// Messages that were sent together, while Kafka takes them.
#[derive(Default)]
struct Sent {
    left: AtomicUsize,
    taken: Mutex<Taken>,
    done: Notify,
}

impl Sent {
    fn ended(&self, about: About, failure: Option<KafkaError>) {
        {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            match (failure, about) {
                (Some(error), _) => {
                    let (failed, first) = taken.failure.take().unwrap_or((0, error));
                    taken.failure = Some((failed + 1, first));
                }
                (None, About::Outcome) => taken.outcomes += 1,
                (None, About::DeadLetter) => taken.dead_letters += 1,
            }
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.done.notify_one();
        }
    }
}

/// Learns what became of each message, on the client's own thread.
struct Acknowledgements;

impl ClientContext for Acknowledgements {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the Kafka producer reports an error");
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<(About, Arc<Sent>)>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let (about, sent) = *sent;
        sent.ended(about, result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

pub(super) struct Producer(Option<ThreadedProducer<Acknowledgements>>);

impl Drop for Producer {
    /// The library waits for its own thread by the wall clock, so after a step of the clock this takes long. Nothing is on its way any
    /// more that anybody waits for, so neither the runtime nor the end of the process waits.
    fn drop(&mut self) {
        if let Some(producer) = self.0.take() {
            // Without a thread, it ends here.
            std::thread::Builder::new().name("producer-end".to_owned()).spawn(move || drop(producer)).ok();
        }
    }
}

impl Producer {
    pub(super) fn new(kafka: &intake::Config) -> Result<Self, KafkaError> {
        let mut client = settings::producer(kafka);
        client.set("message.timeout.ms", PATIENCE);
        Ok(Self(Some(ThreadedProducer::from_config_and_context(&client, Acknowledgements)?)))
    }

    /// Sends all messages, and waits until each was taken or has failed.
    pub(super) async fn send(&self, messages: Vec<Message>) -> Taken {
        let sent = Arc::new(Sent::default());
        // One more than there are messages, so that it is not over before the last one is sent.
        sent.left.store(messages.len() + 1, Ordering::SeqCst);
        if let Some(producer) = &self.0 {
            for message in messages {
                send_one(producer, &message, &sent).await;
            }
        }
        if sent.left.fetch_sub(1, Ordering::SeqCst) > 1 {
            sent.done.notified().await;
        }
        let mut taken = sent.taken.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *taken)
    }
}

async fn send_one(producer: &ThreadedProducer<Acknowledgements>, message: &Message, sent: &Arc<Sent>) {
    let about = message.about;
    loop {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "content-type", value: Some("application/json") })
            .insert(Header { key: "callbackd-message", value: Some(about.name()) });
        let record = BaseRecord::with_opaque_to(&message.topic, Box::new((about, Arc::clone(sent))))
            .key(&message.key)
            .payload(&message.value)
            .headers(headers);
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                tokio::time::sleep(NO_ROOM_WAIT).await;
            }
            Err((error, _)) => return sent.ended(about, Some(error)),
        }
    }
}
