//! The partitions that the group gave us, each with its state machine and the time up to which its records are durable.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::partition::Partition;
use crate::base::clock::Timestamp;
use crate::model::event::PartitionKey;

pub(super) struct Assigned {
    pub(super) key: Arc<PartitionKey>,
    pub(super) machine: Partition,
    pub(super) recorded: RecordedTime,
    /// Records between the watermark and the log's end.
    pub(super) lag: i64,
    /// Everything before an open transaction is durable, so only the transaction keeps the rest from being read.
    pub(super) held: Option<Held>,
}

/// An open transaction that holds a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) from: i64,
    /// When it was seen first.
    pub(super) since: Timestamp,
}

impl Held {
    /// What holds a partition now, if everything below `durable` is recorded. A transaction that was seen before keeps the
    /// time at which it was seen.
    pub(super) fn now(before: Option<Self>, open_from: Option<i64>, durable: i64, now: Timestamp) -> Option<Self> {
        let from = open_from.filter(|from| durable >= *from)?;
        let same = before.filter(|held| held.from == from);
        Some(same.unwrap_or(Self { from, since: now }))
    }
}

/// By topic and number, as messages name them, so that a look-up allocates nothing.
#[derive(Default)]
pub(super) struct Partitions(HashMap<Arc<str>, HashMap<i32, Assigned>>);

impl Partitions {
    pub(super) fn insert(&mut self, key: Arc<PartitionKey>, machine: Partition) {
        let of_topic = self.0.entry(Arc::clone(&key.topic)).or_default();
        of_topic.insert(key.number, Assigned { key, machine, recorded: RecordedTime::default(), lag: 0, held: None });
    }

    pub(super) fn get_mut(&mut self, topic: &str, number: i32) -> Option<&mut Assigned> {
        self.0.get_mut(topic)?.get_mut(&number)
    }

    pub(super) fn of(&mut self, key: &PartitionKey) -> Option<&mut Assigned> {
        self.get_mut(&key.topic, key.number)
    }

    pub(super) fn remove(&mut self, key: &PartitionKey) {
        if let Some(of_topic) = self.0.get_mut(&key.topic) {
            of_topic.remove(&key.number);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Assigned> {
        self.0.values().flat_map(HashMap::values)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Assigned> {
        self.0.values_mut().flat_map(HashMap::values_mut)
    }

    /// The keys of the partitions whose machine matches.
    pub(super) fn keys(&self, is_so: impl Fn(&Partition) -> bool) -> Vec<Arc<PartitionKey>> {
        self.iter().filter(|assigned| is_so(&assigned.machine)).map(|assigned| Arc::clone(&assigned.key)).collect()
    }
}

/// The time up to which a partition's records are durable. A record has a time and a watermark has an offset, so a few
/// samples of both connect them.
#[derive(Debug, Default)]
pub(super) struct RecordedTime {
    newest: Option<(i64, Timestamp)>,
    samples: VecDeque<(i64, Timestamp)>,
    upto: Option<Timestamp>,
}

const SAMPLES: usize = 256;

impl RecordedTime {
    /// A record was read. It is ignored if it has no time, or a time in the future.
    pub(super) fn read(&mut self, offset: i64, time: Option<Timestamp>, now: Timestamp) {
        if let Some(time) = time.filter(|time| *time <= now) {
            self.newest = Some((offset, time));
        }
    }

    /// The time of the newest record that was read.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.newest.map(|(_, at)| at)
    }

    /// Every record below `watermark` is durable. If this is the end of the log, `end_reached` is the latest time at
    /// which we know that the log ended there.
    pub(super) fn recorded(&mut self, watermark: i64, end_reached: Option<Timestamp>) {
        if let Some(newest) = self.newest
            && self.samples.back() != Some(&newest)
            && self.samples.len() < SAMPLES
        {
            self.samples.push_back(newest);
        }
        while let Some((_, at)) = self.samples.pop_front_if(|(offset, _)| *offset < watermark) {
            self.upto = self.upto.max(Some(at));
        }
        self.upto = self.upto.max(end_reached);
    }

    pub(super) fn upto(&self) -> Option<Timestamp> {
        self.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_transaction_holds_a_partition_once_all_before_it_is_durable() {
        let at = Timestamp::from_millis;
        assert_eq!(Held::now(None, None, 10, at(1)), None);
        assert_eq!(Held::now(None, Some(10), 9, at(1)), None, "there is still something to read");
        let held = Held::now(None, Some(10), 10, at(1));
        assert_eq!(held, Some(Held { from: 10, since: at(1) }));
        assert_eq!(Held::now(held, Some(10), 10, at(9)), held, "the same one");
        assert_eq!(Held::now(held, Some(20), 20, at(9)), Some(Held { from: 20, since: at(9) }), "another one");
        assert_eq!(Held::now(held, None, 20, at(9)), None, "it has ended");
    }

    #[test]
    fn a_partition_is_recorded_up_to_its_watermark_and_no_further() {
        let at = Timestamp::from_millis;
        let now = at(10_000);
        let mut recorded = RecordedTime::default();
        recorded.recorded(0, None);
        assert_eq!(recorded.upto(), None);
        recorded.read(7, Some(at(1_000)), now);
        recorded.recorded(7, None);
        assert_eq!(recorded.upto(), None, "record 7 is not below 7");
        recorded.read(9, Some(at(3_000)), now);
        recorded.recorded(8, None);
        assert_eq!(recorded.upto(), Some(at(1_000)));
        recorded.recorded(10, Some(at(9_000)));
        assert_eq!(recorded.upto(), Some(at(9_000)), "caught up: everything until the log was known to end there");
        recorded.read(10, Some(at(2_000)), now);
        recorded.recorded(11, None);
        assert_eq!(recorded.upto(), Some(at(9_000)), "an old record takes nothing back");
        recorded.read(11, Some(at(4_102_444_800_000)), now);
        recorded.recorded(12, None);
        assert_eq!(recorded.upto(), Some(at(9_000)), "a record of the future says nothing");
    }
}
