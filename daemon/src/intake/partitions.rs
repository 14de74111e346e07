//! The partitions that are assigned to us, as the consumer's thread sees them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::clock::Timestamp;
use crate::model::callback::Hash;
use crate::model::event::PartitionKey;

/// The shortest time between a pause and a resume of one partition: a pause throws away what was prefetched.
const HYSTERESIS: Duration = Duration::from_secs(1);

/// From where partitions start whose offsets an operator accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFrom {
    Earliest,
    Committed,
    End,
}

/// How a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// The store did not answer at the assignment: it is taken as soon as it does.
    NotTaken,
    /// Kafka's offsets speak of another store: an operator must say where to start.
    Blocked(String),
    /// Read from the last data record below the watermark, which must be the one we know.
    Verifying(i64, Hash),
    Reading,
}

pub struct Partition {
    pub key: Arc<PartitionKey>,
    pub epoch: i64,
    pub standing: PartitionState,
    pub paused: bool,
    paused_at: Option<Instant>,
    /// The offset that was committed last.
    pub committed: i64,
    pub progress: Progress,
    /// Records between the watermark and the log's end.
    pub lag: i64,
}

/// Up to which time a partition's records are recorded. Records name their time, watermarks their offset: a few
/// samples of both lie between.
#[derive(Debug, Default)]
pub struct Progress {
    newest: Option<(i64, Timestamp)>,
    samples: VecDeque<(i64, Timestamp)>,
    upto: Option<Timestamp>,
}

const SAMPLES: usize = 256;

impl Progress {
    /// A record was read; without a time of its own, or with one that lies ahead, it says nothing.
    pub fn read(&mut self, offset: i64, millis: i64, now: Timestamp) {
        if millis > 0 && millis <= now.millis() {
            self.newest = Some((offset, Timestamp::from_millis(millis)));
        }
    }

    /// The time of the newest record that was read.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest.map(|(_, at)| at)
    }

    /// Everything below `watermark` is recorded; at the log's end, everything up to when that was seen.
    pub fn recorded(&mut self, watermark: i64, end_seen: Option<Timestamp>) {
        if let Some(newest) = self.newest
            && self.samples.back() != Some(&newest)
            && self.samples.len() < SAMPLES
        {
            self.samples.push_back(newest);
        }
        while let Some((_, at)) = self.samples.pop_front_if(|(offset, _)| *offset < watermark) {
            self.upto = self.upto.max(Some(at));
        }
        self.upto = self.upto.max(end_seen);
    }

    pub fn upto(&self) -> Option<Timestamp> {
        self.upto
    }
}

impl Partition {
    pub fn new(key: Arc<PartitionKey>) -> Self {
        Self {
            key,
            epoch: 0,
            standing: PartitionState::NotTaken,
            paused: false,
            paused_at: None,
            committed: -1,
            progress: Progress::default(),
            lag: 0,
        }
    }

    /// Whether to pause, resume, or leave it; remembers what it answered.
    pub fn turn(&mut self, wanted: bool) -> Option<bool> {
        let settled = self.paused_at.is_none_or(|at| at.elapsed() >= HYSTERESIS);
        if wanted == self.paused || !settled {
            return None;
        }
        self.paused = wanted;
        self.paused_at = Some(Instant::now());
        Some(wanted)
    }

    pub fn reads(&self) -> bool {
        matches!(self.standing, PartitionState::Reading | PartitionState::Verifying(..))
    }
}

/// By topic and number, as messages name them.
pub type Partitions = HashMap<(Arc<str>, i32), Partition>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_recorded_up_to_its_watermark_and_no_further() {
        let at = Timestamp::from_millis;
        let now = at(10_000);
        let mut progress = Progress::default();
        progress.recorded(0, None);
        assert_eq!(progress.upto(), None);
        progress.read(7, 1_000, now);
        progress.recorded(7, None);
        assert_eq!(progress.upto(), None, "record 7 is not below 7");
        progress.read(9, 3_000, now);
        progress.recorded(8, None);
        assert_eq!(progress.upto(), Some(at(1_000)));
        progress.recorded(10, Some(at(9_000)));
        assert_eq!(progress.upto(), Some(at(9_000)), "caught up: everything until the end was seen");
        progress.read(10, 2_000, now);
        progress.recorded(11, None);
        assert_eq!(progress.upto(), Some(at(9_000)), "an old record takes nothing back");
        progress.read(11, 4_102_444_800_000, now);
        progress.recorded(12, None);
        assert_eq!(progress.upto(), Some(at(9_000)), "a record of the future says nothing");
    }
}
