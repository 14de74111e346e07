//! The sandbox's own process: it reads one order from its input, and writes the partition's records to its output. It
//! asks Kafka for one batch at a time, so that a batch that ends it is the one that comes next.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use sha2::{Digest as _, Sha256};

use super::frame::{CutValue, Frame, Head, Order};
use crate::base::child_process::{bound_memory, go_first};
use crate::intake::{decode, headers};
use crate::model::dead_letter::KEPT_OF_TOO_LARGE;

/// One call to Kafka.
const CALL: Duration = Duration::from_secs(5);
/// If nothing comes for this long, it ends.
const SILENCE: Duration = Duration::from_secs(60);
/// One fetch brings one batch, and no next one while records wait.
const ONE_BATCH: [(&str, &str); 6] = [
    ("fetch.message.max.bytes", "1"),
    ("queued.min.messages", "1"),
    ("queued.max.messages.kbytes", "1"),
    ("fetch.queue.backoff.ms", "10"),
    ("statistics.interval.ms", "0"),
    ("enable.partition.eof", "true"),
];

/// Runs as a sandbox.
pub fn run() -> ExitCode {
    go_first();
    let mut output = std::io::stdout().lock();
    let answered = match serde_json::from_reader(std::io::stdin().lock()) {
        Ok(order) => read(&order, &mut output),
        Err(error) => Err(error.to_string()),
    };
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Whoever reads this output may have gone.
            Frame::Failed { reason }.write(&mut output, b"").ok();
            ExitCode::FAILURE
        }
    }
}

fn read(order: &Order, output: &mut impl Write) -> Result<(), String> {
    let mut client: ClientConfig = order.client.clone().into_iter().collect();
    for (name, value) in ONE_BATCH {
        client.set(name, value);
    }
    let consumer: BaseConsumer = client.create().map_err(|error: KafkaError| error.to_string())?;
    let say =
        |output: &mut _, frame: Frame, value: &[u8]| frame.write(output, value).map_err(|error| error.to_string());
    if !exists(order, &consumer)? {
        return say(output, Frame::Absent, b"");
    }
    let ends = consumer.fetch_watermarks(&order.topic, order.partition, CALL);
    let (log_begin, log_end) = ends.map_err(|error| error.to_string())?;
    let from = order.from.unwrap_or(log_begin);
    let from = if order.or_from_beginning { from.max(log_begin) } else { from };
    let mut next = from;
    bound_memory()?;
    say(output, Frame::Start { from, log_end }, b"")?;
    if from < log_begin || from >= log_end {
        return say(output, Frame::End { next }, b"");
    }
    let mut assignment = TopicPartitionList::new();
    let added = assignment.add_partition_offset(&order.topic, order.partition, Offset::Offset(from));
    added.and_then(|()| consumer.assign(&assignment)).map_err(|error| error.to_string())?;
    let mut last = Instant::now();
    while next < log_end {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                last = Instant::now();
                next = message.offset().saturating_add(1);
                say(output, Frame::Got { offset: message.offset() }, b"")?;
                if order.only_one {
                    // The client throws away what it fetches meanwhile, before it looks into it.
                    consumer.pause(&assignment).map_err(|error| error.to_string())?;
                }
                let (head, value) = head(&message, order.most_bytes(message.offset()));
                say(output, Frame::Record { head, value_bytes: value.len() }, value)?;
                if order.only_one {
                    break;
                }
            }
            // The rest are control records, or records of transactions that are open or were aborted.
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            // Records were deleted meanwhile. Where single records are wanted, another sandbox finds those that are left.
            Some(Err(KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange))) => {
                if order.or_from_beginning {
                    return Err("Kafka has deleted records meanwhile".to_owned());
                }
                break;
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => return Err(code.to_string()),
            Some(Err(_)) | None if last.elapsed() > SILENCE => return Err("Kafka brings nothing".to_owned()),
            // The client tries again by itself.
            Some(Err(_)) | None => {}
        }
    }
    say(output, Frame::End { next }, b"")
}

/// Whether Kafka has the partition. It is asked only where the partition must be of a certain cluster: the same offset of another one
/// would be another record, or none, and what another one does not have says nothing.
fn exists(order: &Order, consumer: &BaseConsumer) -> Result<bool, String> {
    let Some(cluster) = &order.cluster else { return Ok(true) };
    if consumer.client().fetch_cluster_id(CALL).as_ref() != Some(cluster) {
        return Err("the Kafka cluster is not the one that its records came from".to_owned());
    }
    let metadata = consumer.fetch_metadata(Some(&order.topic), CALL).map_err(|error| error.to_string())?;
    let topic =
        metadata.topics().iter().find(|topic| topic.name() == order.topic).ok_or("Kafka said nothing of the topic")?;
    match topic.error().map(Code::from) {
        None => Ok(topic.partitions().iter().any(|partition| partition.id() == order.partition)),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(false),
        Some(other) => Err(other.to_string()),
    }
}

/// A record without its value, and as much of the value as is sent.
fn head<'m>(message: &'m BorrowedMessage<'_>, most_bytes: usize) -> (Head, &'m [u8]) {
    let value = message.payload();
    let timestamp = message.timestamp().to_millis();
    let mut head = Head {
        offset: message.offset(),
        timestamp,
        headers: headers::with_identity(message),
        is_tombstone: value.is_none(),
        cut: None,
    };
    let value = value.unwrap_or_default();
    if value.len() <= most_bytes {
        return (head, value);
    }
    head.cut = Some(CutValue {
        bytes: value.len() as u64,
        hash: Sha256::digest(value).into(),
        log_hash: decode::log_hash(timestamp.unwrap_or(-1), Some(value)),
    });
    (head, &value[..value.len().min(KEPT_OF_TOO_LARGE)])
}
