//! Kafka and PostgreSQL: started, and made to fail.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use callbackd_bench::broker::Broker;
use callbackd_bench::postgres::Postgres;
use callbackd_bench::wire::Wire;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::event::PARTITIONS;
use super::producer::TOPIC;
use super::{outcomes, recreated};

const DATABASE: &str = "callbacks";
const STANDBY: &str = "second";
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
const CALL: Duration = Duration::from_secs(5);

/// Starts Kafka, and makes the topics.
///
/// # Errors
/// Something is missing; the sentence says what.
pub(crate) async fn kafka(libs: &Path) -> anyhow::Result<Broker> {
    let broker = tokio::task::block_in_place(|| Broker::start(libs))?;
    for (topic, partitions) in [
        (TOPIC, PARTITIONS),
        (recreated::TOPIC, recreated::PARTITIONS),
        (outcomes::TOPIC, outcomes::PARTITIONS),
        (outcomes::DEAD_LETTERS_TOPIC, outcomes::PARTITIONS),
    ] {
        create_topic(&broker.servers(), topic, partitions).await?;
    }
    Ok(broker)
}

fn admin(servers: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("log_level", "0");
    client.create().context("make a client of Kafka")
}

/// Creates a topic. If one of this name is still being deleted, it waits for that.
///
/// # Errors
/// It can't be created within half a minute.
pub(crate) async fn create_topic(servers: &str, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let admin = admin(servers)?;
    let end = Instant::now() + PATIENCE;
    loop {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = admin.create_topics(&[new], &AdminOptions::new()).await;
        if made.is_ok_and(|made| made.first().is_some_and(Result::is_ok)) {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("Kafka did not create the topic {topic} within {PATIENCE:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Deletes a topic, and waits until Kafka no longer names it.
///
/// # Errors
/// Kafka's, or it is still there after half a minute.
pub(crate) async fn delete_topic(servers: &str, topic: &str) -> anyhow::Result<()> {
    let admin = admin(servers)?;
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await.context("delete a topic")?;
    if let Some(Err((_, code))) = deleted.first() {
        bail!("the topic {topic} was not deleted: {code}");
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let found = tokio::task::block_in_place(|| admin.inner().fetch_metadata(None, CALL));
        if found.is_ok_and(|found| found.topics().iter().all(|found| found.name() != topic)) {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("the topic {topic} is still there {PATIENCE:?} after it was deleted");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sets the group's offsets of the events' topic to the earliest ones, as an operator's tool does. Nobody may be in the group. Returns
/// for how many partitions: those for which the group has an offset.
///
/// # Errors
/// The group has a member for half a minute more, or Kafka does not answer.
pub(crate) async fn reset_group(servers: &str, group: &str) -> anyhow::Result<usize> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("group.id", group).set("log_level", "0");
    let consumer: BaseConsumer = client.set("enable.auto.commit", "false").create().context("make a consumer")?;
    let end = Instant::now() + PATIENCE;
    loop {
        match tokio::task::block_in_place(|| commit_earliest(&consumer)) {
            Ok(partitions) => return Ok(partitions),
            Err(error) if Instant::now() >= end => return Err(error).context("reset the group's offsets"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn commit_earliest(consumer: &BaseConsumer) -> anyhow::Result<usize> {
    let mut all = TopicPartitionList::new();
    all.add_partition_range(TOPIC, 0, PARTITIONS - 1);
    let committed = consumer.committed_offsets(all, CALL)?;
    let mut earliest = TopicPartitionList::new();
    for element in committed.elements() {
        if let Offset::Offset(_) = element.offset() {
            let (first, _) = consumer.fetch_watermarks(TOPIC, element.partition(), CALL)?;
            earliest.add_partition_offset(TOPIC, element.partition(), Offset::Offset(first))?;
        }
    }
    if earliest.count() > 0 {
        consumer.commit(&earliest, CommitMode::Sync)?;
    }
    Ok(earliest.count())
}

/// A primary with a synchronous standby. Each daemon has proxies of its own before the two, which can cut COMMITs.
pub(crate) struct Databases {
    primary: Postgres,
    /// It is gone after a failover.
    standby: Option<Postgres>,
    wires: Vec<[Wire; 2]>,
}

impl Databases {
    /// Starts both servers, and proxies for so many daemons.
    ///
    /// # Errors
    /// Something is missing; the sentence says what.
    pub(crate) async fn start(daemons: usize) -> anyhow::Result<Self> {
        let (primary, standby) = tokio::task::block_in_place(|| {
            let primary = Postgres::start()?;
            primary.create_database(DATABASE)?;
            let standby = primary.standby(STANDBY)?;
            // The standby was made before this, so it waits for nobody once it is the primary.
            primary.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"))?;
            primary.sql("postgres", "SELECT pg_reload_conf()")?;
            anyhow::Ok((primary, standby))
        })?;
        let mut wires = Vec::new();
        for _ in 0..daemons {
            wires.push([Wire::start(primary.port()).await?, Wire::start(standby.port()).await?]);
        }
        let databases = Self { primary, standby: Some(standby), wires };
        databases.await_standby().await?;
        Ok(databases)
    }

    /// Waits until commits are on both servers, if there still are two.
    ///
    /// # Errors
    /// The standby does not follow within half a minute.
    pub(crate) async fn await_standby(&self) -> anyhow::Result<()> {
        if self.standby.is_none() {
            return Ok(());
        }
        let end = Instant::now() + PATIENCE;
        let asked = "SELECT sync_state FROM pg_stat_replication";
        while tokio::task::block_in_place(|| self.primary.sql("postgres", asked)).is_ok_and(|state| state != "sync") {
            if Instant::now() >= end {
                bail!("the standby did not follow within {PATIENCE:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The store's URL for each daemon.
    pub(crate) fn urls(&self) -> Vec<String> {
        let url = |wires: &[Wire; 2]| {
            let hosts = wires.each_ref().map(|wire| format!("127.0.0.1:{}", wire.port())).join(",");
            format!("postgres://callbackd@{hosts}/{DATABASE}?target_session_attrs=read-write")
        };
        self.wires.iter().map(url).collect()
    }

    /// Stops the primary, in order or as a power cut would.
    pub(crate) fn stop(&mut self, is_killed: bool) {
        tokio::task::block_in_place(|| if is_killed { self.primary.kill() } else { self.primary.stop() });
    }

    /// Starts it again.
    ///
    /// # Errors
    /// The server's.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        tokio::task::block_in_place(|| self.primary.run()).context("start PostgreSQL again")
    }

    pub(crate) fn freeze(&self) {
        tokio::task::block_in_place(|| self.primary.freeze());
    }

    pub(crate) fn thaw(&self) {
        tokio::task::block_in_place(|| self.primary.thaw());
    }

    /// Kills the primary, and makes the standby the primary. False if there is no standby any more.
    ///
    /// # Errors
    /// The standby can't be promoted.
    pub(crate) async fn fail_over(&mut self) -> anyhow::Result<bool> {
        if self.standby.is_none() {
            return Ok(false);
        }
        // A standby that does not follow yet may lack commits, which would be another fault.
        self.await_standby().await?;
        let Some(standby) = self.standby.take() else { return Ok(false) };
        self.stop(true);
        tokio::task::block_in_place(|| standby.promote())?;
        self.primary = standby;
        Ok(true)
    }

    /// Cuts one COMMIT in so many, of all daemons; 0 cuts none.
    pub(crate) fn cut_one_in(&self, count: u64, seed: u64) {
        // Each proxy chooses by other numbers.
        for (wire, number) in self.wires.iter().flatten().zip(0..) {
            wire.cut_one_in(count, seed.wrapping_add(number << 32));
        }
    }

    /// Cuts every COMMIT of one daemon, or none of it any more.
    pub(crate) fn cut_daemon(&self, daemon: usize, is_cut: bool, seed: u64) {
        self.wires[daemon].iter().for_each(|wire| wire.cut_one_in(u64::from(is_cut), seed));
    }

    /// How many COMMITs of a daemon were cut so far.
    pub(crate) fn cuts_of(&self, daemon: usize) -> u64 {
        self.wires[daemon].iter().map(|wire| wire.cuts()).map(|(before, after)| before + after).sum()
    }

    /// How many COMMITs were cut so far.
    pub(crate) fn cuts(&self) -> u64 {
        (0..self.wires.len()).map(|daemon| self.cuts_of(daemon)).sum()
    }

    /// Ends so many sessions of daemons in the middle of what they do. Returns how many it were.
    ///
    /// # Errors
    /// The primary does not answer.
    pub(crate) fn terminate(&self, sessions: u32) -> anyhow::Result<u64> {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM (
                 SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                 ORDER BY random() LIMIT {sessions}) AS ended"
        );
        let ended = tokio::task::block_in_place(|| self.primary.sql(DATABASE, &sql))?;
        ended.trim().parse().with_context(|| format!("the number of sessions that ended: {ended:?}"))
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        // A server that stands still when a run is interrupted could not end.
        self.primary.thaw();
    }
}
