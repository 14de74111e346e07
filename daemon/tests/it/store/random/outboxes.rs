//! What is to be published: no notice is lost, and none is there twice.

use std::collections::BTreeMap;
use std::time::Duration;

use callbackd::model::callback::CallbackId;
use callbackd::model::notice::Notice;
use callbackd::store::outbox::Outbox as _;

use super::world::World;

/// More than a run has.
const ALL: usize = 100_000;

impl World {
    /// The rows of the model's outbox, as the store has them.
    pub(super) async fn notices(&self) -> Vec<(i64, Vec<Notice>)> {
        let rows = self.model.outbox(self.seats[0].twin, ALL).await.unwrap();
        rows.into_iter().map(|row| (row.id, self.told(row.notices))).collect()
    }

    /// A callback that ends twice in one batch is told by PostgreSQL in its last revision alone: a notice says that there is something
    /// to read, and its reader finds the last one anyway.
    fn told(&self, mut notices: Vec<Notice>) -> Vec<Notice> {
        if self.is_shared() {
            let mut last: BTreeMap<CallbackId, u32> = BTreeMap::new();
            for notice in &notices {
                if let Notice::Ended(id, revision) = notice {
                    let known = last.entry(*id).or_default();
                    *known = (*known).max(*revision);
                }
            }
            notices.retain(|notice| match notice {
                Notice::Ended(id, revision) => last[id] == *revision,
                Notice::Buried(_) => true,
            });
        }
        notices.sort_unstable();
        notices
    }

    /// An instance reads some rows, and publishes some of them.
    pub(super) async fn publishes(&mut self) {
        let seat = self.seat();
        let at_most = 1 + self.below(5) as usize;
        let share = self.below(100);
        self.log.note(format!("{seat} reads {at_most} rows of the outbox, and publishes {share} %"));
        self.publish(seat, at_most, share).await;
    }

    /// Reads rows, finds them on the model, and publishes them on both. The number of rows that were read.
    async fn publish(&mut self, seat: usize, at_most: usize, share: u64) -> usize {
        let rows = self.seats[seat].stores.outbox.outbox(self.seats[seat].instance, at_most).await.unwrap();
        let mut left = self.notices().await;
        if !self.is_shared() {
            // One process has all of them.
            self.same(&rows.len(), &left.len().min(at_most), "rows of the outbox");
        }
        let read = rows.len();
        let (mut published, mut twins) = (Vec::new(), Vec::new());
        for row in rows {
            let mut notices = row.notices;
            notices.sort_unstable();
            let twin = left.iter().position(|(_, expected)| *expected == notices);
            let Some(twin) = twin else { panic!("{}: the model does not tell {notices:?}", self.name) };
            let (twin, _) = left.remove(twin);
            if self.chance(share) {
                published.push(row.id);
                twins.push(twin);
            }
        }
        self.seats[seat].stores.outbox.published(published).await.unwrap();
        self.model.published(twins).await.unwrap();
        read
    }

    /// When nobody works on a row any more, any instance publishes it.
    pub(super) async fn tell_all(&mut self) {
        self.log.note("all notices are published".to_owned());
        self.clock.advance(Duration::from_secs(31));
        let waiting = self.notices().await.len();
        let read = self.publish(0, ALL, 100).await;
        self.same(&read, &waiting, "rows of the outbox");
        self.same(&self.notices().await, &Vec::new(), "rows of the outbox that are left");
    }
}
