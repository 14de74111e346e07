//! The consumer's properties: ours, the operator's, and those that the operator may not set.

use std::time::Duration;

use rdkafka::ClientConfig;

use super::Config;

/// Properties that the promises of delivery need, each with the reason why only we set it.
const RESERVED: [(&str, &str); 20] = [
    ("metadata.broker.list", "it is kafka.brokers"),
    ("bootstrap.servers", "it is kafka.brokers"),
    ("group.id", "it is kafka.group"),
    ("group.instance.id", "it is instance.name"),
    ("group.protocol", "rebalances are handled as the classic protocol does them"),
    ("partition.assignment.strategy", "partitions move one by one (cooperative-sticky)"),
    ("enable.auto.commit", "offsets follow the store's watermark"),
    ("enable.auto.offset.store", "offsets follow the store's watermark"),
    ("auto.offset.reset", "where to start is the store's knowledge"),
    ("isolation.level", "aborted transactions are never delivered (read_committed)"),
    ("check.crcs", "a record that is damaged is never delivered"),
    ("enable.partition.eof", "positions show the ends of partitions"),
    ("queued.", "memory is bounded by intake's budgets"),
    ("fetch.", "memory is bounded by intake's budgets"),
    ("receive.message.max.bytes", "memory is bounded by intake's budgets"),
    ("statistics.interval.ms", "lag is measured with it"),
    ("plugin.library.paths", "it loads code into the daemon, which holds the teams' keys"),
    ("ssl.engine.location", "it loads code into the daemon, which holds the teams' keys"),
    ("ssl.providers", "it loads code into the daemon, which holds the teams' keys"),
    ("sasl.kerberos.kinit.cmd", "it runs a program with the daemon's rights"),
];

/// The highest value that `intake.max_event` may have. No event of a callback was ever larger, whatever the setting says now.
pub const LARGEST_EVENT: usize = 16 << 20;
/// The Kafka library's own session timeout.
const SESSION_MILLIS: u64 = 45_000;
const LEAST_TRUST: Duration = Duration::from_secs(6);

/// The largest batch that can be read. A broker takes no larger request unless its `socket.request.max.bytes` was raised.
pub(super) const LARGEST_BATCH: usize = 100 << 20;
/// The largest response: the largest batch and the rest of a fetch. A batch larger than `fetch.max.bytes` comes alone.
const LARGEST_RESPONSE: usize = LARGEST_BATCH + (12 << 20);

/// Refuses properties that are ours.
///
/// # Errors
/// One sentence that names the property.
pub fn check(config: &Config) -> Result<(), String> {
    for name in config.properties.keys() {
        let reserved = RESERVED.iter().find(|(own, _)| name == own || (own.ends_with('.') && name.starts_with(own)));
        if let Some((_, why)) = reserved {
            return Err(format!("{name} can't be set: {why}"));
        }
    }
    Ok(())
}

/// What every client has: the operator's properties, and the brokers.
fn common(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("topic.metadata.refresh.interval.ms", "10000");
    client.set("client.id", "callbackd");
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    client.set("bootstrap.servers", &config.brokers);
    client
}

/// For messages that are sent to the same brokers. Each is sent until it is taken by all replicas that are in sync.
pub fn producer(config: &Config) -> ClientConfig {
    let mut client = common(config);
    // What is the consumer's alone would be warned about.
    for name in CONSUMERS {
        client.remove(name);
    }
    client.set("acks", "all").set("linger.ms", "5").set("compression.type", "zstd");
    client
}

/// Properties that operators may set and a producer does not know.
const CONSUMERS: [&str; 4] =
    ["session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms", "auto.commit.interval.ms"];

pub(super) fn client(config: &Config) -> ClientConfig {
    let mut client = common(config);
    // Fetch sizes count compressed bytes. A larger batch comes alone, and is read up to the largest response.
    let largest_response = LARGEST_RESPONSE.to_string();
    let own = [
        ("group.id", config.group.as_str()),
        ("group.protocol", "classic"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("check.crcs", "true"),
        ("enable.partition.eof", "false"),
        ("queued.min.messages", "2000"),
        ("queued.max.messages.kbytes", "16384"),
        ("fetch.max.bytes", "8388608"),
        ("fetch.message.max.bytes", "1048576"),
        ("fetch.queue.backoff.ms", "50"),
        ("fetch.wait.max.ms", "100"),
        ("receive.message.max.bytes", largest_response.as_str()),
        ("statistics.interval.ms", "5000"),
    ];
    for (name, value) in own {
        client.set(name, value);
    }
    if let Some(member) = &config.member {
        client.set("group.instance.id", &**member);
    }
    client
}

/// How long an epoch of a partition counts after the store has confirmed it: a third of the time after which the broker gives the
/// partitions of a silent member away, and a few pulses at least.
pub fn trust(config: &Config) -> Duration {
    let millis = config.properties.get("session.timeout.ms").and_then(|value| value.parse().ok());
    (Duration::from_millis(millis.unwrap_or(SESSION_MILLIS)) / 3).max(LEAST_TRUST)
}

/// How long the broker waits for a poll before it takes partitions away.
pub fn max_poll_interval(config: &Config) -> Duration {
    let millis = config.properties.get("max.poll.interval.ms").and_then(|value| value.parse().ok());
    Duration::from_millis(millis.unwrap_or(300_000))
}
