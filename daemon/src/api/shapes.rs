//! The API's JSON: snake_case, times RFC 3339 with milliseconds in UTC. Customers' bytes are shown as text, with what
//! is no text escaped.

use serde::{Deserialize, Deserializer, Serialize};

use crate::base::clock::Timestamp;
use crate::base::text::printable;
use crate::model::callback::CallbackId;
use crate::model::lease::Facts;
use crate::model::settlement::{NumberedAttempt, Pending, Rows, Settled};
use crate::model::team::{KeyState, Team};
use crate::ops::callbacks::Listed;
use crate::ops::status::Status;
use crate::ops::teams::TeamChange;
use crate::store::people::KeyRow;
use crate::store::reads::{BuriedLetter, SourceRow};

/// A page: `next_token` is given back as `before`.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    pub docs: Vec<T>,
    pub has_more: bool,
    pub next_token: Option<String>,
    pub limit: usize,
}

impl<T> Page<T> {
    pub fn of<R>(listed: Listed<R>, shape: impl Fn(R) -> T, token: impl Fn(&T) -> String) -> Self {
        let docs: Vec<T> = listed.docs.into_iter().map(shape).collect();
        let next_token = if listed.has_more { docs.last().map(token) } else { None };
        Self { docs, has_more: listed.has_more, next_token, limit: listed.limit }
    }
}

#[derive(Debug, Serialize)]
pub struct CallbackShape {
    pub callback_id: String,
    pub state: &'static str,
    pub reason: Option<&'static str>,
    pub callback_succeeded: Option<bool>,
    pub team_id: String,
    pub task_id: String,
    pub event_id: Option<String>,
    pub event_type: String,
    pub mode: &'static str,
    pub queue: String,
    pub attempts: u32,
    pub last_status: Option<u16>,
    pub last_outcome: Option<&'static str>,
    pub due: Option<String>,
    pub first_attempt_at: Option<String>,
    pub settled_at: Option<String>,
    pub revision: u32,
    pub source: String,
    pub offset: i64,
    pub record_at: Option<String>,
}

impl CallbackShape {
    pub fn new(id: CallbackId, rows: &Rows) -> Option<Self> {
        match (&rows.settled, rows.live()) {
            (Some(settled), _) => Some(Self::settled(id, settled)),
            (None, Some(pending)) => Some(Self::pending(id, pending)),
            (None, None) => None,
        }
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
            due: None,
            first_attempt_at: None,
            settled_at: None,
            revision: 0,
            source: facts.record.source.to_string(),
            offset: facts.record.offset,
            record_at: (facts.record.timestamp > 0).then(|| Timestamp::from_millis(facts.record.timestamp).to_string()),
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
            last_outcome: Some(row.outcome.name()),
            first_attempt_at: Some(row.first_at.to_string()),
            settled_at: Some(row.settled_at.to_string()),
            revision: row.revision,
            ..Self::facts(id, &row.facts)
        }
    }

    fn pending(id: CallbackId, row: &Pending) -> Self {
        Self {
            attempts: row.progress.attempts,
            last_outcome: row.last_outcome.map(|outcome| outcome.name()),
            due: Some(row.due.to_string()),
            first_attempt_at: row.progress.since.map(|since| since.to_string()),
            ..Self::facts(id, &row.facts)
        }
    }
}

#[derive(Debug, Serialize)]
pub struct AttemptShape {
    pub attempt: u32,
    pub outcome: &'static str,
    pub sent: bool,
    pub status: Option<u16>,
    pub begun_at: String,
    pub duration_ms: u64,
    pub peer: Option<String>,
    pub redialed: bool,
    /// The begin of the answer, or the reason of a refusal; control characters escaped.
    pub answer: String,
}

impl AttemptShape {
    pub fn new(row: &NumberedAttempt) -> Self {
        let attempt = &row.attempt;
        Self {
            attempt: row.n,
            outcome: attempt.outcome.name(),
            sent: attempt.sent,
            status: attempt.status,
            begun_at: attempt.begun_at.to_string(),
            duration_ms: u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
            peer: attempt.peer.map(|peer| peer.to_string()),
            redialed: attempt.redialed,
            answer: printable(&attempt.snippet, 1024),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct DeadLetterShape {
    pub dead_letter_id: String,
    pub reason: &'static str,
    pub detail: String,
    pub team_id: Option<String>,
    pub task_id: Option<String>,
    pub event_id: Option<String>,
    pub source: String,
    pub offset: i64,
    pub buried_at: String,
    pub value_bytes: u64,
    /// The begin of the record's value, control characters escaped; in full only for one letter.
    pub value: String,
}

impl DeadLetterShape {
    pub fn new(row: BuriedLetter, shown: usize) -> Self {
        let letter = row.letter;
        let text = |id: Option<Box<str>>| id.map(|id| printable(id.as_bytes(), 256));
        Self {
            dead_letter_id: letter.id.to_dead_letter_id(),
            reason: letter.reason.name(),
            detail: letter.detail,
            team_id: text(letter.team),
            task_id: text(letter.task_id),
            event_id: text(letter.event_id),
            source: letter.record.source.to_string(),
            offset: letter.record.offset,
            buried_at: row.buried_at.to_string(),
            value_bytes: letter.value_len,
            value: printable(&letter.value, shown),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct SourceShape {
    pub cluster: String,
    pub topic: String,
    pub partition: i32,
    pub done_upto: i64,
    pub seen_upto: i64,
    pub epoch: i64,
    pub owned: bool,
    pub moved_at: String,
}

impl SourceShape {
    pub fn new(row: SourceRow) -> Self {
        Self {
            cluster: row.source.cluster.to_string(),
            topic: row.source.topic.to_string(),
            partition: row.source.partition,
            done_upto: row.reached.done_upto,
            seen_upto: row.reached.seen_upto,
            epoch: row.epoch,
            owned: row.owner.is_some(),
            moved_at: row.moved_at.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct StatusShape {
    pub version: &'static str,
    pub store_id: String,
    pub ready: bool,
    pub troubles: Vec<String>,
    pub kafka_reachable: bool,
    pub partitions: usize,
    pub pending: u64,
    pub oldest_due: Option<String>,
    pub in_flight: i64,
    pub unsettled: i64,
    pub waiting: i64,
    pub delivered: u64,
    pub exhausted: u64,
    pub abandoned: u64,
    pub dead_letters: u64,
}

impl StatusShape {
    pub fn new(status: Status) -> Self {
        Self {
            version: status.version,
            store_id: status.store_id,
            ready: status.readiness.ready,
            troubles: status.readiness.troubles,
            kafka_reachable: status.readiness.kafka_reachable,
            partitions: status.readiness.partitions,
            pending: status.pending,
            oldest_due: status.oldest_due.map(|due| due.to_string()),
            in_flight: status.in_flight,
            unsettled: status.unsettled,
            waiting: status.waiting,
            delivered: status.delivered,
            exhausted: status.exhausted,
            abandoned: status.abandoned,
            dead_letters: status.dead_letters,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct TeamShape {
    pub team_id: String,
    pub name: String,
    pub default_url: Option<String>,
    pub default_url_test: Option<String>,
    pub allowed_origins: Vec<String>,
    pub auth_form: &'static str,
    pub origin_forms: Vec<OriginForm>,
    pub http: Option<&'static str>,
    pub retries: Option<u32>,
    pub horizon_seconds: Option<u64>,
    pub end_on_gone: Option<bool>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginForm {
    pub origin: String,
    pub auth_form: String,
}

impl TeamShape {
    pub fn new(team: &Team) -> Self {
        Self {
            team_id: team.id.to_string(),
            name: team.name.clone(),
            default_url: team.default_url.clone(),
            default_url_test: team.default_url_test.clone(),
            allowed_origins: team.allowed_origins.iter().map(ToString::to_string).collect(),
            auth_form: team.auth_form.name(),
            origin_forms: team
                .origin_forms
                .iter()
                .map(|(origin, form)| OriginForm { origin: origin.to_string(), auth_form: form.name().to_owned() })
                .collect(),
            http: team.http.map(|http| http.name()),
            retries: team.retry.retries,
            horizon_seconds: team.retry.horizon.map(|horizon| horizon.as_secs()),
            end_on_gone: team.retry.end_on_gone,
        }
    }
}

/// What is given changes; null takes away.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamPatch {
    /// For a new team alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub default_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub default_url_test: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_origins: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_form: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_forms: Option<Vec<OriginForm>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub http: Option<Option<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub retries: Option<Option<u32>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub horizon_seconds: Option<Option<u64>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub end_on_gone: Option<Option<bool>>,
}

/// Tells null from absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl From<TeamPatch> for TeamChange {
    fn from(patch: TeamPatch) -> Self {
        let forms = |forms: Vec<OriginForm>| forms.into_iter().map(|form| (form.origin, form.auth_form)).collect();
        Self {
            name: patch.name,
            default_url: patch.default_url,
            default_url_test: patch.default_url_test,
            allowed_origins: patch.allowed_origins,
            auth_form: patch.auth_form,
            origin_forms: patch.origin_forms.map(forms),
            http: patch.http,
            retries: patch.retries,
            horizon: patch.horizon_seconds.map(|seconds| seconds.map(std::time::Duration::from_secs)),
            end_on_gone: patch.end_on_gone,
        }
    }
}

#[derive(Serialize)]
pub struct KeyShape {
    pub key_id: String,
    pub kind: &'static str,
    pub mode: &'static str,
    pub state: &'static str,
    pub last4: String,
    pub created_at: String,
    pub promoted_at: Option<String>,
    pub revoked_at: Option<String>,
    /// Only in the answer to its making, and to `reveal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl KeyShape {
    pub fn new(row: &KeyRow, now: Timestamp) -> Self {
        // A key promoted for a date is active once that has come.
        let active = row.state == KeyState::Created && row.is_used(now);
        Self {
            key_id: row.id.clone(),
            kind: row.kind.name(),
            mode: row.mode.name(),
            state: if active { KeyState::Active.name() } else { row.state.name() },
            last4: row.last4.clone(),
            created_at: row.made_at.to_string(),
            promoted_at: row.promote_at.map(|at| at.to_string()),
            revoked_at: row.revoked_at.map(|at| at.to_string()),
            value: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    pub kind: String,
    pub mode: String,
    /// Takes over a key that was handed out before; made where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// RFC 3339; now where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    pub from: String,
}
