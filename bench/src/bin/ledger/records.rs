//! The third record: what the store says of each callback, and of each dead letter. It is read through the API at the end, when
//! nothing is under way.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;

use super::daemon::Daemon;
use super::event::{PARTITIONS, number_of};
use super::produced::Place;
use super::producer::TOPIC;
use super::recreated;
use super::world::World;

const PAUSE: Duration = Duration::from_millis(200);
const CALL: Duration = Duration::from_secs(10);
/// Answers of the API that may fail one after the other.
const TRIES: usize = 20;

/// A callback as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) revision: u32,
}

impl Row {
    pub(crate) fn has_ended(&self) -> bool {
        self.state != "pending"
    }
}

/// A dead letter as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) place: Place,
    pub(crate) reason: String,
}

#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// The callbacks of each task.
    pub(crate) rows: HashMap<u64, Vec<Row>>,
    pub(crate) letters: Vec<Letter>,
}

/// Waits until nothing is under way: every watermark is at its log's end, and nothing is pending, waiting or unsettled.
///
/// # Errors
/// What is still under way when the time is over.
pub(crate) async fn await_quiet(world: &World, patience: Duration) -> Result<(), String> {
    let end = Instant::now() + patience;
    let probe = probe(world).map_err(|error| format!("{error:#}"))?;
    loop {
        let under_way = match under_way(world, &probe).await {
            Ok(under_way) if under_way.is_empty() => return Ok(()),
            Ok(under_way) => under_way.join(", "),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= end {
            return Err(under_way);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the watermarks of the small topic are at its logs' ends, for a running daemon that nobody else holds.
///
/// # Errors
/// The partitions that are not there when the time is over.
pub(crate) async fn await_recreated(world: &World, daemon: &Daemon, patience: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    let probe = probe(world)?;
    loop {
        let behind = match daemon.api("/offsets").await {
            Ok(offsets) => behind(&offsets, &probe, recreated::TOPIC, recreated::PARTITIONS),
            Err(error) => Err(error),
        };
        match behind {
            Ok(behind) if behind.is_empty() => return Ok(()),
            Ok(behind) if Instant::now() >= end => anyhow::bail!(behind.join(", ")),
            Err(error) if Instant::now() >= end => return Err(error),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn probe(world: &World) -> anyhow::Result<BaseConsumer> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &world.servers).set("log_level", "0");
    client.create().context("make a consumer")
}

/// The partitions of a topic whose watermarks are not at their logs' ends.
fn behind(offsets: &Value, probe: &BaseConsumer, topic: &str, partitions: i32) -> anyhow::Result<Vec<String>> {
    let docs = offsets["docs"].as_array().context("a list of partitions")?;
    let mut found = Vec::new();
    for partition in 0..partitions {
        let (_, end) = tokio::task::block_in_place(|| probe.fetch_watermarks(topic, partition, CALL))?;
        let doc = docs.iter().find(|doc| doc["topic"] == topic && doc["partition"] == partition);
        let watermark = doc.and_then(|doc| doc["watermark"].as_i64());
        if watermark.unwrap_or(0) != end {
            found.push(format!("the watermark of {topic}[{partition}] is at {watermark:?} of {end}"));
        }
    }
    Ok(found)
}

async fn under_way(world: &World, probe: &BaseConsumer) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let first = world.daemons.first().context("a daemon")?.lock().await;
    let offsets = first.api("/offsets").await?;
    let pending = first.api("/status").await?["pending"].as_u64().context("the number of pending callbacks")?;
    drop(first);
    if pending > 0 {
        found.push(format!("{pending} callbacks are pending"));
    }
    found.extend(behind(&offsets, probe, TOPIC, PARTITIONS)?);
    found.extend(behind(&offsets, probe, recreated::TOPIC, recreated::PARTITIONS)?);
    for daemon in &world.daemons {
        let daemon = daemon.lock().await;
        let values = daemon.metrics(["callbackd_waiting", "callbackd_unsettled"]).await;
        if values != Some([0.0, 0.0]) {
            found.push(format!("run {} has waiting and unsettled callbacks: {values:?}", daemon.run));
        }
    }
    Ok(found)
}

/// Reads everything that the store has.
///
/// # Errors
/// No daemon answers.
pub(crate) async fn read(world: &World) -> anyhow::Result<Stored> {
    let mut stored = Stored::default();
    for doc in pages(world, "/callbacks").await? {
        let text = |name: &str| doc[name].as_str().map(str::to_owned);
        let task = text("task_id").and_then(|id| number_of(&id)).with_context(|| format!("an unknown task: {doc}"))?;
        stored.rows.entry(task).or_default().push(Row {
            id: text("callback_id").context("a callback's id")?,
            state: text("state").context("a callback's state")?,
            reason: text("reason"),
            attempts: u32::try_from(doc["attempts"].as_u64().context("a number of attempts")?)?,
            revision: u32::try_from(doc["revision"].as_u64().context("a callback's revision")?)?,
        });
    }
    for doc in pages(world, "/dead_letters").await? {
        let text = |name: &str| doc[name].as_str().map(str::to_owned);
        let partition = text("topic_partition").context("a dead letter's partition")?;
        let named = partition.strip_suffix(']').and_then(|name| name.rsplit_once('['));
        let (topic, number) = named.with_context(|| format!("a partition named {partition}"))?;
        let offset = doc["offset"].as_i64().context("a dead letter's offset")?;
        stored.letters.push(Letter {
            id: text("dead_letter_id").context("a dead letter's id")?,
            topic: topic.to_owned(),
            place: (number.parse()?, offset),
            reason: text("reason").context("a dead letter's reason")?,
        });
    }
    Ok(stored)
}

/// All documents of a list, page by page.
async fn pages(world: &World, list: &str) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let mut page = page(world, &format!("{list}?limit=1000{next}")).await?;
        if let Some(docs) = page["docs"].as_array_mut() {
            all.append(docs);
        }
        match page["next_token"].as_str() {
            Some(token) => next = format!("&next_token={token}"),
            None => return Ok(all),
        }
    }
}

/// One page, of whichever daemon answers.
async fn page(world: &World, path: &str) -> anyhow::Result<Value> {
    let mut last = None;
    for n in 0..TRIES {
        let daemon = world.daemons[n % world.daemons.len()].lock().await;
        match daemon.api(path).await {
            Ok(page) => return Ok(page),
            Err(error) => last = Some(error),
        }
        drop(daemon);
        tokio::time::sleep(PAUSE).await;
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no daemon is there"))).with_context(|| format!("read {path}"))
}
