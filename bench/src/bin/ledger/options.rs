//! The options of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::clock;
use super::plan::{Kind, LONG, Wanted};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    Sqlite,
    Postgres,
}

/// Produces numbered events, injects faults, and compares what was produced, received, stored and published.
///
/// A run starts a real Kafka, a store, receivers and daemons on loopback. While events are produced, faults come by a schedule that
/// the seed decides. Then everything is healed, and the run waits until nothing is under way. Afterwards the records are compared:
/// what the producer was told is in Kafka, what the receivers got and answered, what the store says of each callback, and what the
/// daemons published to the topics of outcomes and dead letters. The exit status is 1 if an event is lost, has a wrong state, was not
/// published, or came again for no reason that a fault explains, and also if a planned fault did not come.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "ledger",
    after_help = "Example:\n  ledger --events 8000 --duration 45 --store sqlite --kills 6 --seed 7"
)]
pub(crate) struct Options {
    /// How many events are produced.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub(crate) events: u64,
    /// For how many seconds events are produced and faults come. The whole run takes a little longer.
    #[arg(long, value_name = "SECONDS", default_value_t = 520)]
    pub(crate) duration: u64,
    /// Where the daemons keep their store.
    #[arg(long, value_enum, default_value_t = StoreKind::Postgres)]
    pub(crate) store: StoreKind,
    /// How many daemons run, 1 to 3. SQLite has room for one. The default is 1 with SQLite and 3 with PostgreSQL.
    #[arg(long, value_name = "N")]
    pub(crate) daemons: Option<usize>,
    /// Decides the events and the faults. The default is the time; it is printed, so that a run can be repeated.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How many times a daemon is ended by kill -9.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) kills: usize,
    /// The faults that come, separated by commas. The default is all that the store allows, and that the duration has room for.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum)]
    pub(crate) faults: Vec<Kind>,
    /// How often each of the other faults comes. The default is a number that fits the duration.
    #[arg(long, value_name = "N")]
    pub(crate) times: Option<usize>,
    /// How many of a thousand callbacks go to a receiver that is slow.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) slow: u64,
    /// Keep the daemons' logs. They are kept anyway if something is wrong.
    #[arg(long)]
    pub(crate) keep_logs: bool,
    /// How long the daemons have to settle everything after the last fault, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    pub(crate) patience: u64,
    /// The daemon's program. The default is the callbackd beside this program.
    #[arg(long, value_name = "PATH")]
    pub(crate) daemon: Option<PathBuf>,
    /// Breaks the daemons on purpose: the value of CALLBACKD_FAULT. It needs a daemon that was built with the feature faults.
    #[arg(long, value_name = "NAME")]
    pub(crate) fault: Option<String>,
    /// The folder with Kafka's jars. The default is target/kafka/libs, which `make kafka` fills.
    #[arg(long, value_name = "PATH", env = "CALLBACKD_TEST_KAFKA_LIBS")]
    pub(crate) kafka_libs: Option<PathBuf>,
}

impl Options {
    /// Checks what the command line alone can't.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub(crate) fn check(&self) -> Result<(), String> {
        let most = if self.store == StoreKind::Sqlite { 1 } else { 3 };
        if !(1..=most).contains(&self.daemons()) {
            return Err(format!("--daemons: with this store, a number from 1 to {most}"));
        }
        if self.events == 0 || self.events > 10_000_000 {
            return Err("--events: a number from 1 to 10000000".to_owned());
        }
        if !(10..=36_000).contains(&self.duration) {
            return Err("--duration: a number of seconds from 10 to 36000".to_owned());
        }
        if self.slow > 900 {
            return Err("--slow: a number from 0 to 900".to_owned());
        }
        if self.kinds().contains(&Kind::ClockStepped) && clock::library().is_none() {
            return Err(
                "libfaketime is not installed; run make test-tools, or name other faults with --faults".to_owned()
            );
        }
        let daemon = self.daemon();
        if !daemon.is_file() {
            return Err(format!("{} is not there; build it with: cargo build --bin callbackd", daemon.display()));
        }
        Ok(())
    }

    pub(crate) fn daemons(&self) -> usize {
        self.daemons.unwrap_or(if self.store == StoreKind::Sqlite { 1 } else { 3 })
    }

    pub(crate) fn daemon(&self) -> PathBuf {
        let beside = || callbackd_bench::load::binary().unwrap_or_else(|_| PathBuf::from("callbackd"));
        self.daemon.clone().unwrap_or_else(beside)
    }

    pub(crate) fn kafka_libs(&self) -> PathBuf {
        self.kafka_libs.clone().unwrap_or_else(callbackd_bench::load::kafka_libs)
    }

    fn kinds(&self) -> Vec<Kind> {
        if self.faults.is_empty() {
            Kind::ALL.into_iter().filter(|kind| self.duration() >= LONG || !kind.takes_long()).collect()
        } else {
            self.faults.clone()
        }
    }

    /// What the schedule of faults shall hold.
    pub(crate) fn wanted(&self, seed: u64) -> Wanted {
        Wanted {
            seed,
            duration: self.duration(),
            kills: self.kills,
            has_postgres: self.store == StoreKind::Postgres,
            has_several: self.daemons() > 1,
            kinds: self.kinds(),
            times: self.times,
        }
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.duration)
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}
