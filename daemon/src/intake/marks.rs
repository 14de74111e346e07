//! The marks of runs beside the offsets that a group has committed, for all partitions of our topics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionListElem;

use super::twin::Mark;
use crate::base::panics::caught;
use crate::model::event::PartitionKey;

/// The time for all answers of Kafka.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Asks for all marks. Blocks for at most [`PATIENCE`].
pub(super) fn all<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    cluster: &Arc<str>,
    topics: &[String],
) -> KafkaResult<Vec<(PartitionKey, Mark)>> {
    let end = Instant::now() + PATIENCE;
    let left = || end.saturating_duration_since(Instant::now());
    let mut asked = TopicPartitionList::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), left())?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            asked.add_partition(topic, partition.id());
        }
    }
    let committed = consumer.committed_offsets(asked, left())?;
    let marks = committed.elements().into_iter().map(|element| {
        let topic = Arc::from(element.topic());
        (PartitionKey { cluster: Arc::clone(cluster), topic, number: element.partition() }, of(&element))
    });
    Ok(marks.collect())
}

/// The mark beside one offset. rdkafka panics at metadata that is not UTF-8, which another tool may have written.
pub(super) fn of(element: &TopicPartitionListElem<'_>) -> Mark {
    caught(AssertUnwindSafe(|| Mark::parse(element.metadata()))).unwrap_or_else(|| Mark::parse(""))
}
