//! What happened to a callback, or to a task.

use std::sync::Arc;

use bytes::Bytes;
use scale_callback_serve::text::printable;

use super::dead_letters::LetterReport;
use super::delivering::{Delivering, Sent};
use super::names::{check_range, malformed};
use super::policy::{self, Operation};
use super::requests::SentRequest;
use super::{Inner, OpsError, Session};
use crate::base::clock::Timestamp;
use crate::flight::FirstTry;
use crate::intake::KafkaState;
use crate::model::callback::CallbackId;
use crate::model::lease::Facts;
use crate::model::permission::TeamLimit;
use crate::model::settlement::{NumberedAttempt, Rows};
use crate::model::state::State;
use crate::store::reads::{CallbackFilter, DeadLetterFilter, Found, Page};

/// The most callbacks, and the most dead letters, of one task that are shown.
const OF_A_TASK: usize = 1_000;
/// Dead letters without a task are counted up to this.
const NAMELESS: usize = 1_000;

/// A callback, with a fact that only its attempts hold.
pub struct CallbackReport {
    pub id: CallbackId,
    pub rows: Rows,
    /// The status of its last attempt; `None` where no answer came.
    pub last_status: Option<u16>,
    /// When its last attempt ended, when the callback ended, or when it was stored without an attempt. `None` where the
    /// store does not know.
    pub changed_at: Option<Timestamp>,
}

impl CallbackReport {
    pub(super) fn team(&self) -> Option<&str> {
        let settled = self.rows.settled.as_ref().map(|row| &*row.facts.team);
        settled.or(self.rows.pending.as_ref().map(|row| &*row.facts.team))
    }
}

/// An attempt, as far as its caller may see it.
pub struct AttemptReport {
    pub row: NumberedAttempt,
    pub request: Option<SentRequest>,
    /// Whether the caller may see the beginning of the answer. A receiver may repeat the request's URL there.
    pub shows_answer: bool,
}

/// A callback with its attempts.
pub struct AttemptsReport {
    pub callback: CallbackReport,
    pub attempts: Vec<AttemptReport>,
    /// The attempt that delivered the callback, which has no row.
    pub delivered_by: Option<Delivering>,
    /// Its request.
    pub delivery: Option<SentRequest>,
}

/// Everything that is known about one task.
pub struct TaskHistory {
    /// First tries of which the store has no row yet.
    pub under_way: Vec<FirstTry>,
    pub callbacks: Vec<CallbackReport>,
    pub dead_letters: Vec<LetterReport>,
    /// There are more of one or the other than are shown here; the lists show all.
    pub more: bool,
}

impl Session {
    /// Callbacks that match, newest event first. `endpoint` is an origin, `default:live` or `default:test`, and takes
    /// the place of the filter's queues. A search that finds little ends within its time, with what it found.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`, also for a filter that nothing can match; `not_found` for the filter's team; or the
    /// store's.
    pub async fn callbacks(
        &self,
        filter: CallbackFilter,
        endpoint: Option<&str>,
        page: Page,
    ) -> Result<Found<CallbackReport>, OpsError> {
        self.allow(Operation::Callbacks)?;
        let (team, teams) = self.asked_teams(Operation::Callbacks, filter.team.as_deref())?;
        let filter = CallbackFilter { team, teams, ..filter };
        let filter = self.inner.checked(filter, endpoint).await?;
        let found = self.parts().reads.callbacks(filter, page).await?;
        Ok(Found { docs: self.inner.reports(found.docs).await?, next: found.next })
    }

    /// One callback.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, or the store's.
    pub async fn callback(&self, id: &str) -> Result<CallbackReport, OpsError> {
        self.allow(Operation::Callback)?;
        self.own_callback(id).await
    }

    /// One callback and its attempts.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, or the store's.
    pub async fn attempts(&self, id: &str) -> Result<AttemptsReport, OpsError> {
        self.allow(Operation::Attempts)?;
        let callback = self.own_callback(id).await?;
        let rows = self.parts().reads.attempts(callback.id).await?;
        let mut sent: Vec<_> = rows.iter().map(Sent::of).collect();
        let delivery = Sent::delivery(&callback.rows, &rows);
        sent.extend(delivery);
        let settled = callback.rows.settled.as_ref();
        let delivered_by = settled.zip(delivery).map(|(settled, sent)| Delivering::new(settled, sent));
        let requests = self.requests(callback.id, &callback.rows, &sent).await?;
        let all = policy::sees_urls(&self.caller);
        let report = |row: NumberedAttempt| AttemptReport {
            request: requests.of(Sent::of(&row)),
            // What was not sent has no answer: the text is our own reason, which holds no URL.
            shows_answer: all || !row.attempt.sent,
            row,
        };
        let (attempts, delivery) =
            (rows.into_iter().map(report).collect(), delivery.and_then(|sent| requests.of(sent)));
        Ok(AttemptsReport { callback, attempts, delivered_by, delivery })
    }

    /// The body of a callback, byte for byte as it is sent. It is kept while the callback is pending, and afterwards as
    /// `store.bodies` says. One that is not kept is read from Kafka again, as long as Kafka has its record. Each time it is
    /// shown, an audit row is written.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `not_found`, `pruned`, or the store's.
    pub async fn payload(&self, id: &str) -> Result<Bytes, OpsError> {
        self.allow(Operation::Payload)?;
        let callback = self.own_callback(id).await?;
        let id = callback.id;
        let settled = callback.rows.settled.as_ref().map(|row| &row.facts);
        let facts = settled.or(callback.rows.pending.as_ref().map(|row| &row.facts));
        let body = self.inner.body_of(facts.ok_or_else(|| no_callback(id))?).await?;
        let team = callback.team().unwrap_or_default();
        self.parts().admin.note(self.caller.entry(Operation::Payload, team, id.to_string())).await?;
        Ok(body)
    }

    /// Every callback and dead letter of a task.
    ///
    /// # Errors
    /// `forbidden`; `not_found` or `pruned`, with what that may mean; or the store's.
    pub async fn task(&self, task: &str) -> Result<TaskHistory, OpsError> {
        self.allow(Operation::Task)?;
        let page = || Page { before: None, limit: OF_A_TASK };
        let reads = &self.parts().reads;
        // How far Kafka was read is looked at first: an event that is stored during the look-ups is then either found,
        // or counts as not read yet.
        let kafka = self.parts().kafka.borrow().clone();
        let (team, teams) = self.asked_teams(Operation::Task, None)?;
        // What is under way is looked at before the store, too: what is stored in between is then found twice, and not
        // missed.
        let mut under_way = self.parts().inflight.first_tries_of_task(task, OF_A_TASK);
        let task_id = Some(task.to_owned());
        let filter = DeadLetterFilter {
            task: task_id.clone(),
            team: team.clone(),
            teams: teams.clone(),
            ..DeadLetterFilter::default()
        };
        let callbacks = CallbackFilter { task: task_id, team, teams, ..CallbackFilter::default() };
        let callbacks = reads.callbacks(callbacks, page()).await?;
        let dead_letters = reads.dead_letters(filter, page()).await?;
        under_way.retain(|first| self.sees(&first.facts.team));
        under_way.retain(|first| !callbacks.docs.iter().any(|(id, _)| *id == first.facts.id));
        if callbacks.docs.is_empty() && dead_letters.docs.is_empty() && under_way.is_empty() {
            return Err(self.inner.absent(task, &kafka, &self.caller.teams).await?);
        }
        let more = callbacks.next.is_some() || dead_letters.next.is_some();
        let callbacks = self.inner.reports(callbacks.docs).await?;
        Ok(TaskHistory { under_way, callbacks, dead_letters: self.letters(dead_letters.docs), more })
    }

    /// A callback of a team that exists for the caller.
    pub(super) async fn own_callback(&self, id: &str) -> Result<CallbackReport, OpsError> {
        let found = self.inner.callback(id, |team| self.sees(team)).await?;
        if found.team().is_some_and(|team| self.sees(team)) { Ok(found) } else { Err(no_callback(found.id)) }
    }
}

impl Inner {
    /// Checks what a filter asks for, and finds the queues of its endpoint. A team that does not exist, or a combination that
    /// nothing can match, is a mistake.
    pub(super) async fn checked(
        &self,
        filter: CallbackFilter,
        endpoint: Option<&str>,
    ) -> Result<CallbackFilter, OpsError> {
        check_range(filter.since, filter.until)?;
        if let Some(span) = filter.failed.filter(|span| span.from >= span.until) {
            return Err(OpsError::invalid(format!(
                "failed_since ({}) must be earlier than failed_until ({}): nothing lies between them",
                span.from, span.until
            )));
        }
        if filter.reason.is_some() && filter.state.is_some_and(|state| state != State::Abandoned) {
            return Err(OpsError::invalid("only callbacks in the state abandoned have a reason"));
        }
        if let Some(team) = &filter.team {
            self.check_team_exists(team).await?;
        }
        let queues = match endpoint {
            Some(endpoint) => Some(self.queues_of(filter.team.as_deref(), endpoint).await?),
            None => None,
        };
        Ok(CallbackFilter { queues, ..filter })
    }

    async fn callback(&self, id: &str, sees: impl Fn(&str) -> bool) -> Result<CallbackReport, OpsError> {
        let id = callback_id(id)?;
        let first_try = self.parts.inflight.first_try(id).filter(|first| sees(&first.facts.team));
        let rows = self.parts.reads.rows(id).await?;
        if rows == Rows::default() {
            return Err(match first_try {
                Some(_) => OpsError::NotFound(format!(
                    "{id} is under way: its first attempt has not ended, and the store has no row of it yet"
                )),
                None => no_callback(id),
            });
        }
        let report = self.reports(vec![(id, rows)]).await?.pop();
        report.ok_or_else(|| no_callback(id))
    }

    /// The body of a callback: as it is kept, or else from Kafka.
    pub(super) async fn body_of(&self, facts: &Arc<Facts>) -> Result<Bytes, OpsError> {
        if let Some(body) = self.parts.reads.body(facts.id).await? {
            return Ok(body);
        }
        self.parts.rereader.read(facts).await.map_err(|why| {
            let sentence = format!("the body of {} is not kept (store.bodies), and {why}", facts.id);
            if why.is_final() { OpsError::Pruned(sentence) } else { OpsError::NotReady(sentence) }
        })
    }

    /// Adds the status and the end of each last attempt. A row of a settled callback has them; that of a pending one has
    /// not.
    async fn reports(&self, callbacks: Vec<(CallbackId, Rows)>) -> Result<Vec<CallbackReport>, OpsError> {
        let pending: Vec<_> = callbacks.iter().filter(|(_, rows)| rows.pending.is_some()).map(|(id, _)| *id).collect();
        let mut attempts = self.parts.reads.last_attempts(pending).await?.into_iter();
        let report = |(id, rows): (CallbackId, Rows)| {
            let last = rows.pending.as_ref().and_then(|_| attempts.next().flatten());
            let settled = rows.settled.as_ref();
            // While it is sent again, its last attempt is that of the round, once one has ended there.
            let last = last.filter(|last| settled.is_none_or(|settled| last.ended_at > settled.settled_at));
            let last_status = match last {
                Some(last) => last.status,
                None => settled.and_then(|settled| settled.status),
            };
            // A callback that was parked before its first attempt has been due since then.
            let parked = rows.pending.as_ref().filter(|row| row.progress.attempts == 0).map(|row| row.due);
            let ended = last.map(|last| last.ended_at).or(settled.map(|settled| settled.settled_at));
            let changed_at = ended.or(parked);
            CallbackReport { id, rows, last_status, changed_at }
        };
        Ok(callbacks.into_iter().map(report).collect())
    }

    /// Why nothing is known about a task.
    async fn absent(&self, task: &str, kafka: &KafkaState, teams: &TeamLimit) -> Result<OpsError, OpsError> {
        let shown = printable(task.as_bytes(), 256);
        if CallbackId::parse(task).is_some() {
            let sentence = format!("{shown} is a callback's id, not a task's: ask for the callback");
            return Ok(OpsError::NotFound(sentence));
        }
        let read = how_far(kafka);
        // A dead letter that names no task may belong to any team.
        let nameless = match teams {
            TeamLimit::All => self.parts.reads.nameless_dead_letters(NAMELESS).await?,
            TeamLimit::Only(_) => 0,
        };
        let letters = match nameless {
            0 => String::new(),
            1 => "; one dead letter names no task".to_owned(),
            NAMELESS => format!("; {NAMELESS} or more dead letters name no task"),
            count => format!("; {count} dead letters name no task"),
        };
        let kept = self.parts.settings.borrow().keep.settled;
        let oldest = self.parts.clock.now().minus(kept);
        if time_of_task(task).is_some_and(|at| at < oldest) {
            let days = kept.as_secs() / 86_400;
            return Ok(OpsError::Pruned(format!(
                "nothing is known of task {shown:?}: its event was not produced, or not read yet ({read}); or it is pruned: by its id the task is older than the {days} days that ended callbacks are kept{letters}"
            )));
        }
        Ok(OpsError::NotFound(format!(
            "nothing is known of task {shown:?}: its event was not produced, or not read yet ({read}){letters}"
        )))
    }
}

/// How far Kafka was read, as a clause.
fn how_far(kafka: &KafkaState) -> String {
    match kafka.recorded_upto() {
        _ if kafka.held => "intake is held: no partition is read".to_owned(),
        _ if kafka.assigned == 0 => {
            kafka.unread_topics().unwrap_or_else(|| "no partition is being read now".to_owned())
        }
        Some(upto) => format!("every partition, {} of them, is recorded up to {upto}", kafka.assigned),
        None => format!("not every partition, {} of them, was read yet", kafka.assigned),
    }
}

/// The platform's task ids begin with their time: 24 hex digits, of which the first eight are seconds.
fn time_of_task(task: &str) -> Option<Timestamp> {
    let is_id = task.len() == 24 && task.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let seconds = i64::from_str_radix(task.get(..8)?, 16).ok().filter(|_| is_id)?;
    (seconds > 1_262_304_000).then(|| Timestamp::from_millis(seconds.saturating_mul(1_000)))
}

fn no_callback(id: CallbackId) -> OpsError {
    OpsError::NotFound(format!("there is no callback {id}"))
}

fn callback_id(text: &str) -> Result<CallbackId, OpsError> {
    CallbackId::parse(text).ok_or_else(|| malformed("callback", "cb_", text))
}
