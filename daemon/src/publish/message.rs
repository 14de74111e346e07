//! The messages, as `docs/outcomes.md` describes them. A member is added at any time, and never changes its meaning.

use serde::Serialize;

use crate::model::settlement::{Ended, Settled};
use crate::store::reads::BuriedLetter;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Outcome,
    DeadLetter,
}

impl About {
    /// The value of the header `callbackd-message`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Outcome => "outcome.v1",
            Self::DeadLetter => "dead_letter.v1",
        }
    }
}

/// A message for a topic. All messages about one callback have one key, so they lie in one partition.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) about: About,
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) value: Vec<u8>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    callback_id: String,
    /// Rises with each message about this callback.
    revision: u32,
    state: &'static str,
    reason: Option<&'static str>,
    delivered: bool,
    team_id: &'a str,
    task_id: &'a str,
    event_id: Option<&'a str>,
    event_type: &'a str,
    mode: &'static str,
    endpoint: String,
    attempts: u32,
    round: u32,
    last_status: Option<u16>,
    last_outcome: Option<&'static str>,
    first_attempt_at: String,
    settled_at: String,
    topic: &'a str,
    partition: i32,
    offset: i64,
}

#[derive(Serialize)]
struct DeadLetter<'a> {
    dead_letter_id: String,
    reason: &'static str,
    detail: &'a str,
    team_id: Option<&'a str>,
    task_id: Option<&'a str>,
    event_id: Option<&'a str>,
    buried_at: String,
    value_bytes: u64,
    value_sha256: Option<String>,
    topic: &'a str,
    partition: i32,
    offset: i64,
}

impl Message {
    pub(super) fn of_outcome(topic: &str, settled: &Settled) -> Self {
        let facts = &settled.facts;
        let partition = &facts.record.partition;
        let outcome = Outcome {
            callback_id: facts.id.to_string(),
            revision: settled.revision,
            state: settled.ended.name(),
            reason: settled.ended.reason().map(|reason| reason.name()),
            delivered: settled.ended == Ended::Delivered,
            team_id: &facts.team,
            task_id: &facts.task_id,
            event_id: facts.event_id.as_deref(),
            event_type: &facts.event_type,
            mode: facts.mode.name(),
            endpoint: facts.queue.target.name(),
            attempts: settled.attempts,
            round: settled.round,
            last_status: settled.status,
            // A callback without an attempt has no outcome.
            last_outcome: (settled.attempts > 0).then(|| settled.outcome.name()),
            first_attempt_at: settled.first_at.to_string(),
            settled_at: settled.settled_at.to_string(),
            topic: &partition.topic,
            partition: partition.number,
            offset: facts.record.offset,
        };
        Self { about: About::Outcome, topic: topic.to_owned(), key: outcome.callback_id.clone(), value: json(&outcome) }
    }

    pub(super) fn of_dead_letter(topic: &str, buried: &BuriedLetter) -> Self {
        let letter = &buried.letter;
        let partition = &letter.record.partition;
        let dead_letter = DeadLetter {
            dead_letter_id: letter.id.to_dead_letter_id(),
            reason: letter.reason.name(),
            detail: &letter.detail,
            team_id: letter.team.as_deref(),
            task_id: letter.task_id.as_deref(),
            event_id: letter.event_id.as_deref(),
            buried_at: buried.buried_at.to_string(),
            value_bytes: letter.value_len,
            value_sha256: letter.value_hash.map(|hash| scale_callback_serve::text::hex(&hash)),
            topic: &partition.topic,
            partition: partition.number,
            offset: letter.record.offset,
        };
        Self {
            about: About::DeadLetter,
            topic: topic.to_owned(),
            key: dead_letter.dead_letter_id.clone(),
            value: json(&dead_letter),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers can be written")
}
