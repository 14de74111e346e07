//! One partition of Kafka, as a pure state machine: it receives events and returns actions.
//!
//! It decides whether the log is the one the store knows, from where it is read, when it is given up and taken again,
//! and when it is paused. It never calls Kafka or the store, reads no clock and takes no lock, so that every decision
//! can be tested alone. `intake::interpret` carries its actions out and brings the answers back as events.
//!
//! It asks one question at a time: while an answer is outstanding, no other question is asked.

mod event;
mod log;
mod reset;

pub use event::{
    AcceptFrom, Action, Actions, BlockReason, Check, Committed, Event, Flow, LogEnds, Place, StartOverCause,
    StartOverReason, Suspicion,
};
pub use reset::{NoReset, Reset, ResetFacts, ResetPlan, ResetTo, ResetWay, Unready, plan};

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::callback::Hash;
use crate::model::offsets::{UNREAD, Watermark};
use crate::store::Taken;

/// The shortest time between a pause and a resume of one partition: a pause throws away what was prefetched.
const HYSTERESIS: Duration = Duration::from_secs(1);

/// After so many deaths one after the other at the same place, a record there is suspected.
const SUSPECT_DEATHS: u32 = 2;

/// The state of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// No epoch is ours. The partition is taken as soon as Kafka and the store answer.
    NotTaken,
    /// Another store wrote Kafka's offsets. An operator must say where to start.
    Blocked(BlockReason),
    /// Read from the last data record below the watermark, which must be the one we know.
    Verifying { offset: i64, hash: Hash },
    /// Records are handed over.
    Reading,
    /// The group took the partition away.
    Revoked,
}

#[derive(Debug)]
pub struct Partition {
    /// Our own store's id.
    store: Arc<str>,
    state: PartitionState,
    awaits: Option<Awaited>,
    /// The epoch that the store gave last.
    epoch: i64,
    /// Records are counted under the epoch: it must be given up before the next one.
    held: bool,
    /// The last watermark that this machine was told.
    watermark: Watermark,
    /// One above the highest offset that was handed over or passed in this epoch.
    read_upto: Option<i64>,
    /// Every record below was read or counted as lost, and is never counted as lost again.
    counted_upto: i64,
    /// The log was found to be another one, and the store has not started over yet.
    has_other_log: bool,
    /// In this assignment, the client was already sent to an offset.
    placed: bool,
    /// The client's position may still be an earlier one.
    position_is_stale: bool,
    /// Unknown (`None`) after an assignment, because a pause lasts beyond a revocation.
    paused: Option<bool>,
    turned_at: Option<Instant>,
    /// The offset that was committed last.
    committed: Option<i64>,
}

/// The question whose answer is outstanding.
#[derive(Debug)]
enum Awaited {
    Committed {
        accept: Option<AcceptFrom>,
    },
    Taken {
        committed: Option<Committed>,
    },
    /// An operator moves the watermark: the partition was given up, and is taken again for it.
    TakenToReset(Reset),
    StartedOver(Begin),
    Ends(Check),
    Moved,
    /// The partition has been given up since, so the answer no longer matters.
    Obsolete,
}

/// How a partition starts over.
#[derive(Debug, Clone, Copy)]
enum Begin {
    NewLog,
    /// An operator accepted its offsets.
    Accepted,
    /// An operator moved its watermark, which was at `from`.
    Reset {
        from: i64,
    },
}

impl Partition {
    pub fn new(store: Arc<str>) -> Self {
        Self {
            store,
            state: PartitionState::NotTaken,
            awaits: None,
            epoch: 0,
            held: false,
            watermark: Watermark { upto: 0, seen_upto: 0, last: None },
            read_upto: None,
            counted_upto: 0,
            has_other_log: false,
            placed: false,
            position_is_stale: false,
            paused: None,
            turned_at: None,
            committed: None,
        }
    }

    pub fn state(&self) -> &PartitionState {
        &self.state
    }

    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    pub fn reads(&self) -> bool {
        matches!(self.state, PartitionState::Reading | PartitionState::Verifying { .. })
    }

    /// Whether records are taken as they come.
    pub fn is_flowing(&self) -> bool {
        self.reads() && self.paused == Some(false) && self.awaits.is_none()
    }

    pub fn is_paused(&self) -> bool {
        self.paused == Some(true)
    }

    /// Whether an operator's decision is still being carried out.
    pub fn is_accepting(&self) -> bool {
        matches!(
            self.awaits,
            Some(
                Awaited::Committed { accept: Some(_) }
                    | Awaited::Ends(Check::Accept { .. })
                    | Awaited::StartedOver(Begin::Accepted)
            )
        )
    }

    /// Takes an event, and returns the actions that follow from it.
    pub fn on(&mut self, event: Event) -> Actions {
        if self.state == PartitionState::Revoked {
            return Actions::none();
        }
        match event {
            Event::Read { offset, hash } => self.read(offset, hash),
            Event::Assigned | Event::Tick => self.tick(),
            Event::Committed(committed) => self.know_committed(committed),
            Event::Taken(taken) => self.taken(&taken),
            Event::LogEnds(ends) => self.know_ends(ends),
            Event::Moved => self.moved(),
            Event::NoAnswer => self.no_answer(),
            Event::OutOfRange if self.reads() => self.ask_ends(Check::OutOfRange),
            Event::Fenced if self.reads() => self.give_up(),
            Event::OtherLog if self.reads() => self.know_other_log(),
            Event::OutOfRange | Event::Fenced | Event::OtherLog => Actions::none(),
            Event::Accepted(from) => self.accept(from),
            Event::Reset(reset) => self.reset(reset),
            Event::Position(position) => self.position(position),
            Event::Flow(flow) => self.flow(flow),
            Event::CommitDue { durable_upto } => self.commit(durable_upto),
            Event::CommitFailed => {
                self.committed = None;
                Actions::none()
            }
            Event::Revoked => {
                let actions = self.give_up();
                self.state = PartitionState::Revoked;
                actions
            }
        }
    }

    fn tick(&mut self) -> Actions {
        match self.state {
            _ if self.awaits.is_some() => Actions::none(),
            PartitionState::NotTaken => self.ask(Awaited::Committed { accept: None }, Action::AskCommitted),
            // If the log ends at the record we know, there is nothing to compare until the next record comes.
            PartitionState::Verifying { .. } => self.ask_ends(Check::Silent),
            _ => Actions::none(),
        }
    }

    fn accept(&mut self, from: AcceptFrom) -> Actions {
        if matches!(self.state, PartitionState::Blocked(_)) && self.awaits.is_none() {
            // A tool of the operator may have moved the group's offset.
            return self.ask(Awaited::Committed { accept: Some(from) }, Action::AskCommitted);
        }
        Actions::none()
    }

    fn know_committed(&mut self, committed: Option<Committed>) -> Actions {
        match self.awaits.take_if(|awaits| matches!(awaits, Awaited::Committed { .. })) {
            Some(Awaited::Committed { accept: Some(from) }) => self.ask_ends(Check::Accept { from, committed }),
            Some(_) => self.ask(Awaited::Taken { committed }, Action::Take),
            None => Actions::none(),
        }
    }

    fn taken(&mut self, taken: &Taken) -> Actions {
        let asked = |awaits: &mut Awaited| {
            matches!(awaits, Awaited::Taken { .. } | Awaited::TakenToReset(_) | Awaited::StartedOver(_))
        };
        let committed = match self.awaits.take_if(asked) {
            Some(Awaited::Taken { committed }) => committed,
            Some(Awaited::TakenToReset(reset)) => return self.taken_to_reset(reset, taken),
            Some(Awaited::StartedOver(begin)) => {
                self.has_other_log = false;
                self.forget_log(begin);
                return self.start_reading(taken, Actions::none());
            }
            _ => return Actions::none(),
        };
        self.epoch = taken.epoch;
        if let Some(reason) = self.foreign(taken, committed.as_ref()) {
            self.state = PartitionState::Blocked(reason.clone());
            return Actions::one(Action::Block(reason));
        }
        if self.has_other_log {
            return self.ask_to_start_over();
        }
        let watermark = taken.watermark.upto;
        let actions = match committed.filter(|committed| committed.offset > watermark) {
            Some(Committed { offset, .. }) => Actions::one(Action::StoreWentBack { committed: offset, watermark }),
            None => Actions::none(),
        };
        self.start_reading(taken, actions)
    }

    /// This store must have written Kafka's offsets, or an operator must have accepted them.
    fn foreign(&self, taken: &Taken, committed: Option<&Committed>) -> Option<BlockReason> {
        let Committed { offset, store } = committed?;
        if taken.accepted.as_deref() == Some(store) {
            return None;
        }
        if *store == self.store {
            // We committed this offset, and yet the store has read nothing of the partition: either it knows it in another
            // cluster, or it went back to a time before.
            let is_elsewhere = taken.fresh && !taken.knows_cluster && *offset > 0;
            return is_elsewhere.then_some(BlockReason::OtherCluster(*offset));
        }
        // A tool that resets offsets writes no store's name. If this store has read the partition, its watermark
        // decides.
        match (store.is_empty(), taken.fresh) {
            (true, false) => None,
            (true, true) => Some(BlockReason::UnknownOffset(*offset)),
            (false, _) => Some(BlockReason::OtherStore(Arc::clone(store))),
        }
    }

    fn start_reading(&mut self, taken: &Taken, actions: Actions) -> Actions {
        let watermark = taken.watermark;
        self.epoch = taken.epoch;
        self.held = true;
        self.watermark = watermark;
        self.read_upto = None;
        let place;
        (self.state, place) = match watermark.last.filter(|(_, hash)| *hash != UNREAD) {
            Some((offset, hash)) => (PartitionState::Verifying { offset, hash }, Place::Offset(offset)),
            None if watermark.upto == 0 => (PartitionState::Reading, Place::Beginning),
            // A record that can't be read can't be compared either.
            None => (PartitionState::Reading, Place::Offset(watermark.upto)),
        };
        let is_suspect = taken.deaths >= SUSPECT_DEATHS;
        let assign = if is_suspect { Action::AssignSandboxed(place) } else { Action::AssignAt(place) };
        self.go_to(assign, actions.and(Action::Hold { epoch: taken.epoch, watermark }))
    }

    fn moved(&mut self) -> Actions {
        if self.awaits.take_if(|awaits| matches!(awaits, Awaited::Moved | Awaited::Obsolete)).is_some() {
            // What a pause or a resume did before that is not known: a sandbox that was left may have kept the client paused.
            self.paused = None;
        }
        Actions::none()
    }

    fn no_answer(&mut self) -> Actions {
        match self.awaits.take() {
            // The partition is not verified, or its place is not certain: it is taken again.
            Some(Awaited::Moved | Awaited::Ends(Check::OutOfRange | Check::RecordGone)) => self.give_up(),
            Some(Awaited::StartedOver(begin)) => {
                // The store may have started over although its answer got lost.
                self.forget_log(begin);
                self.state = PartitionState::NotTaken;
                Actions::none()
            }
            // A blocked partition stays blocked; the others ask again at the next tick.
            Some(
                Awaited::Committed { .. }
                | Awaited::Taken { .. }
                | Awaited::TakenToReset(_)
                | Awaited::Ends(_)
                | Awaited::Obsolete,
            )
            | None => Actions::none(),
        }
    }

    fn give_up(&mut self) -> Actions {
        self.state = PartitionState::NotTaken;
        // A sandbox may have kept the client paused.
        self.paused = None;
        if self.awaits.is_some() {
            self.awaits = Some(Awaited::Obsolete);
        }
        if std::mem::take(&mut self.held) { Actions::one(Action::GiveUp) } else { Actions::none() }
    }

    fn ask(&mut self, awaits: Awaited, action: Action) -> Actions {
        self.awaits = Some(awaits);
        Actions::one(action)
    }

    /// Asks for the ends of the log, unless this question is already outstanding.
    fn ask_ends(&mut self, check: Check) -> Actions {
        match &self.awaits {
            None => self.ask(Awaited::Ends(check.clone()), Action::AskEnds(check)),
            Some(Awaited::Ends(Check::Silent)) => {
                self.awaits = Some(Awaited::Ends(check));
                Actions::none()
            }
            Some(_) => Actions::none(),
        }
    }

    fn go_to(&mut self, action: Action, before: Actions) -> Actions {
        self.awaits = Some(Awaited::Moved);
        self.position_is_stale = std::mem::replace(&mut self.placed, true);
        before.and(action)
    }

    /// The client delivers no control records at a partition's end; only its position passes them.
    fn position(&mut self, position: Option<i64>) -> Actions {
        let Some(position) = position else {
            self.position_is_stale = false;
            return Actions::none();
        };
        let moving = matches!(self.awaits, Some(Awaited::Moved));
        if self.state != PartitionState::Reading || self.position_is_stale || moving {
            return Actions::none();
        }
        self.read_upto = self.read_upto.max(Some(position));
        Actions::one(Action::PassTo(position))
    }

    fn flow(&mut self, flow: Flow) -> Actions {
        let far = if self.is_paused() { flow.outstanding > flow.window / 2 } else { flow.outstanding >= flow.window };
        let pause = flow.hold || far || !self.reads();
        if let Some(paused) = self.paused {
            let too_soon = self.turned_at.is_some_and(|at| flow.now.saturating_duration_since(at) < HYSTERESIS);
            if pause == paused || too_soon {
                return Actions::none();
            }
            self.turned_at = Some(flow.now);
        } else if !self.reads() {
            // Kafka's client was assigned the partition without an offset, so it has a position of its own.
            self.placed = true;
        }
        self.paused = Some(pause);
        Actions::one(if pause { Action::Pause } else { Action::Resume })
    }

    /// Kafka's committed offset is a copy of the watermark, for tools that show the lag.
    fn commit(&mut self, durable_upto: i64) -> Actions {
        let is_news = durable_upto > 0 && self.committed.is_none_or(|committed| durable_upto > committed);
        if !self.reads() || !is_news {
            return Actions::none();
        }
        self.committed = Some(durable_upto);
        Actions::one(Action::Commit(durable_upto))
    }
}

#[cfg(test)]
mod tests;
