//! Decides when a partition counts as deleted. A broker may say for a moment that a partition does not exist: while its topic is
//! created again, or while the broker does not have the newest metadata. So only many answers over a time decide, and none that was
//! never given: while Kafka is away, nothing is deleted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::event::PartitionKey;

/// How long Kafka must have said that a partition does not exist.
const FOR: Duration = Duration::from_secs(60);
/// How many of its answers must have said so in that time.
const ANSWERS: u32 = 4;
/// An answer that follows sooner than this counts as the same one: it may come from the same moment of the same broker.
const APART: Duration = Duration::from_secs(10);
/// After such a time without an answer, nobody knows what was in between, so the count begins anew.
const STALE: Duration = Duration::from_secs(300);
/// Partitions that are remembered.
const PARTITIONS: usize = 10_000;

/// What it means that Kafka says once more that a partition does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// It may be there soon.
    ForNow,
    /// It counts as deleted, until Kafka says that it exists.
    ForGood { is_news: bool },
}

/// Partitions that Kafka does not know.
#[derive(Default)]
pub(super) struct Absences {
    of: HashMap<Arc<PartitionKey>, Series>,
}

/// Answers that all said the same of a partition.
struct Series {
    begun_at: Instant,
    counted_at: Instant,
    answered_at: Instant,
    answers: u32,
    is_told: bool,
}

impl Series {
    fn begun(now: Instant) -> Self {
        Self { begun_at: now, counted_at: now, answered_at: now, answers: 1, is_told: false }
    }

    fn answered(&mut self, now: Instant) {
        if now.duration_since(self.answered_at) > STALE {
            *self = Self::begun(now);
        }
        self.answered_at = now;
        if now.duration_since(self.counted_at) >= APART {
            self.counted_at = now;
            self.answers = self.answers.saturating_add(1);
        }
    }

    fn decides(&self) -> bool {
        self.answers >= ANSWERS && self.answered_at.duration_since(self.begun_at) >= FOR
    }
}

impl Absences {
    /// Kafka says that this partition does not exist.
    pub(super) fn absent(&mut self, partition: &Arc<PartitionKey>, now: Instant) -> Absence {
        if self.of.len() >= PARTITIONS && !self.of.contains_key(partition) {
            self.of.clear();
        }
        let series = self.of.entry(Arc::clone(partition)).or_insert_with(|| Series::begun(now));
        series.answered(now);
        if series.decides() {
            Absence::ForGood { is_news: !std::mem::replace(&mut series.is_told, true) }
        } else {
            Absence::ForNow
        }
    }

    /// Kafka has this partition.
    pub(super) fn exists(&mut self, partition: &PartitionKey) {
        self.of.remove(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWS: Absence = Absence::ForGood { is_news: true };
    const KNOWN: Absence = Absence::ForGood { is_news: false };
    const FOR_NOW: Absence = Absence::ForNow;

    fn partition(number: i32) -> Arc<PartitionKey> {
        Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number })
    }

    /// What answers at these seconds mean together; a negative second stands for an answer that the partition exists.
    fn after(seconds: &[i64]) -> Vec<Absence> {
        let (begin, partition) = (Instant::now(), partition(0));
        let mut absences = Absences::default();
        let mut found = Vec::new();
        for second in seconds {
            match u64::try_from(*second) {
                Ok(second) => found.push(absences.absent(&partition, begin + Duration::from_secs(second))),
                Err(_) => absences.exists(&partition),
            }
        }
        found
    }

    #[test]
    fn a_partition_counts_as_deleted_after_many_answers_over_a_minute() {
        let cases: [(&str, &[i64], Absence); 14] = [
            ("one answer", &[0], FOR_NOW),
            ("many answers, and not a minute", &[0, 15, 30, 45, 59], FOR_NOW),
            ("a minute, and few answers", &[0, 30, 60], FOR_NOW),
            ("answers at one moment are one", &[0, 1, 2, 3, 60, 61, 62], FOR_NOW),
            ("many answers over a minute", &[0, 15, 30, 45, 60], NEWS),
            ("just enough of them", &[0, 20, 40, 60], NEWS),
            ("every two seconds", &[0, 2, 4, 6, 8, 10, 12, 20, 30, 40, 50, 60], NEWS),
            ("it is told once", &[0, 20, 40, 60, 61], KNOWN),
            ("the last one is too soon to count, but it is there", &[0, 15, 30, 55, 60], NEWS),
            ("it was there in between", &[0, 20, 40, -1, 60, 80], FOR_NOW),
            ("and went for good later", &[0, 20, -1, 60, 80, 100, 120], NEWS),
            ("Kafka was away for long", &[0, 20, 40, 341], FOR_NOW),
            ("Kafka was away, but not for long", &[0, 20, 40, 340], NEWS),
            ("after it was away, the count begins anew", &[0, 20, 40, 60, 361], FOR_NOW),
        ];
        for (what, seconds, last) in cases {
            assert_eq!(after(seconds).last(), Some(&last), "{what}");
        }
    }

    #[test]
    fn each_partition_has_a_count_of_its_own_and_only_so_many_are_remembered() {
        let (begin, mut absences) = (Instant::now(), Absences::default());
        for second in [0, 20, 40, 60] {
            let now = begin + Duration::from_secs(second);
            let expected = if second < 60 { FOR_NOW } else { NEWS };
            assert_eq!(absences.absent(&partition(0), now), expected);
            if second < 40 {
                assert_eq!(absences.absent(&partition(1), now), FOR_NOW);
            }
        }
        let now = begin + Duration::from_secs(60);
        assert_eq!(absences.absent(&partition(1), now), FOR_NOW);
        for number in 2..20_000 {
            absences.absent(&partition(number), now);
            assert!(absences.of.len() <= PARTITIONS);
        }
    }
}
