//! The reads for people, on the model: every list is a filter over all rows.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{MemoryStore, State, done};
use crate::base::clock::Timestamp;
use crate::model::attempt::{Attempt, Outcome};
use crate::model::callback::CallbackId;
use crate::model::dead_letter::Unreadable;
use crate::model::lease::Facts;
use crate::model::settlement::{NumberedAttempt, Pending, Rows};
use crate::model::state::State as CallbackState;
use crate::store::Answer;
use crate::store::reads::{
    BuriedLetter, CallbackFilter, Counts, DeadLetterFilter, Found, InstanceRow, LISTED_BYTES, LastAttempt, Page,
    PartitionOffsets, QueueAsk, QueueRow, Queues, Reads, Span, Totals,
};

impl Reads for MemoryStore {
    fn rows(&self, id: CallbackId) -> Answer<'_, Rows> {
        done(Ok(self.state().rows.get(&id).cloned().unwrap_or_default()))
    }

    fn attempts(&self, id: CallbackId) -> Answer<'_, Vec<NumberedAttempt>> {
        let state = self.state();
        done(Ok(state.attempts_of(id).cloned().collect()))
    }

    fn last_attempts(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<LastAttempt>>> {
        let state = self.state();
        let last = |id: &CallbackId| {
            let attempt = &state.attempts_of(*id).last()?.attempt;
            Some(LastAttempt { status: attempt.status, ended_at: attempt.ended_at() })
        };
        done(Ok(ids.iter().map(last).collect()))
    }

    fn body(&self, id: CallbackId) -> Answer<'_, Option<Bytes>> {
        let state = self.state();
        done(Ok(state.body(id)))
    }

    fn bodies(&self, ids: Vec<CallbackId>, at_most: usize) -> Answer<'_, Vec<Option<Bytes>>> {
        let state = self.state();
        let all = ids.iter().map(|id| state.body(*id));
        let mut bytes = 0;
        let first = all.enumerate().take_while(|(at, body)| {
            bytes += body.as_ref().map_or(0, Bytes::len);
            *at == 0 || bytes <= at_most
        });
        done(Ok(first.map(|(_, body)| body).collect()))
    }

    fn callback_ids(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<CallbackId>> {
        done(Ok(paged(self.state().matching(&filter), &page, |id| *id)))
    }

    fn untried_rounds(&self, team: Option<&str>, at_most: usize) -> Answer<'_, usize> {
        let state = self.state();
        let untried = state.pending().filter(|row| row.round > 0 && row.progress.tries == 0);
        let untried = untried.filter(|row| team.is_none_or(|team| *row.facts.team == *team));
        done(Ok(untried.take(at_most).count()))
    }

    fn callbacks(&self, filter: CallbackFilter, page: Page) -> Answer<'_, Found<(CallbackId, Rows)>> {
        let state = self.state();
        let newest_first = state.matching(&filter).map(|id| (id, state.rows[&id].clone()));
        done(Ok(paged(newest_first, &page, |(id, _)| *id)))
    }

    fn dead_letters(&self, filter: DeadLetterFilter, page: Page) -> Answer<'_, Found<BuriedLetter>> {
        let state = self.state();
        let newest_first = state.dead_letters.values().rev().filter(|letter| letter_matches(&filter, letter));
        let listed = newest_first.cloned().map(|mut letter| {
            letter.letter.value.truncate(LISTED_BYTES);
            letter
        });
        done(Ok(paged(listed, &page, |letter| letter.letter.id)))
    }

    fn dead_letter(&self, id: CallbackId) -> Answer<'_, Option<BuriedLetter>> {
        done(Ok(self.state().dead_letters.get(&id).cloned()))
    }

    fn nameless_dead_letters(&self, at_most: usize) -> Answer<'_, usize> {
        let state = self.state();
        let nameless = state.dead_letters.values().filter(|letter| letter.letter.task_id.is_none());
        done(Ok(nameless.take(at_most).count()))
    }

    fn offsets(&self) -> Answer<'_, Vec<PartitionOffsets>> {
        let state = self.state();
        let offsets = state.partitions.iter().map(|(key, partition)| PartitionOffsets {
            partition: key.clone(),
            watermark: partition.watermark,
            epoch: partition.epoch,
            owner: partition.owner,
            moved_at: partition.moved_at,
        });
        done(Ok(offsets.collect()))
    }

    fn queues(&self, ask: QueueAsk) -> Answer<'_, Vec<QueueRow>> {
        let all = self.state().queues(ask.count_upto);
        let find = |(team, target): &(String, String)| {
            all.iter().find(|row| row.team == *team && row.target == *target).cloned()
        };
        done(Ok(match &ask.which {
            Queues::From { team, at_most } => {
                let first = team.clone().unwrap_or_default();
                all.iter().filter(|row| row.team >= first).take(*at_most).cloned().collect()
            }
            Queues::Of(team) => all.iter().filter(|row| row.team == *team).cloned().collect(),
            Queues::These(queues) => queues.iter().filter_map(find).collect(),
        }))
    }

    fn instances(&self, at_most: usize) -> Answer<'_, Vec<InstanceRow>> {
        let state = self.state();
        let rows = state.instances.iter().rev().map(|(id, instance)| InstanceRow {
            id: *id,
            run: instance.run.clone(),
            name: None,
            host: None,
            version: None,
            partitions: state.partitions.values().map(|partition| u32::from(partition.owner == Some(*id))).sum(),
            started_at: instance.started_at,
            seen_at: instance.seen_at,
            end: instance.end,
        });
        done(Ok(rows.take(at_most).collect()))
    }

    fn backlog(&self) -> Answer<'_, (u64, Option<Timestamp>)> {
        done(Ok(self.state().backlog()))
    }

    fn counts(&self) -> Answer<'_, (Counts, Timestamp)> {
        done(Ok((self.state().counts, self.created_at)))
    }

    fn totals(&self) -> Answer<'_, Totals> {
        let state = self.state();
        let (pending, oldest_due) = state.backlog();
        let mut settled: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
        for row in state.rows.values().filter_map(|rows| rows.settled.as_ref()) {
            let reason = row.ended.reason().map(|reason| reason.name().to_owned());
            *settled.entry((row.ended.name().to_owned(), reason)).or_default() += 1;
        }
        let mut dead_letters: BTreeMap<&str, (Unreadable, u64)> = BTreeMap::new();
        for letter in state.dead_letters.values() {
            let reason = letter.letter.reason;
            dead_letters.entry(reason.name()).or_insert((reason, 0)).1 += 1;
        }
        done(Ok(Totals {
            pending,
            oldest_due,
            settled: settled.into_iter().map(|((state, reason), count)| (state, reason, count)).collect(),
            dead_letters: dead_letters.into_values().collect(),
        }))
    }
}

impl State {
    fn attempts_of(&self, id: CallbackId) -> impl Iterator<Item = &NumberedAttempt> {
        self.attempts.range((id, 0)..=(id, u32::MAX)).map(|(_, attempt)| attempt)
    }

    /// Callbacks that match, newest event first.
    fn matching(&self, filter: &CallbackFilter) -> impl Iterator<Item = CallbackId> {
        let matches = move |(id, rows): &(&CallbackId, &Rows)| {
            callback_matches(filter, **id, rows, self.attempts_of(**id).collect::<Vec<_>>().as_slice())
        };
        self.rows.iter().rev().filter(matches).map(|(id, _)| *id)
    }

    fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.rows.values().filter_map(|rows| rows.pending.as_ref())
    }

    fn backlog(&self) -> (u64, Option<Timestamp>) {
        let waiting = self.pending().filter(|pending| pending.token.is_none());
        (self.pending().count() as u64, waiting.map(|pending| pending.due).min())
    }

    /// Queues of which a callback waits or is under way, by team and target.
    fn queues(&self, count_upto: usize) -> Vec<QueueRow> {
        let mut queues: BTreeMap<(String, String), Vec<&Pending>> = BTreeMap::new();
        for pending in self.pending() {
            let queue = &pending.facts.queue;
            queues.entry((queue.team.to_string(), queue.target.name())).or_default().push(pending);
        }
        let rows = queues.into_iter().map(|((team, target), pending)| {
            let waiting = || pending.iter().filter(|pending| pending.token.is_none());
            let oldest = waiting().min_by_key(|pending| pending.due);
            let bytes = pending.iter().map(|pending| self.bodies.get(&pending.facts.id).map_or(0, Bytes::len));
            QueueRow {
                team,
                target,
                pending: waiting().take(count_upto).count() as u64,
                oldest_due: oldest.map(|pending| pending.due),
                parked_bytes: bytes.sum::<usize>() as u64,
                last_outcome: oldest.and_then(|pending| pending.last_outcome),
                tries: oldest.map_or(0, |pending| pending.progress.tries),
            }
        });
        rows.filter(|row| row.oldest_due.is_some() || row.parked_bytes > 0).collect()
    }
}

/// The documents below the place where the page begins, as many as it holds.
fn paged<T>(newest_first: impl Iterator<Item = T>, page: &Page, id: impl Fn(&T) -> CallbackId) -> Found<T> {
    let below = newest_first.filter(|doc| page.before.is_none_or(|before| id(doc) < before));
    let mut docs: Vec<T> = below.take(page.limit + 1).collect();
    let more = docs.len() > page.limit;
    docs.truncate(page.limit);
    Found { next: docs.last().filter(|_| more).map(id), docs }
}

fn callback_matches(filter: &CallbackFilter, id: CallbackId, rows: &Rows, attempts: &[&NumberedAttempt]) -> bool {
    let failed_in = |span: Span| {
        let begun = |attempt: &Attempt| attempt.begun_at >= span.from && attempt.begun_at < span.until;
        attempts.iter().any(|row| row.attempt.outcome != Outcome::Ok && begun(&row.attempt))
    };
    let last_status = attempts.last().and_then(|row| row.attempt.status);
    let has_status = |rows: &Rows, wanted| match &rows.settled {
        Some(settled) => settled.status == Some(wanted),
        None => last_status == Some(wanted),
    };
    // A callback that is sent again matches by either of its rows.
    let pending = rows.pending.clone().map(|pending| Rows { settled: None, pending: Some(pending) });
    let settled = rows.settled.clone().map(|settled| Rows { settled: Some(settled), pending: None });
    let mut each = [pending, settled].into_iter().flatten();
    filter.failed.is_none_or(failed_in)
        && each.any(|row| row_matches(filter, id, &row) && filter.status.is_none_or(|wanted| has_status(&row, wanted)))
}

/// `rows` is one row.
fn row_matches(filter: &CallbackFilter, id: CallbackId, rows: &Rows) -> bool {
    let Some((facts, state, outcome)) = summary(rows) else { return false };
    let reason = rows.settled.as_ref().and_then(|row| row.ended.reason());
    let queue = facts.queue.target.name();
    filter.team.as_ref().is_none_or(|team| **team == *facts.team)
        && filter.teams.as_ref().is_none_or(|teams| teams.iter().any(|team| **team == *facts.team))
        && filter.task.as_ref().is_none_or(|task| **task == *facts.task_id)
        && filter.queues.as_ref().is_none_or(|queues| {
            queues.iter().any(|q| q.target == queue && q.team.as_ref().is_none_or(|team| **team == *facts.team))
        })
        && filter.state.is_none_or(|wanted| wanted == state)
        && !(filter.undelivered && matches!(state, CallbackState::Pending | CallbackState::Delivered))
        && filter.reason.is_none_or(|wanted| Some(wanted) == reason)
        && filter.outcome.is_none_or(|wanted| Some(wanted) == outcome)
        && filter.mode.is_none_or(|mode| mode == facts.mode)
        && is_between(id, read_at(rows), filter.since, filter.until)
}

/// When the record was read, as far as the rows tell.
fn read_at(rows: &Rows) -> Timestamp {
    let pending = rows.pending.as_ref().map(|pending| pending.progress.since.unwrap_or(pending.due));
    pending.or(rows.settled.as_ref().map(|settled| settled.first_at)).unwrap_or_default()
}

fn summary(rows: &Rows) -> Option<(&Facts, CallbackState, Option<Outcome>)> {
    if let Some(pending) = &rows.pending {
        return Some((&pending.facts, CallbackState::Pending, pending.last_outcome));
    }
    let settled = rows.settled.as_ref()?;
    Some((&settled.facts, settled.ended.state(), Some(settled.outcome)))
}

fn letter_matches(filter: &DeadLetterFilter, buried: &BuriedLetter) -> bool {
    let letter = &buried.letter;
    let is_of = |team: &String| letter.team.as_deref() == Some(team);
    filter.team.as_ref().is_none_or(is_of)
        && filter.teams.as_ref().is_none_or(|teams| teams.iter().any(is_of))
        && filter.task.as_ref().is_none_or(|task| letter.task_id.as_deref() == Some(task))
        && filter.reason.is_none_or(|reason| reason == letter.reason)
        && filter.state.is_none_or(|state| state == buried.fate.state())
        && is_between(letter.id, buried.buried_at, filter.since, filter.until)
}

/// Whether the time with which an id begins is at `since` or later, and before `until`. An id without a time counts by
/// when its record was read.
fn is_between(id: CallbackId, read_at: Timestamp, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&id.as_bytes()[..6]);
    let time = match i64::from_be_bytes(bytes) {
        0 => read_at,
        millis => Timestamp::from_millis(millis),
    };
    since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until)
}
