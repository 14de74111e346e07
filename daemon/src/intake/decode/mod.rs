//! Turns a record's bytes into a task event or a dead letter. It reads and checks only the identity fields; it skips
//! everything else without recursion and keeps it byte for byte.

mod cloud_event;
mod members;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

pub use self::cloud_event::CloudEvent;
use self::members::{Envelope, MAX_EVENT_ID, MAX_EVENT_TYPE, MAX_TEAM_ID, Task, field};
use crate::model::callback::{CallbackId, Hash, Spans};
use crate::model::dead_letter::{DeadLetter, IdentityHeaders, KEPT_OF_TOO_LARGE, Unreadable};
use crate::model::endpoint::CallbackUrl;
use crate::model::event::{RecordRef, TaskEvent};
use crate::model::offsets::UNREAD;

/// The event type of a record that names none.
const DEFAULT_TYPE: &str = "task.completed";

/// How much of an identity header is kept with a dead letter. No identity is that long.
const KEPT_OF_HEADER: usize = 1_024;

/// The identity that the record's Kafka headers carry, as bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'r> {
    pub event_id: Option<&'r [u8]>,
    pub event_type: Option<&'r [u8]>,
    pub team_id: Option<&'r [u8]>,
    /// Present if the record is a CloudEvent in binary mode, which the header `ce_specversion` tells.
    pub cloud_event: Option<CloudEvent<'r>>,
    /// A header that occurs twice with different values.
    pub conflict: Option<&'static str>,
}

impl Headers<'_> {
    /// The headers themselves, as they are kept with a dead letter: the beginning of one that is longer than an identity may be.
    /// `None` if two contradict each other: then only the record itself can say so again.
    fn identity(&self) -> Option<IdentityHeaders> {
        if self.conflict.is_some() {
            return None;
        }
        let cloud_event = self.cloud_event.unwrap_or_default();
        let version = self.cloud_event.map(|_| &b"1.0"[..]);
        let all = [
            ("event-id", self.event_id),
            ("event-type", self.event_type),
            ("team-id", self.team_id),
            ("ce_specversion", version),
            ("ce_id", cloud_event.id),
            ("ce_source", cloud_event.source),
            ("ce_type", cloud_event.kind),
            ("ce_teamid", cloud_event.team),
        ];
        let cut = |value: &[u8]| value[..value.len().min(KEPT_OF_HEADER)].to_vec();
        Some(all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), cut(value?)))).collect())
    }
}

/// A record as Kafka delivered it.
#[derive(Clone, Copy)]
pub struct Raw<'r> {
    pub record: &'r RecordRef,
    pub headers: Headers<'r>,
    pub value: &'r [u8],
}

/// Reads a record.
///
/// # Errors
/// The dead letter that the record becomes, with the reason.
pub fn decode(raw: &Raw<'_>, max_bytes: usize) -> Result<TaskEvent, Box<DeadLetter>> {
    let mut identity = Identity::default();
    read(raw, max_bytes, &mut identity).map_err(|defect| Box::new(dead_letter(raw, &identity, defect)))
}

/// The dead letter for a record without a value, if such records become dead letters.
pub fn tombstone(record: &RecordRef) -> Box<DeadLetter> {
    let raw = Raw { record, headers: Headers::default(), value: b"" };
    let defect = Defect::new(Unreadable::Tombstone, "the record has no value");
    Box::new(dead_letter(&raw, &Identity::default(), defect))
}

/// The dead letter for an event that was read but can't be used.
pub fn unwanted(event: &TaskEvent, reason: Unreadable, detail: String) -> Box<DeadLetter> {
    let value_hash = Sha256::digest(&event.value).into();
    Box::new(DeadLetter {
        id: id_of(&event.record, &value_hash),
        record: event.record.clone(),
        reason,
        detail,
        team: Some(event.team.as_ref().into()),
        task_id: Some(event.task_id.clone()),
        event_id: event.event_id.clone(),
        value: event.value.clone(),
        value_len: event.value.len() as u64,
        value_hash: Some(value_hash),
        headers: Some(event_headers(event)),
    })
}

/// The dead letter for a value that is larger than an event may be, of which only the first bytes are known here.
pub fn cut(record: &RecordRef, first: &[u8], bytes: u64, value_hash: Hash, max_bytes: usize) -> Box<DeadLetter> {
    let defect = too_large(bytes, max_bytes);
    Box::new(DeadLetter {
        id: id_of(record, &value_hash),
        record: record.clone(),
        reason: defect.reason,
        detail: defect.detail,
        team: None,
        task_id: None,
        event_id: None,
        value: Bytes::copy_from_slice(first),
        value_len: bytes,
        value_hash: Some(value_hash),
        headers: None,
    })
}

/// The dead letter for a record that nobody can read.
pub fn poison(record: &RecordRef) -> Box<DeadLetter> {
    Box::new(DeadLetter {
        id: id_of(record, &UNREAD),
        record: record.clone(),
        reason: Unreadable::Poison,
        detail: "each process that read its batch ended".to_owned(),
        team: None,
        task_id: None,
        event_id: None,
        value: Bytes::new(),
        value_len: 0,
        value_hash: None,
        headers: None,
    })
}

/// A hash of a record's time and value. It tells the record from another one at the same offset of a topic that was
/// deleted and created again.
pub fn log_hash(timestamp: i64, value: Option<&[u8]>) -> Hash {
    let mut hash = Sha256::new();
    hash.update(timestamp.to_be_bytes());
    hash.update([u8::from(value.is_some())]);
    hash.update(value.unwrap_or_default());
    hash.finalize().into()
}

/// The identity fields that could be read before a defect was found.
#[derive(Default)]
struct Identity<'v> {
    team: Option<Cow<'v, str>>,
    task_id: Option<Cow<'v, str>>,
    event_id: Option<Cow<'v, str>>,
}

/// Why a record can't become a task event.
struct Defect {
    reason: Unreadable,
    detail: String,
}

impl Defect {
    fn new(reason: Unreadable, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The task's own URL, from the body of a callback, which holds the task as it was.
pub fn own_url(body: &[u8]) -> Option<CallbackUrl> {
    let envelope = Envelope::read(std::str::from_utf8(body).ok()?).ok()?;
    let url = envelope.task().ok()?.callback_url().ok()??;
    Some(url.as_ref().into())
}

fn read<'v>(raw: &Raw<'v>, max_bytes: usize, identity: &mut Identity<'v>) -> Result<TaskEvent, Defect> {
    let envelope = Envelope::read(text_of(raw.value, max_bytes)?)?;
    // Of headers that contradict each other, none is believed.
    let mut headers = if raw.headers.conflict.is_some() { Headers::default() } else { raw.headers };
    let agreed = headers.cloud_event.unwrap_or_default().complete(&mut headers);
    // Read every identity field before the first check, so that the dead letter holds as many of them as possible.
    let team = field("team_id", envelope.team_id, headers.team_id, MAX_TEAM_ID);
    identity.team = known(&team, || field("team_id", envelope.team_id, None, MAX_TEAM_ID));
    let event_id = field("event_id", envelope.event_id, headers.event_id, MAX_EVENT_ID);
    identity.event_id = known(&event_id, || field("event_id", envelope.event_id, None, MAX_EVENT_ID));
    let task = envelope.task();
    let task_id = task.as_ref().map_or(Ok(None), Task::id);
    identity.task_id = task_id.as_ref().ok().cloned().flatten();
    if let Some(header) = raw.headers.conflict {
        let detail = format!("the Kafka header {header} occurs twice with different values");
        return Err(Defect::new(Unreadable::ConflictingIdentity, detail));
    }
    let task = task?;
    task.check_unique()?;
    if !agreed {
        let detail = "a CloudEvent attribute differs from the record's own header";
        return Err(Defect::new(Unreadable::ConflictingIdentity, detail));
    }
    let missing_team = || Defect::new(Unreadable::MissingTeamId, "neither the envelope nor a header names a team");
    let team = team?.ok_or_else(missing_team)?;
    let task_id = task_id?.ok_or_else(|| Defect::new(Unreadable::MissingTaskId, "the task has no task_id"))?;
    let event_id = match headers.cloud_event {
        None => event_id?,
        Some(event) => Some(event.event_id(event_id?)?),
    };
    let event_type = field("event_type", envelope.event_type, headers.event_type, MAX_EVENT_TYPE)?;
    let event_type = event_type.as_deref().unwrap_or(DEFAULT_TYPE);
    let mode = task.mode()?;
    let callback_url = task.callback_url()?;
    let spans = Spans {
        task: task.whole.get(),
        response: envelope.response.or(task.response).map(RawValue::get),
        task_id: task.task_id.expect("the task id was read from it").get(),
    };
    Ok(TaskEvent {
        record: raw.record.clone(),
        team: Arc::from(team.as_ref()),
        task_id: task_id.as_ref().into(),
        event_id: event_id.map(|id| id.as_ref().into()),
        event_type: Arc::from(event_type),
        mode,
        callback_url: callback_url.map(|url| url.as_ref().into()),
        content_hash: spans.content_hash(event_type),
        body: Bytes::from(spans.body()),
        value: Bytes::copy_from_slice(raw.value),
    })
}

/// A field for the dead letter of a record that can't be used. If header and body differ, it is what the body says.
fn known<'v>(
    field: &Result<Option<Cow<'v, str>>, Defect>,
    body: impl FnOnce() -> Result<Option<Cow<'v, str>>, Defect>,
) -> Option<Cow<'v, str>> {
    match field {
        Ok(value) => value.clone(),
        Err(_) => body().ok().flatten(),
    }
}

fn too_large(bytes: u64, max_bytes: usize) -> Defect {
    Defect::new(Unreadable::TooLarge, format!("{bytes} bytes, more than {max_bytes}"))
}

fn text_of(value: &[u8], max_bytes: usize) -> Result<&str, Defect> {
    if value.len() > max_bytes {
        return Err(too_large(value.len() as u64, max_bytes));
    }
    std::str::from_utf8(value)
        .map_err(|error| Defect::new(Unreadable::InvalidUtf8, format!("at byte {}", error.valid_up_to())))
}

fn dead_letter(raw: &Raw<'_>, identity: &Identity<'_>, defect: Defect) -> DeadLetter {
    let kept = |part: &Option<Cow<'_, str>>| part.as_ref().map(|text| Box::<str>::from(text.as_ref()));
    let is_too_large = defect.reason == Unreadable::TooLarge;
    let kept_bytes = if is_too_large { raw.value.len().min(KEPT_OF_TOO_LARGE) } else { raw.value.len() };
    let value_hash = Sha256::digest(raw.value).into();
    DeadLetter {
        id: id_of(raw.record, &value_hash),
        record: raw.record.clone(),
        reason: defect.reason,
        detail: defect.detail,
        team: kept(&identity.team),
        task_id: kept(&identity.task_id),
        event_id: kept(&identity.event_id),
        value: Bytes::copy_from_slice(&raw.value[..kept_bytes]),
        value_len: raw.value.len() as u64,
        value_hash: Some(value_hash),
        // Of a value that is not whole, the record itself is read again.
        headers: raw.headers.identity().filter(|_| kept_bytes == raw.value.len()),
    }
}

/// Headers that carry the whole identity of an event: those that its record had say the same, as far as it had any.
fn event_headers(event: &TaskEvent) -> IdentityHeaders {
    let pairs = match event.event_id.as_deref().and_then(|id| id.split_once('\n')) {
        Some((source, id)) => vec![
            ("ce_specversion", "1.0"),
            ("ce_source", source),
            ("ce_id", id),
            ("ce_type", &*event.event_type),
            ("ce_teamid", &*event.team),
        ],
        None => {
            let id = event.event_id.as_deref().map(|id| ("event-id", id));
            [("team-id", &*event.team), ("event-type", &*event.event_type)].into_iter().chain(id).collect()
        }
    };
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect()
}

fn id_of(record: &RecordRef, value_hash: &Hash) -> CallbackId {
    CallbackId::of_dead_letter(&record.partition, record.offset, record.timestamp, value_hash)
}
