//! How long each topic keeps its records. Only what Kafka keeps for long enough may be stored without its body.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use tokio::sync::oneshot;

use super::check::describe;
use crate::base::stop::Stop;
use crate::flight::BodyRoom;

/// The time between two looks.
const LOOK: Duration = Duration::from_secs(300);
/// The same, while a topic did not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Looks at the topics' settings until `stop`.
pub(super) async fn watch(client: ClientConfig, topics: Vec<String>, room: Arc<BodyRoom>, mut stop: Stop) {
    loop {
        let mut wait = LOOK;
        for topic in &topics {
            let described = tokio::select! {
                described = settings(&client, topic) => described,
                () = stop.stopped() => return,
            };
            match described {
                Some(settings) => {
                    let keeps = kept(&settings);
                    if room.topic_keeps(&Arc::from(&**topic), keeps) {
                        tell(topic, keeps);
                    }
                }
                // What was known of it stays: settings of topics change seldom.
                None => wait = LOOK_AGAIN,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.stopped() => return,
        }
    }
}

/// The settings of a topic; `None` if Kafka does not give them. A thread of its own asks for them: Kafka's client waits by the wall
/// clock, and after a step of the clock it may wait for hours. Neither the runtime nor the end of the process waits for it.
async fn settings(client: &ClientConfig, topic: &str) -> Option<Vec<(String, String)>> {
    let (client, topic) = (client.clone(), topic.to_owned());
    let (answer, answered) = oneshot::channel();
    // At a stop, nobody waits for the answer.
    let ask = move || drop(answer.send(describe(&client, &topic).ok()));
    std::thread::Builder::new().name("topic-settings".to_owned()).spawn(ask).ok()?;
    answered.await.ok().flatten()
}

fn tell(topic: &str, keeps: Option<Duration>) {
    match keeps {
        Some(Duration::MAX) => tracing::info!(topic, "the topic keeps its records for ever"),
        Some(keeps) => tracing::info!(topic, seconds = keeps.as_secs(), "the topic keeps its records by time alone"),
        None => tracing::info!(topic, "it is not known any more how long the topic keeps its records"),
    }
}

/// How long a topic with these settings keeps each record at least. `None` if records may go earlier for another reason: the topic
/// is compacted, or bounded by its bytes.
fn kept(settings: &[(String, String)]) -> Option<Duration> {
    let setting = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if setting("cleanup.policy") != Some("delete") || setting("retention.bytes") != Some("-1") {
        return None;
    }
    match setting("retention.ms")?.parse::<i64>().ok()? {
        -1 => Some(Duration::MAX),
        millis => u64::try_from(millis).ok().map(Duration::from_millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_may_end_what_a_topic_keeps() {
        let hour = 3_600_000;
        for (policy, bytes, millis, keeps) in [
            ("delete", "-1", "3600000", Some(Duration::from_millis(hour))),
            ("delete", "-1", "-1", Some(Duration::MAX)),
            ("delete", "1000000", "3600000", None),
            ("compact", "-1", "3600000", None),
            ("compact,delete", "-1", "3600000", None),
            ("delete", "-1", "soon", None),
        ] {
            let settings = [("cleanup.policy", policy), ("retention.bytes", bytes), ("retention.ms", millis)];
            let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(kept(&settings), keeps, "{policy} {bytes} {millis}");
        }
        assert_eq!(kept(&[]), None);
    }
}
