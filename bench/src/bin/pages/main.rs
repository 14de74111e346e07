//! How fast the API answers while callbackd delivers. Run it with `make bench-pages` and `make bench-lookups`. All processes share this
//! machine, and all traffic is on loopback.

#![allow(clippy::print_stdout, reason = "it prints a report")]

mod fill_postgres;
mod fill_sqlite;
mod filled;
mod half_speed;
mod lookups;
mod questions;
mod stand;
mod times;

use std::time::Duration;

use anyhow::Context as _;
use callbackd_bench::load;
use clap::{Parser, ValueEnum};

/// A run that takes longer is given up.
const LIMIT: Duration = Duration::from_secs(50 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    Sqlite,
    Postgres,
}

/// Measures how fast the API answers while callbackd delivers.
///
/// Without options, it is about pages of a store on SQLite while callbackd delivers at half its speed. With --lookups, callbackd
/// delivers at full speed with ten look-ups a second, in turns with few settled rows and with many.
#[derive(Debug, Clone, Parser)]
#[command(name = "pages")]
struct Options {
    /// Compare delivery with few settled rows and with many, both at full speed with ten look-ups a second.
    #[arg(long)]
    lookups: bool,
    /// Where the store is.
    #[arg(long, value_enum, default_value_t = StoreKind::Postgres, requires = "lookups")]
    store: StoreKind,
    /// How many settled rows are many. The default is 10000000 on PostgreSQL, which needs about 20 GB of disk, 5000000 on SQLite,
    /// and 1000000 without --lookups.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// How many events are delivered each time.
    #[arg(long, value_name = "N", default_value_t = 120_000, requires = "lookups")]
    events: u64,
    /// How often each of the two is measured. The better speed of each counts.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "lookups")]
    rounds: u64,
}

impl Options {
    fn rows(&self) -> u64 {
        self.rows.unwrap_or(match (self.lookups, self.store) {
            (false, _) => 1_000_000,
            (true, StoreKind::Sqlite) => 5_000_000,
            (true, StoreKind::Postgres) => 10_000_000,
        })
    }
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("receiver") {
        return runtime.block_on(load::receiver());
    }
    let options = Options::parse();
    let lowest = if options.lookups { lookups::FEW } else { 1_000 };
    anyhow::ensure!((lowest..=100_000_000).contains(&options.rows()), "--rows: a number from {lowest} to 100000000");
    anyhow::ensure!((1_000..=10_000_000).contains(&options.events), "--events: a number from 1000 to 10000000");
    anyhow::ensure!((1..=20).contains(&options.rounds), "--rounds: a number from 1 to 20");
    runtime.block_on(async {
        // What is dropped at the limit ends its processes and removes its folders.
        let measured = async {
            if options.lookups { lookups::measure(&options).await } else { half_speed::measure(options.rows()).await }
        };
        tokio::time::timeout(LIMIT, measured).await.with_context(|| format!("it took longer than {LIMIT:?}"))?
    })
}
