//! The lock and its guards: what is given back starts what waits.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::*;
use crate::base::clock::{Moment, Timestamp};
use crate::base::metrics::Labels;
use crate::model::callback::CallbackId;
use crate::model::endpoint::{Origin, QueueKey, QueueTarget};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::{Facts, Right, Token};
use crate::model::retry::Progress;
use crate::model::team::Mode;

const CAPS: Caps =
    Caps { endpoint: 2, origin: 4, team: 4, fast: 3, slow: 1, settling: 1, unproven: 3, lane_bytes: 3, waiting: 1 };

/// Lanes whose starter puts each attempt into a list.
struct Bench {
    lanes: Arc<Lanes>,
    started: Arc<Mutex<Vec<Start>>>,
}

impl Bench {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new(&Labels::default()));
        let started = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&started);
        let starter = Box::new(move |start| into.lock().unwrap().push(start));
        Self { lanes: Lanes::new(CAPS, metrics, starter), started }
    }

    fn offer(&self, host: &str, side: Side, number: u8) {
        let key = LaneKey { team: "team".into(), origin: Origin::parse(&format!("https://{host}")) };
        self.lanes.offer(key, side, lease(number));
    }

    /// The attempts that started since the last call. Dropping one gives its slot and permit back.
    fn take(&self) -> Vec<Start> {
        std::mem::take(&mut *self.started.lock().unwrap())
    }

    fn numbers(starts: &[Start]) -> Vec<u8> {
        starts.iter().map(|start| start.lease.id().as_bytes()[0]).collect()
    }
}

fn lease(number: u8) -> Arc<Lease> {
    let queue = QueueKey { team: "team".into(), target: QueueTarget::Default(Mode::Live) };
    let partition = Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 });
    let facts = Facts {
        id: CallbackId::from_bytes([number; 16]),
        record: RecordRef { partition, offset: 0, timestamp: 0 },
        team: "team".into(),
        task_id: "task".into(),
        event_id: None,
        event_type: "task.completed".into(),
        queue,
        mode: Mode::Live,
        content_hash: [0; 32],
        builder: 1,
    };
    Arc::new(Lease {
        facts: Arc::new(facts),
        url: None,
        body: Bytes::from_static(b"{}"),
        no_body: None,
        progress: Progress::default(),
        round: 0,
        new_id: false,
        token: Token(1),
        right: Right::Row,
        born_at: Timestamp::from_millis(0),
        born: Moment::now(),
        until: None,
        suspect: None,
    })
}

#[test]
fn a_slot_that_is_dropped_starts_the_next_of_its_lane() {
    let bench = Bench::new();
    for number in 0..3 {
        bench.offer("a.example", Side::Fresh, number);
    }
    let mut starts = bench.take();
    assert_eq!(Bench::numbers(&starts), [0, 1], "the endpoint's slots");
    let Start { slot, permit, .. } = starts.remove(0);
    drop(slot);
    assert_eq!(Bench::numbers(&bench.take()), [2], "started in the same call, while the first permit is still held");
    drop(permit);
}

#[test]
fn a_permit_that_is_dropped_or_moved_starts_the_next() {
    let bench = Bench::new();
    for number in 0..6 {
        bench.offer(&format!("h{number}.example"), Side::Fresh, number);
    }
    let mut starts = bench.take();
    assert_eq!(Bench::numbers(&starts), [0, 1, 2], "the fast permits");
    starts[0].permit.to_slow();
    // The team's slots are all taken from here on.
    let fourth = bench.take();
    assert_eq!(Bench::numbers(&fourth), [3]);
    let Start { slot, mut permit, .. } = starts.remove(1);
    drop(slot);
    assert!(bench.take().is_empty(), "no fast permit");
    permit.to_settling();
    let fifth = bench.take();
    assert_eq!(Bench::numbers(&fifth), [4]);
    drop(permit);
    assert!(bench.take().is_empty(), "the attempt no longer held a fast permit");
    let Start { slot, permit, .. } = starts.remove(0);
    drop(slot);
    assert!(bench.take().is_empty(), "a slot is free, but no fast permit");
    drop(permit);
    assert!(bench.take().is_empty(), "the slow pool gives no fast permit");
    drop(fourth);
    assert_eq!(Bench::numbers(&bench.take()), [5]);
}

#[test]
fn more_starts_than_fit_into_one_hold_of_the_lock() {
    let bench = Bench::new();
    let caps = Caps { endpoint: 100, origin: 100, team: 100, fast: 100, unproven: 100, ..CAPS };
    bench.lanes.set_open(false);
    for number in 0..11 {
        bench.offer("a.example", Side::Fresh, number);
    }
    bench.lanes.set_caps(caps);
    assert!(bench.take().is_empty());
    bench.lanes.set_open(true);
    assert_eq!(Bench::numbers(&bench.take()), (0..11).collect::<Vec<_>>());
}

#[test]
fn nothing_starts_and_no_row_is_claimed_while_closed() {
    let bench = Bench::new();
    bench.lanes.set_open(false);
    bench.offer("a.example", Side::Due, 0);
    assert!(bench.take().is_empty());
    assert_eq!(bench.lanes.rooms().0, 0);
    bench.lanes.set_open(true);
    let starts = bench.take();
    assert_eq!(starts.len(), 1, "opening starts what waits");
    let (free, rooms) = bench.lanes.rooms();
    assert_eq!((free, rooms.len(), rooms[0].rows), (2, 1, 1), "one of its two slots");
    bench.offer("b.example", Side::Due, 1);
    bench.offer("b.example", Side::Due, 2);
    bench.offer("b.example", Side::Due, 3);
    let held = bench.take();
    assert_eq!(held.len(), 2);
    let waiting: Vec<_> = bench.lanes.close().iter().map(|lease| lease.id().as_bytes()[0]).collect();
    assert_eq!(waiting, [3], "closing gives back what waits");
    bench.lanes.set_open(true);
    bench.offer("a.example", Side::Due, 4);
    drop((starts, held));
    assert!(bench.take().is_empty(), "closed for good");
}

#[test]
fn a_slot_that_is_dropped_is_no_longer_in_flight() {
    let bench = Bench::new();
    bench.offer("a.example", Side::Fresh, 0);
    let start = bench.take().remove(0);
    assert_eq!(bench.lanes.snapshot()[0].in_flight, 1);
    drop(start);
    assert_eq!(bench.lanes.snapshot()[0].in_flight, 0);
    assert_eq!(bench.lanes.lane_states(), (1, 0));
}

#[test]
fn fresh_callbacks_become_stale_only_while_the_machine_has_room() {
    let bench = Bench::new();
    for number in 0..3 {
        bench.offer("a.example", Side::Fresh, number);
    }
    let held = bench.take();
    bench.offer("b.example", Side::Fresh, 3);
    let last_permit = bench.take();
    assert!(bench.lanes.machine_is_the_limit());
    assert!(bench.lanes.stale(Duration::ZERO, |_| true).is_empty());
    drop(last_permit);
    assert_eq!(bench.lanes.stale(Duration::ZERO, |_| true).len(), 1, "the lane at its cap is to blame");
    drop(held);
}

#[tokio::test]
async fn settled_waits_for_the_last_permit() {
    let bench = Bench::new();
    bench.offer("a.example", Side::Fresh, 0);
    let Start { slot, permit, .. } = bench.take().remove(0);
    let lanes = Arc::clone(&bench.lanes);
    let mut settled = std::pin::pin!(lanes.settled());
    assert!(settled.as_mut().now_or_never().is_none());
    drop(slot);
    assert!(settled.as_mut().now_or_never().is_none(), "the settle is not durable yet");
    drop(permit);
    assert!(settled.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn what_comes_free_is_told_to_intake_and_to_the_claim() {
    let bench = Bench::new();
    bench.offer("a.example", Side::Fresh, 0);
    let Start { slot, permit, .. } = bench.take().remove(0);
    let mut claim = std::pin::pin!(bench.lanes.slot_freed.notified());
    let mut intake = std::pin::pin!(bench.lanes.room_freed.notified());
    assert!(claim.as_mut().now_or_never().is_none() && intake.as_mut().now_or_never().is_none());
    drop(slot);
    assert!(claim.as_mut().now_or_never().is_some() && intake.as_mut().now_or_never().is_some());
    let mut intake = std::pin::pin!(bench.lanes.room_freed.notified());
    assert!(intake.as_mut().now_or_never().is_none());
    drop(permit);
    assert!(intake.as_mut().now_or_never().is_some());
}
