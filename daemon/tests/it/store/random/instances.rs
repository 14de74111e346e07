//! Instances begin, end and die; they take partitions, give them up, and read them anew.

use std::time::Duration;

use callbackd::store::reads::{InstanceEnd, Reads};
use callbackd::store::{EngineStore as _, InstanceId, NewLog, StoreError, Take, TakeAsk, Taken};

use super::ids;
use super::world::{Seat, World};

const PATIENCE: Duration = Duration::from_secs(20);

impl World {
    /// The instance begins, on the store and on the model.
    pub(super) async fn begun(&mut self, mut seat: Seat) -> Seat {
        let (begun, twin) = (seat.engine.begin().await.unwrap(), self.model.begin().await.unwrap());
        self.same(&(begun.unclean, begun.now), &(twin.unclean, twin.now), "what an instance learns at its begin");
        (seat.instance, seat.twin) = (begun.instance, twin.instance);
        (seat.number, seat.last) = (0, None);
        seat.epochs.clear();
        seat
    }

    /// Every partition has a row, because the changes of a run name all of them.
    pub(super) async fn take_first(&mut self) {
        for p in 0..ids::PARTITIONS {
            let seat = self.seat();
            self.take(seat, p, Duration::ZERO).await;
        }
    }

    pub(super) async fn takes(&mut self) {
        let (seat, p) = (self.seat(), self.below(ids::PARTITIONS));
        let patience = if self.chance(50) { PATIENCE } else { Duration::ZERO };
        self.log.note(format!("{seat} takes {} with {patience:?}", ids::partition(p)));
        self.take(seat, p, patience).await;
    }

    async fn take(&mut self, seat: usize, p: u64, patience: Duration) {
        let one = &self.seats[seat];
        let ask = TakeAsk { instance: one.instance, partition: ids::partition(p), patience };
        let twin = TakeAsk { instance: one.twin, ..ask.clone() };
        let (take, expected) = (one.engine.take(ask).await.unwrap(), self.model.take(twin).await.unwrap());
        match (take, expected) {
            (Take::Taken(taken), Take::Taken(expected)) => {
                self.same(&shown(&taken), &shown(&expected), "a partition that was taken");
                self.seats[seat].epochs.insert(p, taken.epoch);
            }
            (Take::Held { owner }, Take::Held { owner: expected }) => {
                let twin = self.seats.iter().find(|seat| seat.instance == owner).map(|seat| seat.twin);
                self.same(&twin, &Some(expected), "the owner of a partition");
            }
            (take, expected) => panic!("{}: the store says {take:?}, the model {expected:?}", self.name),
        }
    }

    /// The partition is read as a new log, if its epoch is still that one.
    pub(super) async fn starts_over(&mut self) {
        let (seat, p) = (self.seat(), self.below(ids::PARTITIONS));
        let epoch = self.epoch(seat, p);
        let start = self.below(20);
        let log_end = i64::try_from(start + self.below(20)).unwrap();
        let accepted = self.chance(20).then(|| "another".to_owned());
        let log = NewLog { start: i64::try_from(start).unwrap(), log_end, accepted };
        self.log.note(format!("{seat} starts {} over, epoch {epoch}: {log:?}", ids::partition(p)));
        let one = &self.seats[seat];
        let taken = one.engine.start_over(one.instance, ids::partition(p), epoch, log.clone()).await.unwrap();
        let expected = self.model.start_over(one.twin, ids::partition(p), epoch, log).await.unwrap();
        self.same(&taken.as_ref().map(shown), &expected.as_ref().map(shown), "a partition that is read anew");
        if let Some(taken) = taken {
            self.seats[seat].epochs.insert(p, taken.epoch);
            self.begins.insert(p, start);
        }
    }

    pub(super) async fn releases(&mut self) {
        let seat = self.seat();
        let mut partitions = Vec::new();
        for p in 0..ids::PARTITIONS {
            if self.chance(50) {
                partitions.push((ids::partition(p), self.epoch(seat, p)));
            }
        }
        self.log.note(format!("{seat} releases {partitions:?}"));
        let one = &self.seats[seat];
        one.engine.release(one.instance, partitions.clone()).await.unwrap();
        self.model.release(one.twin, partitions).await.unwrap();
    }

    /// Once in a while an instance tells more batches than the store knows.
    pub(super) async fn pulses(&mut self) {
        let seat = self.seat();
        let applied = self.seats[seat].number + u64::from(self.chance(20));
        self.log.note(format!("{seat} pulses, with {applied} batches"));
        let one = &self.seats[seat];
        let (found, expected) =
            (one.engine.pulse(one.instance, applied).await, self.model.pulse(one.twin, applied).await);
        let wanted = |pulse: Result<callbackd::store::Pulse, StoreError>| match pulse {
            Ok(mut pulse) => {
                pulse.wanted.sort();
                Some(pulse.wanted)
            }
            Err(StoreError::Superseded(_)) => None,
            Err(other) => panic!("{other}"),
        };
        self.same(&wanted(found), &wanted(expected), "partitions that others want");
    }

    /// An instance ends well and another one begins in its process, or begins as if its process had forgotten the first one.
    pub(super) async fn begins_anew(&mut self) {
        let at = self.seat();
        let ends = self.chance(50);
        self.log.note(format!("{at} begins anew; the one before ended: {ends}"));
        let seat = self.seats.remove(at);
        if ends {
            seat.engine.end(seat.instance).await.unwrap();
            self.model.end(seat.twin).await.unwrap();
        } else if self.is_shared() {
            self.model.died(seat.twin);
        }
        let seat = self.begun(seat).await;
        self.seats.insert(at, seat);
    }

    /// The process of an instance is gone, and another one takes its place.
    pub(super) async fn dies(&mut self) {
        let at = self.seat();
        self.log.note(format!("{at} dies, and another one begins"));
        let Seat { instance, twin, .. } = self.seats.remove(at);
        if self.is_shared() {
            let other = self.seats[0].stores.reads.clone();
            crate::harness::until("the server notices the end", async || {
                let rows = other.instances(1_000).await.unwrap();
                rows.iter().any(|row| row.id == instance.0 && row.end == Some(InstanceEnd::Died)).then_some(())
            })
            .await;
            self.model.died(twin);
        }
        let seat = self.sit_down().await;
        self.seats.insert(at, seat);
    }

    pub(super) async fn compare_instances(&self, reads: &dyn Reads) {
        let (found, expected) = (reads.instances(1_000).await.unwrap(), self.model.instances(1_000).await.unwrap());
        let shown = |rows: &[callbackd::store::reads::InstanceRow], id: InstanceId| {
            rows.iter().find(|row| row.id == id.0).map(|row| (row.end, row.partitions, row.started_at))
        };
        for seat in &self.seats {
            self.same(&shown(&found, seat.instance), &shown(&expected, seat.twin), "an instance");
        }
    }
}

fn shown(taken: &Taken) -> String {
    format!("{taken:?}")
}
