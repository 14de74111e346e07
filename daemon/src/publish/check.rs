//! A look at the topics before the start: whether they exist, and whether they keep every message. Sends nothing.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer as _};

use super::Topics;
use crate::base::finding::Finding;
use crate::intake::check::describe;
use crate::intake::{self, settings};

const WHAT: &str = "outcomes";
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks; takes seconds, and blocks. Without topics there is nothing to say.
pub fn check(kafka: &intake::Config, topics: &Topics) -> Vec<Finding> {
    topics.names().map(|topic| look(kafka, topic)).collect()
}

fn look(kafka: &intake::Config, topic: &str) -> Finding {
    let client = settings::producer(kafka);
    let producer: BaseProducer = match client.create() {
        Ok(producer) => producer,
        Err(error) => {
            return Finding::failed(WHAT, error.to_string(), "correct kafka.properties; the names are librdkafka's");
        }
    };
    let metadata = match producer.client().fetch_metadata(Some(topic), PATIENCE) {
        Ok(metadata) => metadata,
        Err(error) => {
            let fix = "look at what is said of kafka above";
            return Finding::failed(WHAT, format!("nothing is known of the topic {topic}: {error}"), fix);
        }
    };
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    if found.is_none_or(|found| found.error().is_some() || found.partitions().is_empty()) {
        return Finding::failed(
            WHAT,
            format!("the topic {topic} does not exist, or may not be seen"),
            "create the topic, and let callbackd describe it and write to it",
        );
    }
    let settings = describe(&client, topic).unwrap_or_default();
    let cleanup = settings.iter().find(|(name, _)| name == "cleanup.policy").map(|(_, value)| value.as_str());
    if cleanup.is_some_and(|cleanup| cleanup.contains("compact")) {
        return Finding::warning(
            WHAT,
            format!("the topic {topic} is compacted: readers that come late miss earlier outcomes of a callback"),
            "set cleanup.policy=delete for the topic",
        );
    }
    Finding::ok(WHAT, format!("the topic {topic} exists"))
}
