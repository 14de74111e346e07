//! The room builds itself: from its configuration and what it depends on, a handle for others and one task.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Engine;
use super::claim::ClaimTask;
use super::claim_gate::ClaimGate;
use super::claimed::Offering;
use super::clock_watch::ClockWatch;
use super::directory::Directory;
use super::health::Health;
use super::lease_tokens::LeaseTokens;
use super::pauses;
use super::shelf::{self, ReadBodies, ShelfTask};
use super::space_watch::{SpaceLimits, SpaceShort, SpaceWatch};
use super::suspect::{self, Launcher, SuspectsTask};
use crate::base::body_budget::BodyBudget;
use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::base::stop::Stop;
use crate::base::supervise::Supervisor;
use crate::flight::Flight;
use crate::keyring::Keyring;
use crate::model::retry::RetryPolicy;
use crate::net::egress::Policy;
use crate::net::error::SetupError;
use crate::net::exchange::{self, Client};
use crate::schedule::{Caps, ClaimWaker, Lanes};
use crate::store::admin::AdminStore;
use crate::store::batch::StoreUp;
use crate::store::{EngineStore, InstanceId};

#[derive(Debug, Clone)]
pub struct Config {
    pub exchange: exchange::Config,
    pub caps: Caps,
    pub retry: RetryPolicy,
    /// How long a claimed row is leased to this instance.
    pub lease: Duration,
    /// A first attempt that is older than this gets its row early.
    pub park_after: Duration,
    pub user_agent: HeaderValue,
    pub space: SpaceLimits,
}

/// What delivery needs of the rooms before it.
pub struct Deps {
    pub store: Arc<dyn EngineStore>,
    pub admin: Arc<dyn AdminStore>,
    pub store_up: Arc<StoreUp>,
    pub instance: InstanceId,
    pub flight: Flight,
    pub waker: ClaimWaker,
    pub keyring: Arc<Keyring>,
    pub egress: Policy,
    /// Memory for the bodies of claimed rows.
    pub bodies: BodyBudget,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    /// Cuts off the attempts that are still under way when the grace of a stop is over.
    pub cut_off: Stop,
}

/// The handle: what intake, the operations and the drain use.
#[derive(Clone)]
pub struct Delivery {
    pub engine: Arc<Engine>,
    pub directory: Arc<Directory>,
    pub lanes: Arc<Lanes>,
    pub health: Arc<Health>,
    pub tokens: Arc<LeaseTokens>,
    pub space_short: SpaceShort,
    pub claim_gate: ClaimGate,
}

/// Claims due rows, watches for changes of teams and for the store's state, and closes idle connections.
pub struct DeliveryTask {
    claim: ClaimTask,
    shelf: ShelfTask,
    suspects: SuspectsTask,
    delivery: Delivery,
    store_up: watch::Receiver<bool>,
    clock_watch: ClockWatch,
    space_watch: SpaceWatch,
}

/// Builds the room on the current runtime, which will run its attempts.
///
/// # Errors
/// The HTTP client can't be made.
pub fn build(config: Config, deps: Deps) -> Result<(Delivery, DeliveryTask), SetupError> {
    let Deps { store, admin, store_up, instance, flight, waker, keyring, egress, bodies, clock, metrics, cut_off } =
        deps;
    let directory = Arc::new(Directory::new(admin, keyring, Arc::clone(&clock), config.retry));
    let (short, space_short) = watch::channel(None);
    let health = Arc::new(Health::default());
    let engine = Arc::new(Engine {
        client: Client::new(&config.exchange, egress)?,
        launcher: Launcher::new(config.exchange),
        directory: Arc::clone(&directory),
        inflight: Arc::clone(&flight.inflight),
        settler: flight.settler.clone(),
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&clock),
        health: Arc::clone(&health),
        user_agent: config.user_agent,
        park_after: config.park_after,
        cut_off,
    });
    let lanes = Lanes::new(config.caps, Arc::clone(&metrics), starter(Arc::clone(&engine)));
    let tokens = Arc::new(LeaseTokens::new());
    let store_up_rx = store_up.watch();
    let claim_gate = ClaimGate::new();
    let delivery = Delivery { engine, directory, lanes, health, tokens, space_short, claim_gate };
    let room = Arc::clone(&flight.body_room);
    let space_watch = SpaceWatch::new(config.space, Arc::clone(&store), Arc::clone(&metrics), short, room);
    let clock_watch = ClockWatch { clock, store: Arc::clone(&store), metrics: Arc::clone(&metrics) };
    let offering = Offering {
        delivery: delivery.clone(),
        inflight: flight.inflight,
        settler: flight.settler,
        bodies,
        lease: config.lease,
    };
    let (suspects, suspects_task) = suspect::build(offering.clone());
    let (shelf, shelf_task) = shelf::build(offering.clone(), suspects.clone(), Arc::clone(&metrics));
    let told_of_newer = AtomicBool::default();
    let claim = ClaimTask { store, instance, offering, shelf, suspects, waker, metrics, store_up, told_of_newer };
    let task = DeliveryTask {
        claim,
        shelf: shelf_task,
        suspects: suspects_task,
        delivery: delivery.clone(),
        store_up: store_up_rx,
        clock_watch,
        space_watch,
    };
    Ok((delivery, task))
}

/// Each attempt is a task of its own.
fn starter(engine: Arc<Engine>) -> crate::schedule::Starter {
    let runtime = tokio::runtime::Handle::current();
    Box::new(move |start| drop(runtime.spawn(Arc::clone(&engine).attempt(start))))
}

impl DeliveryTask {
    /// Starts the room's tasks, which run until `stop`. `read` gives bodies that are not stored.
    pub fn start(self, read: ReadBodies, supervisor: &Supervisor, stop: &Stop) -> Vec<JoinHandle<()>> {
        let Self { claim, shelf, suspects, delivery, store_up, clock_watch, space_watch } = self;
        let (whole, settler, metrics) = (delivery.clone(), claim.offering.settler.clone(), Arc::clone(&claim.metrics));
        let Delivery { engine, directory, lanes, health, .. } = delivery;
        let store = Arc::clone(&claim.store);
        let directory = {
            let stop = stop.clone();
            async move { directory.run(stop).await }
        };
        let at = || stop.clone();
        vec![
            supervisor.spawn("the claims of due callbacks", at(), claim.run(at())),
            supervisor.spawn("the bodies that are read again", at(), shelf.run(read, at())),
            supervisor.spawn("the places of suspects", at(), suspects.run(at())),
            supervisor.spawn("the directory of teams", at(), directory),
            supervisor.spawn("the pauses", at(), pauses::follow(whole, settler, metrics, at())),
            supervisor.spawn("the watch of the store", at(), follow_store(store_up, lanes, at())),
            supervisor.spawn("the history of endpoints", at(), health.run(store, at())),
            supervisor.spawn("the watch of disk space", at(), space_watch.run(at())),
            supervisor.spawn("the watch of the clock", at(), clock_watch.run(at())),
            supervisor.spawn("the sweep of connections", at(), close_idle_connections(engine, at())),
        ]
    }
}

/// While the store is known to be down, no new attempt begins.
async fn follow_store(mut up: watch::Receiver<bool>, lanes: Arc<Lanes>, mut stop: Stop) {
    loop {
        tokio::select! {
            changed = up.changed() => {
                if changed.is_err() {
                    return;
                }
                let is_up = *up.borrow_and_update();
                lanes.set_open(is_up);
            }
            () = stop.stopped() => return,
        }
    }
}

async fn close_idle_connections(engine: Arc<Engine>, mut stop: Stop) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => engine.client.sweep(),
            () = stop.stopped() => return,
        }
    }
}
