//! The settle task with the reference store, in a wrapper that can make the store unavailable.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::base::clock::{ManualClock, Timestamp};
use crate::base::metrics::Labels;
use crate::base::stop::Switch;
use crate::flight::testing::{lease, partition};
use crate::flight::{Begin, BodyRoom, Deps, Flight, build, parked};
use crate::model::attempt::Attempt;
use crate::model::lease::Lease;
use crate::model::offsets::Watermark;
use crate::model::retry::Next;
use crate::schedule::{Caps, LaneKey, Lanes, Side, Start};
use crate::store::batch::StoreUp;
use crate::store::faulty::{Faults, FaultyStore};
use crate::store::memory::MemoryStore;
use crate::store::{EngineStore, Options, TakeAsk};

const CAPS: Caps = Caps {
    endpoint: 4,
    origin: 4,
    team: 4,
    fast: 4,
    slow: 4,
    settling: 4,
    unproven: 4,
    lane_bytes: 1_000,
    waiting: 10,
};

struct Kit {
    flight: Flight,
    store: Arc<FaultyStore>,
    epoch: i64,
    stop: Switch,
    notices: mpsc::Receiver<Notice>,
    task: tokio::task::JoinHandle<Result<(), StoreError>>,
}

impl Kit {
    /// A flight room that owns partition 0 from offset 0.
    async fn start() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_764_000_000_000)));
        let memory: Arc<dyn EngineStore> = Arc::new(MemoryStore::new(Options::default(), clock.clone()));
        let store = Arc::new(FaultyStore::new(memory, 1, Faults::default()));
        let instance = store.begin().await.unwrap().instance;
        let taken = store.take(TakeAsk::at_once(instance, partition(0))).await;
        let taken = taken.unwrap().taken().unwrap();
        let (sender, notices) = mpsc::channel(64);
        let (flight, task, _pulse) = build(Deps {
            store: store.clone(),
            store_up: Arc::new(StoreUp::new()),
            instance,
            clock: clock.clone(),
            waker: ClaimWaker::new(clock),
            metrics: metrics(),
            body_room: BodyRoom::new(1 << 30, Duration::ZERO),
            trusted_for: Duration::MAX,
            notices: Some(sender),
        });
        flight.inflight.take(partition(0), taken.epoch, Watermark { upto: 0, seen_upto: 0, last: None });
        let stop = Switch::new();
        let task = tokio::spawn(task.run(stop.stop()));
        Self { flight, store, epoch: taken.epoch, stop, notices, task }
    }

    /// A first try of the record at this offset, which is taken in and begun.
    fn begin(&self, event: u8, offset: i64) -> Arc<Lease> {
        let lease = lease(event, (&partition(0), offset), Some(self.epoch), u64::from(event));
        self.flight.inflight.receive(&partition(0), self.epoch, offset, [event; 32]).expect("the record is new");
        assert_eq!(self.flight.inflight.begin(&lease), Begin::Begun);
        lease
    }

    fn watermark(&self) -> i64 {
        self.flight.inflight.watermark(&partition(0)).expect("it is ours").upto
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&Labels::default()))
}

fn settle(lease: &Lease, outcome: Outcome, next: Next) -> Settle {
    let attempt = Attempt {
        outcome,
        sent: true,
        status: Some(204),
        begun_at: lease.born_at,
        took: Duration::from_millis(1),
        peer: None,
        redialed: false,
        sent_with: None,
        snippet: Bytes::new(),
    };
    Settle {
        facts: Arc::clone(&lease.facts),
        token: lease.token,
        epoch: lease.epoch(),
        url: None,
        body: Bytes::new(),
        number: 1,
        attempt,
        next,
    }
}

/// Lanes that send each start to the test, which then holds its permit.
fn lanes() -> (Arc<Lanes>, std::sync::mpsc::Receiver<Start>) {
    let (sender, starts) = std::sync::mpsc::sync_channel(16);
    (Lanes::new(CAPS, metrics(), Box::new(move |start| sender.send(start).expect("the test waits"))), starts)
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_given_back_only_when_its_settle_is_durable() {
    let kit = Kit::start().await;
    let (lanes, starts) = lanes();
    let first = kit.begin(1, 0);
    let key = LaneKey { team: "team".into(), origin: None };
    lanes.offer(key, Side::Fresh, Arc::clone(&first));
    let Start { slot, permit, .. } = starts.try_recv().expect("it starts at once");
    drop(slot);
    kit.flight.inflight.start(&first);
    kit.store.set_down(true);
    kit.flight.settler.settle(settle(&first, Outcome::Ok, Next::Delivered), permit).await;
    let settled = tokio::time::timeout(Duration::from_secs(60), lanes.settled()).await;
    assert!(settled.is_err(), "the store is down, so the attempt is unsettled");
    assert_eq!(kit.watermark(), 0, "nothing is durable before its batch is written");
    kit.store.set_down(false);
    lanes.settled().await;
    assert!(kit.flight.settler.flushed().await);
    assert_eq!(kit.watermark(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_everything_handed_over_before() {
    let mut kit = Kit::start().await;
    let leases: Vec<_> = (0..3).map(|n| kit.begin(n + 1, i64::from(n))).collect();
    for lease in &leases {
        assert!(kit.flight.inflight.park(lease));
        kit.flight.settler.submit(parked(lease, None)).await;
    }
    assert!(kit.flight.settler.flushed().await);
    assert_eq!(kit.watermark(), 3);
    kit.stop.flip();
    assert!(kit.task.await.unwrap().is_ok(), "a stop ends the task");
    assert!(kit.notices.try_recv().is_err(), "nobody is notified of parks");
}

#[tokio::test(start_paused = true)]
async fn a_broken_store_ends_the_task_and_every_wait_for_it() {
    let kit = Kit::start().await;
    kit.flight.settler.break_off(StoreError::Broken("a test".to_owned())).await;
    assert!(matches!(kit.task.await.unwrap(), Err(StoreError::Broken(_))));
    assert!(!kit.flight.settler.flushed().await);
}

#[tokio::test(start_paused = true)]
async fn what_became_durable_is_told_with_its_verdict() {
    let mut kit = Kit::start().await;
    let first = kit.begin(1, 0);
    kit.flight.inflight.start(&first);
    let (lanes, starts) = lanes();
    lanes.offer(LaneKey { team: "team".into(), origin: None }, Side::Fresh, Arc::clone(&first));
    let permit = starts.try_recv().expect("it starts").permit;
    kit.flight.settler.settle(settle(&first, Outcome::Ok, Next::Delivered), permit).await;
    match kit.notices.recv().await.expect("a notice") {
        Notice::Attempt { verdict, .. } => assert_eq!(verdict, Verdict::Ended(Ended::Delivered)),
        Notice::Buried(_) => panic!("nothing was buried"),
    }
}

fn ticket(change: Change) -> Ticket {
    Ticket::Change { change, permit: None }
}

#[test]
fn a_park_and_a_settle_of_one_callback_collapse_to_the_settle() {
    let first = lease(1, (&partition(0), 0), Some(1), 1);
    let second = lease(2, (&partition(0), 1), Some(1), 2);
    let cut_off = Next::Interrupted { due: first.born_at, since: first.born_at, horizon: first.born_at };
    let mut tickets = vec![
        ticket(parked(&first, Some(Duration::from_secs(1)))),
        ticket(parked(&second, Some(Duration::from_secs(1)))),
        ticket(Change::Settle(Box::new(settle(&first, Outcome::Ok, Next::Delivered)))),
        ticket(Change::Settle(Box::new(settle(&second, Outcome::Interrupted, cut_off)))),
    ];
    collapse(&mut tickets);
    let kinds: Vec<_> = tickets
        .iter()
        .map(|ticket| match ticket {
            Ticket::Change { change: Change::Park(park), .. } => ("park", park.token.0),
            Ticket::Change { change: Change::Settle(settle), .. } => ("settle", settle.token.0),
            _ => ("other", 0),
        })
        .collect();
    assert_eq!(kinds, [("park", 2), ("settle", 1), ("settle", 2)], "an attempt that was cut off keeps its park");
}
