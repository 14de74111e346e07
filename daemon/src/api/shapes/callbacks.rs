//! Callbacks, their attempts, and tasks.

use scale_callback_serve::text::printable;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::DeadLetterShape;
use crate::flight::FirstTry;
use crate::model::callback::CallbackId;
use crate::model::lease::Facts;
use crate::model::settlement::{Pending, Settled};
use crate::ops::callbacks::{AttemptReport, CallbackReport};
use crate::ops::delivering::Delivering;
use crate::ops::requests::SentRequest;
use crate::store::resends::ResendForm;

#[derive(Debug, Serialize, ToSchema)]
pub struct CallbackShape {
    pub callback_id: String,
    /// pending, delivered, exhausted or abandoned.
    pub state: &'static str,
    /// Why it was abandoned.
    pub reason: Option<&'static str>,
    /// The same as in the platform's task: null until the callback ends, and null if there was no URL at all.
    pub callback_succeeded: Option<bool>,
    pub team_id: String,
    pub task_id: String,
    pub event_id: Option<String>,
    pub event_type: String,
    /// live or test.
    pub mode: &'static str,
    /// The queue in which it waits: the origin of its task's own URL; default:live or default:test, if its task has no URL; or
    /// none, if the task's URL is invalid.
    pub queue: String,
    pub attempts: u32,
    pub last_status: Option<u16>,
    pub last_outcome: Option<&'static str>,
    /// It is in memory: an attempt is under way, or waits for a slot at its endpoint.
    pub in_flight: bool,
    /// When the next attempt is due.
    pub due: Option<String>,
    pub first_attempt_at: Option<String>,
    /// When it changed last: its last attempt ended, it ended, or it was stored without an attempt.
    pub changed_at: Option<String>,
    pub settled_at: Option<String>,
    /// How often it was sent again after it had ended.
    pub round: u32,
    /// It has ended, and is being sent again now. Then queue, due and in_flight are those of this round.
    pub resending: bool,
    /// Rises with every change of a settled callback. 0 while the callback is pending.
    pub revision: u32,
    /// Where the task event was read: topic and partition, as in `tasks.events[3]`.
    pub topic_partition: String,
    /// The record's offset in that partition.
    pub offset: i64,
    /// The record's time.
    pub record_at: Option<String>,
}

impl CallbackShape {
    /// `None` for a callback that has no rows any more.
    pub fn new(report: &CallbackReport) -> Option<Self> {
        let shape = match (&report.rows.settled, report.rows.live()) {
            (Some(settled), None) => Self::settled(report.id, settled),
            (Some(settled), Some(open)) => Self::resending(report.id, settled, open),
            (None, Some(pending)) => Self::pending(report.id, pending),
            (None, None) => return None,
        };
        let changed_at = report.changed_at.map(|at| at.to_string());
        Some(Self { last_status: shape.last_status.or(report.last_status), changed_at, ..shape })
    }

    fn facts(id: CallbackId, facts: &Facts) -> Self {
        Self {
            callback_id: id.to_string(),
            state: "pending",
            reason: None,
            callback_succeeded: None,
            team_id: facts.team.to_string(),
            task_id: facts.task_id.to_string(),
            event_id: facts.event_id.as_ref().map(ToString::to_string),
            event_type: facts.event_type.to_string(),
            mode: facts.mode.name(),
            queue: facts.queue.target.name(),
            attempts: 0,
            last_status: None,
            last_outcome: None,
            in_flight: false,
            due: None,
            first_attempt_at: None,
            changed_at: None,
            settled_at: None,
            round: 0,
            resending: false,
            revision: 0,
            topic_partition: facts.record.partition.to_string(),
            offset: facts.record.offset,
            record_at: facts.record.time().map(|at| at.to_string()),
        }
    }

    fn settled(id: CallbackId, row: &Settled) -> Self {
        let reason = row.ended.reason();
        let delivered = row.ended == crate::model::settlement::Ended::Delivered;
        let had_url = reason != Some(crate::model::retry::Reason::NoUrl);
        Self {
            state: row.ended.name(),
            reason: reason.map(|reason| reason.name()),
            callback_succeeded: had_url.then_some(delivered),
            attempts: row.attempts,
            last_status: row.status,
            // One that was cancelled before its first attempt has neither.
            last_outcome: (row.attempts > 0).then(|| row.outcome.name()),
            first_attempt_at: (row.attempts > 0).then(|| row.first_at.to_string()),
            settled_at: Some(row.settled_at.to_string()),
            round: row.round,
            revision: row.revision,
            ..Self::facts(id, &row.facts)
        }
    }

    fn resending(id: CallbackId, row: &Settled, open: &Pending) -> Self {
        let round = Self::pending(id, open);
        let settled = Self::settled(id, row);
        let in_round = open.progress.since.is_some();
        Self {
            resending: true,
            last_outcome: if in_round { round.last_outcome } else { settled.last_outcome },
            last_status: if in_round { None } else { settled.last_status },
            queue: round.queue,
            attempts: round.attempts,
            in_flight: round.in_flight,
            due: round.due,
            ..settled
        }
    }

    fn pending(id: CallbackId, row: &Pending) -> Self {
        Self {
            attempts: row.progress.attempts,
            last_outcome: row.last_outcome.map(|outcome| outcome.name()),
            in_flight: row.token.is_some(),
            due: row.token.is_none().then(|| row.due.to_string()),
            first_attempt_at: row.progress.since.map(|since| since.to_string()),
            ..Self::facts(id, &row.facts)
        }
    }
}

/// How a callback is sent again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallbackResend {
    /// To the team's default URL, and not to the task's own.
    pub to_default: bool,
    /// Also if that leads to an origin where the callback never went.
    pub allow_new_origin: bool,
    /// With an id of its own, the callback's id and `_r` and the number of the round, so that a receiver that knows the callback's
    /// id takes it as new.
    pub new_id: bool,
}

impl From<CallbackResend> for ResendForm {
    fn from(body: CallbackResend) -> Self {
        Self { to_default: body.to_default, allow_new_origin: body.allow_new_origin, new_id: body.new_id }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptShape {
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// 0 for the callback's first life; then how often it had been sent again after it had ended.
    pub round: u32,
    pub outcome: &'static str,
    /// Whether any byte of the request was sent.
    pub sent: bool,
    pub status: Option<u16>,
    pub begun_at: String,
    pub duration_ms: u64,
    /// The address and port that the request was sent to.
    pub peer: Option<String>,
    /// A connection gave the request back unsent, or the receiver said that it had not handled it. So the request was sent
    /// again within this attempt, over a new connection.
    pub redialed: bool,
    /// The request, as far as it is known with what it was sent.
    pub request: Option<RequestShape>,
    /// The beginning of the answer, or the reason of a refusal. Control characters are escaped. Null for an answer if the
    /// caller lacks the right operate.
    pub answer: Option<String>,
}

impl AttemptShape {
    pub fn new(report: &AttemptReport) -> Self {
        let attempt = &report.row.attempt;
        Self {
            attempt: report.row.n,
            round: report.row.round,
            outcome: attempt.outcome.name(),
            sent: attempt.sent,
            status: attempt.status,
            begun_at: attempt.begun_at.to_string(),
            duration_ms: u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
            peer: attempt.peer.map(|peer| peer.to_string()),
            redialed: attempt.redialed,
            request: report.request.as_ref().map(RequestShape::new),
            answer: report.shows_answer.then(|| printable(&attempt.snippet, 1024)),
        }
    }
}

/// The request of an attempt, rebuilt from the settings of the team that it was sent with. Secrets are masked.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequestShape {
    /// Where it was sent. Null for a task's own URL once the callback has ended: it stands in the body. Only the origin, if the caller
    /// lacks the right operate.
    pub url: Option<String>,
    /// Whose URL it is: that of the task, or the default of the team.
    pub url_of: &'static str,
    /// The form of the header scale-callback-auth: key or hmac.
    pub form: &'static str,
    /// The ids of the signing secrets, the one promoted last first.
    pub signing_keys: Vec<String>,
    /// The ids of the keys in the header scale-callback-auth, the one promoted last first.
    pub auth_keys: Vec<String>,
    /// The headers as HTTP/1.1 sends them. The header host is missing if the URL is null, and content-length if the store does not have
    /// the body. The header user-agent is the one that is sent now: it has the program's version and the setting deliver.contact. The
    /// header webhook-timestamp is the begin of the attempt, and the one that was sent can be a second later.
    pub headers: Vec<HeaderShape>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct HeaderShape {
    pub name: String,
    /// With `[masked]` in the place of signatures and keys; of a key, the last four characters follow. With `[not recorded]` in the place
    /// of a time that the store does not keep.
    pub value: String,
}

impl RequestShape {
    pub fn new(request: &SentRequest) -> Self {
        let header = |(name, value): &(String, String)| HeaderShape { name: name.clone(), value: value.clone() };
        Self {
            url: request.url.clone(),
            url_of: if request.follows_default { "team" } else { "task" },
            form: request.form.name(),
            signing_keys: request.signing_keys.clone(),
            auth_keys: request.auth_keys.clone(),
            headers: request.headers.iter().map(header).collect(),
        }
    }
}

/// The attempt that delivered a callback. The store keeps no more of it than this, and its request.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveringShape {
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The round, as of other attempts. If rounds ended without an attempt, it may have been an earlier one.
    pub round: u32,
    pub outcome: &'static str,
    pub status: Option<u16>,
    /// Known only if the callback had no other attempt.
    pub begun_at: Option<String>,
    pub ended_at: String,
    /// Known only if the callback had no other attempt.
    pub duration_ms: Option<u64>,
}

impl DeliveringShape {
    pub fn new(attempt: &Delivering) -> Self {
        let took = |begun_at| u64::try_from(attempt.ended_at.since(begun_at).as_millis()).unwrap_or(u64::MAX);
        Self {
            attempt: attempt.number,
            round: attempt.round,
            outcome: attempt.outcome.name(),
            status: attempt.status,
            begun_at: attempt.begun_at.map(|at| at.to_string()),
            ended_at: attempt.ended_at.to_string(),
            duration_ms: attempt.begun_at.map(took),
        }
    }
}

/// A callback, and what each of its attempts came to. The attempt that delivered the callback is not in `docs`, because less is known of
/// it: it is in `delivered_by`.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptsShape {
    pub callback: CallbackShape,
    pub docs: Vec<AttemptShape>,
    /// The attempt that delivered the callback.
    pub delivered_by: Option<DeliveringShape>,
    /// The request of the attempt that delivered the callback.
    pub delivery: Option<RequestShape>,
}

/// Everything that is known of one task.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskShape {
    pub task_id: String,
    /// Callbacks whose first attempt has not ended, and which the store has not recorded yet.
    pub under_way: Vec<UnderWayShape>,
    pub callbacks: Vec<CallbackShape>,
    pub dead_letters: Vec<DeadLetterShape>,
    /// There are more callbacks or dead letters than are shown here. Their lists, filtered by this task, show all.
    pub has_more: bool,
}

/// A callback whose first attempt has not ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnderWayShape {
    pub callback_id: String,
    pub team_id: String,
    pub task_id: String,
    pub event_type: String,
    /// live or test.
    pub mode: &'static str,
    /// The queue, as of a callback.
    pub queue: String,
    /// What it does now: under way, which means that its first attempt runs, or waits for its turn.
    pub stage: &'static str,
    /// When its record was read.
    pub since: String,
}

impl UnderWayShape {
    pub fn new(first: &FirstTry) -> Self {
        let facts = &first.facts;
        Self {
            callback_id: facts.id.to_string(),
            team_id: facts.team.to_string(),
            task_id: facts.task_id.to_string(),
            event_type: facts.event_type.to_string(),
            mode: facts.mode.name(),
            queue: facts.queue.target.name(),
            stage: if first.is_started { "under way" } else { "waits for its turn" },
            since: first.since.to_string(),
        }
    }
}
