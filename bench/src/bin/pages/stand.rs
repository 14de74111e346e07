//! Where look-ups are measured: a receiver, a Kafka, a server if the stores are on PostgreSQL, and the stores. Each store has a topic of
//! its own, because callbackd refuses offsets that another store has committed.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use callbackd_bench::broker::Broker;
use callbackd_bench::load::{self, Daemon, Events, Source, Wiring};
use callbackd_bench::postgres::Postgres;
use callbackd_bench::process::Process;

use super::filled::{self, Filled, TEAMS};
use super::{StoreKind, fill_postgres, fill_sqlite};

/// The settings of docs/scaling.md, except those for standbys and for sizes.
const SETTINGS: [&str; 6] = [
    "synchronous_commit=on",
    "fsync=on",
    "full_page_writes=on",
    "checkpoint_timeout=20min",
    "max_wal_size=16GB",
    "wal_compression=lz4",
];
/// The most memory that docs/scaling.md gives the server, in MiB.
const MOST_BUFFERS: u64 = 4_096;

pub(crate) struct Stand {
    pub(crate) address: SocketAddr,
    _receiver: Process,
    broker: Broker,
    server: Option<Postgres>,
    binary: PathBuf,
}

/// A store, and the topic that its daemon reads.
pub(crate) struct Store {
    pub(crate) filled: Filled,
    pub(crate) source: Source,
    folder: tempfile::TempDir,
    topic: String,
    url: String,
}

impl Stand {
    pub(crate) fn start(kind: StoreKind) -> anyhow::Result<Self> {
        let (receiver, address) = load::start_receiver()?;
        let server = match kind {
            StoreKind::Sqlite => None,
            StoreKind::Postgres => Some(Postgres::start_with(settings()?)?),
        };
        let broker = Broker::start(&load::kafka_libs())?;
        Ok(Self { address, _receiver: receiver, broker, server, binary: load::binary()? })
    }

    /// Makes a store and fills it. `name` is that of its topic and of its database.
    pub(crate) async fn store(&self, name: &str, rows: u64) -> anyhow::Result<Store> {
        let folder = tempfile::tempdir()?;
        ensure!(load::keyring(&self.binary, folder.path())?, "the keyring was not created");
        let url = self.server.as_ref().map_or_else(|| Ok(String::new()), |server| server.create_database(name))?;
        let teams: Vec<String> = (0..TEAMS).map(filled::team).collect();
        // The daemon makes the tables. It has no broker to read from.
        let wiring = Wiring { servers: "127.0.0.1:9", topic: name, store_url: &url };
        let idle = Daemon::start_with(&self.binary, folder.path(), wiring)?;
        idle.teams(&self.binary, &teams).await?;
        idle.end().await?;
        let filled = Filled::until_now(rows);
        match &self.server {
            Some(server) => fill_postgres::fill(server, name, filled).await?,
            None => fill_sqlite::fill(&folder.path().join("store/callbackd.db"), filled).await?,
        }
        let events = Events { topic: name.to_owned(), teams, first_at: filled::now() };
        let source = Source::start_with(&self.broker.servers(), self.address, events).await?;
        Ok(Store { filled, source, folder, topic: name.to_owned(), url })
    }

    pub(crate) fn daemon(&self, store: &Store) -> anyhow::Result<Daemon> {
        let servers = self.broker.servers();
        let wiring = Wiring { servers: &servers, topic: &store.topic, store_url: &store.url };
        Daemon::start_with(&self.binary, store.folder.path(), wiring)
    }
}

/// The documented settings, with a quarter of this machine's memory.
fn settings() -> anyhow::Result<Vec<String>> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("the machine's memory")?;
    let mebibytes = line.trim_end_matches("kB").trim().parse::<u64>()? / 1_024;
    let buffers = (mebibytes / 4).clamp(64, MOST_BUFFERS);
    let buffers = format!("shared_buffers={buffers}MB");
    Ok(SETTINGS.iter().map(|setting| (*setting).to_owned()).chain([buffers]).collect())
}
