//! A small model of two processes, one database and one record. It leaves out what the protocol does not decide: times, bodies,
//! queues, and more than one callback.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::Timestamp;
use callbackd::model::amendment::{Amended, Amendment, Resend, amend};
use callbackd::model::attempt::{Attempt, Outcome};
use callbackd::model::lease::{Facts, Token};
use callbackd::model::retry::{Next, Progress, Reason};
use callbackd::model::settlement::{self, Claim, Ended, Park, Pending, Rows, Settle, Settled, Verdict};

use crate::store::facts;

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
static FACTS: LazyLock<Arc<Facts>> = LazyLock::new(|| facts(1));

/// How often each thing may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Bounds {
    pub(super) posts: u8,
    pub(super) takes: u8,
    pub(super) crashes: u8,
    /// Leases that end while their attempt is under way.
    pub(super) expiries: u8,
    /// Partitions that are taken from an owner that lives.
    pub(super) forced: u8,
    /// Partitions that are given up before their parks are durable.
    pub(super) late_parks: u8,
    pub(super) amendments: u8,
}

/// What a broken build does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    WatermarkFirst,
    FencedWriteWrites,
    LeaseNeverEnds,
    NoParkAtRevoke,
    BatchTwice,
}

impl Broken {
    pub(super) const ALL: &'static [Self] =
        &[Self::WatermarkFirst, Self::FencedWriteWrites, Self::LeaseNeverEnds, Self::NoParkAtRevoke, Self::BatchTwice];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Take(usize),
    Read(usize),
    Start(usize),
    Succeed(usize),
    Fail(usize),
    Interrupt(usize),
    ParkSlow(usize),
    ParkForRoom(usize),
    Release(usize),
    GiveUp(usize),
    Gone(usize),
    Compose(usize),
    Apply(usize),
    /// The same batch once more, because its acknowledgement was lost.
    ApplyAgain(usize),
    Acknowledge(usize),
    Crash(usize),
    Claim(usize),
    LeaseEnds,
    Cancel,
    Resend,
}

/// The rows without what this model leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct SmallRows {
    pub(super) settled: Option<SmallSettled>,
    pub(super) pending: Option<SmallPending>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SmallSettled {
    pub(super) ended: Ended,
    pub(super) attempts: u32,
    round: u32,
    revision: u32,
}

impl std::hash::Hash for SmallSettled {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.ended.name(), self.attempts, self.round, self.revision).hash(state);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SmallPending {
    token: Option<u8>,
    pub(super) round: u32,
    tries: u32,
    pub(super) attempts: u32,
    starts: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) rows: SmallRows,
    epoch: u8,
    owner: Option<usize>,
    pub(super) is_above_record: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Record {
    #[default]
    Unread,
    Open,
    /// It needs nothing more.
    Done,
    /// The watermark above it is in a batch.
    Marked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Queued,
    Parking,
    Claimed,
    Started,
    StartedWithRow,
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flight {
    token: u8,
    epoch: Option<u8>,
    stage: Stage,
    tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Delivered,
    Retry,
    Exhausted,
    Interrupted,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Change {
    Settle {
        token: u8,
        epoch: Option<u8>,
        end: End,
    },
    Park {
        token: u8,
        epoch: u8,
        is_leased: bool,
    },
    Release {
        token: u8,
    },
    /// Nothing but the watermark.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Batch {
    change: Change,
    /// The epoch of the watermark that it raises.
    mark: Option<u8>,
    /// What the store did: whether a row was written or decided, and whether the partition was lost.
    answer: Option<(bool, bool)>,
}

/// One process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Owner {
    epoch: Option<u8>,
    is_leaving: bool,
    record: Record,
    flight: Option<Flight>,
    queue: Vec<Change>,
    batch: Option<Batch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) store: Store,
    owners: [Owner; 2],
    left: Bounds,
    broken: Option<Broken>,
    pub(super) was_delivered: bool,
    /// Settles that the store has counted.
    pub(super) settles: u32,
    /// Attempts that the receiver answered well.
    pub(super) successes: u32,
    pub(super) resends: u32,
    /// Attempts that a fault may have made in vain: those that were not settled when it happened, and those that began under an
    /// epoch that had ended.
    pub(super) at_risk: u32,
}

impl World {
    pub(super) fn new(bounds: Bounds, broken: Option<Broken>) -> Self {
        Self {
            store: Store::default(),
            owners: [Owner::default(), Owner::default()],
            left: bounds,
            broken,
            was_delivered: false,
            settles: 0,
            successes: 0,
            resends: 0,
            at_risk: 0,
        }
    }

    /// Everything that may happen now.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for o in 0..2 {
            self.steps_of(o, &mut steps);
        }
        if self.lease_may_end() {
            steps.push(Step::LeaseEnds);
        }
        if self.left.amendments > 0 {
            steps.extend([Step::Cancel, Step::Resend]);
        }
        steps
    }

    fn steps_of(&self, o: usize, steps: &mut Vec<Step>) {
        let owner = &self.owners[o];
        if self.may_take(o) {
            steps.push(Step::Take(o));
        }
        if owner.epoch.is_some() && !owner.is_leaving {
            steps.push(Step::GiveUp(o));
            if owner.record == Record::Unread && owner.flight.is_none() {
                steps.push(Step::Read(o));
            }
        }
        if owner.is_leaving && (owner.is_flushed() || self.left.late_parks > 0) {
            steps.push(Step::Gone(o));
        }
        if let Some(flight) = &owner.flight {
            match flight.stage {
                Stage::Queued => {
                    steps.push(Step::ParkForRoom(o));
                    if self.left.posts > 0 {
                        steps.push(Step::Start(o));
                    }
                }
                Stage::Claimed => {
                    steps.push(Step::Release(o));
                    if self.left.posts > 0 {
                        steps.push(Step::Start(o));
                    }
                }
                Stage::Started => {
                    steps.extend([Step::Succeed(o), Step::Fail(o), Step::Interrupt(o), Step::ParkSlow(o)])
                }
                Stage::StartedWithRow => steps.extend([Step::Succeed(o), Step::Fail(o), Step::Interrupt(o)]),
                Stage::Parking | Stage::Ended => {}
            }
        } else if self.has_due_row() {
            steps.push(Step::Claim(o));
        }
        match &owner.batch {
            None if !owner.queue.is_empty() || owner.may_mark() => steps.push(Step::Compose(o)),
            None => {}
            Some(Batch { answer: None, .. }) => steps.push(Step::Apply(o)),
            Some(_) => steps.extend([Step::Acknowledge(o), Step::ApplyAgain(o)]),
        }
        if self.left.crashes > 0 && *owner != Owner::default() {
            steps.push(Step::Crash(o));
        }
    }

    fn may_take(&self, o: usize) -> bool {
        let is_free = self.store.owner.is_none_or(|owner| owner == o);
        self.owners[o].epoch.is_none() && self.left.takes > 0 && (is_free || self.left.forced > 0)
    }

    fn has_due_row(&self) -> bool {
        self.store.rows.pending.as_ref().is_some_and(|pending| pending.token.is_none())
    }

    /// The holder of the row's lease, if it still runs.
    fn holder(&self) -> Option<usize> {
        let token = self.store.rows.pending.as_ref()?.token?;
        let holds = |owner: &Owner| {
            let in_queue = owner.queue.iter().chain(owner.batch.as_ref().map(|batch| &batch.change));
            owner.flight.as_ref().is_some_and(|flight| flight.token == token)
                || in_queue.into_iter().any(|change| change.token() == Some(token))
        };
        self.owners.iter().position(holds)
    }

    fn lease_may_end(&self) -> bool {
        let is_leased = self.store.rows.pending.as_ref().is_some_and(|pending| pending.token.is_some());
        is_leased && self.broken != Some(Broken::LeaseNeverEnds) && (self.holder().is_none() || self.left.expiries > 0)
    }

    /// A token that nothing names.
    fn free_token(&self) -> u8 {
        let of_row = self.store.rows.pending.as_ref().and_then(|pending| pending.token);
        let of_owner = |owner: &Owner| {
            let changes = owner.queue.iter().chain(owner.batch.as_ref().map(|batch| &batch.change));
            let tokens = changes.filter_map(Change::token).chain(owner.flight.as_ref().map(|flight| flight.token));
            tokens.collect::<Vec<_>>()
        };
        let used: Vec<u8> = self.owners.iter().flat_map(of_owner).chain(of_row).collect();
        (0..).find(|token| !used.contains(token)).unwrap_or(u8::MAX)
    }

    /// The world after a step that may happen now.
    ///
    /// # Errors
    /// What the step breaks.
    pub(super) fn after(&self, step: Step) -> Result<Self, &'static str> {
        let mut next = self.clone();
        match step {
            Step::Take(o) => next.take(o),
            Step::Read(o) => next.read(o),
            Step::Start(o) => next.start(o),
            Step::Succeed(o) => next.finish(o, true),
            Step::Fail(o) => next.finish(o, false),
            Step::Interrupt(o) => next.interrupt(o),
            Step::ParkSlow(o) => next.park(o, Stage::StartedWithRow, true),
            Step::ParkForRoom(o) => next.park(o, Stage::Parking, false),
            Step::Release(o) => next.release(o),
            Step::GiveUp(o) => next.give_up(o),
            Step::Gone(o) => next.gone(o),
            Step::Compose(o) => next.compose(o),
            Step::Apply(o) => next.apply(o),
            Step::ApplyAgain(o) if self.broken == Some(Broken::BatchTwice) => next.apply(o),
            Step::ApplyAgain(_) => {}
            Step::Acknowledge(o) => next.acknowledge(o),
            Step::Crash(o) => next.crash(o),
            Step::Claim(o) => next.claim(o)?,
            Step::LeaseEnds => next.lease_ends(),
            Step::Cancel => next.amend(&Amendment::Cancel(Reason::Cancelled)),
            Step::Resend => {
                let (url, queue, body) = (None, FACTS.queue.clone(), Bytes::new());
                next.amend(&Amendment::Resend(Box::new(Resend {
                    ended_before: None,
                    new_id: false,
                    url,
                    queue,
                    body,
                })));
            }
        }
        Ok(next)
    }

    fn take(&mut self, o: usize) {
        if let Some(loser) = self.store.owner.filter(|owner| *owner != o) {
            self.left.forced -= 1;
            self.at_risk += self.owners[loser].unsettled();
        }
        self.left.takes -= 1;
        self.store.epoch += 1;
        self.store.owner = Some(o);
        let owner = &mut self.owners[o];
        owner.epoch = Some(self.store.epoch);
        owner.record = if self.store.is_above_record { Record::Marked } else { Record::Unread };
    }

    fn read(&mut self, o: usize) {
        let is_known = self.store.rows != SmallRows::default();
        let token = self.free_token();
        if self.broken == Some(Broken::WatermarkFirst) {
            self.store.is_above_record = true;
        }
        let owner = &mut self.owners[o];
        if is_known {
            owner.record = Record::Done;
            return;
        }
        owner.record = Record::Open;
        owner.flight = Some(Flight { token, epoch: owner.epoch, stage: Stage::Queued, tries: 0 });
    }

    fn start(&mut self, o: usize) {
        self.left.posts -= 1;
        let is_ours = |epoch| (self.store.owner, self.store.epoch) == (Some(o), epoch);
        let of_record = self.owners[o].flight.as_ref().and_then(|flight| flight.epoch);
        self.at_risk += u32::from(of_record.is_some_and(|epoch| !is_ours(epoch)));
        if let Some(flight) = &mut self.owners[o].flight {
            flight.stage = if flight.stage == Stage::Queued { Stage::Started } else { Stage::StartedWithRow };
        }
    }

    fn finish(&mut self, o: usize, is_success: bool) {
        self.successes += u32::from(is_success);
        let tries = self.owners[o].flight.as_ref().map_or(0, |flight| flight.tries);
        let end = match (is_success, tries) {
            (true, _) => End::Delivered,
            (false, 0) => End::Retry,
            (false, _) => End::Exhausted,
        };
        self.end_flight(o, end);
    }

    /// Attempts are cut off only at a stop: nothing new begins, and what has no row is read by whoever is next.
    fn interrupt(&mut self, o: usize) {
        self.end_flight(o, End::Interrupted);
        let owner = &mut self.owners[o];
        owner.is_leaving = owner.epoch.is_some();
    }

    fn end_flight(&mut self, o: usize, end: End) {
        let owner = &mut self.owners[o];
        if let Some(flight) = &mut owner.flight {
            flight.stage = Stage::Ended;
            owner.queue.push(Change::Settle { token: flight.token, epoch: flight.epoch, end });
        }
    }

    fn park(&mut self, o: usize, stage: Stage, is_leased: bool) {
        let owner = &mut self.owners[o];
        if let Some(flight) = &mut owner.flight
            && let Some(epoch) = flight.epoch
        {
            flight.stage = stage;
            owner.queue.push(Change::Park { token: flight.token, epoch, is_leased });
        }
    }

    fn release(&mut self, o: usize) {
        let owner = &mut self.owners[o];
        if let Some(flight) = &mut owner.flight {
            flight.stage = Stage::Ended;
            owner.queue.push(Change::Release { token: flight.token });
        }
    }

    fn give_up(&mut self, o: usize) {
        self.owners[o].is_leaving = true;
        let stage = self.owners[o].flight.as_ref().map(|flight| flight.stage);
        match stage {
            Some(Stage::Queued) => self.owners[o].flight = None,
            Some(Stage::Started) if self.broken != Some(Broken::NoParkAtRevoke) => {
                self.park(o, Stage::StartedWithRow, true);
            }
            _ => {}
        }
    }

    fn gone(&mut self, o: usize) {
        let owner = &mut self.owners[o];
        let is_flushed = owner.is_flushed();
        let epoch = owner.epoch.take();
        (owner.is_leaving, owner.record) = (false, Record::Unread);
        if !is_flushed {
            self.left.late_parks -= 1;
            self.at_risk += self.owners[o].unsettled();
        } else if self.store.owner == Some(o) && epoch == Some(self.store.epoch) {
            self.store.owner = None;
        }
    }

    fn compose(&mut self, o: usize) {
        let owner = &mut self.owners[o];
        let change = if owner.queue.is_empty() { Change::Nothing } else { owner.queue.remove(0) };
        if change.record_epoch().is_some() && change.record_epoch() == owner.epoch && owner.record == Record::Open {
            owner.record = Record::Done;
        }
        let mark = if owner.may_mark() { owner.epoch } else { None };
        if mark.is_some() {
            owner.record = Record::Marked;
        }
        owner.batch = Some(Batch { change, mark, answer: None });
    }

    fn apply(&mut self, o: usize) {
        let Some(batch) = self.owners[o].batch.clone() else { return };
        let (owner, epoch) = (self.store.owner, self.store.epoch);
        let is_ours = |named: u8| (owner, epoch) == (Some(o), named);
        let writes_all = self.broken == Some(Broken::FencedWriteWrites);
        let allowed = |named: u8| is_ours(named) || writes_all;
        let mut is_decided = true;
        if let Some(change) = batch.change.real() {
            let ours = batch.change.record_epoch().is_none_or(allowed);
            let step = settlement::apply(&self.store.rows.real(), &change, ours);
            is_decided = step.verdict != Verdict::Nothing;
            // Once applied, a batch counts, however often it is written.
            if is_decided && batch.answer.is_none() && matches!(change, settlement::Change::Settle(_)) {
                self.settles += 1;
            }
            self.write(&step.rows);
        }
        if batch.mark.is_some_and(allowed) {
            self.store.is_above_record = true;
        }
        let named = batch.change.record_epoch().into_iter().chain(batch.mark);
        let is_lost = named.into_iter().any(|named| !is_ours(named));
        if let Some(batch) = &mut self.owners[o].batch {
            batch.answer = Some((is_decided, is_lost));
        }
    }

    fn write(&mut self, rows: &Rows) {
        self.store.rows = SmallRows::of(rows);
        let ended = rows.settled.as_ref().map(|settled| settled.ended);
        self.was_delivered |= ended == Some(Ended::Delivered);
    }

    /// The owner learns what the store did.
    fn acknowledge(&mut self, o: usize) {
        let owner = &mut self.owners[o];
        let Some(Batch { change, mark, answer: Some((_, is_lost)) }) = owner.batch.take() else { return };
        let named = [change.record_epoch(), mark];
        let ends = match change {
            Change::Settle { token, .. } | Change::Release { token } => {
                owner.flight.as_ref().is_some_and(|flight| flight.token == token)
            }
            Change::Park { token, .. } => {
                let parks = |flight: &Flight| flight.token == token && flight.stage == Stage::Parking;
                owner.flight.as_ref().is_some_and(parks)
            }
            Change::Nothing => false,
        };
        if ends {
            owner.flight = None;
        }
        // Fenced: what waits is forgotten, what is under way goes on without a row.
        if is_lost && owner.epoch.is_some() && named.contains(&owner.epoch) {
            (owner.epoch, owner.is_leaving, owner.record) = (None, false, Record::Unread);
            match &mut owner.flight {
                Some(flight) if flight.stage == Stage::Queued => owner.flight = None,
                Some(flight) if flight.stage == Stage::Started => flight.stage = Stage::StartedWithRow,
                _ => {}
            }
        }
    }

    fn crash(&mut self, o: usize) {
        self.left.crashes -= 1;
        self.at_risk += self.owners[o].unsettled();
        self.owners[o] = Owner::default();
        if self.store.owner == Some(o) {
            self.store.owner = None;
        }
    }

    fn claim(&mut self, o: usize) -> Result<(), &'static str> {
        let token = self.free_token();
        let before = self.store.rows.real();
        let claim = Claim { token: Token(token.into()), until: NOW.plus(Duration::from_secs(60)) };
        let after = settlement::apply_claim(&before, &claim);
        self.write(&after);
        let Some(pending) = &self.store.rows.pending else { return Ok(()) };
        if pending.round == 0 && self.store.rows.settled.is_some() {
            return Err("an attempt would start from a void row");
        }
        let tries = pending.tries;
        self.owners[o].flight = Some(Flight { token, epoch: None, stage: Stage::Claimed, tries });
        Ok(())
    }

    fn lease_ends(&mut self) {
        if self.holder().is_some() {
            self.left.expiries -= 1;
            self.at_risk += 1;
        }
        if let Some(pending) = &mut self.store.rows.pending {
            pending.token = None;
        }
    }

    fn amend(&mut self, amendment: &Amendment) {
        self.left.amendments -= 1;
        let (rows, amended) = amend(&self.store.rows.real(), amendment, NOW);
        if amended == Amended::Changed {
            self.resends += u32::from(matches!(amendment, Amendment::Resend(_)));
            self.write(&rows);
        }
    }

    /// The next step of a world in which nothing fails any more. `None` at its end.
    pub(super) fn next_of_a_quiet_world(&mut self) -> Option<Step> {
        (self.left.posts, self.left.takes, self.left.forced) = (9, 9, 9);
        let steps = self.steps();
        let is_owned = self.owners.iter().any(|owner| owner.epoch == Some(self.store.epoch) && !owner.is_leaving);
        let is_wanted = |step: &Step| match step {
            Step::Acknowledge(_)
            | Step::Apply(_)
            | Step::Compose(_)
            | Step::Succeed(_)
            | Step::Start(_)
            | Step::Read(_)
            | Step::Claim(_) => true,
            Step::Gone(o) => self.owners[*o].is_flushed(),
            Step::LeaseEnds => self.holder().is_none(),
            Step::Take(o) => !is_owned && *o == 0 && !self.store.is_above_record,
            _ => false,
        };
        steps.into_iter().find(is_wanted)
    }
}

impl Owner {
    /// Everything that was submitted is durable.
    fn is_flushed(&self) -> bool {
        self.queue.is_empty() && self.batch.is_none()
    }

    /// Attempts that have begun and are not settled.
    fn unsettled(&self) -> u32 {
        let begun = [Stage::Started, Stage::StartedWithRow, Stage::Ended];
        u32::from(self.flight.as_ref().is_some_and(|flight| begun.contains(&flight.stage)))
    }

    fn may_mark(&self) -> bool {
        self.record == Record::Done && self.epoch.is_some()
    }
}

impl Change {
    fn token(&self) -> Option<u8> {
        match self {
            Self::Settle { token, .. } | Self::Park { token, .. } | Self::Release { token } => Some(*token),
            Self::Nothing => None,
        }
    }

    /// The epoch of the record that it brings.
    fn record_epoch(&self) -> Option<u8> {
        match self {
            Self::Settle { end: End::Interrupted, .. } | Self::Release { .. } | Self::Nothing => None,
            Self::Settle { epoch, .. } => *epoch,
            Self::Park { epoch, .. } => Some(*epoch),
        }
    }

    fn real(&self) -> Option<settlement::Change> {
        let (facts, body) = (Arc::clone(&FACTS), Bytes::new());
        let token = Token(self.token()?.into());
        Some(match self {
            Self::Settle { epoch, end, .. } => {
                let (since, horizon) = (NOW, NOW.plus(Duration::from_secs(86_400)));
                let (outcome, next) = match end {
                    End::Delivered => (Outcome::Ok, Next::Delivered),
                    End::Retry => (Outcome::ServerError, Next::Retry { due: NOW, since, horizon }),
                    End::Exhausted => (Outcome::ServerError, Next::Exhausted),
                    End::Interrupted => (Outcome::Interrupted, Next::Interrupted { due: NOW, since, horizon }),
                };
                let attempt = Attempt {
                    outcome,
                    sent: true,
                    status: None,
                    begun_at: NOW,
                    took: Duration::ZERO,
                    peer: None,
                    redialed: false,
                    sent_with: None,
                    snippet: Bytes::new(),
                };
                let epoch = epoch.map(i64::from);
                settlement::Change::Settle(Box::new(Settle {
                    facts,
                    token,
                    epoch,
                    url: None,
                    body,
                    number: 1,
                    attempt,
                    next,
                }))
            }
            Self::Park { epoch, is_leased, .. } => {
                let lease_until = is_leased.then(|| NOW.plus(Duration::from_secs(20)));
                let (epoch, due) = (i64::from(*epoch), NOW);
                settlement::Change::Park(Box::new(Park { facts, epoch, url: None, body, due, token, lease_until }))
            }
            Self::Release { .. } => settlement::Change::Release { facts, token },
            Self::Nothing => return None,
        })
    }
}

impl SmallRows {
    fn of(rows: &Rows) -> Self {
        Self {
            settled: rows.settled.as_ref().map(|settled| SmallSettled {
                ended: settled.ended,
                attempts: settled.attempts,
                round: settled.round,
                revision: settled.revision,
            }),
            pending: rows.pending.as_ref().map(|pending| SmallPending {
                token: pending.token.map(|token| u8::try_from(token.0).unwrap()),
                round: pending.round,
                tries: pending.progress.tries,
                attempts: pending.progress.attempts,
                starts: pending.starts,
            }),
        }
    }

    fn real(&self) -> Rows {
        let settled = self.settled.as_ref().map(|settled| Settled {
            facts: Arc::clone(&FACTS),
            ended: settled.ended,
            attempts: settled.attempts,
            status: None,
            outcome: Outcome::ServerError,
            round: settled.round,
            first_at: NOW,
            settled_at: NOW,
            sent_with: None,
            revision: settled.revision,
        });
        let pending = self.pending.as_ref().map(|pending| Pending {
            facts: Arc::clone(&FACTS),
            url: None,
            progress: Progress { since: None, horizon: None, tries: pending.tries, attempts: pending.attempts },
            due: NOW,
            token: pending.token.map(|token| Token(token.into())),
            lease_until: pending.token.map(|_| NOW),
            starts: pending.starts,
            last_outcome: None,
            round: pending.round,
            new_id: false,
        });
        Rows { settled, pending }
    }
}
