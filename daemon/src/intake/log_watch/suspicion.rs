//! Decides whether the log of a partition is still the one that is read. It compares what Kafka says with what the store knows, and
//! believes it only when a later look finds the same: an answer may come from a broker that has just lost the partition.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::partition::Suspicion;
use crate::model::callback::Hash;
use crate::model::event::PartitionKey;
use crate::model::offsets::{UNREAD, Watermark};

/// So many looks, one after the other, must find that the log is another one.
const CHANGED_LOOKS: u32 = 2;
/// So many looks must find records that do not come: a broker may be slow, too.
const SILENT_LOOKS: u32 = 3;

/// A partition of ours, before Kafka was asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: i64,
    pub(super) watermark: Watermark,
    /// Everything that came is durable, and the next record would be taken.
    pub(super) is_waiting: bool,
}

/// The log of a partition, as Kafka shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) low: i64,
    /// One above the last record that can be read.
    pub(super) high: i64,
    /// The first record at the offset that was to be read, or above. `None` if none was read.
    pub(super) record: Option<(i64, Hash)>,
}

/// What is known of one partition from earlier looks.
#[derive(Debug)]
struct Watched {
    epoch: i64,
    /// A record of the log that is read, from an earlier look: the client may have gone on in another log since, so the last record
    /// below the watermark would be one of that.
    anchor: Option<(i64, Hash)>,
    /// The watermark and the end of the log when the anchor was compared.
    compared: Option<(i64, i64)>,
    /// What was suspected at the last look, at which watermark, and how many looks have found it.
    suspected: Option<(Suspicion, i64, u32)>,
}

/// What earlier looks have found.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    watched: HashMap<Arc<PartitionKey>, Watched>,
    /// What was told last of each partition, and at which watermark: what did not help is not done again for it.
    told: HashMap<Arc<PartitionKey>, (i64, Suspicion)>,
}

impl Suspicions {
    /// Only these partitions are ours now.
    pub(super) fn retain(&mut self, ours: &[Arc<PartitionKey>]) {
        self.watched.retain(|key, _| ours.contains(key));
    }

    /// A partition stands here. Once for each epoch, its last record is remembered, to be compared at the next look.
    pub(super) fn note(&mut self, key: &Arc<PartitionKey>, place: &Place) {
        let watched = self.watched(key, place);
        watched.anchor = watched.anchor.or(place.known());
    }

    /// The offset of the record that is to be compared, if the log holds it. `None` if the log stands still since the last time.
    pub(super) fn offset_to_compare(
        &mut self,
        key: &Arc<PartitionKey>,
        place: &Place,
        (low, high): (i64, i64),
    ) -> Option<i64> {
        let watched = self.watched(key, place);
        let (offset, _) = watched.anchor?;
        let is_news = watched.compared != Some((place.watermark.upto, high));
        (is_news && (low..high).contains(&offset)).then_some(offset)
    }

    /// Takes what a look at a partition shows. Returns what is certain now, once for each watermark.
    pub(super) fn look(&mut self, key: &Arc<PartitionKey>, place: &Place, log: &Log) -> Option<Suspicion> {
        let upto = place.watermark.upto;
        let watched = self.watched(key, place);
        let Some(suspicion) = watched.suspect(place, log) else {
            watched.suspected = None;
            return None;
        };
        let before = watched.suspected.filter(|(before, at, _)| {
            // The client goes on reading in another log, but a partition that moves is not silent.
            *before == suspicion && (*at == upto || suspicion == Suspicion::OtherRecord)
        });
        let looks = before.map_or(1, |(.., looks)| looks.saturating_add(1));
        watched.suspected = Some((suspicion, upto, looks));
        let enough = if suspicion == Suspicion::Silent { SILENT_LOOKS } else { CHANGED_LOOKS };
        if looks < enough || self.told.get(key) == Some(&(upto, suspicion)) {
            return None;
        }
        self.told.insert(Arc::clone(key), (upto, suspicion));
        Some(suspicion)
    }

    /// What is known of a partition since it was taken last: with each epoch its log is compared anew.
    fn watched(&mut self, key: &Arc<PartitionKey>, place: &Place) -> &mut Watched {
        let new = || Watched { epoch: place.epoch, anchor: place.known(), compared: None, suspected: None };
        let watched = self.watched.entry(Arc::clone(key)).or_insert_with(new);
        if watched.epoch != place.epoch {
            *watched = new();
        }
        watched
    }
}

impl Place {
    /// The last record below the watermark, if another one can be compared with it.
    fn known(&self) -> Option<(i64, Hash)> {
        self.watermark.last.filter(|(_, hash)| *hash != UNREAD)
    }
}

impl Watched {
    /// What one look shows.
    fn suspect(&mut self, place: &Place, log: &Log) -> Option<Suspicion> {
        let upto = place.watermark.upto;
        if log.high < upto {
            return Some(Suspicion::EndsBelow);
        }
        match (self.anchor, log.record) {
            (Some(anchor), Some(found)) if found.0 == anchor.0 && found.1 != anchor.1 => {
                return Some(Suspicion::OtherRecord);
            }
            // The place was known before Kafka was asked, so it is one of the log that was found.
            (Some(_), Some(_)) | (None, _) => {
                self.compared = log.record.map(|_| (upto, log.high));
                self.anchor = place.known();
            }
            // Kafka has deleted the anchor.
            (Some((offset, _)), None) if offset < log.low => self.anchor = place.known(),
            (Some(_), None) => {}
        }
        (place.is_waiting && log.high > upto).then_some(Suspicion::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Hash = [7; 32];
    const OTHER: Hash = [8; 32];

    fn key() -> Arc<PartitionKey> {
        Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 })
    }

    fn place(upto: i64, is_waiting: bool) -> Place {
        let last = (upto > 0).then(|| (upto - 1, KNOWN));
        Place { epoch: 3, watermark: Watermark { upto, seen_upto: upto, last }, is_waiting }
    }

    fn log(high: i64, record: Option<(i64, Hash)>) -> Log {
        Log { low: 0, high, record }
    }

    /// What a first look at a partition shows.
    fn first(place: &Place, log: &Log) -> Option<Suspicion> {
        Suspicions::default().watched(&key(), place).suspect(place, log)
    }

    #[test]
    fn a_log_is_compared_with_what_was_read_of_it() {
        let ours = Some((9, KNOWN));
        for (place, log, suspicion) in [
            (place(10, true), log(10, ours), None),
            (place(10, false), log(50, ours), None),
            (place(10, true), log(11, ours), Some(Suspicion::Silent)),
            (place(0, true), log(1, None), Some(Suspicion::Silent)),
            (place(10, false), log(9, None), Some(Suspicion::EndsBelow)),
            (place(10, false), log(50, Some((9, OTHER))), Some(Suspicion::OtherRecord)),
            // A compacted topic has gaps.
            (place(10, false), log(50, Some((12, OTHER))), None),
            (place(10, false), log(50, None), None),
        ] {
            assert_eq!(first(&place, &log), suspicion, "{place:?} {log:?}");
        }
        let mut unread = place(10, false);
        unread.watermark.last = Some((9, UNREAD));
        assert_eq!(first(&unread, &log(50, Some((9, OTHER)))), None, "nobody could read it");
    }

    #[test]
    fn a_client_that_went_on_in_another_log_is_noticed_by_a_record_of_an_earlier_look() {
        let (key, mut suspicions) = (key(), Suspicions::default());
        assert_eq!(suspicions.offset_to_compare(&key, &place(10, false), (0, 10)), Some(9));
        assert_eq!(suspicions.look(&key, &place(10, false), &log(10, Some((9, KNOWN)))), None);
        assert_eq!(suspicions.offset_to_compare(&key, &place(10, false), (0, 10)), None, "it stands still");
        suspicions.note(&key, &place(50, false));
        // It was deleted, created again and filled, and the client has read on.
        for certain in [None, Some(Suspicion::OtherRecord)] {
            assert_eq!(suspicions.offset_to_compare(&key, &place(50, false), (0, 50)), Some(9), "not its last record");
            assert_eq!(suspicions.look(&key, &place(50, false), &log(50, Some((9, OTHER)))), certain);
        }
        let taken_anew = Place { epoch: 4, ..place(50, false) };
        assert_eq!(suspicions.offset_to_compare(&key, &taken_anew, (0, 50)), Some(49), "the other log is ours now");
    }

    #[test]
    fn a_log_that_goes_on_moves_the_record_that_is_compared() {
        let (key, mut suspicions) = (key(), Suspicions::default());
        for (upto, offset) in [(10, 9), (30, 9), (60, 29)] {
            assert_eq!(suspicions.offset_to_compare(&key, &place(upto, false), (0, 60)), Some(offset));
            assert_eq!(suspicions.look(&key, &place(upto, false), &log(60, Some((offset, KNOWN)))), None);
        }
        // Kafka has deleted the record, or did not give it in time.
        assert_eq!(suspicions.offset_to_compare(&key, &place(80, false), (70, 90)), None);
        assert_eq!(suspicions.look(&key, &place(80, false), &Log { low: 70, high: 90, record: None }), None);
        assert_eq!(suspicions.offset_to_compare(&key, &place(85, false), (70, 90)), Some(79));
        assert_eq!(suspicions.look(&key, &place(85, false), &Log { low: 70, high: 90, record: None }), None);
        assert_eq!(suspicions.offset_to_compare(&key, &place(85, false), (70, 90)), Some(79));
    }

    #[test]
    fn what_one_look_finds_is_believed_after_the_next_ones_and_told_once_for_a_watermark() {
        let (key, mut suspicions) = (key(), Suspicions::default());
        let other = log(50, Some((9, OTHER)));
        assert_eq!(suspicions.look(&key, &place(10, false), &other), None);
        assert_eq!(suspicions.look(&key, &place(10, false), &log(50, Some((9, KNOWN)))), None, "it was a moment");
        assert_eq!(suspicions.look(&key, &place(10, false), &other), None);
        assert_eq!(suspicions.look(&key, &place(10, false), &other), Some(Suspicion::OtherRecord));
        let again = Place { epoch: 4, ..place(10, false) };
        for _ in 0..5 {
            assert_eq!(suspicions.look(&key, &again, &other), None, "it did not help");
        }
        let further = Place { epoch: 4, ..place(30, false) };
        assert_eq!(suspicions.look(&key, &further, &log(20, None)), None);
        assert_eq!(suspicions.look(&key, &further, &log(20, None)), Some(Suspicion::EndsBelow), "another watermark");
    }

    #[test]
    fn records_that_do_not_come_are_waited_for_longer_and_a_partition_that_moves_is_not_silent() {
        let (key, mut suspicions) = (key(), Suspicions::default());
        for upto in [10, 10, 11, 11] {
            assert_eq!(suspicions.look(&key, &place(upto, true), &log(50, None)), None, "{upto}");
        }
        assert_eq!(suspicions.look(&key, &place(11, true), &log(50, None)), Some(Suspicion::Silent));
        assert_eq!(suspicions.look(&key, &place(11, false), &log(50, None)), None);
        suspicions.retain(&[]);
        assert!(suspicions.watched.is_empty());
    }
}
