//! The table against a simple world: a log of records, a store that knows which of them are durable, and random events.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::base::clock::{Moment, Timestamp};
use crate::flight::parked;
use crate::flight::testing::{lease, partition};
use crate::model::lease::Facts;
use crate::store::batch::Written;

const EPOCH: i64 = 7;

fn from(upto: i64) -> Watermark {
    Watermark { upto, seen_upto: upto, last: None }
}

fn release(lease: &Lease) -> Change {
    Change::Release { facts: Arc::clone(&lease.facts), token: lease.token }
}

/// Confirms a batch as the store would, with these verdicts and fenced partitions.
fn durable(composed: Composed, verdict: Verdict, lost: Vec<(Arc<PartitionKey>, i64)>) -> Durable {
    let (changes, watermarks) = composed.into_parts();
    let changes = changes.into_iter().map(|change| (change, verdict)).collect();
    Durable::of(Written { changes, watermarks, lost, now: Timestamp::from_millis(0) })
}

/// A table that owns partition 0 from offset 0.
fn table() -> (FlightTable, Arc<PartitionKey>) {
    let mut table = FlightTable::new(Duration::MAX);
    let source = partition(0);
    table.take(Arc::clone(&source), EPOCH, from(0), Moment::now());
    (table, source)
}

fn receive(table: &mut FlightTable, at: &Arc<PartitionKey>, offset: i64) -> Option<Received> {
    table.receive((at, offset), EPOCH, [0; 32], Instant::now())
}

#[test]
fn a_composed_batch_is_not_durable_until_it_is_confirmed() {
    let (mut table, at) = table();
    receive(&mut table, &at, 0).expect("the record is new");
    let first = lease(1, (&at, 0), Some(EPOCH), 1);
    assert_eq!(table.begin(&first), Begin::Begun);
    assert!(table.park(&first));
    let composed = table.compose(vec![parked(&first, None)], Instant::now());
    assert_eq!(table.durable(&at).map(|watermark| watermark.upto), Some(0));
    table.confirm(&durable(composed, Verdict::Parked, Vec::new()), Instant::now());
    assert_eq!(table.durable(&at).map(|watermark| (watermark.upto, watermark.seen_upto)), Some((1, 1)));
}

#[test]
fn a_fenced_watermark_never_counts_as_durable() {
    let (mut table, at) = table();
    receive(&mut table, &at, 0);
    let first = lease(1, (&at, 0), Some(EPOCH), 1);
    table.begin(&first);
    table.park(&first);
    let composed = table.compose(vec![parked(&first, None)], Instant::now());
    table.confirm(&durable(composed, Verdict::Nothing, vec![(Arc::clone(&at), EPOCH)]), Instant::now());
    assert_eq!(table.durable(&at), Some(from(0)));
    assert!(table.fenced(&at, EPOCH));
    assert_eq!(table.take_again(), std::slice::from_ref(&at));
}

#[test]
fn copies_wait_for_the_flight_and_are_done_with_it() {
    let (mut table, at) = table();
    for offset in 0..3 {
        receive(&mut table, &at, offset);
    }
    let first = lease(1, (&at, 0), Some(EPOCH), 1);
    assert_eq!(table.begin(&first), Begin::Begun);
    assert_eq!(table.begin(&lease(1, (&at, 1), Some(EPOCH), 2)), Begin::Repeat);
    let mut other = Arc::into_inner(lease(1, (&at, 2), Some(EPOCH), 3)).expect("one owner");
    other.facts = Arc::new(Facts { content_hash: [9; 32], ..Facts::clone(&other.facts) });
    assert_eq!(table.begin(&Arc::new(other)), Begin::Reused, "the same id with other content is another event");
    table.park(&first);
    let composed = table.compose(vec![parked(&first, None)], Instant::now());
    let landed = table.confirm(&durable(composed, Verdict::Parked, Vec::new()), Instant::now());
    assert_eq!(landed.iter().map(|flight| flight.copies.len()).sum::<usize>(), 1, "a copy became done");
    let next = table.compose(Vec::new(), Instant::now());
    assert!(!next.is_empty(), "the watermark passes the copy");
}

#[test]
fn copies_of_a_park_that_came_to_nothing_are_read_again() {
    let (mut table, at) = table();
    receive(&mut table, &at, 0);
    receive(&mut table, &at, 1);
    let first = lease(1, (&at, 0), Some(EPOCH), 1);
    table.begin(&first);
    table.begin(&lease(1, (&at, 1), Some(EPOCH), 2));
    table.park(&first);
    let composed = table.compose(vec![parked(&first, None)], Instant::now());
    table.confirm(&durable(composed, Verdict::Nothing, Vec::new()), Instant::now());
    assert_eq!(table.take_again(), [at]);
}

#[test]
fn an_attempt_begins_only_from_a_stage_that_waits() {
    let (mut table, at) = table();
    receive(&mut table, &at, 0);
    let first = lease(1, (&at, 0), Some(EPOCH), 1);
    assert!(!table.start(&first, Moment::now()), "it is not under way");
    table.begin(&first);
    assert!(!table.start(&lease(1, (&at, 0), Some(EPOCH), 99), Moment::now()), "another token holds it");
    assert!(table.start(&first, Moment::now()));
    assert!(!table.start(&first, Moment::now()), "an attempt begins once");
    assert!(table.park(&first), "a slow attempt gets its row early");
    assert!(!table.park(&first), "once");
    let row = lease(2, (&at, 0), None, 5);
    table.begin(&row);
    assert!(!table.park(&row), "a claimed row has its row");
    assert!(table.start(&row, Moment::now()));
    assert_eq!(table.started().len(), 2);
}

#[test]
fn a_first_try_begins_only_while_the_store_has_confirmed_its_epoch_lately() {
    let trusted_for = Duration::from_secs(15);
    let (mut table, at, begin) = (FlightTable::new(trusted_for), partition(0), Moment::now());
    let later = |seconds| begin.plus(Duration::from_secs(seconds));
    table.take(Arc::clone(&at), EPOCH, from(0), begin);
    let tries: Vec<_> = (0_u8..3).map(|n| lease(n, (&at, n.into()), Some(EPOCH), n.into())).collect();
    for (offset, first) in (0..).zip(&tries) {
        receive(&mut table, &at, offset);
        table.begin(first);
    }
    assert!(table.start(&tries[0], later(15)));
    assert!(!table.start(&tries[1], later(16)), "the process may have stood still");
    assert_eq!(table.take_again(), std::slice::from_ref(&at));
    // The store confirms the epoch as it was when it was asked, and a late answer takes nothing back.
    let ours = HashMap::from([(Arc::clone(&at), EPOCH)]);
    for asked in [20, 10] {
        let held = table.held();
        assert!(table.hear_epochs(held, Some(&ours), later(asked)).is_empty());
    }
    assert!(table.start(&tries[1], later(35)));
    // Another instance has taken the partition.
    for ours in [HashMap::new(), HashMap::from([(Arc::clone(&at), EPOCH + 1)])] {
        let held = table.held();
        assert_eq!(table.hear_epochs(held, Some(&ours), later(36)), std::slice::from_ref(&at));
        assert_eq!(table.take_again(), std::slice::from_ref(&at));
    }
    // What was taken after the store was asked is not judged by its answer, and a single instance has no rival.
    assert!(table.hear_epochs(vec![(Arc::clone(&at), EPOCH - 1)], Some(&HashMap::new()), later(36)).is_empty());
    let held = table.held();
    assert!(table.hear_epochs(held, None, later(40)).is_empty());
    assert!(table.start(&tries[2], later(55)));
    // A claimed row has a lease of its own.
    let row = lease(9, (&at, 9), None, 9);
    table.begin(&row);
    assert!(table.start(&row, later(1_000)));
}

#[test]
fn first_tries_are_told_apart_from_claimed_rows_until_they_are_durable() {
    let (mut table, at) = table();
    receive(&mut table, &at, 0);
    let first = lease(1, (&at, 0), Some(EPOCH), 1);
    table.begin(&first);
    table.begin(&lease(2, (&at, 0), None, 5));
    let of_task = |table: &FlightTable, task: &str| table.first_tries(9, |facts| *facts.task_id == *task);
    assert_eq!(of_task(&table, "another").len(), 0);
    let found = of_task(&table, "task");
    assert_eq!(found.iter().map(|first| (first.facts.id, first.is_started)).collect::<Vec<_>>(), [(first.id(), false)]);
    table.start(&first, Moment::now());
    assert!(table.first_try(first.id()).is_some_and(|first| first.is_started));
    assert!(table.first_try(CallbackId::from_bytes([2; 16])).is_none(), "a claimed row is in the store");
    assert_eq!(table.first_tries(0, |_| true).len(), 0);
    let composed = table.compose(vec![release(&first)], Instant::now());
    table.confirm(&durable(composed, Verdict::Released, Vec::new()), Instant::now());
    assert!(table.first_try(first.id()).is_none());
}

#[test]
fn a_partition_that_is_given_up_forgets_what_waits_and_parks_what_is_under_way() {
    let (mut table, at) = table();
    let other = partition(1);
    table.take(Arc::clone(&other), EPOCH, from(0), Moment::now());
    for offset in 0..3 {
        receive(&mut table, &at, offset);
    }
    receive(&mut table, &other, 0);
    let queued = lease(1, (&at, 0), Some(EPOCH), 1);
    let started = lease(2, (&at, 1), Some(EPOCH), 2);
    let parking = lease(3, (&at, 2), Some(EPOCH), 3);
    for lease in [&queued, &started, &parking] {
        table.begin(lease);
    }
    assert_eq!(table.begin(&lease(1, (&other, 0), Some(EPOCH), 4)), Begin::Repeat);
    assert!(table.start(&started, Moment::now()) && table.park(&parking));
    let mut to_park = table.give_up(&at);
    to_park.sort_by_key(|park| park.lease.token.0);
    let tokens: Vec<_> = to_park.iter().map(|park| (park.lease.token.0, park.is_started)).collect();
    assert_eq!(tokens, [(2, true), (3, false)]);
    assert!(!table.start(&queued, Moment::now()), "what waited is forgotten");
    assert_eq!(table.take_again(), [other], "its copy elsewhere is read again");
    assert_eq!(table.epoch(&at), None);
    assert_eq!(receive(&mut table, &at, 3), None);
    // Callbacks that were under way still raise the watermark until `gone` is called.
    let parks = to_park.iter().map(|park| parked(&park.lease, None)).collect();
    let composed = table.compose(parks, Instant::now());
    table.confirm(&durable(composed, Verdict::Parked, Vec::new()), Instant::now());
    assert_eq!(table.durable(&at).map(|watermark| (watermark.upto, watermark.seen_upto)), Some((0, 3)));
    table.gone(&at);
    assert_eq!(table.durable(&at), None);
}

#[test]
fn a_park_that_was_preempted_while_its_partition_went_is_written_before_it_is_gone() {
    let (mut table, at) = table();
    receive(&mut table, &at, 0);
    let first = lease(1, (&at, 0), Some(EPOCH), 1);
    table.begin(&first);
    // Admission begins a park, but is preempted before it submits the park.
    assert!(table.park(&first));
    let to_park = table.give_up(&at);
    assert_eq!(to_park.len(), 1, "giving the partition up writes the row");
    let composed = table.compose(vec![parked(&to_park[0].lease, None)], Instant::now());
    table.confirm(&durable(composed, Verdict::Parked, Vec::new()), Instant::now());
    assert_eq!(
        table.durable(&at).map(|watermark| watermark.seen_upto),
        Some(1),
        "the record is looked up when it is read again"
    );
    table.gone(&at);
    let late = table.compose(vec![parked(&first, None)], Instant::now());
    table.confirm(&durable(late, Verdict::Nothing, Vec::new()), Instant::now());
}

/// One step of the random walk.
#[derive(Debug, Clone)]
enum Op {
    Receive { partition: i32, event: u8 },
    Start(usize),
    Park(usize),
    Settle(usize),
    Known(usize),
    Compose,
    Confirm { fenced: bool },
    GiveUp(i32),
    Gone(i32),
    Take(i32),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..2, 0..12_u8).prop_map(|(partition, event)| Op::Receive { partition, event }),
        3 => any::<usize>().prop_map(Op::Start),
        3 => any::<usize>().prop_map(Op::Park),
        4 => any::<usize>().prop_map(Op::Settle),
        1 => any::<usize>().prop_map(Op::Known),
        4 => Just(Op::Compose),
        4 => prop::bool::weighted(0.1).prop_map(|fenced| Op::Confirm { fenced }),
        1 => (0..2).prop_map(Op::GiveUp),
        1 => (0..2).prop_map(Op::Gone),
        2 => (0..2).prop_map(Op::Take),
    ];
    prop::collection::vec(op, 1..120)
}

/// The world around the table.
struct World {
    table: FlightTable,
    leases: Vec<Arc<Lease>>,
    /// Changes that wait for the next batch.
    waiting: Vec<Change>,
    /// At most one batch is being written.
    composed: Option<Composed>,
    /// Events with a row in the store.
    rows: BTreeSet<u8>,
    /// The event at each offset received, by partition.
    log: BTreeMap<i32, Vec<u8>>,
    epochs: BTreeMap<i32, i64>,
    stored: BTreeMap<i32, Watermark>,
}

impl World {
    fn new() -> Self {
        Self {
            table: FlightTable::new(Duration::MAX),
            leases: Vec::new(),
            waiting: Vec::new(),
            composed: None,
            rows: BTreeSet::new(),
            log: BTreeMap::new(),
            epochs: BTreeMap::new(),
            stored: BTreeMap::new(),
        }
    }

    fn pick(&self, at: usize) -> Option<Arc<Lease>> {
        (!self.leases.is_empty()).then(|| Arc::clone(&self.leases[at % self.leases.len()]))
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Receive { partition, event } => self.receive(*partition, *event),
            Op::Start(at) => {
                if let Some(lease) = self.pick(*at) {
                    self.table.start(&lease, Moment::now());
                }
            }
            Op::Park(at) => {
                if let Some(lease) = self.pick(*at)
                    && self.table.park(&lease)
                {
                    self.waiting.push(parked(&lease, None));
                }
            }
            // A release represents every end that removes the callback and writes no first row.
            Op::Settle(at) => {
                if let Some(lease) = self.pick(*at)
                    && self.rows.contains(&lease.facts.content_hash[0])
                {
                    self.waiting.push(release(&lease));
                }
            }
            Op::Known(at) => {
                if let Some(lease) = self.pick(*at)
                    && self.rows.contains(&lease.facts.content_hash[0])
                {
                    self.table.known(&lease, Instant::now());
                }
            }
            Op::Compose if self.composed.is_none() => {
                let changes = std::mem::take(&mut self.waiting);
                self.composed = Some(self.table.compose(changes, Instant::now()));
            }
            Op::Compose => {}
            Op::Confirm { fenced } => self.confirm(*fenced),
            Op::GiveUp(number) => {
                for park in self.table.give_up(&partition(*number)) {
                    self.waiting.push(parked(&park.lease, None));
                }
            }
            Op::Gone(number) => drop(self.table.gone(&partition(*number))),
            Op::Take(number) => self.take(*number),
        }
    }

    fn receive(&mut self, number: i32, event: u8) {
        let key = partition(number);
        let Some(epoch) = self.table.epoch(&key) else { return };
        let log = self.log.entry(number).or_default();
        let offset = i64::try_from(log.len()).expect("a short log");
        log.push(event);
        if self.table.receive((&key, offset), epoch, [0; 32], Instant::now()).is_none() {
            return;
        }
        let lease = lease(event, (&key, offset), Some(epoch), self.leases.len() as u64);
        if self.table.begin(&lease) == Begin::Begun {
            self.leases.push(lease);
        }
    }

    /// `fenced` means that another instance took every partition before the batch came, so these epochs are over.
    fn confirm(&mut self, fenced: bool) {
        let Some(composed) = self.composed.take() else { return };
        if fenced {
            self.epochs.values_mut().for_each(|epoch| *epoch += 1);
        }
        let (changes, watermarks) = composed.into_parts();
        let mut lost = Vec::new();
        let mut written = Vec::new();
        for change in changes {
            let ours = change
                .record()
                .is_none_or(|(record, epoch)| !fenced && self.epochs.get(&record.partition.number) == Some(&epoch));
            let verdict = match (&change, change.record()) {
                (Change::Park(_), Some((record, epoch))) if !ours => {
                    lost.push((Arc::clone(&record.partition), epoch));
                    Verdict::Nothing
                }
                (Change::Park(park), _) if self.rows.insert(park.facts.content_hash[0]) => Verdict::Parked,
                (Change::Park(_), _) => Verdict::Nothing,
                _ => Verdict::Released,
            };
            written.push((change, verdict));
        }
        for written in &watermarks {
            if self.epochs.get(&written.partition.number) == Some(&written.epoch) {
                self.stored.insert(written.partition.number, written.watermark);
            } else {
                lost.push((Arc::clone(&written.partition), written.epoch));
            }
        }
        let batch = Durable::of(Written { changes: written, watermarks, lost, now: Timestamp::from_millis(0) });
        self.table.confirm(&batch, Instant::now());
    }

    /// A partition is taken only after the last batch of its earlier epoch: the consumer's thread waits for it.
    fn take(&mut self, number: i32) {
        let key = partition(number);
        if self.table.epoch(&key).is_some() {
            return;
        }
        let epoch = self.epochs.get(&number).map_or(1, |epoch| epoch + 1);
        self.epochs.insert(number, epoch);
        let stored = self.stored.get(&number).copied().unwrap_or(from(0));
        self.log.entry(number).or_default().truncate(usize::try_from(stored.upto).expect("a short log"));
        self.table.take(key, epoch, stored, Moment::now());
    }

    /// Every record below a watermark in the store has a row, after any sequence of events.
    fn check(&self) {
        for (number, stored) in &self.stored {
            let log = &self.log[number];
            for event in &log[..usize::try_from(stored.upto).expect("a short log")] {
                assert!(self.rows.contains(event), "partition {number} stands at {stored:?}, but {event} has no row");
            }
        }
        for (number, epoch) in &self.epochs {
            let key = partition(*number);
            if self.table.epoch(&key) == Some(*epoch) {
                let durable = self.table.durable(&key).expect("it is ours");
                let stored = self.stored.get(number).copied().unwrap_or(from(0));
                assert!(durable.upto <= stored.upto, "{durable:?} is above what the store has: {stored:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_lies_below_a_watermark_has_a_row(ops in ops()) {
        let mut world = World::new();
        for number in 0..2 {
            world.take(number);
        }
        for op in &ops {
            world.step(op);
            world.check();
        }
    }
}
