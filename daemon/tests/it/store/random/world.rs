//! The two stores of a run, who works on them, and what the run remembers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use callbackd::base::clock::{Clock, ManualClock, Timestamp};
use callbackd::deliver::resolve::queue_of;
use callbackd::model::dead_letter::ValueBudget;
use callbackd::model::endpoint::QueueKey;
use callbackd::model::lease::Facts;
use callbackd::model::notice::Notices;
use callbackd::store::faulty::{Faults, FaultyStore};
use callbackd::store::memory::MemoryStore;
use callbackd::store::{self, Applied, Batch, Config, EngineStore, InstanceId, OpenError, Options, Stores, tools};
use scale_callback::samples::Seed;

use super::super::{OPTIONS, START, database};

/// Everything is told, and the values of dead letters have a budget that a run reaches. The bodies that are kept have room:
/// which of them go where they have none, and how many at once, each store chooses.
const TOLD: Options = Options {
    notices: Notices { outcomes: true, dead_letters: true },
    values: ValueBudget { of_topic: 20_000, in_all: 30_000 },
    ..OPTIONS
};

/// An instance on the store, and its twin on the model.
pub(super) struct Seat {
    pub(super) stores: Stores,
    pub(super) engine: Arc<dyn EngineStore>,
    pub(super) instance: InstanceId,
    pub(super) twin: InstanceId,
    /// The number of its last batch, that batch, and the answer.
    pub(super) number: u64,
    pub(super) last: Option<(Batch, Applied)>,
    /// The epochs in which it took partitions. It may have lost some of them since.
    pub(super) epochs: BTreeMap<u64, i64>,
}

/// An attempt that may be settled. Its lease may have ended since.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) facts: Arc<Facts>,
    pub(super) token: u64,
    pub(super) epoch: Option<i64>,
}

pub(super) struct World {
    pub(super) name: &'static str,
    config: Config,
    pub(super) clock: Arc<ManualClock>,
    pub(super) seed: Seed,
    pub(super) model: Arc<MemoryStore>,
    pub(super) seats: Vec<Seat>,
    pub(super) held: Vec<Held>,
    /// Queues that were found paused, and until when a claim may pass them over.
    pub(super) aside: BTreeMap<QueueKey, Timestamp>,
    /// The job that sends callbacks again, if there is one, and how many there were.
    pub(super) job: Option<String>,
    pub(super) jobs: u32,
    /// The numbers that were used so far.
    pub(super) numbers: BTreeSet<u64>,
    /// Those whose record was durable at some time, and those that were pruned at some time.
    pub(super) durable: BTreeSet<u64>,
    pub(super) pruned: BTreeSet<u64>,
    /// Where each partition begins, since it was read as a new log.
    pub(super) begins: BTreeMap<u64, u64>,
    /// How many settles of each callback were applied, since it was pruned.
    pub(super) settles: BTreeMap<u64, u32>,
    pub(super) delivered: BTreeSet<u64>,
    pub(super) log: Log,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) async fn new(name: &'static str, seed: u64) -> Self {
        let (clock, folder) = (Arc::new(ManualClock::new(START)), tempfile::tempdir().unwrap());
        let is_shared = name.starts_with("postgres");
        let as_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let (config, model, seats) = match is_shared {
            true => (database(), MemoryStore::shared(TOLD, as_clock), 3),
            false => (Config::Directory(folder.path().join("store")), MemoryStore::new(TOLD, as_clock), 1),
        };
        let mut world = Self {
            name,
            config,
            clock,
            seed: Seed::new(seed),
            model: Arc::new(model),
            seats: Vec::new(),
            held: Vec::new(),
            aside: BTreeMap::new(),
            job: None,
            jobs: 0,
            numbers: BTreeSet::new(),
            durable: BTreeSet::new(),
            pruned: BTreeSet::new(),
            begins: BTreeMap::new(),
            settles: BTreeMap::new(),
            delivered: BTreeSet::new(),
            log: Log { name, seed, count: 0, last: VecDeque::new() },
            _folder: folder,
        };
        for _ in 0..seats {
            let seat = world.sit_down().await;
            world.seats.push(seat);
        }
        // Where callbacks are divided by days, the first days are there before the first callback.
        world.seats[0].engine.sweep(queue_of).await.unwrap();
        world.take_first().await;
        world
    }

    pub(super) fn is_shared(&self) -> bool {
        self.name.starts_with("postgres")
    }

    pub(super) fn has_faults(&self) -> bool {
        self.name.contains("faults")
    }

    /// Opens the store, and begins an instance on it and on the model.
    pub(super) async fn sit_down(&mut self) -> Seat {
        let stores = self.opened().await;
        let faults = Faults { happened_but_uncertain: 200, did_not_happen: 200, ..Faults::default() };
        let engine = match self.has_faults() {
            true => Arc::new(FaultyStore::new(Arc::clone(&stores.engine), self.seed.next_u64(), faults)) as _,
            false => Arc::clone(&stores.engine),
        };
        let nobody = InstanceId(0);
        let seat =
            Seat { stores, engine, instance: nobody, twin: nobody, number: 0, last: None, epochs: BTreeMap::new() };
        self.begun(seat).await
    }

    /// The process that had the store may hold its lock for a moment longer.
    async fn opened(&self) -> Stores {
        crate::harness::until("the store is free", async || {
            match store::open(&self.config, TOLD, Arc::clone(&self.clock) as _).await {
                Ok(stores) => Some(stores),
                Err(OpenError::InUse { .. }) => None,
                Err(other) => panic!("{}: {other}", self.name),
            }
        })
        .await
    }

    /// Nobody uses the store any more, and all of its rows fit together.
    pub(super) async fn finish(mut self) {
        self.compare_all().await;
        self.tell_all().await;
        self.log.note("the end".to_owned());
        self.seats.clear();
        let wrong = crate::harness::until("the store is free", async || match tools::verify(&self.config).await {
            Ok(wrong) => Some(wrong),
            Err(OpenError::InUse { .. } | OpenError::DatabaseInUse { .. } | OpenError::DatabaseHeld { .. }) => None,
            Err(other) => panic!("{}: {other}", self.name),
        })
        .await;
        assert_eq!(wrong, Vec::<String>::new(), "{}: store verify", self.name);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.seed.below(bound)
    }

    /// True in so many of a hundred cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    pub(super) fn seat(&mut self) -> usize {
        self.below(self.seats.len() as u64) as usize
    }

    /// A record of the window, which moves on slowly.
    pub(super) fn record(&mut self) -> u64 {
        let n = self.log.count / 20 + self.below(60);
        self.numbers.insert(n);
        n
    }

    /// The partition's database, for a look at its tables.
    pub(super) fn sql(&self, sql: &str) -> String {
        let Config::Postgres(url) = &self.config else { unreachable!("it has a server") };
        let url = url.to_string();
        crate::postgres::server().sql(url.rsplit('/').next().unwrap(), sql).unwrap()
    }

    /// Panics with what differs.
    pub(super) fn same<T: PartialEq + std::fmt::Debug>(&self, found: &T, expected: &T, what: &str) {
        assert!(found == expected, "{}: {what}\n   store: {found:?}\n   model: {expected:?}", self.name);
    }
}

/// The operations of a run. If it fails, the last of them are printed.
pub(super) struct Log {
    name: &'static str,
    seed: u64,
    pub(super) count: u64,
    last: VecDeque<String>,
}

impl Log {
    const SHOWN: usize = 30;

    pub(super) fn note(&mut self, operation: String) {
        self.count += 1;
        if self.last.len() == Self::SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(operation);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let first = self.count - self.last.len() as u64;
            println!("{} failed with CALLBACKD_TEST_SEED={}; its last operations:", self.name, self.seed);
            for (at, operation) in (first + 1..).zip(&self.last) {
                println!("{at}. {operation}");
            }
        }
    }
}
