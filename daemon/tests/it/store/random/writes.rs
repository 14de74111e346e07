//! Batches: of an instance, once more with the same number, and with numbers that do not follow.

use std::collections::BTreeSet;
use std::sync::Arc;

use callbackd::model::offsets::Watermark;
use callbackd::model::settlement::{Change, Ended, Verdict};
use callbackd::store::{Applied, Batch, EngineStore, PartitionWatermark, StoreError};

use super::world::World;
use super::{changes, ids};

impl World {
    pub(super) async fn writes(&mut self) {
        let seat = self.seat();
        let changes = self.changes(seat);
        let watermarks = self.watermarks(seat, &changes);
        self.log_write(seat, &changes, &watermarks);
        let Self { seats, model, .. } = self;
        let number = seats[seat].number + 1;
        let batch = Batch { instance: seats[seat].instance, number, changes, watermarks };
        let twin = Batch { instance: seats[seat].twin, ..batch.clone() };
        let expected = model.write(Arc::new(twin)).await.unwrap();
        let applied = self.written(seat, &batch).await;
        self.check_answer(&applied, &expected);
        self.follow(&batch.changes, &expected);
        let ids: BTreeSet<u64> = batch.changes.iter().map(number_of).collect();
        self.seats[seat].number = number;
        self.seats[seat].last = Some((batch, expected.clone()));
        // Mostly, an instance forgets a partition that it has lost.
        for (partition, epoch) in &expected.lost {
            if self.chance(75) {
                self.seats[seat].epochs.retain(|p, own| ids::partition(*p) != *partition || own != epoch);
            }
        }
        self.compare_these(&ids).await;
    }

    fn changes(&mut self, seat: usize) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..self.below(7) {
            let n = match changes.last().map(number_of) {
                // Several changes of one callback meet in one batch.
                Some(n) if self.chance(25) => n,
                _ => self.record(),
            };
            changes.push(self.change(seat, n));
        }
        changes
    }

    /// Until the store says whether the batch is applied.
    async fn written(&self, seat: usize, batch: &Batch) -> Applied {
        let batch = Arc::new(batch.clone());
        loop {
            match self.seats[seat].engine.write(Arc::clone(&batch)).await {
                Ok(applied) => return applied,
                Err(StoreError::Uncertain(_)) if self.has_faults() => {}
                Err(other) => panic!("{}: {other}", self.name),
            }
        }
    }

    /// SQLite has no verdicts for a batch that it had applied before.
    fn check_answer(&self, applied: &Applied, expected: &Applied) {
        let has_none = applied.verdicts.is_empty() && self.has_faults() && !self.is_shared();
        if !has_none {
            self.same(&applied.verdicts, &expected.verdicts, "verdicts");
            self.same(&applied.lost, &expected.lost, "lost partitions");
        }
        self.same(&applied.now, &expected.now, "the store's clock");
    }

    /// What the run remembers of an applied batch.
    fn follow(&mut self, changes: &[Change], expected: &Applied) {
        for (change, verdict) in changes.iter().zip(&expected.verdicts) {
            let n = number_of(change);
            let is_settle = matches!(change, Change::Settle(_));
            if is_settle && *verdict != Verdict::Nothing {
                *self.settles.entry(n).or_default() += 1;
            }
            if matches!(verdict, Verdict::Ended(Ended::Delivered) | Verdict::DeliveredInRound) {
                self.delivered.insert(n);
            }
            if !matches!(verdict, Verdict::Nothing | Verdict::Released) {
                self.durable.insert(n);
            }
        }
    }

    /// For each partition, as far as everything below is durable with these changes.
    fn watermarks(&mut self, seat: usize, changes: &[Change]) -> Vec<PartitionWatermark> {
        let mut watermarks = Vec::new();
        for p in 0..ids::PARTITIONS {
            if self.chance(50) {
                continue;
            }
            let epoch = self.epoch(seat, p);
            let brings = |change: &&Change| change.record().is_some_and(|(_, own)| own == epoch);
            let brought: BTreeSet<u64> = changes.iter().filter(brings).map(number_of).collect();
            let is_durable = |offset: &u64| {
                let n = offset * ids::PARTITIONS + p;
                self.durable.contains(&n) || brought.contains(&n)
            };
            let first = self.begins.get(&p).copied().unwrap_or(0);
            let full = (first..).take_while(is_durable).count() as u64;
            // Sometimes it is below the one that stands there.
            let upto = first + if self.chance(80) { full } else { self.below(full + 1) };
            let upto = i64::try_from(upto).unwrap();
            let last = self.chance(80).then_some((upto - 1, [7; 32]));
            let seen_upto = upto + i64::try_from(self.below(9)).unwrap();
            let watermark = Watermark { upto, seen_upto, last };
            watermarks.push(PartitionWatermark { partition: ids::partition(p), epoch, watermark });
        }
        watermarks
    }

    fn log_write(&mut self, seat: usize, changes: &[Change], watermarks: &[PartitionWatermark]) {
        let changes: Vec<_> = changes.iter().map(changes::told).collect();
        let raised = |raised: &PartitionWatermark| {
            format!("{} epoch {} upto {}", raised.partition, raised.epoch, raised.watermark.upto)
        };
        let raised: Vec<_> = watermarks.iter().map(raised).collect();
        let number = self.seats[seat].number + 1;
        self.log.note(format!("{seat} writes batch {number}: {}; {}", changes.join(", "), raised.join(", ")));
    }

    /// The last batch once more: nothing changes, and where several processes share a store, the answer is that of the first time.
    pub(super) async fn repeats(&mut self) {
        let seat = self.seat();
        let Some((batch, expected)) = self.seats[seat].last.clone() else { return };
        self.log.note(format!("{seat} repeats batch {}", batch.number));
        let applied = self.written(seat, &batch).await;
        let answer = if self.is_shared() { (expected.verdicts, expected.lost) } else { Default::default() };
        self.same(&(applied.verdicts, applied.lost), &answer, "the answer to a batch that was applied");
        let twin = Batch { instance: self.seats[seat].twin, ..batch.clone() };
        self.model.write(Arc::new(twin)).await.unwrap();
        self.compare_these(&batch.changes.iter().map(number_of).collect()).await;
    }

    /// A batch that does not follow the last one changes nothing.
    pub(super) async fn writes_out_of_turn(&mut self) {
        let (seat, changes) = (self.seat(), vec![]);
        let last = self.seats[seat].number;
        let number = if last > 0 && self.chance(50) { last - 1 } else { last + 2 };
        self.log.note(format!("{seat} writes batch {number} after {last}"));
        let batch = Batch { instance: self.seats[seat].instance, number, changes, watermarks: Vec::new() };
        let twin = Batch { instance: self.seats[seat].twin, ..batch.clone() };
        let engine = &self.seats[seat].stores.engine;
        for answer in [engine.write(Arc::new(batch)).await, self.model.write(Arc::new(twin)).await] {
            assert!(matches!(answer, Err(StoreError::Superseded(_))), "{}: {answer:?}", self.name);
        }
    }
}

pub(super) fn number_of(change: &Change) -> u64 {
    match change {
        Change::Bury(letter, _) => ids::number(letter.id),
        other => ids::number(other.facts().unwrap().id),
    }
}
