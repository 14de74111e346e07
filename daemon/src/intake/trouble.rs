//! The errors that the Kafka client reports about its connection and its rights. Each one is counted in a metric, and
//! some are logged. They also tell whether a broker is reached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::watch;

use super::KafkaState;
use super::partition::Suspicion;
use crate::base::labels::KafkaTrouble;
use crate::base::metrics::Metrics;
use crate::model::event::PartitionKey;

/// Errors of the same kind are logged once in this time.
const QUIET: Duration = Duration::from_secs(30);

/// Shared by every client that intake makes.
pub(super) struct Troubles {
    metrics: Arc<Metrics>,
    state: watch::Sender<KafkaState>,
    logged: Mutex<HashMap<KafkaTrouble, Instant>>,
}

impl Troubles {
    pub(super) fn new(metrics: Arc<Metrics>, state: watch::Sender<KafkaState>) -> Self {
        Self { metrics, state, logged: Mutex::default() }
    }

    pub(super) fn report(&self, error: &KafkaError) {
        let (kind, hint) = kind_of(error);
        self.metrics.kafka_errors_total.with_label_values(&[kind.name()]).inc();
        if kind == KafkaTrouble::Unreachable {
            self.set_reachable(false);
        }
        // The client says this once, and then reads nothing of the topic, so `status` must remember it.
        if matches!(kind, KafkaTrouble::TopicMissing | KafkaTrouble::NotAuthorised) {
            self.state.send_modify(|state| state.refusal = Some(hint));
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(&kind).is_none_or(|at| at.elapsed() >= QUIET) {
            logged.insert(kind, Instant::now());
            tracing::error!(kind = kind.name(), %error, "{hint}");
        }
    }

    /// A partition is not read as it should be. It is logged each time, because something is done about it.
    pub(super) fn suspect(&self, partition: &PartitionKey, suspicion: Suspicion) {
        let kind = match suspicion {
            Suspicion::EndsBelow | Suspicion::OtherRecord => KafkaTrouble::LogChanged,
            Suspicion::Silent => KafkaTrouble::Silent,
        };
        self.metrics.kafka_errors_total.with_label_values(&[kind.name()]).inc();
        tracing::error!(%partition, why = %suspicion, "a partition is not read as it should be: it is taken again, or another Kafka client takes the place of this one");
    }

    pub(super) fn set_reachable(&self, reachable: bool) {
        self.metrics.kafka_up.set(i64::from(reachable));
        self.state.send_if_modified(|state| {
            let changed = state.reachable != reachable;
            state.reachable = reachable;
            changed
        });
    }
}

/// The kind of an error, and a sentence for people.
fn kind_of(error: &KafkaError) -> (KafkaTrouble, &'static str) {
    const FATAL: (KafkaTrouble, &str) = (KafkaTrouble::Fatal, "the client gave up; a new one takes its place");
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return FATAL;
    }
    match error.rdkafka_error_code() {
        Some(
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::NetworkException
            | Code::CoordinatorNotAvailable,
        ) => (KafkaTrouble::Unreachable, "no broker answers; the client keeps trying"),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            (KafkaTrouble::TopicMissing, "a topic does not exist; it is read as soon as it is created")
        }
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL,
        ) => (
            KafkaTrouble::NotAuthorised,
            "the broker refuses us; check kafka.properties, and the access rights to the topics and the group",
        ),
        Some(Code::OffsetOutOfRange | Code::AutoOffsetReset) => {
            (KafkaTrouble::OutOfRange, "an offset is no longer in the log, or not yet")
        }
        Some(Code::BadMessage) => (
            KafkaTrouble::BadMessage,
            "a broker's answer can't be read: it does not speak the configured security.protocol, or a batch is larger than 100 MiB (lower the topic's max.message.bytes)",
        ),
        Some(Code::Fatal) => FATAL,
        _ => (KafkaTrouble::Other, "the Kafka client reports an error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::metrics::Labels;

    #[test]
    fn what_keeps_a_topic_from_being_read_is_remembered_and_an_outage_does_not_hide_it() {
        let (state, kafka) = watch::channel(KafkaState::default());
        let troubles = Troubles::new(Arc::new(Metrics::new(&Labels::default())), state);
        troubles.set_reachable(true);
        troubles.report(&KafkaError::MessageConsumption(Code::UnknownTopicOrPartition));
        assert!(kafka.borrow().refusal.is_some_and(|why| why.starts_with("a topic does not exist")));
        assert!(kafka.borrow().reachable);
        troubles.report(&KafkaError::MessageConsumption(Code::AllBrokersDown));
        assert!(kafka.borrow().refusal.is_some_and(|why| why.starts_with("a topic does not exist")));
        troubles.report(&KafkaError::MessageConsumption(Code::TopicAuthorizationFailed));
        assert!(kafka.borrow().refusal.is_some_and(|why| why.starts_with("the broker refuses us")));
    }
}
