//! What happened to a callback, a task, a dead letter.

use bytes::Bytes;
use scale_callback_serve::text::printable;

use super::{Ops, OpsError};
use crate::base::clock::Timestamp;
use crate::intake::KafkaState;
use crate::model::attempt::Outcome;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::Unreadable;
use crate::model::retry::Reason;
use crate::model::settlement::{NumberedAttempt, Rows};
use crate::model::team::parse_mode;
use crate::store::reads::{BuriedLetter, CallbackFilter, DeadLetterFilter, Found, Page, State};

/// Callbacks and dead letters of one task that are shown.
const OF_A_TASK: usize = 1_000;
/// Dead letters without a task are counted up to this.
const NAMELESS: usize = 1_000;

/// Which callbacks, as people write it. Every given field must match.
#[derive(Debug, Clone, Default)]
pub struct CallbackQuery {
    pub team: Option<String>,
    pub task: Option<String>,
    /// An origin, or `default:live` / `default:test`.
    pub endpoint: Option<String>,
    pub state: Option<String>,
    pub reason: Option<String>,
    pub outcome: Option<String>,
    pub mode: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Which dead letters, as people write it.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterQuery {
    pub team: Option<String>,
    pub task: Option<String>,
    pub reason: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Everything that is known of one task.
pub struct TaskHistory {
    pub callbacks: Vec<(CallbackId, Rows)>,
    pub dead_letters: Vec<BuriedLetter>,
    /// There are more of one or the other: lists show all.
    pub more: bool,
}

impl Ops {
    /// Callbacks that match, newest event first. A search that finds little ends within its time, with what it found.
    ///
    /// # Errors
    /// `invalid_request`, or the store's.
    pub async fn callbacks(&self, query: CallbackQuery, page: Page) -> Result<Found<(CallbackId, Rows)>, OpsError> {
        let queues = match &query.endpoint {
            Some(endpoint) => Some(self.queues_of(query.team.as_deref(), endpoint).await?),
            None => None,
        };
        let filter = CallbackFilter {
            team: query.team,
            task: query.task,
            queues,
            state: one_of("state", query.state, &State::ALL, State::name)?,
            reason: one_of("reason", query.reason, &Reason::ALL, Reason::name)?,
            outcome: one_of("outcome", query.outcome, Outcome::ALL, Outcome::name)?,
            mode: match query.mode {
                None => None,
                Some(mode) => Some(parse_mode(&mode).ok_or_else(|| wrong("mode is one of live, test"))?),
            },
            since: query.since,
            until: query.until,
        };
        Ok(self.reads.callbacks(filter, page).await?)
    }

    /// One callback.
    ///
    /// # Errors
    /// `invalid_request`, `not_found`, or the store's.
    pub async fn callback(&self, id: &str) -> Result<(CallbackId, Rows), OpsError> {
        let id = callback_id(id)?;
        let rows = self.reads.rows(id).await?;
        if rows == Rows::default() {
            return Err(OpsError::NotFound(format!("there is no callback {id}")));
        }
        Ok((id, rows))
    }

    /// The status that the last recorded attempt of each came to; a settled one has it in its row.
    ///
    /// # Errors
    /// The store's.
    pub async fn last_statuses(&self, callbacks: &[(CallbackId, Rows)]) -> Result<Vec<Option<u16>>, OpsError> {
        let pending: Vec<_> = callbacks.iter().filter(|(_, rows)| rows.pending.is_some()).map(|(id, _)| *id).collect();
        let mut found = self.reads.last_statuses(pending).await?.into_iter();
        let status = |rows: &Rows| match (&rows.pending, &rows.settled) {
            (Some(_), _) => found.next().flatten(),
            (None, settled) => settled.as_ref().and_then(|settled| settled.status),
        };
        Ok(callbacks.iter().map(|(_, rows)| rows).map(status).collect())
    }

    /// One callback and its attempts.
    ///
    /// # Errors
    /// `invalid_request`, `not_found`, or the store's.
    pub async fn attempts(&self, id: &str) -> Result<(CallbackId, Rows, Vec<NumberedAttempt>), OpsError> {
        let (id, rows) = self.callback(id).await?;
        let attempts = self.reads.attempts(id).await?;
        Ok((id, rows, attempts))
    }

    /// The body of a callback, as it is sent: kept while it is pending.
    ///
    /// # Errors
    /// `invalid_request`, `not_found`, `pruned`, or the store's.
    pub async fn payload(&self, id: &str) -> Result<Bytes, OpsError> {
        let (id, _) = self.callback(id).await?;
        let body = self.reads.body(id).await?;
        body.ok_or_else(|| OpsError::Pruned(format!("{id} has ended: a body is kept while its callback is pending")))
    }

    /// Every callback and dead letter of a task.
    ///
    /// # Errors
    /// `not_found` or `pruned`, with what that may mean; or the store's.
    pub async fn task(&self, task: &str) -> Result<TaskHistory, OpsError> {
        let page = || Page { before: None, limit: OF_A_TASK };
        // How far Kafka was read before the look-ups: what is stored between them is found, or counts as unread.
        let kafka = self.kafka.borrow().clone();
        let filter = CallbackFilter { task: Some(task.to_owned()), ..CallbackFilter::default() };
        let callbacks = self.reads.callbacks(filter, page()).await?;
        let filter = DeadLetterFilter { task: Some(task.to_owned()), ..DeadLetterFilter::default() };
        let dead_letters = self.reads.dead_letters(filter, page()).await?;
        if callbacks.docs.is_empty() && dead_letters.docs.is_empty() {
            return Err(self.absent(task, &kafka).await?);
        }
        let more = callbacks.next.is_some() || dead_letters.next.is_some();
        Ok(TaskHistory { callbacks: callbacks.docs, dead_letters: dead_letters.docs, more })
    }

    /// Why nothing is known of a task.
    async fn absent(&self, task: &str, kafka: &KafkaState) -> Result<OpsError, OpsError> {
        let read = match kafka.recorded_upto() {
            _ if kafka.assigned == 0 => "no partition is being read now".to_owned(),
            Some(upto) => format!("every partition, {} of them, is recorded up to {upto}", kafka.assigned),
            None => format!("not every partition, {} of them, was read yet", kafka.assigned),
        };
        let nameless = self.reads.nameless_dead_letters(NAMELESS).await?;
        let letters = match nameless {
            0 => String::new(),
            1 => "; one dead letter names no task".to_owned(),
            NAMELESS => format!("; {NAMELESS} or more dead letters name no task"),
            count => format!("; {count} dead letters name no task"),
        };
        let kept = self.settings.borrow().keep.settled;
        let oldest = self.clock.now().minus(kept);
        let shown = printable(task.as_bytes(), 256);
        if CallbackId::parse(task).is_some() {
            let sentence = format!("{shown} is a callback's id, not a task's: ask for the callback");
            return Ok(OpsError::NotFound(sentence));
        }
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

    /// Dead letters that match, newest first.
    ///
    /// # Errors
    /// `invalid_request`, or the store's.
    pub async fn dead_letters(&self, query: DeadLetterQuery, page: Page) -> Result<Found<BuriedLetter>, OpsError> {
        let filter = DeadLetterFilter {
            team: query.team,
            task: query.task,
            reason: one_of("reason", query.reason, Unreadable::ALL, Unreadable::name)?,
            since: query.since,
            until: query.until,
        };
        Ok(self.reads.dead_letters(filter, page).await?)
    }

    /// One dead letter, with its bytes.
    ///
    /// # Errors
    /// `invalid_request`, `not_found`, or the store's.
    pub async fn dead_letter(&self, id: &str) -> Result<BuriedLetter, OpsError> {
        let found = self.reads.dead_letter(dead_letter_id(id)?).await?;
        found.ok_or_else(|| OpsError::NotFound(format!("there is no dead letter {id}")))
    }
}

/// The platform's task ids begin with their time: 24 hex digits, of which the first eight are seconds.
fn time_of_task(task: &str) -> Option<Timestamp> {
    let is_id = task.len() == 24 && task.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let seconds = i64::from_str_radix(task.get(..8)?, 16).ok().filter(|_| is_id)?;
    (seconds > 1_262_304_000).then(|| Timestamp::from_millis(seconds.saturating_mul(1_000)))
}

/// A value of a closed set, by its name.
fn one_of<T: Copy>(
    field: &str,
    given: Option<String>,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<Option<T>, OpsError> {
    let Some(given) = given else { return Ok(None) };
    let found = all.iter().copied().find(|value| name(*value) == given);
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
        wrong(format!("{field} is one of {}", names.join(", ")))
    })
}

fn wrong(sentence: impl Into<String>) -> OpsError {
    OpsError::InvalidRequest(sentence.into())
}

fn callback_id(text: &str) -> Result<CallbackId, OpsError> {
    CallbackId::parse(text).ok_or_else(|| malformed("callback", "cb_", text))
}

fn dead_letter_id(text: &str) -> Result<CallbackId, OpsError> {
    CallbackId::parse_dead_letter(text).ok_or_else(|| malformed("dead letter", "dl_", text))
}

fn malformed(what: &str, prefix: &str, text: &str) -> OpsError {
    let shown = printable(text.as_bytes(), 64);
    OpsError::InvalidRequest(format!("{shown:?} is no {what} id; one is {prefix} and 26 characters"))
}
