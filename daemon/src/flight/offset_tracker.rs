//! Which records of one partition are durable. Pure: intake tells what it receives, and the settle task composes and
//! confirms batches.
//!
//! There are two watermarks. `composed` is the one in the batch that is being written. `durable` is the one that the
//! store has confirmed, and the only one that other rooms see. The tracker counts received records and not offsets,
//! because control records and compaction leave gaps between offsets.

use std::collections::VecDeque;

use crate::model::callback::Hash;
use crate::model::offsets::Watermark;

#[derive(Debug)]
pub(super) struct OffsetTracker {
    durable: Watermark,
    composed: Watermark,
    /// Records at or above the composed watermark, in the order of their offsets.
    outstanding: VecDeque<Entry>,
    /// One above the highest record received.
    received_upto: i64,
    /// Whether `composed` moved since it was last put into a batch.
    has_moved: bool,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    hash: Hash,
    done: bool,
}

impl OffsetTracker {
    /// Starts at the watermark that the store has.
    pub(super) fn new(durable: Watermark) -> Self {
        Self { durable, composed: durable, outstanding: VecDeque::new(), received_upto: durable.upto, has_moved: false }
    }

    /// Takes a record in. False if a record at this offset or above was received before: then this one is ignored.
    pub(super) fn receive(&mut self, offset: i64, hash: Hash) -> bool {
        if offset < self.received_upto {
            return false;
        }
        self.received_upto = offset.saturating_add(1);
        self.outstanding.push_back(Entry { offset, hash, done: false });
        true
    }

    /// The record needs nothing more than the batch being composed. `has_row` tells whether that batch, or an earlier
    /// one, gives it a row of its own.
    pub(super) fn done(&mut self, offset: i64, has_row: bool) {
        if has_row && offset >= self.composed.seen_upto {
            // This is stored even if `upto` does not move. After a crash, a record that has a row is then looked up
            // and not sent again.
            self.composed.seen_upto = offset.saturating_add(1);
            self.has_moved = true;
        }
        let index = self.outstanding.partition_point(|entry| entry.offset < offset);
        match self.outstanding.get_mut(index) {
            Some(entry) if entry.offset == offset => entry.done = true,
            _ => return,
        }
        while let Some(entry) = self.outstanding.pop_front_if(|entry| entry.done) {
            self.composed.upto = entry.offset.saturating_add(1);
            self.composed.last = Some((entry.offset, entry.hash));
            self.has_moved = true;
        }
    }

    /// The consumer's position. While nothing is outstanding, every offset below it is done, control records included.
    pub(super) fn at_position(&mut self, position: i64) {
        if self.outstanding.is_empty() && position > self.composed.upto && position >= self.received_upto {
            self.composed.upto = position;
            self.received_upto = position;
            self.has_moved = true;
        }
    }

    /// The watermark to write with the next batch, if it moved since the last call.
    pub(super) fn compose(&mut self) -> Option<Watermark> {
        std::mem::take(&mut self.has_moved).then_some(self.composed)
    }

    /// The store has this watermark.
    pub(super) fn confirm(&mut self, written: Watermark) {
        self.durable = written;
    }

    /// What the store has.
    pub(super) fn durable(&self) -> Watermark {
        self.durable
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// The lowest offset that the composed watermark has not passed.
    pub(super) fn oldest_open(&self) -> i64 {
        self.composed.upto
    }

    /// A watermark above every record received, durable or not. Only a fault switch of the tests writes it.
    pub(super) fn pretend_all_done(&self) -> Watermark {
        let last = self.outstanding.back().map(|entry| (entry.offset, entry.hash)).or(self.composed.last);
        Watermark { upto: self.received_upto, seen_upto: self.composed.seen_upto, last }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(upto: i64) -> OffsetTracker {
        OffsetTracker::new(Watermark { upto, seen_upto: upto, last: None })
    }

    #[test]
    fn the_watermark_waits_for_the_oldest() {
        let mut offsets = from(10);
        for offset in [10, 11, 15] {
            assert!(offsets.receive(offset, [u8::try_from(offset).expect("small"); 32]));
        }
        offsets.done(15, true);
        assert_eq!(offsets.compose(), Some(Watermark { upto: 10, seen_upto: 16, last: None }));
        offsets.done(11, true);
        assert_eq!(offsets.compose(), None);
        offsets.done(10, true);
        assert_eq!(offsets.compose(), Some(Watermark { upto: 16, seen_upto: 16, last: Some((15, [15; 32])) }));
        assert_eq!(offsets.compose(), None);
    }

    #[test]
    fn nothing_is_durable_before_it_is_confirmed() {
        let mut offsets = from(0);
        offsets.receive(0, [0; 32]);
        offsets.done(0, true);
        let composed = offsets.compose().expect("it moved");
        assert_eq!((composed.upto, offsets.durable().upto), (1, 0));
        offsets.confirm(composed);
        assert_eq!(offsets.durable(), composed);
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
        assert_eq!(offsets.compose(), None);
        offsets.done(0, true);
        offsets.at_position(2);
        let composed = offsets.compose().expect("it moved");
        assert_eq!(composed.upto, 2);
        assert_eq!(composed.last, Some((0, [0; 32])), "the last data record stays");
    }

    #[test]
    fn a_repeat_without_a_row_does_not_raise_seen_upto() {
        let mut offsets = from(0);
        offsets.receive(0, [0; 32]);
        offsets.done(0, false);
        assert_eq!(offsets.compose(), Some(Watermark { upto: 1, seen_upto: 0, last: Some((0, [0; 32])) }));
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
                let upto = offsets.oldest_open();
                prop_assert!(left.iter().all(|offset| *offset >= upto));
                prop_assert_eq!(offsets.outstanding() == 0, left.is_empty());
            }
            prop_assert_eq!(offsets.oldest_open(), offsets_of[offsets_of.len() - 1] + 1);
        }
    }
}
