//! What operators ask the consumer's thread for: to start blocked partitions, to look at partitions, and to move their
//! watermarks. One request is served at a time, and at most one partition in a turn, so that polling goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::super::consumer_parts::{Ask, Look, Looked, Moved};
use super::super::interpret::{CALL, Interpreter};
use super::super::partition::{AcceptFrom, Check, Event, PartitionState, Reset, ResetFacts, Suspicion};
use super::{End, Session};
use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;

/// The request that is being served.
pub(super) enum Serving {
    Accepting(Accepting),
    Looking(Looking),
    Moving(Moving),
}

/// An operator waits for these partitions to start.
pub(super) struct Accepting {
    answer: oneshot::Sender<Result<usize, String>>,
    waiting: Vec<Arc<PartitionKey>>,
    started: usize,
    failure: Option<String>,
}

/// Partitions that an operator may want to move.
pub(super) struct Looking {
    answer: oneshot::Sender<Vec<Looked>>,
    look: Look,
    left: VecDeque<Arc<PartitionKey>>,
    looked: Vec<Looked>,
}

/// Partitions that an operator moves.
pub(super) struct Moving {
    answer: oneshot::Sender<Vec<Moved>>,
    left: VecDeque<(Arc<PartitionKey>, Reset)>,
    moved: Vec<Moved>,
}

const GONE: &str = "the consumer group has just given it to another member";
const SANDBOXED: &str =
    "a record of it ended the daemon, so it is read in a process of its own until its end is reached: try again then";
const NOT_MOVED: &str = "the store, Kafka or the consumer group did not answer, so it may have been moved or not; look at callbackd offsets show, and give the command again";

const UNTOLD: &str = "Kafka does not tell where its log begins and ends, or where that time is";

fn untold(error: KafkaError) -> String {
    format!("{UNTOLD}: {error}")
}

impl Session<'_> {
    pub(super) fn take_ask(&mut self) {
        if self.serving.is_some() {
            return;
        }
        match self.owner.asks.try_recv() {
            Ok(Ask::Accept(from, answer)) => self.accept(from, answer),
            Ok(Ask::Look(look, answer)) => {
                let mut left = self.context().partitions().keys(|_| true);
                left.retain(|key| look.topic.as_ref().is_none_or(|topic| *key.topic == **topic));
                left.retain(|key| look.partition.is_none_or(|number| key.number == number));
                left.sort();
                self.serving = Some(Serving::Looking(Looking { answer, look, left: left.into(), looked: Vec::new() }));
            }
            Ok(Ask::Reset(resets, answer)) => {
                self.serving = Some(Serving::Moving(Moving { answer, left: resets.into(), moved: Vec::new() }));
            }
            Ok(Ask::Suspect { partition, epoch, suspicion }) => self.suspect(&partition, epoch, suspicion),
            Err(_) => {}
        }
    }

    /// The partition starts over in its new log, or another client takes the place of this one, takes the partitions again and compares
    /// their logs with what the store knows: a client that waits for a log that is gone does not notice the new one.
    fn suspect(&mut self, partition: &Arc<PartitionKey>, epoch: i64, suspicion: Suspicion) {
        if self.context().deps.flight.inflight.epoch(partition) != Some(epoch) {
            // It was taken anew meanwhile, and compared.
            return;
        }
        self.context().troubles.suspect(partition, suspicion);
        match suspicion {
            Suspicion::OtherRecord => self.drive(vec![(Arc::clone(partition), Event::OtherLog)]),
            Suspicion::EndsBelow | Suspicion::Silent => self.end = Some(End::Renewed),
        }
    }

    /// Whether a request is served that needs a partition of each turn.
    pub(super) fn serves_step_by_step(&self) -> bool {
        matches!(self.serving, Some(Serving::Looking(_) | Serving::Moving(_)))
    }

    /// Looks at one partition, or moves one, and answers after the last one.
    pub(super) fn serve_step(&mut self) {
        self.serving = match self.serving.take() {
            Some(Serving::Looking(looking)) => self.look_at_next(looking).map(Serving::Looking),
            Some(Serving::Moving(moving)) => self.move_next(moving).map(Serving::Moving),
            other => other,
        };
    }

    fn look_at_next(&self, mut looking: Looking) -> Option<Looking> {
        if looking.answer.is_closed() {
            return None;
        }
        let Some(partition) = looking.left.pop_front() else {
            looking.answer.send(looking.looked).ok();
            return None;
        };
        let facts = self.facts(&partition, &looking.look);
        looking.looked.push(Looked { partition, facts });
        Some(looking)
    }

    /// What a reset needs to know of a partition: at most three questions to Kafka.
    fn facts(&self, key: &Arc<PartitionKey>, look: &Look) -> Result<ResetFacts, String> {
        let is_paused = self.movable(key)?;
        let Some(watermark) = self.context().deps.flight.inflight.watermark(key) else { return Err(GONE.to_owned()) };
        let (low, high) = self.consumer.fetch_watermarks(&key.topic, key.number, CALL).map_err(untold)?;
        let at = |time: Option<Timestamp>| time.map(|time| self.offset_at(key, time)).transpose();
        Ok(ResetFacts {
            low,
            high,
            watermark: watermark.upto,
            at_time: at(look.at)?.flatten(),
            kept_from: at(look.kept_since)?.flatten(),
            is_paused,
        })
    }

    /// Whether the partition is paused.
    ///
    /// # Errors
    /// It can't be moved now: a sentence says why.
    fn movable(&self, key: &Arc<PartitionKey>) -> Result<bool, String> {
        if self.context().is_sandboxed(key) {
            return Err(SANDBOXED.to_owned());
        }
        let mut partitions = self.context().partitions();
        let machine = &partitions.of(key).ok_or(GONE)?.machine;
        machine.may_be_reset().map_err(|why| why.to_string())?;
        Ok(machine.is_paused())
    }

    /// The offset of the first record of this time or later. `None` if there is none.
    fn offset_at(&self, key: &PartitionKey, time: Timestamp) -> Result<Option<i64>, String> {
        let mut asked = TopicPartitionList::new();
        let time = Offset::Offset(time.millis().max(0));
        asked.add_partition_offset(&key.topic, key.number, time).map_err(untold)?;
        let found = self.consumer.offsets_for_times(asked, CALL).map_err(untold)?;
        let element = found.find_partition(&key.topic, key.number).ok_or(UNTOLD)?;
        element.error().map_err(untold)?;
        match element.offset() {
            Offset::Offset(offset) => Ok(Some(offset)),
            Offset::End => Ok(None),
            // Anything else taken for the end would skip records that nobody wants to skip.
            _ => Err(UNTOLD.to_owned()),
        }
    }

    fn move_next(&self, mut moving: Moving) -> Option<Moving> {
        // Where nobody waits any more, what was moved stays moved, and the rest stays where it is.
        if moving.answer.is_closed() {
            return None;
        }
        let Some((partition, reset)) = moving.left.pop_front() else {
            // Until Kafka's offset follows, the store looks as if it had gone back.
            self.commit(false);
            self.context().publish();
            moving.answer.send(moving.moved).ok();
            return None;
        };
        let watermark = self.move_one(&partition, reset);
        moving.moved.push(Moved { partition, watermark });
        Some(moving)
    }

    fn move_one(&self, key: &Arc<PartitionKey>, reset: Reset) -> Result<i64, String> {
        self.movable(key)?;
        let epoch = self.epoch_if_read(key);
        Interpreter::to_take_again(self.consumer).drive(vec![(Arc::clone(key), Event::Reset(reset))]);
        if self.epoch_if_read(key).is_none_or(|now| Some(now) == epoch) {
            return Err(NOT_MOVED.to_owned());
        }
        let watermark = self.context().deps.flight.inflight.watermark(key);
        watermark.map(|watermark| watermark.upto).ok_or_else(|| NOT_MOVED.to_owned())
    }

    fn epoch_if_read(&self, key: &PartitionKey) -> Option<i64> {
        let mut partitions = self.context().partitions();
        let machine = &partitions.of(key)?.machine;
        machine.reads().then(|| machine.epoch())
    }

    /// `offsets accept`: starts every blocked partition where the operator said. Their logs' ends are asked for one a
    /// turn, so the answer comes some turns later.
    fn accept(&mut self, from: AcceptFrom, answer: oneshot::Sender<Result<usize, String>>) {
        let is_blocked = |state: &PartitionState| matches!(state, PartitionState::Blocked(_));
        let waiting = self.context().partitions().keys(|machine| is_blocked(machine.state()));
        let mut interpreter = Interpreter::new(self.consumer);
        interpreter.drive(waiting.iter().map(|key| (Arc::clone(key), Event::Accepted(from))).collect());
        let accepting = Accepting { answer, waiting, started: 0, failure: interpreter.failure };
        self.serving = Some(Serving::Accepting(accepting));
    }

    pub(super) fn note_failure(&mut self, check: &Check, failure: Option<String>) {
        if matches!(check, Check::Accept { .. })
            && let Some(Serving::Accepting(accepting)) = &mut self.serving
        {
            accepting.failure = failure.or(accepting.failure.take());
        }
    }

    /// Answers the operator once every blocked partition has started, or could not.
    pub(super) fn answer_accepted(&mut self) {
        let Some(Serving::Accepting(accepting)) = &mut self.serving else { return };
        let mut partitions = self.consumer.context().partitions();
        accepting.waiting.retain(|key| match partitions.of(key) {
            Some(assigned) if assigned.machine.is_accepting() => true,
            Some(assigned) => {
                accepting.started += usize::from(assigned.machine.reads());
                false
            }
            None => false,
        });
        drop(partitions);
        if !accepting.waiting.is_empty() {
            return;
        }
        let Some(Serving::Accepting(accepting)) = self.serving.take() else { return };
        self.context().publish();
        // The caller may have stopped waiting. The accepted offsets stay accepted.
        accepting.answer.send(accepting.failure.map_or(Ok(accepting.started), Err)).ok();
    }
}
