//! Claims. Which queue is served first, and which of the rows that are due at the same time, is the store's choice: it is checked
//! against what the model holds, and the model takes the same rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use callbackd::base::clock::Timestamp;
use callbackd::model::callback::CallbackId;
use callbackd::model::endpoint::QueueKey;
use callbackd::model::lease::Token;
use callbackd::model::pause::PausedQueues;
use callbackd::model::settlement::{Pending, Rows};
use callbackd::store::reads::Reads;
use callbackd::store::{ClaimAsk, Claimed};

use super::changes::LEASE;
use super::ids;
use super::world::{Held, World};

/// A queue that a claim found paused is not looked at for so long.
const PAUSED_LOOK: Duration = Duration::from_secs(3);
/// On PostgreSQL, the next time of a queue is so much later at most.
const STEP: Duration = Duration::from_millis(100);

/// A row that waits, as the model has it.
struct Waiting {
    id: CallbackId,
    due: Timestamp,
    bytes: usize,
}

type Queues = BTreeMap<QueueKey, Vec<Waiting>>;

impl World {
    pub(super) async fn claims(&mut self) {
        let seat = self.seat();
        let ask = self.ask(seat);
        let room: Vec<_> = ask.room.iter().map(|(queue, room)| format!("{}: {room}", queue.target.name())).collect();
        self.log.note(format!(
            "{seat} claims {} of {} bytes (alone: {}), room {}, {}; paused: {:?}",
            ask.at_most,
            ask.bytes,
            ask.takes_larger_body_alone,
            ask.usual_room,
            room.join(", "),
            ask.paused
        ));
        let claimed = self.seats[seat].engine.claim(ask.clone()).await.unwrap();
        let due = self.waiting(true).await;
        self.check_claim(&ask, &claimed, &due).await;
        let rows: Vec<_> = claimed.rows.iter().map(|(row, _)| (row.facts.id, row.token.unwrap())).collect();
        let expected: Vec<(Pending, Bytes)> = self.model.claim_these(&rows, ask.lease);
        self.same(&claimed.rows, &expected, "claimed rows");
        for (row, _) in &claimed.rows {
            self.held.push(Held { facts: row.facts.clone(), token: row.token.unwrap().0, epoch: None });
        }
        // A run has only so many attempts under way.
        let many = self.held.len().saturating_sub(40);
        self.held.drain(..many);
        let found_paused = due.keys().filter(|queue| ask.paused.include(queue));
        let until = self.now().plus(PAUSED_LOOK);
        self.aside.extend(found_paused.map(|queue| (queue.clone(), until)));
        self.check_next(&ask, claimed.next_at).await;
    }

    fn ask(&mut self, seat: usize) -> ClaimAsk {
        let mut room = HashMap::new();
        for n in 0..self.below(4) {
            room.insert(ids::queue(n * 3), self.below(3) as u32);
        }
        let mut paused = PausedQueues::default();
        match self.below(10) {
            0 => drop(paused.teams.insert("team_a".into())),
            1 => paused.queues = HashSet::from([ids::queue(self.below(10)), ids::queue(self.below(10))]),
            _ => {}
        }
        ClaimAsk {
            instance: self.seats[seat].instance,
            at_most: self.one_of(&[1, 3, 8, 100]),
            bytes: self.one_of(&[10, 100, 2_500, 1 << 20]),
            takes_larger_body_alone: self.chance(70),
            lease: if self.chance(50) { LEASE } else { LEASE / 3 },
            usual_room: self.one_of(&[0, 1, 2, 16]),
            room,
            paused,
            first_token: Token(self.seed.next_u64()),
        }
    }

    /// The rows that nobody holds, by queue and due time: those that are due, or all.
    async fn waiting(&self, is_due: bool) -> Queues {
        let mut queues = Queues::new();
        for n in &self.numbers {
            let Rows { pending: Some(row), .. } = self.model.rows(ids::callback(*n)).await.unwrap() else { continue };
            if row.token.is_some() || (is_due && row.due > self.now()) {
                continue;
            }
            let bytes = ids::body(*n).len();
            queues.entry(row.facts.queue.clone()).or_default().push(Waiting { id: row.facts.id, due: row.due, bytes });
        }
        queues.values_mut().for_each(|rows| rows.sort_by_key(|row| row.due));
        queues
    }

    /// Of each queue the rows that are due first, within its room, and as many as there are unless the claim is full.
    async fn check_claim(&self, ask: &ClaimAsk, claimed: &Claimed, due: &Queues) {
        let rows = &claimed.rows;
        let bytes: usize = rows.iter().map(|(_, body)| body.len()).sum();
        let is_alone = rows.len() == 1 && ask.takes_larger_body_alone;
        assert!(rows.len() <= ask.at_most && (bytes <= ask.bytes || is_alone), "{}: too much: {rows:?}", self.name);
        for (token, (row, _)) in (0..).zip(rows) {
            let expected = Token(ask.first_token.0.wrapping_add(token));
            self.same(&row.token, &Some(expected), "each row takes the next token");
            let before = self.model.rows(row.facts.id).await.unwrap();
            assert!(before.live().is_some(), "{}: an attempt would start from a void row: {before:?}", self.name);
        }
        let taken: HashSet<CallbackId> = rows.iter().map(|(row, _)| row.facts.id).collect();
        let (mut short, mut must_be_full) = (Vec::new(), false);
        for (queue, waiting) in due {
            let count = waiting.iter().filter(|row| taken.contains(&row.id)).count();
            let latest = waiting.iter().filter(|row| taken.contains(&row.id)).map(|row| row.due).max();
            let rest = waiting.iter().find(|row| !taken.contains(&row.id));
            let in_order = rest.is_none_or(|rest| latest.is_none_or(|latest| latest <= rest.due));
            assert!(in_order, "{}: a row of {queue:?} was passed over: {rows:?}", self.name);
            let room = ask.room.get(queue).copied().unwrap_or(ask.usual_room) as usize;
            let is_paused = ask.paused.include(queue);
            let expected = if is_paused { 0 } else { room.min(waiting.len()) };
            assert!(count <= expected, "{}: {count} rows of {queue:?}, whose room is {expected}", self.name);
            let may_be_passed_over = count == 0 && self.aside.get(queue).is_some_and(|until| *until > self.now());
            if count < expected {
                short.extend(rest.map(|rest| (queue, rest)));
                must_be_full |= !may_be_passed_over;
            }
        }
        if !must_be_full || rows.len() == ask.at_most {
            return;
        }
        // One of the next rows has no room for its body, and so the claim ended.
        let is_first = rows.is_empty() && ask.takes_larger_body_alone;
        let ended = |(queue, next): &(&QueueKey, &Waiting)| {
            let same_time = due[*queue].iter().filter(|row| row.due == next.due && !taken.contains(&row.id));
            !is_first && same_time.into_iter().any(|row| bytes + row.bytes > ask.bytes)
        };
        let queues: Vec<_> = short.iter().map(|(queue, _)| queue).collect();
        assert!(short.iter().any(ended), "{}: due rows of {queues:?} were not claimed: {rows:?}", self.name);
    }

    /// The claim says when it is to be repeated: no row waits for longer than it has to. Where several processes claim, next times are in
    /// steps.
    async fn check_next(&self, ask: &ClaimAsk, next_at: Option<Timestamp>) {
        for (queue, waiting) in self.waiting(false).await {
            let Some(first) = waiting.first() else { continue };
            let aside = self.aside.get(&queue).copied().filter(|until| *until > self.now());
            let step = if self.is_shared() { STEP } else { Duration::ZERO };
            let soon = aside.unwrap_or(self.now()).max(first.due).plus(step);
            let is_asked = next_at.is_some_and(|at| at <= soon);
            assert!(is_asked, "{}: {queue:?} waits until {soon}, and the claim says {next_at:?}: {ask:?}", self.name);
        }
    }
}
