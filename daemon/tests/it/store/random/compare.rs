//! What the store holds, beside what the model holds, and the invariants that can be seen from outside. The rows are read through the
//! connections of any instance, because each process keeps some names in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use callbackd::model::callback::CallbackId;
use callbackd::model::settlement::{Ended, Rows};
use callbackd::model::state::State;
use callbackd::store::outbox::Outbox as _;
use callbackd::store::reads::{CallbackFilter, Page, QueueAsk, QueueRow, Queues, Reads};
use callbackd::store::{EngineStore as _, SpaceAsk};

use super::ids;
use super::world::World;

impl World {
    pub(super) fn reads(&mut self) -> Arc<dyn Reads> {
        let seat = self.seat();
        Arc::clone(&self.seats[seat].stores.reads)
    }

    /// Rows, attempts and bodies of these callbacks, or the dead letters.
    pub(super) async fn compare_these(&mut self, numbers: &BTreeSet<u64>) {
        let reads = self.reads();
        for n in numbers {
            if ids::is_letter(*n) {
                self.compare_letter(&*reads, *n).await;
            }
            let id = ids::callback(*n);
            let rows = reads.rows(id).await.unwrap();
            self.same(&rows, &self.model.rows(id).await.unwrap(), &format!("rows of {n}"));
            let attempts = reads.attempts(id).await.unwrap();
            self.same(&attempts, &self.model.attempts(id).await.unwrap(), &format!("attempts of {n}"));
            let body = reads.body(id).await.unwrap();
            self.same(&body, &self.model.body(id).await.unwrap(), &format!("body of {n}"));
            self.check_rows(*n, &rows);
        }
    }

    /// The invariants that can be seen from the rows of one callback.
    fn check_rows(&self, n: u64, rows: &Rows) {
        let Rows { settled, pending } = rows;
        // (2) Delivered is final.
        let is_delivered = settled.as_ref().is_some_and(|row| row.ended == Ended::Delivered);
        assert!(is_delivered || !self.delivered.contains(&n), "{}: {n} was delivered: {rows:?}", self.name);
        // (3) No row of round 0 waits beside a settled one.
        assert!(pending.is_none() || rows.live().is_some(), "{}: {n} has a void row: {rows:?}", self.name);
        // (4) Each settle that was applied counts once.
        let counted = rows.live().map(|row| row.progress.attempts).or(settled.as_ref().map(|row| row.attempts));
        let expected = self.settles.get(&n).copied().unwrap_or(0);
        assert!(counted.unwrap_or(0) == expected, "{}: {n} had {expected} settles: {rows:?}", self.name);
        let in_pair = pending.as_ref().is_none_or(|row| row.token.is_some() == row.lease_until.is_some());
        assert!(in_pair, "{}: {n}: a token without an end: {rows:?}", self.name);
    }

    async fn compare_letter(&self, reads: &dyn Reads, n: u64) {
        let id = ids::letter(n).id;
        let (found, expected) = (reads.dead_letter(id).await.unwrap(), self.model.dead_letter(id).await.unwrap());
        self.same(&format!("{found:?}"), &format!("{expected:?}"), &format!("dead letter {n}"));
    }

    /// Everything.
    pub(super) async fn compare_all(&mut self) {
        let numbers = self.numbers.clone();
        self.compare_these(&numbers).await;
        let reads = self.reads();
        self.compare_lists(&*reads).await;
        self.compare_sums(&*reads).await;
        self.compare_offsets(&*reads).await;
        self.compare_instances(&*reads).await;
        let all: Vec<CallbackId> = numbers.iter().map(|n| ids::callback(*n)).collect();
        let bodies = reads.bodies(all.clone(), usize::MAX).await.unwrap();
        self.same(&bodies, &self.model.bodies(all.clone(), usize::MAX).await.unwrap(), "bodies");
        let last = reads.last_attempts(all.clone()).await.unwrap();
        self.same(&last, &self.model.last_attempts(all.clone()).await.unwrap(), "last attempts");
        let seat = self.seat();
        let endings = self.seats[seat].stores.outbox.endings(all.clone()).await.unwrap();
        self.same(&endings, &self.model.endings(all.clone()).await.unwrap(), "endings");
        let known = self.seats[seat].engine.known(all.clone()).await.unwrap();
        self.same(&known, &self.model.known(all).await.unwrap(), "known ids");
    }

    /// Pages of callbacks, all and some, have neither more nor less than the model's.
    async fn compare_lists(&mut self, reads: &dyn Reads) {
        let undelivered = CallbackFilter { undelivered: true, ..CallbackFilter::default() };
        let of_state = |state| CallbackFilter { state: Some(state), ..CallbackFilter::default() };
        let of_team = CallbackFilter { team: Some("team_b".to_owned()), ..CallbackFilter::default() };
        let mut filters = vec![CallbackFilter::default()];
        filters.push(match self.below(5) {
            0 => undelivered,
            1 => of_state(State::Pending),
            2 => of_state(State::Delivered),
            3 => of_state(State::Exhausted),
            _ => of_team,
        });
        for filter in filters {
            let limit = 5 + self.below(60) as usize;
            let (found, expected) = (pages(reads, &filter, limit).await, pages(&*self.model, &filter, 10_000).await);
            self.same(&found, &expected, &format!("callbacks of {filter:?}"));
        }
    }

    async fn compare_sums(&mut self, reads: &dyn Reads) {
        let model = Arc::clone(&self.model);
        let (counts, _) = reads.counts().await.unwrap();
        self.same(&counts, &model.counts().await.unwrap().0, "counts");
        self.same(&reads.backlog().await.unwrap(), &model.backlog().await.unwrap(), "backlog");
        let totals = |mut totals: callbackd::store::reads::Totals| {
            totals.settled.sort();
            totals.dead_letters.sort_by_key(|(reason, _)| reason.name());
            format!("{totals:?}")
        };
        let (found, expected) = (reads.totals().await.unwrap(), model.totals().await.unwrap());
        self.same(&totals(found), &totals(expected), "totals");
        for team in [None, Some("team_a")] {
            let untried = reads.untried_rounds(team, 1_000).await.unwrap();
            self.same(&untried, &model.untried_rounds(team, 1_000).await.unwrap(), "untried rounds");
        }
        let ask = QueueAsk { which: Queues::From { team: None, at_most: 1_000 }, count_upto: 1_000 };
        // A queue whose last callback has gone is listed until a claim looks at it.
        let is_used = |row: &QueueRow| row.pending > 0 || row.parked_bytes > 0;
        let found = reads.queues(ask.clone()).await.unwrap().into_iter().filter(is_used).map(shown);
        let expected = model.queues(ask).await.unwrap().into_iter().filter(is_used).map(shown);
        self.same(&found.collect::<Vec<_>>(), &expected.collect::<Vec<_>>(), "queues");
        let seat = self.seat();
        let space = self.seats[seat].engine.space(SpaceAsk::BYTES).await.unwrap();
        let expected = model.space(SpaceAsk::BYTES).await.unwrap();
        let notices: usize = self.notices().await.iter().map(|(_, notices)| notices.len()).sum();
        let bytes = (expected.parked_bytes, expected.kept_bytes, notices as u64);
        self.same(&(space.parked_bytes, space.kept_bytes, space.notices), &bytes, "parked and kept bytes, notices");
    }

    /// Offsets, and invariant (1): what lies below a watermark has a row, or had one that was pruned.
    async fn compare_offsets(&mut self, reads: &dyn Reads) {
        let twins: BTreeMap<i64, i64> = self.seats.iter().map(|seat| (seat.instance.0, seat.twin.0)).collect();
        // An owner that has ended has no seat any more: it is one of the model that has no seat either.
        let twin = |owner: i64| twins.get(&owner).copied().unwrap_or(0);
        let seated = |owner: i64| twins.values().find(|twin| **twin == owner).copied().unwrap_or(0);
        let mut found = reads.offsets().await.unwrap();
        found.sort_by(|a, b| a.partition.cmp(&b.partition));
        let expected = self.model.offsets().await.unwrap();
        self.same(&found.len(), &expected.len(), "partitions");
        for (found, expected) in found.iter().zip(&expected) {
            let found = (&found.partition, found.watermark, found.epoch, found.owner.map(twin), found.moved_at);
            let owner = expected.owner.map(seated);
            let expected = (&expected.partition, expected.watermark, expected.epoch, owner, expected.moved_at);
            self.same(&found, &expected, "offsets");
        }
        for p in 0..ids::PARTITIONS {
            let partition = ids::partition(p);
            let Some(offsets) = found.iter().find(|offsets| offsets.partition == *partition) else { continue };
            let upto = u64::try_from(offsets.watermark.upto).unwrap();
            for offset in self.begins.get(&p).copied().unwrap_or(0)..upto {
                let n = offset * ids::PARTITIONS + p;
                let has_row = reads.rows(ids::callback(n)).await.unwrap() != Rows::default();
                let is_buried = ids::is_letter(n) && reads.dead_letter(ids::letter(n).id).await.unwrap().is_some();
                let is_there = has_row || is_buried || self.pruned.contains(&n);
                assert!(is_there, "{}: {n} is below the watermark {upto} and has no row", self.name);
            }
        }
    }
}

async fn pages(reads: &dyn Reads, filter: &CallbackFilter, limit: usize) -> Vec<(CallbackId, Rows)> {
    let (mut docs, mut before) = (Vec::new(), None);
    loop {
        let found = reads.callbacks(filter.clone(), Page { before, limit }).await.unwrap();
        docs.extend(found.docs);
        before = found.next;
        if before.is_none() {
            return docs;
        }
    }
}

/// Which row of a queue is the oldest is open where several are due at the same time.
fn shown(row: QueueRow) -> String {
    let QueueRow { team, target, pending, oldest_due, parked_bytes, .. } = row;
    format!("{team} {target}: {pending} wait, the first since {oldest_due:?}, {parked_bytes} bytes")
}
