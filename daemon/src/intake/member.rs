//! Whether the group still takes this process for a member. One that stood still for long does not know yet that others have
//! its partitions.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::twin::Mark;
use crate::model::event::PartitionKey;

/// The group accepts a commit only from a member that it knows. What is committed is what the group has already; `mark` stands
/// beside an offset that it does not have yet. Blocks for at most the `patience`, and for as long as the client's own time limits
/// of one request.
pub(super) fn is_member<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    key: &PartitionKey,
    mark: &Mark,
    patience: Duration,
) -> bool {
    match commit_again(consumer, key, mark, patience) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(partition = %key, %error, "the group does not accept an offset of this member, so the partition is not taken now");
            false
        }
    }
}

fn commit_again<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    key: &PartitionKey,
    mark: &Mark,
    patience: Duration,
) -> KafkaResult<()> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&key.topic, key.number);
    let mut found = consumer.committed_offsets(asked, patience)?;
    if let Some(mut element) =
        found.find_partition(&key.topic, key.number).filter(|element| element.offset() == Offset::Invalid)
    {
        element.set_metadata(mark.to_string());
        found.set_partition_offset(&key.topic, key.number, Offset::Offset(0))?;
    }
    consumer.commit(&found, CommitMode::Sync)
}
