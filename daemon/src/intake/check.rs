//! A look at Kafka before the start: whether we reach it, may read, and whether its limits fit ours. Joins no group,
//! commits nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};

use super::{Config, settings};
use crate::base::clock::Timestamp;
use crate::base::finding::Finding;

const PATIENCE: Duration = Duration::from_secs(5);
/// Of a partition's end, for its newest record.
const READING: Duration = Duration::from_secs(4);
/// Records from the future by more than this: clocks differ.
const SKEW: Duration = Duration::from_secs(60);

/// What the client reported on the way: why nobody answered.
#[derive(Default)]
struct Reports(Mutex<Option<(Code, String)>>);

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A refusal says most. Without one, the first error is shown.
        if kept.is_none() || matches!(code, Code::Authentication | Code::SSL) {
            *kept = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Reports {}

/// Looks; takes seconds, and blocks.
pub fn check(config: &Config, horizon: Duration, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut client = settings::client(config);
    client.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Reports> = match BaseConsumer::from_config_and_context(&client, Reports::default()) {
        Ok(consumer) => consumer,
        Err(error) => {
            let fix = "correct kafka.properties; the names are librdkafka's";
            return vec![Finding::failed("kafka", error.to_string(), fix)];
        }
    };
    for (at, topic) in config.topics.iter().enumerate() {
        let metadata = match consumer.fetch_metadata(Some(topic), PATIENCE) {
            Ok(metadata) => metadata,
            Err(error) => {
                found.push(unreachable(config, &consumer, &error));
                return found;
            }
        };
        if at == 0 {
            let brokers = metadata.brokers().len();
            let answer = if brokers == 1 { "broker answers" } else { "brokers answer" };
            let detail = format!("{brokers} {answer} at {}", config.brokers);
            found.push(Finding::ok("kafka", detail));
        }
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
            .collect();
        let error = metadata.topics().first().and_then(|topic| topic.error()).map(Code::from);
        found.extend(one_topic(config, &consumer, topic, &partitions, error, now));
        if error.is_none() && !partitions.is_empty() {
            found.extend(limits(config, topic, horizon, &client));
        }
    }
    found
}

fn unreachable(config: &Config, consumer: &BaseConsumer<Reports>, error: &KafkaError) -> Finding {
    let reported = consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match reported {
        Some((Code::Authentication, reason)) => Finding::failed(
            "kafka",
            format!("the brokers refuse us: {reason}"),
            "check security.protocol, sasl.* and the password's file in kafka.properties",
        ),
        Some((Code::SSL, reason)) => Finding::failed(
            "kafka",
            format!("no TLS with the brokers: {reason}"),
            "check security.protocol and ssl.ca.location in kafka.properties, and the port",
        ),
        reported => {
            let why = reported.map_or_else(|| error.to_string(), |(_, reason)| reason);
            let fix = "check kafka.brokers, the network, and whether the port speaks the configured security.protocol";
            Finding::failed("kafka", format!("no broker answers at {}: {why}", config.brokers), fix)
        }
    }
}

fn one_topic(
    config: &Config,
    consumer: &BaseConsumer<Reports>,
    topic: &str,
    partitions: &[i32],
    error: Option<Code>,
    now: Timestamp,
) -> Vec<Finding> {
    let what = format!("topic {topic}");
    match error {
        Some(Code::TopicAuthorizationFailed) => {
            let fix = "grant Describe and Read on the topic to our user";
            return vec![Finding::failed(what, "we may not see it", fix)];
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
            let fix = "create it, or correct kafka.topics";
            return vec![Finding::failed(what, "it is not there", fix)];
        }
        Some(other) => return vec![Finding::failed(what, other.to_string(), "ask the people who run the brokers")],
        None if partitions.is_empty() => {
            return vec![Finding::failed(what, "it has no partition", "create it, or correct kafka.topics")];
        }
        None => {}
    }
    let mut found = vec![match read(consumer, topic, partitions[0]) {
        Ok(newest) => {
            let detail = format!("{} partitions, readable", partitions.len());
            match newest.filter(|at| *at > now.plus(SKEW)) {
                Some(at) => Finding::warning(
                    what,
                    format!("{detail}; its newest record is of {at}, which lies ahead of our clock"),
                    "set the clocks of producers and of this machine",
                ),
                None => Finding::ok(what, detail),
            }
        }
        Err(why) => Finding::failed(what, why, "grant Read on the topic to our user"),
    }];
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partitions[0]);
    if let Err(error) = consumer.committed_offsets(list, PATIENCE) {
        let what = format!("group {}", config.group);
        found.push(Finding::failed(what, error.to_string(), "grant Read on the consumer group to our user"));
    }
    found
}

/// Reads the newest record of a partition, if it has one; gives its time.
fn read(consumer: &BaseConsumer<Reports>, topic: &str, partition: i32) -> Result<Option<Timestamp>, String> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::OffsetTail(1)).map_err(|error| error.to_string())?;
    consumer.assign(&list).map_err(|error| error.to_string())?;
    let end = Instant::now() + READING;
    let mut result = Err("no record and no end of the partition came in time".to_owned());
    while Instant::now() < end {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                result = Ok(message.timestamp().to_millis().map(Timestamp::from_millis));
                break;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                result = Ok(None);
                break;
            }
            Some(Err(error)) if error.rdkafka_error_code() == Some(Code::TopicAuthorizationFailed) => {
                result = Err("we may not read it".to_owned());
                break;
            }
            Some(Err(error)) => result = Err(error.to_string()),
            None => {}
        }
    }
    // The client is dropped next: what it still has assigned does not matter.
    consumer.unassign().ok();
    result
}

/// The topic's limits against ours.
fn limits(config: &Config, topic: &str, horizon: Duration, client: &rdkafka::ClientConfig) -> Vec<Finding> {
    let what = format!("topic {topic}, limits");
    let configs = match describe(client, topic) {
        Ok(configs) => configs,
        Err(why) => {
            let fix = "grant DescribeConfigs on the topic, or compare them by hand";
            return vec![Finding::warning(what, format!("its settings can't be read: {why}"), fix)];
        }
    };
    let number =
        |name: &str| configs.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.parse::<i64>().ok());
    let mut found = Vec::new();
    let most = number("max.message.bytes").and_then(|most| usize::try_from(most).ok());
    if let Some(most) = most.filter(|most| *most > settings::LARGEST_BATCH) {
        found.push(Finding::failed(
            what.clone(),
            format!("it takes batches of {most} bytes, and at most {} can be read", settings::LARGEST_BATCH),
            "a larger batch would stop its partition: lower the topic's max.message.bytes",
        ));
    } else if let Some(most) = most.filter(|most| *most > config.max_event_bytes) {
        found.push(Finding::warning(
            what.clone(),
            format!("it takes records of {most} bytes, we read up to {}", config.max_event_bytes),
            "larger records become dead letters: raise intake.max_event, or lower the topic's max.message.bytes",
        ));
    }
    if let Some(kept) = number("retention.ms").and_then(|kept| u64::try_from(kept).ok()).map(Duration::from_millis)
        && kept < horizon
    {
        found.push(Finding::warning(
            what.clone(),
            format!("it keeps records for {} s, less than the horizon of {} s", kept.as_secs(), horizon.as_secs()),
            "an outage longer than that loses events: raise the topic's retention.ms",
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(what, "its record size and retention fit ours"));
    }
    found
}

/// The settings of a topic. It blocks.
///
/// # Errors
/// What the client says.
pub fn describe(client: &rdkafka::ClientConfig, topic: &str) -> Result<Vec<(String, String)>, String> {
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(|error| error.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let asked = [ResourceSpecifier::Topic(topic)];
    let described = admin.describe_configs(&asked, &options);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let answers = runtime.block_on(described).map_err(|error| error.to_string())?;
    let answer = answers.into_iter().next().ok_or("no answer")?.map_err(|code| code.to_string())?;
    Ok(answer.entries.into_iter().filter_map(|entry| entry.value.map(|value| (entry.name, value))).collect())
}
