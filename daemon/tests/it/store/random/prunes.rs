//! Pruning, in pieces. PostgreSQL keeps an ended callback until its day may go as a whole; what it keeps for this is checked, and the
//! model keeps it, too.

use std::collections::BTreeSet;
use std::time::Duration;

use callbackd::base::clock::Timestamp;
use callbackd::model::callback::CallbackId;
use callbackd::model::settlement::Rows;
use callbackd::store::reads::Reads;
use callbackd::store::{PruneAsk, Pruned};

use super::ids;
use super::world::World;

const DAY: Duration = Duration::from_secs(86_400);

impl World {
    pub(super) async fn prunes(&mut self) {
        let now = self.now();
        let longest = self.one_of(&[3_600, 86_400, 3 * 86_400]);
        let settled_before = now.minus(Duration::from_secs(self.below(longest)));
        let ask = PruneAsk {
            now,
            settled_before,
            after: None,
            dead_letters_before: now.minus(Duration::from_secs(self.below(86_400))),
            event_ids_before: now.minus(Duration::from_secs(self.below(86_400))),
            at_most: self.one_of(&[1, 3, 1_000]),
        };
        self.log.note(format!("prunes {ask:?}"));
        let before = self.ended().await;
        let seat = self.seat();
        let mut pruned = self.prune(seat, ask).await;
        if self.is_shared() {
            // A day that is locked for a moment goes later.
            for _ in 0..100 {
                if self.days().iter().all(|day| ends(day) > settled_before) {
                    break;
                }
                pruned = and(pruned, self.prune(seat, ask).await);
            }
        }
        let kept = if self.is_shared() { self.of_days(&before, settled_before).await } else { BTreeSet::new() };
        let expected = self.model.prune_all_but(&PruneAsk { at_most: usize::MAX, ..ask }, &kept);
        let letters = (pruned.dead_letters, pruned.event_ids);
        self.same(
            &letters,
            &(expected.dead_letters, expected.event_ids),
            "dead letters and event ids that were pruned",
        );
        if !self.is_shared() {
            self.same(&pruned.settled, &expected.settled, "callbacks that were pruned");
        }
        self.forget(&before).await;
        self.compare_all().await;
    }

    /// All pieces, until nothing more goes.
    async fn prune(&self, seat: usize, ask: PruneAsk) -> Pruned {
        let (mut all, mut after) = (Pruned::default(), None);
        loop {
            let piece = self.seats[seat].engine.prune(PruneAsk { after, ..ask }).await.unwrap();
            assert!(piece.next.is_none_or(|next| after.is_none_or(|after| after < next)), "{}: {piece:?}", self.name);
            let has_more = piece.next.is_some() || piece.more_days || piece.dead_letters + piece.event_ids > 0;
            after = piece.next;
            all = and(all, piece);
            if !has_more {
                return all;
            }
        }
    }

    /// Callbacks that have a settled row on the model.
    async fn ended(&self) -> Vec<u64> {
        let mut ended = Vec::new();
        for n in &self.numbers {
            let Rows { settled, .. } = self.model.rows(ids::callback(*n)).await.unwrap();
            ended.extend(settled.map(|_| *n));
        }
        ended
    }

    /// The days that have tables of their own.
    fn days(&self) -> BTreeSet<String> {
        let sql = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relname ~ '^settled_[0-9]{8}$'";
        self.sql(sql).split_whitespace().map(|name| name.trim_start_matches("settled_").to_owned()).collect()
    }

    /// What the store still has because its day has a table, and goes on after the cutoff.
    async fn of_days(&mut self, ended: &[u64], settled_before: Timestamp) -> BTreeSet<CallbackId> {
        let (days, reads) = (self.days(), self.reads());
        let mut kept = BTreeSet::new();
        for n in ended {
            let day = day(ids::time(*n));
            if days.contains(&day) && ends(&day) > settled_before {
                let id = ids::callback(*n);
                assert!(reads.rows(id).await.unwrap().settled.is_some(), "{}: {n} went before its day", self.name);
                kept.insert(id);
            }
        }
        kept
    }

    /// The run forgets what the model has pruned.
    async fn forget(&mut self, ended: &[u64]) {
        for n in ended {
            if self.model.rows(ids::callback(*n)).await.unwrap() == Rows::default() {
                self.pruned.insert(*n);
                self.settles.remove(n);
                self.delivered.remove(n);
            }
        }
        for n in self.numbers.iter().filter(|n| ids::is_letter(**n)) {
            if self.model.dead_letter(ids::letter(*n).id).await.unwrap().is_none() {
                self.pruned.insert(*n);
            }
        }
    }
}

fn and(one: Pruned, other: Pruned) -> Pruned {
    Pruned {
        settled: one.settled + other.settled,
        dead_letters: one.dead_letters + other.dead_letters,
        event_ids: one.event_ids + other.event_ids,
        ..other
    }
}

/// A day as its tables name it, such as `20251124`.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).filter(char::is_ascii_digit).collect()
}

/// When a day ends.
fn ends(day_name: &str) -> Timestamp {
    let is_of = |at: &Timestamp| day(*at) == day_name;
    let days = (0..1_000).map(|number| super::super::START.plus(DAY * number));
    let noon = days.into_iter().find(is_of).expect("a day of the run");
    let millis = noon.millis().div_euclid(86_400_000) * 86_400_000;
    Timestamp::from_millis(millis).plus(DAY)
}
