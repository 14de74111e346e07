//! Which records of one partition are durable: the watermark. Pure; fed by intake, read where a store batch is
//! composed.
//!
//! It counts records received, not offsets: control records and compaction leave gaps.

use std::collections::VecDeque;

use super::callback::Hash;

/// How far one partition has come, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Every record below is durable.
    pub upto: i64,
    /// The highest offset with a row, plus 1.
    pub seen_upto: i64,
    /// The last data record below the watermark, and the hash of its time and value.
    pub last: Option<(i64, Hash)>,
}

#[derive(Debug)]
pub struct Offsets {
    watermark: Watermark,
    /// Records at or above the watermark, in order.
    outstanding: VecDeque<Entry>,
    /// One above the highest record received.
    received_upto: i64,
    dirty: bool,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    hash: Hash,
    done: bool,
}

impl Offsets {
    pub fn new(watermark: Watermark) -> Self {
        Self { watermark, outstanding: VecDeque::new(), received_upto: watermark.upto, dirty: false }
    }

    /// Takes a record in. False when it lies below what was received already: then it is not to be looked at.
    pub fn receive(&mut self, offset: i64, hash: Hash) -> bool {
        if offset < self.received_upto {
            return false;
        }
        self.received_upto = offset.saturating_add(1);
        self.outstanding.push_back(Entry { offset, hash, done: false });
        true
    }

    /// The record is durable with the batch being composed. `row` tells whether it has a row of its own.
    pub fn done(&mut self, offset: i64, row: bool) {
        if row && offset >= self.watermark.seen_upto {
            // Stored even while the watermark stands: after a crash what has a row is looked up, not sent again.
            self.watermark.seen_upto = offset.saturating_add(1);
            self.dirty = true;
        }
        let index = self.outstanding.partition_point(|entry| entry.offset < offset);
        match self.outstanding.get_mut(index) {
            Some(entry) if entry.offset == offset => entry.done = true,
            _ => return,
        }
        while let Some(entry) = self.outstanding.front().filter(|entry| entry.done) {
            self.watermark.upto = entry.offset.saturating_add(1);
            self.watermark.last = Some((entry.offset, entry.hash));
            self.outstanding.pop_front();
            self.dirty = true;
        }
    }

    /// The consumer's position: with nothing outstanding, all below it is done, control records included.
    pub fn at_position(&mut self, position: i64) {
        if self.outstanding.is_empty() && position > self.watermark.upto && position >= self.received_upto {
            self.watermark.upto = position;
            self.received_upto = position;
            self.dirty = true;
        }
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    pub fn watermark(&self) -> Watermark {
        self.watermark
    }

    /// For the fault switch that writes watermarks ahead of their rows.
    pub fn pretend_all_done(&self) -> Watermark {
        let last = self.outstanding.back().map(|entry| (entry.offset, entry.hash)).or(self.watermark.last);
        Watermark { upto: self.received_upto, seen_upto: self.watermark.seen_upto, last }
    }

    /// What is to be stored, if anything moved since the last call.
    pub fn take_news(&mut self) -> Option<Watermark> {
        std::mem::take(&mut self.dirty).then_some(self.watermark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(upto: i64) -> Offsets {
        Offsets::new(Watermark { upto, seen_upto: upto, last: None })
    }

    #[test]
    fn the_watermark_waits_for_the_oldest() {
        let mut offsets = from(10);
        for offset in [10, 11, 15] {
            assert!(offsets.receive(offset, [u8::try_from(offset).expect("small"); 32]));
        }
        offsets.done(15, true);
        assert_eq!(offsets.take_news(), Some(Watermark { upto: 10, seen_upto: 16, last: None }));
        offsets.done(11, true);
        assert_eq!(offsets.take_news(), None);
        offsets.done(10, true);
        assert_eq!(offsets.take_news(), Some(Watermark { upto: 16, seen_upto: 16, last: Some((15, [15; 32])) }));
        assert_eq!(offsets.take_news(), None);
    }

    #[test]
    fn a_record_is_taken_in_once() {
        let mut offsets = from(10);
        assert!(!offsets.receive(9, [0; 32]));
        assert!(offsets.receive(10, [0; 32]));
        assert!(!offsets.receive(10, [0; 32]));
    }

    #[test]
    fn control_records_at_the_end_are_passed_when_nothing_is_outstanding() {
        let mut offsets = from(0);
        offsets.receive(0, [0; 32]);
        offsets.at_position(2);
        assert_eq!(offsets.watermark().upto, 0);
        offsets.done(0, true);
        offsets.at_position(2);
        assert_eq!(offsets.watermark().upto, 2);
        assert_eq!(offsets.watermark().last, Some((0, [0; 32])), "the last data record stays");
    }

    #[test]
    fn a_repeat_without_a_row_does_not_raise_seen_upto() {
        let mut offsets = from(0);
        offsets.receive(0, [0; 32]);
        offsets.done(0, false);
        assert_eq!(offsets.watermark(), Watermark { upto: 1, seen_upto: 0, last: Some((0, [0; 32])) });
    }

    proptest! {
        #[test]
        fn everything_below_the_watermark_is_done(gaps in proptest::collection::vec(1..4_i64, 1..60), order in any::<u64>()) {
            let offsets_of: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut offsets = from(0);
            for offset in &offsets_of {
                prop_assert!(offsets.receive(*offset, [0; 32]));
            }
            let mut left = offsets_of.clone();
            let mut seed = order;
            while !left.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % left.len();
                offsets.done(left.swap_remove(at), true);
                let upto = offsets.watermark().upto;
                prop_assert!(left.iter().all(|offset| *offset >= upto));
                prop_assert_eq!(offsets.outstanding() == 0, left.is_empty());
            }
            prop_assert_eq!(offsets.watermark().upto, offsets_of[offsets_of.len() - 1] + 1);
        }
    }
}
