//! Small models of a log, a client and a store around one partition. They check each of its actions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::intake::partition::{
    AcceptFrom, Action, Committed, Event, Flow, LogEnds, Partition, PartitionState, Place, Reset, ResetWay,
    StartOverCause,
};
use crate::model::callback::Hash;
use crate::model::offsets::{UNREAD, Watermark};
use crate::store::Taken;

pub(super) const OURS: &str = "st_ours";

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Records, and then control records, which are offsets without a record.
    Append(i64, i64),
    /// Retention removes offsets at the beginning.
    Delete(i64),
    /// The topic is re-created with this many records.
    Recreate(i64),
    /// The client gives the next record, reaches the end, or finds its offset out of range.
    Poll,
    /// Kafka refuses an offset of some partition.
    OutOfRange,
    /// A question is answered, or not.
    Answer,
    Fail,
    Tick,
    Fence,
    /// This many records become durable.
    Settle(usize),
    Position,
    ForgetPosition,
    Unreadable,
    /// The sandbox has reached the end of the log.
    LeaveSandbox,
    /// Somebody writes the group's committed offset.
    Commit(&'static str, i64),
    CommitDue,
    /// The store is restored from an older copy.
    Restore(usize),
    Accept(AcceptFrom),
    /// An operator moves the watermark to this offset, or to the nearest one of the log.
    Reset(ResetWay, i64),
    Flow(bool, u64),
    Revoke,
}

/// Everything around one partition.
pub(super) struct World {
    machine: Partition,
    // The log.
    low: i64,
    high: i64,
    records: BTreeMap<i64, Hash>,
    generation: u32,
    written: u64,
    /// Offsets of this log that retention removed, and those that were counted as lost.
    removed: BTreeSet<i64>,
    lost: BTreeSet<i64>,
    committed: Option<Committed>,
    // The client.
    next: Option<i64>,
    position: Option<i64>,
    /// A pause lasts beyond an assignment. While a sandbox reads, the client is paused whatever the machine says.
    client_paused: bool,
    sandboxed: bool,
    now: Instant,
    // The store.
    epoch: i64,
    row: Watermark,
    accepted: Option<String>,
    /// The row as it was when the partition was taken last.
    taken: Watermark,
    /// The log that the row belongs to.
    row_generation: u32,
    copies: Vec<Watermark>,
    // The records under way.
    held: bool,
    outstanding: Vec<(i64, Hash)>,
    admitted: BTreeSet<i64>,
    asked: Option<Action>,
    blocked: bool,
    revoked: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            machine: Partition::new(OURS.into()),
            low: 0,
            high: 0,
            records: BTreeMap::new(),
            generation: 0,
            written: 0,
            removed: BTreeSet::new(),
            lost: BTreeSet::new(),
            committed: None,
            next: None,
            position: None,
            client_paused: false,
            sandboxed: false,
            now: Instant::now(),
            epoch: 0,
            row: Watermark { upto: 0, seen_upto: 0, last: None },
            accepted: None,
            taken: Watermark { upto: 0, seen_upto: 0, last: None },
            row_generation: 0,
            copies: Vec::new(),
            held: false,
            outstanding: Vec::new(),
            admitted: BTreeSet::new(),
            asked: None,
            blocked: false,
            revoked: false,
        };
        world.tell(Event::Assigned);
        world
    }

    /// Whether records are counted under an epoch.
    pub(super) fn holds(&self) -> bool {
        self.held
    }

    fn append(&mut self, count: i64) {
        for _ in 0..count {
            self.written += 1;
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&self.written.to_le_bytes());
            self.records.insert(self.high, hash);
            self.high += 1;
        }
    }

    fn delete(&mut self, count: i64) {
        let low = (self.low + count).min(self.high);
        self.removed.extend(self.low..low);
        self.low = low;
        self.records.retain(|offset, _| *offset >= low);
    }

    fn recreate(&mut self, count: i64) {
        (self.low, self.high) = (0, 0);
        self.records.clear();
        self.removed.clear();
        self.lost.clear();
        self.generation += 1;
        self.append(count);
    }

    pub(super) fn run(&mut self, op: Op) {
        match op {
            Op::Append(records, gap) => {
                self.append(records);
                self.high += gap;
            }
            Op::Delete(count) => self.delete(count),
            Op::Recreate(count) => self.recreate(count),
            Op::Poll => self.poll(),
            Op::OutOfRange => self.tell(Event::OutOfRange),
            Op::Answer => self.answer(),
            Op::Fail => {
                if self.asked.take().is_some() {
                    self.tell(Event::NoAnswer);
                }
            }
            Op::Tick => self.tell(Event::Tick),
            Op::Fence => self.tell(Event::Fenced),
            Op::Settle(count) => self.settle(count),
            Op::Position => self.tell(Event::Position(self.position)),
            Op::ForgetPosition => self.position = None,
            Op::Unreadable => self.unreadable(),
            Op::LeaveSandbox => self.client_paused &= !std::mem::take(&mut self.sandboxed),
            Op::Commit(who, offset) => self.committed = Some(Committed { offset, store: who.into() }),
            Op::CommitDue => self.tell(Event::CommitDue { durable_upto: self.row.upto }),
            Op::Restore(back) => {
                if !self.held
                    && let Some(copy) = self.copies.iter().rev().nth(back)
                {
                    self.row = *copy;
                }
            }
            Op::Accept(from) => {
                if matches!(self.machine.state(), PartitionState::Blocked(_)) {
                    self.blocked = false;
                }
                self.tell(Event::Accepted(from));
            }
            Op::Reset(way, to) => {
                let reset = Reset { way, to: to.clamp(self.low, self.high), log_end: self.high };
                self.tell(Event::Reset(reset));
            }
            Op::Flow(hold, millis) => {
                self.now += Duration::from_millis(millis);
                let outstanding = self.outstanding.len();
                self.tell(Event::Flow(Flow { now: self.now, hold, outstanding, window: 8 }));
            }
            Op::Revoke => {
                self.tell(Event::Revoked);
                self.revoked = true;
            }
        }
    }

    /// The client waits for its new offset, or never got one.
    fn at(&self) -> Option<i64> {
        let moving = matches!(self.asked, Some(Action::AssignAt(_) | Action::AssignSandboxed(_) | Action::SkipTo(_)));
        self.next.filter(|_| !moving && (self.sandboxed || !self.client_paused))
    }

    fn poll(&mut self) {
        let Some(at) = self.at() else { return };
        if at < self.low || at > self.high {
            // The client stops here until it is sent elsewhere.
            self.next = None;
            self.tell(Event::OutOfRange);
            return;
        }
        let record = self.records.range(at..).next().map(|(offset, hash)| (*offset, *hash));
        let next = record.map_or(self.high, |(offset, _)| offset + 1);
        self.next = Some(next);
        self.position = Some(next);
        if let Some((offset, hash)) = record {
            self.tell(Event::Read { offset, hash });
        }
    }

    fn unreadable(&mut self) {
        let Some(at) = self.at() else { return };
        if let Some((offset, _)) = self.records.range(at..).next().map(|(offset, hash)| (*offset, *hash)) {
            self.next = Some(offset + 1);
            self.position = Some(offset + 1);
            self.records.insert(offset, UNREAD);
            self.tell(Event::Read { offset, hash: UNREAD });
        }
    }

    fn settle(&mut self, count: usize) {
        if !self.held {
            return;
        }
        for (offset, hash) in self.outstanding.drain(..count.min(self.outstanding.len())) {
            self.row = Watermark { upto: offset + 1, seen_upto: offset + 1, last: Some((offset, hash)) };
        }
        self.copies.push(self.row);
    }

    fn answer(&mut self) {
        let Some(action) = self.asked.take() else { return };
        match action {
            Action::AskCommitted => self.tell(Event::Committed(self.committed.clone())),
            Action::AskEnds(_) => {
                let watermark = self.held.then_some(self.row);
                self.tell(Event::LogEnds(LogEnds { low: self.low, high: self.high, watermark }));
            }
            Action::Take => self.take(),
            Action::StartOver { start, log_end, cause } => {
                if let StartOverCause::Reset { way, from } = cause {
                    assert_eq!(way == ResetWay::Skip, start > from, "{way:?} from {from} to {start}");
                    assert_eq!(from, self.taken.upto, "the store says from where");
                    assert!(log_end >= self.taken.seen_upto, "what may have rows is looked up");
                }
                self.row = Watermark { upto: start, seen_upto: log_end, last: None };
                self.row_generation = self.generation;
                self.copies.clear();
                if let StartOverCause::Accepted { store } = cause {
                    self.accepted = Some(store.to_string());
                }
                self.take();
            }
            Action::AssignAt(place) => self.assign(place, false),
            Action::AssignSandboxed(place) => self.assign(place, true),
            Action::SkipTo(offset) => {
                self.pass(offset);
                self.move_to(offset);
            }
            other => unreachable!("{other:?} has no answer"),
        }
    }

    fn assign(&mut self, place: Place, sandboxed: bool) {
        self.sandboxed = sandboxed;
        self.client_paused |= sandboxed;
        self.move_to(match place {
            Place::Beginning => self.low,
            Place::Offset(offset) => offset,
        });
    }

    fn take(&mut self) {
        self.epoch += 1;
        self.taken = self.row;
        let fresh = self.row.upto == 0 && self.row.seen_upto == 0 && self.accepted.is_none();
        self.tell(Event::Taken(Taken {
            epoch: self.epoch,
            watermark: self.row,
            fresh,
            knows_cluster: !fresh,
            accepted: self.accepted.clone(),
            deaths: u32::try_from(self.epoch % 3).expect("small"),
        }));
    }

    fn move_to(&mut self, offset: i64) {
        // The client gives its earlier position until it is asked again or a record comes.
        self.next = Some(offset);
        self.tell(Event::Moved);
    }

    fn pass(&mut self, position: i64) {
        if self.row_generation == self.generation {
            let unread = self.records.range(self.row.upto..position.max(self.row.upto));
            let unread: Vec<_> = unread.filter(|(offset, _)| !self.admitted.contains(offset)).collect();
            assert!(unread.is_empty(), "passed without being read: {unread:?}");
        }
        if self.outstanding.is_empty() && position > self.row.upto {
            self.row.upto = position;
        }
    }

    fn tell(&mut self, event: Event) {
        let before = self.machine.state().clone();
        let was_reading = self.machine.reads();
        let was_blocked = matches!(self.machine.state(), PartitionState::Blocked(_));
        let accepts = matches!(event, Event::Accepted(_) | Event::Committed(_) | Event::LogEnds(_) | Event::Taken(_));
        let revokes = matches!(event, Event::Revoked);
        let record = match event {
            Event::Read { offset, hash } => Some((offset, hash)),
            _ => None,
        };
        for action in self.machine.on(event) {
            assert!(!self.revoked, "{action:?} after the partition was revoked");
            assert!(!revokes || action == Action::GiveUp, "{action:?} at the revocation");
            if action.awaits_an_answer() {
                assert!(self.asked.is_none(), "{action:?} while {:?} is not answered", self.asked);
                assert!(!was_blocked || accepts, "{action:?} of a blocked partition");
                self.asked = Some(action.clone());
            }
            self.check(action, was_reading, record);
        }
        if let (PartitionState::Verifying { offset, hash }, Some(record)) = (before, record) {
            let verified = *self.machine.state() == PartitionState::Reading;
            let is_known = record == (offset, hash) || record == (offset, UNREAD);
            assert!(!verified || is_known, "another record was taken for the known one");
        }
    }

    fn check(&mut self, action: Action, was_reading: bool, record: Option<(i64, Hash)>) {
        match action {
            Action::GiveUp => {
                assert!(self.held, "there is something to give up");
                self.held = false;
                self.sandboxed = false;
                self.outstanding.clear();
            }
            Action::Pause => self.client_paused = true,
            Action::Resume => self.client_paused &= self.sandboxed,
            Action::Take | Action::StartOver { .. } => assert!(!self.held, "a new epoch before the old is given up"),
            Action::Hold { epoch, watermark } => {
                assert!(!self.held && epoch == self.epoch && watermark == self.row);
                self.held = true;
                self.admitted.clear();
            }
            Action::Admit => {
                assert!(was_reading && self.held && !self.blocked, "a record leaves {:?}", self.machine.state());
                let (offset, hash) = record.expect("a record in hand");
                // As in the offset tracker, a record that was received before is not received again.
                if offset >= self.row.upto && self.admitted.insert(offset) {
                    self.outstanding.push((offset, hash));
                }
            }
            Action::AssignAt(_) | Action::AssignSandboxed(_) => assert!(!self.blocked, "a blocked partition is read"),
            Action::Block(_) => self.blocked = true,
            Action::CountLost { lost, begin } => {
                assert!(lost > 0);
                for offset in begin - lost..begin {
                    assert!(offset >= self.row.upto, "{offset} lies below the watermark");
                    assert!(self.removed.contains(&offset), "{offset} was never removed");
                    assert!(!self.admitted.contains(&offset), "{offset} was read");
                    assert!(self.lost.insert(offset), "{offset} was counted before");
                }
            }
            Action::PassTo(position) => self.pass(position),
            Action::Commit(offset) => assert!(offset == self.row.upto && was_reading),
            Action::AskCommitted | Action::AskEnds(_) | Action::SkipTo(_) | Action::StoreWentBack { .. } => {}
        }
    }

    /// One more record comes, and from now on every question is answered: the partition must read its log to the end.
    pub(super) fn come_to_rest(&mut self) {
        self.append(1);
        for _ in 0..400 {
            let at_end = self.asked.is_none() && self.next == Some(self.high);
            if at_end && *self.machine.state() == PartitionState::Reading {
                break;
            }
            self.run(Op::Accept(AcceptFrom::Earliest));
            self.run(Op::Settle(64));
            self.run(Op::Flow(false, 2_000));
            self.run(Op::LeaveSandbox);
            self.run(Op::Answer);
            self.run(Op::Poll);
            self.run(Op::Tick);
        }
        assert_eq!(*self.machine.state(), PartitionState::Reading, "{:?}", self.machine);
        if self.row_generation == self.generation {
            let records = self.records.range(self.row.upto..);
            let unread: Vec<_> = records.filter(|(offset, _)| !self.admitted.contains(offset)).collect();
            assert!(unread.is_empty(), "never read: {unread:?}");
        }
    }
}
