//! Carries out the actions of partitions: calls Kafka and the store, with time limits, and brings the answers back. It
//! makes no decision of its own.
//!
//! Actions of several partitions are carried out in rounds, so that partitions that are given up together wait for the
//! store once, and Kafka is asked once for the group's offsets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::assigned::RecordedTime;
use super::context::Context;
use super::marks;
use super::member::is_member;
use super::partition::{Action, Check, Committed, Event, LogEnds, Place, ResetWay, StartOverCause};
use super::twin::Mark;
use crate::base::labels::RepeatCause;
use crate::model::event::PartitionKey;
use crate::model::lease::LEASE_SLACK;
use crate::store::{Answer, Begun, NewLog, Take, TakeAsk};

/// How long one call to the store or to Kafka may take.
pub(super) const CALL: Duration = Duration::from_secs(5);
/// The same for a question that is repeated often.
const BRIEF_CALL: Duration = Duration::from_millis(500);

pub(super) type Told = (Arc<PartitionKey>, Event);
pub(super) type Asked = (Arc<PartitionKey>, Action);

pub(super) struct Interpreter<'c> {
    consumer: &'c BaseConsumer<Context>,
    /// After this time no partition is taken, because the consumer must poll again.
    until: Instant,
    /// The offsets from which partitions are read, while a rebalance assigns them.
    places: Option<HashMap<Arc<PartitionKey>, Place>>,
    /// What the group said, once it was asked.
    is_member: Option<bool>,
    /// One sentence: why the last question was not answered.
    pub(super) failure: Option<String>,
}

impl<'c> Interpreter<'c> {
    /// For use outside a rebalance: a partition is moved by assigning it again.
    pub(super) fn new(consumer: &'c BaseConsumer<Context>) -> Self {
        Self { consumer, until: Instant::now() + CALL, places: None, is_member: None, failure: None }
    }

    /// For use outside a rebalance, where a partition is given up and at once taken again. Giving up has its own time.
    pub(super) fn to_take_again(consumer: &'c BaseConsumer<Context>) -> Self {
        let until = Instant::now() + consumer.context().grace + CALL + CALL;
        Self { until, ..Self::new(consumer) }
    }

    /// For use inside a rebalance: offsets are collected for one assignment.
    pub(super) fn in_rebalance(consumer: &'c BaseConsumer<Context>, until: Instant) -> Self {
        Self { consumer, until, places: Some(HashMap::new()), is_member: None, failure: None }
    }

    fn context(&self) -> &'c Context {
        self.consumer.context()
    }

    /// Gives events to partitions, and carries out their actions until there are no more.
    pub(super) fn drive(&mut self, events: Vec<Told>) {
        let asked = self.tell(events);
        self.carry_out(asked);
    }

    pub(super) fn carry_out(&mut self, mut asked: Vec<Asked>) {
        while !asked.is_empty() {
            let answers = self.round(asked);
            asked = self.tell(answers);
        }
    }

    fn tell(&self, events: Vec<Told>) -> Vec<Asked> {
        let mut partitions = self.context().partitions();
        let mut asked = Vec::new();
        for (key, event) in events {
            if let Some(assigned) = partitions.of(&key) {
                asked.extend(assigned.machine.on(event).into_iter().map(|action| (Arc::clone(&key), action)));
            }
        }
        asked
    }

    /// Carries actions out, and returns the answers. Actions that are carried out for several partitions together go
    /// first: giving up, the question for the group's offsets, pauses.
    fn round(&mut self, asked: Vec<Asked>) -> Vec<Told> {
        let (mut leaving, mut ask_committed) = (Vec::new(), Vec::new());
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        let mut others = Vec::new();
        for (key, action) in asked {
            match action {
                Action::GiveUp => leaving.push(key),
                Action::AskCommitted => ask_committed.push(key),
                Action::Pause => {
                    pause.add_partition(&key.topic, key.number);
                }
                // While a sandbox reads, the client stays paused.
                Action::Resume if self.context().is_sandboxed(&key) => {}
                Action::Resume => {
                    resume.add_partition(&key.topic, key.number);
                }
                other => others.push((key, other)),
            }
        }
        self.context().give_up(&leaving);
        self.pause_and_resume(&pause, &resume);
        let mut answers = self.committed(ask_committed);
        for (key, action) in others {
            if let Some(answer) = self.one(&key, action) {
                answers.push((key, answer));
            }
        }
        answers
    }

    fn one(&mut self, key: &Arc<PartitionKey>, action: Action) -> Option<Event> {
        let deps = &self.context().deps;
        match action {
            Action::AskEnds(check) => self.context().questions().push_back((Arc::clone(key), check)),
            Action::Take => return Some(self.take(key)),
            Action::StartOver { start, log_end, cause } => return Some(self.start_over(key, start, log_end, cause)),
            Action::AssignAt(place) => {
                self.context().end_sandbox(key);
                return Some(self.go_to(key, place));
            }
            Action::AssignSandboxed(place) => {
                self.context().sandbox(key);
                return Some(self.go_to(key, place));
            }
            Action::SkipTo(offset) => {
                deps.flight.inflight.at_position(key, offset);
                return Some(self.go_to(key, Place::Offset(offset)));
            }
            Action::PassTo(position) => deps.flight.inflight.at_position(key, position),
            Action::Hold { epoch, watermark } => deps.flight.inflight.take(Arc::clone(key), epoch, watermark),
            Action::Block(reason) => {
                let reason = reason.sentence(key);
                tracing::error!(partition = %key, reason, "this partition waits for: callbackd offsets accept --from earliest|committed|end");
                deps.metrics.repeats_possible_total.with_label_values(&[RepeatCause::StoreLost.name()]).inc();
            }
            Action::StoreWentBack { committed, watermark } => {
                tracing::warn!(partition = %key, committed, watermark, "Kafka's offset is ahead of the store: the store went back; reading again from the store's watermark");
                let repeats = u64::try_from(committed.saturating_sub(watermark)).unwrap_or(0);
                let cause = RepeatCause::StoreWentBack.name();
                deps.metrics.repeats_possible_total.with_label_values(&[cause]).inc_by(repeats);
            }
            Action::CountLost { lost, begin } => {
                tracing::error!(partition = %key, lost, begin, "Kafka deleted records before they were read");
                deps.metrics.records_lost_to_retention_total.inc_by(lost.unsigned_abs());
            }
            // These were carried out above, or are carried out by the caller (the record in hand, the commit).
            Action::GiveUp
            | Action::AskCommitted
            | Action::Pause
            | Action::Resume
            | Action::Admit
            | Action::Commit(_) => {}
        }
        None
    }

    fn take(&mut self, key: &Arc<PartitionKey>) -> Event {
        // In a rebalance the group itself has just given us the partition.
        if Instant::now() >= self.until || !(self.places.is_some() || self.is_member(key)) {
            return Event::NoAnswer;
        }
        let deps = &self.context().deps;
        let patience = deps.attempt_deadline.saturating_add(LEASE_SLACK);
        let ask = TakeAsk { instance: deps.begun.instance, partition: Arc::clone(key), patience };
        match self.call(deps.store.take(ask)) {
            Some(Take::Taken(taken)) => Event::Taken(taken),
            Some(Take::Held { owner }) => {
                tracing::debug!(partition = %key, owner = owner.0, "its owner lives, and was asked to give it up");
                Event::NoAnswer
            }
            None => Event::NoAnswer,
        }
    }

    fn is_member(&mut self, key: &PartitionKey) -> bool {
        if let Some(is_member) = self.is_member {
            return is_member;
        }
        let context = self.context();
        let Begun { store_id, run, .. } = &context.deps.begun;
        let mark = Mark::new(store_id, run, Some(context.deps.clock.now()));
        *self.is_member.insert(is_member(self.consumer, key, &mark, CALL))
    }

    /// Row 37.
    fn start_over(&mut self, key: &Arc<PartitionKey>, start: i64, log_end: i64, cause: StartOverCause) -> Event {
        let deps = &self.context().deps;
        let Some(epoch) = self.context().partitions().of(key).map(|assigned| assigned.machine.epoch()) else {
            return Event::NoAnswer;
        };
        if self.places.is_none() && !self.is_member(key) {
            return Event::NoAnswer;
        }
        let accepted = match &cause {
            StartOverCause::LogChanged(reason) => {
                tracing::error!(partition = %key, %reason, low = start, high = log_end, "the topic was re-created or truncated: reading it from its beginning");
                deps.metrics.partitions_started_over_total.inc();
                None
            }
            StartOverCause::Accepted { store } => Some(store.to_string()),
            StartOverCause::Reset { .. } => None,
        };
        let log = NewLog { start, log_end, accepted };
        let taken = self.call(deps.store.start_over(deps.begun.instance, Arc::clone(key), epoch, log));
        let Some(Some(taken)) = taken else { return Event::NoAnswer };
        match cause {
            StartOverCause::LogChanged(_) => {}
            StartOverCause::Accepted { .. } => {
                tracing::warn!(partition = %key, start, "an operator accepted the offsets of this partition");
            }
            StartOverCause::Reset { way, from } => {
                tracing::warn!(partition = %key, way = way.name(), from, to = start, "an operator moved the watermark of this partition");
                if way == ResetWay::Skip {
                    deps.metrics.records_skipped_total.inc_by(start.abs_diff(from));
                }
            }
        }
        if let Some(assigned) = self.context().partitions().of(key) {
            assigned.recorded = RecordedTime::default();
        }
        Event::Taken(taken)
    }

    /// Calls the store from this thread, with a time limit. `None` if it failed or did not answer.
    fn call<T>(&self, call: Answer<'_, T>) -> Option<T> {
        match self.context().runtime.block_on(async { tokio::time::timeout(CALL, call).await }) {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the store did not answer a partition's question");
                None
            }
            Err(_) => {
                tracing::warn!("the store did not answer a partition's question in time");
                None
            }
        }
    }

    /// The partition is assigned again, because a seek fails if Kafka has stopped serving the partition.
    fn go_to(&mut self, key: &Arc<PartitionKey>, place: Place) -> Event {
        let is_sandboxed = self.context().is_sandboxed(key);
        if is_sandboxed {
            self.context().send_sandbox(key, place);
        }
        if let Some(places) = &mut self.places {
            places.insert(Arc::clone(key), place);
            return Event::Moved;
        }
        let (mut from, mut to) = (TopicPartitionList::new(), TopicPartitionList::new());
        from.add_partition(&key.topic, key.number);
        // While a sandbox reads, the client stands still at the end of the log.
        let offset = if is_sandboxed { Offset::End } else { offset_of(place) };
        let moved = to
            .add_partition_offset(&key.topic, key.number, offset)
            .and_then(|()| self.consumer.incremental_unassign(&from))
            .and_then(|()| self.consumer.incremental_assign(&to));
        match moved {
            Ok(()) if is_sandboxed => {
                self.pause_and_resume(&from, &TopicPartitionList::new());
                Event::Moved
            }
            Ok(()) => Event::Moved,
            Err(error) => {
                tracing::warn!(partition = %key, %error, "a partition could not be moved to its offset; it is taken again");
                Event::NoAnswer
            }
        }
    }

    /// The sandbox has ended: the client reads on from here. If it can't, the partition is taken again.
    pub(super) fn leave_sandbox(&mut self, key: &Arc<PartitionKey>, next: Place) {
        self.context().end_sandbox(key);
        if !matches!(self.go_to(key, next), Event::Moved) {
            return self.drive(vec![(Arc::clone(key), Event::Fenced)]);
        }
        // A partition that is paused for another reason hears of no end of its sandbox.
        let mut resume = TopicPartitionList::new();
        resume.add_partition(&key.topic, key.number);
        self.pause_and_resume(&TopicPartitionList::new(), &resume);
    }

    /// Assigns these partitions at the collected offsets. A partition without an offset is not read yet.
    pub(super) fn assign(&self, keys: &[Arc<PartitionKey>]) {
        let (mut assignment, mut sandboxed) = (TopicPartitionList::new(), TopicPartitionList::new());
        for key in keys {
            let place = self.places.as_ref().and_then(|places| places.get(key)).copied();
            let mut offset = offset_of(place.unwrap_or(Place::Beginning));
            if self.context().is_sandboxed(key) {
                offset = Offset::End;
                sandboxed.add_partition(&key.topic, key.number);
            }
            if let Err(error) = assignment.add_partition_offset(&key.topic, key.number, offset) {
                tracing::error!(partition = %key, %error, "a partition can't be read from its offset");
            }
        }
        if let Err(error) = self.consumer.incremental_assign(&assignment) {
            tracing::error!(%error, "the Kafka client did not accept an assignment");
        }
        self.pause_and_resume(&sandboxed, &TopicPartitionList::new());
    }

    fn pause_and_resume(&self, pause: &TopicPartitionList, resume: &TopicPartitionList) {
        if pause.count() > 0
            && let Err(error) = self.consumer.pause(pause)
        {
            tracing::debug!(%error, "partitions were not paused");
        }
        if resume.count() > 0
            && let Err(error) = self.consumer.resume(resume)
        {
            tracing::debug!(%error, "partitions were not resumed");
        }
    }

    /// Asks Kafka what the group committed for these partitions.
    fn committed(&mut self, keys: Vec<Arc<PartitionKey>>) -> Vec<Told> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mut asked = TopicPartitionList::new();
        for key in &keys {
            asked.add_partition(&key.topic, key.number);
        }
        let found = match self.consumer.committed_offsets(asked, CALL) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the group's offsets can't be read now");
                self.failure = Some("the group's offsets can't be read".to_owned());
                return keys.into_iter().map(|key| (key, Event::NoAnswer)).collect();
            }
        };
        let committed = |key: &PartitionKey| {
            let element = found.find_partition(&key.topic, key.number)?;
            let offset = real(element.offset())?;
            Some(Committed { offset, store: marks::of(&element).store })
        };
        keys.into_iter().map(|key| (Arc::clone(&key), Event::Committed(committed(&key)))).collect()
    }

    /// Asks for the ends of one partition's log, within [`CALL`], and carries out the actions that follow.
    pub(super) fn answer_ends(&mut self, key: &Arc<PartitionKey>, check: &Check) {
        let patience = if *check == Check::Silent { BRIEF_CALL } else { CALL };
        let answer = match self.consumer.fetch_watermarks(&key.topic, key.number, patience) {
            Ok((low, high)) => {
                Event::LogEnds(LogEnds { low, high, watermark: self.context().deps.flight.inflight.watermark(key) })
            }
            Err(error) => {
                self.failure = Some(format!("the ends of {key} can't be read: {error}"));
                Event::NoAnswer
            }
        };
        self.drive(vec![(Arc::clone(key), answer)]);
    }
}

/// A real offset. The client's special offsets (none, invalid, beginning, end) give `None`.
pub(super) fn real(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

fn offset_of(place: Place) -> Offset {
    match place {
        Place::Beginning => Offset::Beginning,
        Place::Offset(offset) => Offset::Offset(offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_offset_of_a_record_is_a_position() {
        assert_eq!(real(Offset::Offset(7)), Some(7));
        for none in [Offset::Invalid, Offset::Beginning, Offset::End, Offset::Stored, Offset::OffsetTail(3)] {
            assert_eq!(real(none), None, "{none:?}");
        }
    }
}
