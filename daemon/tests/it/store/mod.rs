//! One contract suite for each trait of the store. Each suite runs over every implementer.

mod admin;
mod amend;
mod claims;
mod commits;
mod copy;
mod days;
mod endpoints;
mod engine;
mod instances;
mod missing_queues;
mod month;
mod outbox;
mod random;
mod reads;
mod resends;
mod rounds;
mod space;
mod sweeps;
mod versions;

use std::sync::Arc;

use callbackd::base::clock::{Clock, ManualClock, Timestamp};
use callbackd::model::dead_letter::ValueBudget;
use callbackd::model::event::PartitionKey;
use callbackd::model::keeping::{KeepBodies, Keeping};
use callbackd::model::notice::Notices;
use callbackd::store::memory::MemoryStore;
use callbackd::store::{self, Config, EngineStore, InstanceId, Migrate, Options, Stores, Take, TakeAsk, Taken};

use crate::postgres;

pub(crate) use engine::facts;

/// Small, so that a test reaches it.
const VALUES: ValueBudget = ValueBudget { of_topic: 20_000, in_all: 30_000 };
const OPTIONS: Options = Options {
    name: None,
    migrate: Migrate::Auto,
    values: VALUES,
    keeping: Keeping { of: KeepBodies::Failed, bytes: 1 << 20, least_free: 0 },
    notices: Notices { outcomes: false, dead_letters: false },
};
const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// The instance takes the partition over. Nobody else has it.
async fn take(engine: &dyn EngineStore, instance: InstanceId, partition: Arc<PartitionKey>) -> Taken {
    let ask = TakeAsk::at_once(instance, partition);
    match engine.take(ask).await.unwrap() {
        Take::Taken(taken) => taken,
        Take::Held { owner } => panic!("{owner:?} has it"),
    }
}

/// An empty database.
fn database() -> Config {
    Config::Postgres(Box::new(postgres::database().parse().unwrap()))
}

/// The implementer of this name, empty. The folder must outlive it.
async fn opened(name: &str, folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Stores {
    opened_with(OPTIONS, name, folder, clock).await
}

async fn opened_with(options: Options, name: &str, folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Stores {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    if name.starts_with("memory") {
        return Stores::of(Arc::new(MemoryStore::new(options, clock)));
    }
    let config = if name.starts_with("postgres") { database() } else { Config::Directory(folder.path().join("store")) };
    store::open(&config, options, clock).await.unwrap()
}
