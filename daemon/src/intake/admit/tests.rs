//! Admission's decisions, with the memory store, real lanes, and attempts that hang until a test ends them.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::*;
use crate::base::body_budget::BodyBudget;
use crate::base::clock::{Clock, SystemClock};
use crate::base::metrics::{Labels, Metrics};
use crate::base::stop::Switch;
use crate::base::supervise::Supervisor;
use crate::deliver::space_watch::SpaceLimits;
use crate::deliver::{self, Delivery};
use crate::flight::settle::SettleTask;
use crate::flight::{self, Flight};
use crate::keyring::Keyring;
use crate::model::callback::EventKey;
use crate::model::event::RecordRef;
use crate::model::offsets::Watermark;
use crate::model::retry::RetryPolicy;
use crate::model::team::HttpPolicy;
use crate::model::team::{AuthForm, Mode, RetryOverride, Team};
use crate::net::dial::Deadlines;
use crate::net::egress::Policy;
use crate::net::{dns, exchange};
use crate::schedule::{Caps, ClaimWaker, Lanes, Start, Starter};
use crate::store::admin::{AdminStore, AuditEntry};
use crate::store::batch::StoreUp;
use crate::store::memory::MemoryStore;
use crate::store::reads::{DeadLetterFilter, Page, Reads};
use crate::store::{EngineStore, InstanceId, Options, TakeAsk};

const TEAM: &str = "team_acme";
/// One callback at a time in each lane, and one that waits.
const NARROW: Caps = Caps {
    endpoint: 1,
    origin: 64,
    team: 64,
    fast: 64,
    slow: 64,
    settling: 64,
    unproven: 64,
    lane_bytes: 0,
    waiting: 1,
};
const WIDE: Caps = Caps { endpoint: 64, waiting: 1_000, lane_bytes: 1_000_000, ..NARROW };

struct Fixture {
    admit: Admit,
    store: Arc<MemoryStore>,
    /// Attempts under way. Each holds its slot and permit until it is dropped.
    started: Arc<Mutex<Vec<Start>>>,
    partition: Arc<PartitionKey>,
    epoch: i64,
    next_offset: i64,
    _settling: JoinHandle<Result<(), StoreError>>,
    _stop: (Switch, mpsc::Sender<Vec<Incoming>>),
}

/// The parts of an event that tests use.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    team: &'w str,
    event_id: Option<&'w str>,
    content: u8,
    host: &'w str,
}

const EVENT: Wanted<'static> = Wanted { team: TEAM, event_id: None, content: 1, host: "a.example" };

async fn create_team(admin: &dyn AdminStore) {
    let team = Team {
        id: TEAM.into(),
        name: String::new(),
        default_url: None,
        default_url_test: None,
        allowed_origins: Vec::new(),
        auth_form: AuthForm::Key,
        origin_forms: Vec::new(),
        http: None,
        retry: RetryOverride::default(),
        deleted_at: None,
    };
    let said = String::new;
    let audit = AuditEntry { caller: said(), address: said(), action: "teams.create", object: said(), change: said() };
    admin.create_team(team, Vec::new(), None, audit).await.unwrap();
}

fn keyring() -> Arc<Keyring> {
    let folder = tempfile::tempdir().unwrap();
    let ring = folder.path().join("keyring");
    Keyring::create(&ring).unwrap();
    Arc::new(Keyring::from_file(&ring).unwrap())
}

/// A client that sends nothing in these tests.
fn delivery_config(caps: Caps) -> deliver::Config {
    let time = Duration::from_secs(15);
    let exchange = exchange::Config {
        deadlines: Deadlines { dns: time, connect: time, tls: time, head: time, total: time },
        dns: dns::Config { servers: vec!["127.0.0.1:9".parse().unwrap()], cache_entries: 1 },
        http2: false,
        ca_file: None,
    };
    deliver::Config {
        space: SpaceLimits {
            parked_bytes: u64::MAX,
            parked_bytes_of_queue: u64::MAX,
            pending_rows: u64::MAX,
            free_bytes: 0,
            notices: u64::MAX,
        },
        exchange,
        caps,
        retry: RetryPolicy::default(),
        lease: Duration::from_secs(60),
        park_after: Duration::ZERO,
        user_agent: http::HeaderValue::from_static("test"),
    }
}

/// A starter that puts each attempt into a list and does not run it.
fn holding() -> (Arc<Mutex<Vec<Start>>>, Starter) {
    let started = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&started);
    (started, Box::new(move |start| list.lock().unwrap_or_else(PoisonError::into_inner).push(start)))
}

/// An egress policy without rules.
fn nothing_special() -> Policy {
    Policy {
        allow: Vec::new(),
        never: Vec::new(),
        own: Vec::new(),
        nat64: Vec::new(),
        http: HttpPolicy::Allow,
        generation: 1,
    }
}

fn flight_of(
    store: &Arc<dyn EngineStore>,
    instance: InstanceId,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> (Flight, SettleTask) {
    let (flight, task, _pulse) = flight::build(flight::Deps {
        store: Arc::clone(store),
        store_up: Arc::new(StoreUp::new()),
        instance,
        clock: Arc::clone(clock),
        waker: ClaimWaker::new(Arc::clone(clock)),
        metrics: Arc::clone(metrics),
        body_room: flight::BodyRoom::new(1 << 30, Duration::ZERO),
        trusted_for: Duration::MAX,
        notices: None,
    });
    (flight, task)
}

impl Fixture {
    async fn new(caps: Caps) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new(&Labels::default()));
        let store = Arc::new(MemoryStore::new(Options::default(), Arc::clone(&clock)));
        let engine_store: Arc<dyn EngineStore> = Arc::clone(&store) as _;
        let begun = engine_store.begin().await.unwrap();
        create_team(&*store).await;
        let (flight, settle_task) = flight_of(&engine_store, begun.instance, &clock, &metrics);
        let rooms = deliver::Deps {
            store: Arc::clone(&engine_store),
            admin: Arc::clone(&store) as _,
            store_up: Arc::new(StoreUp::new()),
            instance: begun.instance,
            flight: flight.clone(),
            waker: ClaimWaker::new(Arc::clone(&clock)),
            keyring: keyring(),
            egress: nothing_special(),
            bodies: BodyBudget::new(1 << 20),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            cut_off: Switch::new().stop(),
        };
        let (delivery, _claims) = deliver::build(delivery_config(caps), rooms).unwrap();
        let (started, starter) = holding();
        let delivery = Delivery { lanes: Lanes::new(caps, Arc::clone(&metrics), starter), ..delivery };
        let deps = Arc::new(Deps {
            store: engine_store,
            begun,
            flight,
            delivery,
            bodies: BodyBudget::new(1 << 20),
            supervisor: Supervisor::new(),
            metrics,
            clock,
            park_after: Duration::ZERO,
            attempt_deadline: Duration::from_secs(15),
        });
        let stop = Switch::new();
        let (batches, batches_rx) = mpsc::channel(1);
        let settling = tokio::spawn(settle_task.run(stop.stop()));
        let partition = partition(0);
        let taken = deps.store.take(TakeAsk::at_once(deps.begun.instance, Arc::clone(&partition))).await;
        let taken = taken.unwrap().taken().unwrap();
        deps.flight.inflight.take(Arc::clone(&partition), taken.epoch, taken.watermark);
        Self {
            admit: Admit::new(deps, Arc::default(), batches_rx, stop.stop()),
            store,
            started,
            partition,
            epoch: taken.epoch,
            next_offset: 0,
            _settling: settling,
            _stop: (stop, batches),
        }
    }

    /// Reads an event as the consumer does.
    fn incoming(&mut self, wanted: Wanted<'_>) -> Incoming {
        let offset = self.next_offset;
        self.next_offset += 1;
        let (partition, epoch) = (Arc::clone(&self.partition), self.epoch);
        let received = self.admit.deps.flight.inflight.receive(&partition, epoch, offset, [0; 32]).unwrap();
        let record = RecordRef { partition: Arc::clone(&partition), offset, timestamp: 1_764_000_000_000 };
        let event = TaskEvent {
            record,
            team: wanted.team.into(),
            task_id: format!("task-{offset}").into(),
            event_id: wanted.event_id.map(Into::into),
            event_type: "task.ended".into(),
            mode: Mode::Live,
            callback_url: Some(format!("https://{}/", wanted.host).as_str().into()),
            content_hash: [wanted.content; 32],
            body: Bytes::from_static(b"{}"),
            value: Bytes::from_static(b"{\"whole\":1}"),
        };
        Incoming { partition, epoch, below_seen: received.is_below_seen, decoded: Ok(event) }
    }

    /// Admits these events in one batch. Returns when all their changes are durable.
    async fn admit(&mut self, wanted: &[Wanted<'_>]) {
        let batch = wanted.iter().map(|wanted| self.incoming(*wanted)).collect();
        self.admit.admit(batch).await;
        assert!(self.admit.deps.flight.settler.flushed().await);
    }

    fn started(&self) -> Vec<i64> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.iter().map(|start| start.lease.facts.record.offset).collect()
    }

    /// Ends the attempt that was started first.
    fn end_one(&self) {
        let first = self.started.lock().unwrap_or_else(PoisonError::into_inner).remove(0);
        drop(first);
    }

    async fn buried(&self) -> Vec<(i64, Unreadable)> {
        let page = Page { before: None, limit: 100 };
        let letters = self.store.dead_letters(DeadLetterFilter::default(), page).await.unwrap().docs;
        let mut buried: Vec<_> =
            letters.iter().map(|found| (found.letter.record.offset, found.letter.reason)).collect();
        buried.sort_by_key(|(offset, _)| *offset);
        buried
    }

    fn repeats(&self) -> u64 {
        self.admit.deps.metrics.repeats_skipped_total.get()
    }

    fn parked(&self) -> u64 {
        self.admit.deps.metrics.parked_total.with_label_values(&[ParkCause::NoRoom.name()]).get()
    }

    fn is_stalled(&self) -> bool {
        self.admit.stalled.contains(&self.partition)
    }

    async fn upto(&self) -> i64 {
        self.store.offsets().await.unwrap()[0].watermark.upto
    }
}

fn partition(number: i32) -> Arc<PartitionKey> {
    Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number })
}

#[tokio::test]
async fn what_is_new_is_offered_and_its_repeat_waits_for_it() {
    let mut fixture = Fixture::new(WIDE).await;
    let event = Wanted { event_id: Some("evt-1"), ..EVENT };
    fixture.admit(&[event, event, EVENT, EVENT]).await;
    assert_eq!(fixture.started(), [0, 2, 3], "records without an event id are events of their own");
    assert_eq!(fixture.repeats(), 1);
    fixture.admit(&[event]).await;
    assert_eq!(fixture.started(), [0, 2, 3]);
    assert_eq!((fixture.repeats(), fixture.buried().await), (2, vec![]));
}

#[tokio::test]
async fn an_event_id_with_another_content_is_buried() {
    let mut fixture = Fixture::new(WIDE).await;
    let event = Wanted { event_id: Some("evt-1"), ..EVENT };
    let reused = Wanted { content: 2, ..event };
    // Repeats come in the same batch, and while the first callback is under way.
    fixture.admit(&[event, reused]).await;
    fixture.admit(&[reused]).await;
    assert_eq!(fixture.started(), [0]);
    assert_eq!(fixture.buried().await, [(1, Unreadable::EventIdReused), (2, Unreadable::EventIdReused)]);
    // The same id in another team is another event.
    assert_eq!(fixture.repeats(), 0);
}

#[tokio::test]
async fn what_the_store_knows_is_passed() {
    let mut fixture = Fixture::new(NARROW).await;
    let event = Wanted { event_id: Some("evt-1"), ..EVENT };
    let other = Wanted { host: "b.example", ..EVENT };
    // The callback finds no room, and gets its row.
    fixture.admit(&[EVENT, other, EVENT, event]).await;
    let id = CallbackId::of(TEAM, EventKey::Id("evt-1"), 1_764_000_000_000);
    assert!(fixture.store.rows(id).await.unwrap().pending.is_some());
    fixture.admit(&[event]).await;
    assert_eq!((fixture.repeats(), fixture.buried().await), (1, vec![]));
    fixture.admit(&[Wanted { content: 2, ..event }]).await;
    assert_eq!(fixture.buried().await, [(5, Unreadable::EventIdReused)]);
    // In one batch, a repeat comes behind an event that uses its id again and that is not looked up yet.
    fixture.admit(&[Wanted { content: 2, ..event }, event]).await;
    assert_eq!(fixture.buried().await, [(5, Unreadable::EventIdReused), (6, Unreadable::EventIdReused)]);
    assert_eq!(fixture.repeats(), 2);
    assert_eq!(fixture.started(), [0, 1]);
}

#[tokio::test]
async fn a_record_below_seen_upto_is_looked_up_without_an_event_id() {
    let mut fixture = Fixture::new(NARROW).await;
    fixture.admit(&[EVENT, Wanted { host: "b.example", ..EVENT }, EVENT, EVENT]).await;
    assert_eq!(fixture.parked(), 1, "record 3 has a row");
    // The partition is taken again: callbacks with a row are known, and the others are new.
    let deps = Arc::clone(&fixture.admit.deps);
    deps.flight.inflight.give_up(&fixture.partition);
    deps.flight.inflight.gone(&fixture.partition);
    deps.delivery.lanes.forget(|_| true);
    fixture.started.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let taken = deps.store.take(TakeAsk::at_once(deps.begun.instance, Arc::clone(&fixture.partition))).await;
    let taken = taken.unwrap().taken().unwrap();
    assert_eq!(taken.watermark, Watermark { upto: 0, seen_upto: 4, last: None });
    deps.flight.inflight.take(Arc::clone(&fixture.partition), taken.epoch, taken.watermark);
    (fixture.epoch, fixture.next_offset) = (taken.epoch, 0);
    fixture.admit(&[EVENT, Wanted { host: "b.example", ..EVENT }]).await;
    fixture.next_offset = 3;
    fixture.admit(&[EVENT]).await;
    assert_eq!((fixture.started(), fixture.repeats()), (vec![0, 1], 1));
}

#[tokio::test]
async fn an_event_of_an_unknown_team_is_buried_with_its_copies() {
    let mut fixture = Fixture::new(WIDE).await;
    let event = Wanted { event_id: Some("evt-1"), team: "team_nobody", ..EVENT };
    fixture.admit(&[event, event, EVENT]).await;
    assert_eq!(fixture.buried().await, [(0, Unreadable::UnknownTeam), (1, Unreadable::UnknownTeam)]);
    assert_eq!(fixture.started(), [2]);
    assert_eq!(fixture.upto().await, 2, "both count as done");
}

#[tokio::test]
async fn a_record_that_could_not_be_read_is_buried() {
    let mut fixture = Fixture::new(WIDE).await;
    let mut incoming = fixture.incoming(EVENT);
    let event = incoming.decoded.unwrap();
    incoming.decoded = Err(unwanted(&event, Unreadable::NotJson, String::new()));
    fixture.admit.admit(vec![incoming]).await;
    assert!(fixture.admit.deps.flight.settler.flushed().await);
    assert_eq!((fixture.buried().await, fixture.upto().await), (vec![(0, Unreadable::NotJson)], 1));
}

#[tokio::test]
async fn without_room_a_callback_is_parked_for_the_others_sake() {
    let mut fixture = Fixture::new(NARROW).await;
    let other = Wanted { host: "b.example", ..EVENT };
    fixture.admit(&[other, EVENT, EVENT, EVENT, EVENT]).await;
    assert_eq!(fixture.started(), [0, 1], "one in each lane");
    assert_eq!((fixture.parked(), fixture.is_stalled()), (2, false), "and one waits");
}

#[tokio::test]
async fn a_backlog_for_one_lane_stays_in_kafka() {
    let mut fixture = Fixture::new(NARROW).await;
    fixture.admit(&[EVENT; 5]).await;
    assert_eq!((fixture.started(), fixture.parked(), fixture.is_stalled()), (vec![0], 0, true));
    // Now there is room: the first tries begin in order, and the partition is resumed when none waits.
    for next in 1..5 {
        fixture.end_one();
        fixture.admit.offer_waiting().await;
        assert_eq!(fixture.started(), [next]);
    }
    assert_eq!((fixture.parked(), fixture.is_stalled()), (0, false));
    // After a record of another lane, no record waits for the first lane.
    fixture.admit(&[EVENT, Wanted { host: "b.example", ..EVENT }, EVENT]).await;
    assert!(fixture.parked() > 0 && !fixture.is_stalled());
}

#[tokio::test]
async fn while_the_machine_is_the_limit_intake_waits() {
    let mut fixture = Fixture::new(Caps { fast: 2, ..NARROW }).await;
    let other = Wanted { host: "b.example", ..EVENT };
    fixture.admit(&[other, EVENT, EVENT, EVENT, other, other]).await;
    assert_eq!((fixture.started(), fixture.parked(), fixture.is_stalled()), (vec![0, 1], 0, true));
    // Permits are freed: the waiting first tries go to their lanes, in order.
    fixture.end_one();
    fixture.end_one();
    fixture.admit.offer_waiting().await;
    assert_eq!((fixture.started(), fixture.parked(), fixture.is_stalled()), (vec![2, 4], 0, false));
}

#[tokio::test]
async fn what_waits_too_long_behind_a_full_lane_gets_its_row() {
    let mut fixture = Fixture::new(Caps { waiting: 100, ..NARROW }).await;
    fixture.admit(&[Wanted { host: "b.example", ..EVENT }, EVENT, EVENT, EVENT]).await;
    assert_eq!((fixture.started(), fixture.parked()), (vec![0, 1], 0), "there is room to wait");
    fixture.admit.park_stale().await;
    assert_eq!(fixture.parked(), 2);
    let mut alone = Fixture::new(Caps { waiting: 100, ..NARROW }).await;
    alone.admit(&[EVENT; 3]).await;
    alone.admit.park_stale().await;
    assert_eq!(alone.parked(), 0, "nobody else waits for this partition");
}

#[tokio::test]
async fn what_was_given_up_meanwhile_is_left_alone() {
    let mut fixture = Fixture::new(WIDE).await;
    let incoming = fixture.incoming(EVENT);
    fixture.admit.deps.flight.inflight.give_up(&fixture.partition);
    fixture.admit.admit(vec![incoming]).await;
    assert_eq!((fixture.started(), fixture.buried().await), (vec![], vec![]));
    // The same while it waits for room.
    let mut fixture = Fixture::new(NARROW).await;
    fixture.admit(&[EVENT; 4]).await;
    assert!(fixture.is_stalled());
    fixture.admit.deps.flight.inflight.give_up(&fixture.partition);
    fixture.admit.offer_waiting().await;
    assert!(!fixture.is_stalled() && fixture.admit.waiting.is_empty());
    assert_eq!(fixture.started(), [0]);
}
