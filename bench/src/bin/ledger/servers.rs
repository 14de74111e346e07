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

use super::event::PARTITIONS;
use super::producer::TOPIC;

const DATABASE: &str = "callbacks";
const STANDBY: &str = "second";
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Starts Kafka, and makes the topic.
///
/// # Errors
/// Something is missing; the sentence says what.
pub(crate) async fn kafka(libs: &Path) -> anyhow::Result<Broker> {
    let broker = tokio::task::block_in_place(|| Broker::start(libs))?;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", broker.servers()).set("log_level", "0");
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let end = Instant::now() + PATIENCE;
    loop {
        let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
        let made = admin.create_topics(&[topic], &AdminOptions::new()).await;
        if made.is_ok_and(|made| made.first().is_some_and(Result::is_ok)) {
            return Ok(broker);
        }
        if Instant::now() >= end {
            bail!("Kafka did not create the topic within {PATIENCE:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A primary with a synchronous standby, each behind a proxy that can cut COMMITs.
pub(crate) struct Databases {
    primary: Postgres,
    /// It is gone after a failover.
    standby: Option<Postgres>,
    wires: [Wire; 2],
}

impl Databases {
    /// Starts both servers.
    ///
    /// # Errors
    /// Something is missing; the sentence says what.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let (primary, standby) = tokio::task::block_in_place(|| {
            let primary = Postgres::start()?;
            primary.create_database(DATABASE)?;
            let standby = primary.standby(STANDBY)?;
            // The standby was made before this, so it waits for nobody once it is the primary.
            primary.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"))?;
            primary.sql("postgres", "SELECT pg_reload_conf()")?;
            anyhow::Ok((primary, standby))
        })?;
        let wires = [Wire::start(primary.port()).await?, Wire::start(standby.port()).await?];
        let databases = Self { primary, standby: Some(standby), wires };
        databases.await_standby().await?;
        Ok(databases)
    }

    /// Waits until commits are on both servers.
    async fn await_standby(&self) -> anyhow::Result<()> {
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

    pub(crate) fn url(&self) -> String {
        let hosts = self.wires.each_ref().map(|wire| format!("127.0.0.1:{}", wire.port())).join(",");
        format!("postgres://callbackd@{hosts}/{DATABASE}?target_session_attrs=read-write")
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

    /// Cuts one COMMIT in so many; 0 cuts none.
    pub(crate) fn cut_one_in(&self, count: u64, seed: u64) {
        self.wires.iter().for_each(|wire| wire.cut_one_in(count, seed));
    }

    /// Ends so many sessions of daemons in the middle of what they do. Returns how many it were.
    pub(crate) fn terminate(&self, sessions: u32) -> u64 {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM (
                 SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                 ORDER BY random() LIMIT {sessions}) AS some"
        );
        let ended = tokio::task::block_in_place(|| self.primary.sql(DATABASE, &sql));
        ended.ok().and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}
