//! From a record's bytes to a task event or a dead letter. Identity fields are read and checked; everything else is
//! skipped iteratively and kept byte for byte.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::model::callback::{CallbackId, Hash, Spans};
use crate::model::dead_letter::{DeadLetter, KEPT_BYTES, Unreadable};
use crate::model::event::{RecordRef, TaskEvent};
use crate::model::team::Mode;

const MAX_EVENT_ID: usize = 256;
const MAX_EVENT_TYPE: usize = 256;
const MAX_TASK_ID: usize = 256;
const MAX_TEAM_ID: usize = 128;
const DEFAULT_TYPE: &str = "task.completed";

/// Identity that stands in Kafka headers; each value as bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'r> {
    pub event_id: Option<&'r [u8]>,
    pub event_type: Option<&'r [u8]>,
    pub team_id: Option<&'r [u8]>,
    /// CloudEvents in binary mode, told by `ce_specversion`.
    pub cloud_event: Option<CloudEvent<'r>>,
    /// One of them stands more than once, with different values.
    pub conflict: bool,
}

/// The attributes of a CloudEvent in binary mode; its value is our envelope.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloudEvent<'r> {
    pub id: Option<&'r [u8]>,
    pub partition: Option<&'r [u8]>,
    pub kind: Option<&'r [u8]>,
    pub team: Option<&'r [u8]>,
}

/// A record as it came.
#[derive(Clone, Copy)]
pub struct Raw<'r> {
    pub record: &'r RecordRef,
    pub headers: Headers<'r>,
    pub value: &'r [u8],
}

/// What was understood before it went wrong.
#[derive(Default)]
struct Identity<'v> {
    team: Option<Cow<'v, str>>,
    task_id: Option<Cow<'v, str>>,
    event_id: Option<Cow<'v, str>>,
}

struct Wrong {
    reason: Unreadable,
    detail: String,
}

fn wrong(reason: Unreadable, detail: impl Into<String>) -> Wrong {
    Wrong { reason, detail: detail.into() }
}

/// Reads a record.
///
/// # Errors
/// The dead letter that it becomes, with its reason.
pub fn decode(raw: &Raw<'_>, max_bytes: usize) -> Result<TaskEvent, Box<DeadLetter>> {
    let mut identity = Identity::default();
    read(raw, max_bytes, &mut identity).map_err(|wrong| Box::new(dead_letter(raw, &identity, wrong)))
}

/// A record without a value, where those become dead letters.
pub fn tombstone(record: &RecordRef) -> Box<DeadLetter> {
    let raw = Raw { record, headers: Headers::default(), value: b"" };
    Box::new(dead_letter(&raw, &Identity::default(), wrong(Unreadable::Tombstone, "the record has no value")))
}

/// The dead letter that an event becomes after it was read: its callback's body stands for the record's value where
/// that is no longer at hand.
pub fn unwanted(event: &TaskEvent, value: Option<&Bytes>, reason: Unreadable, detail: String) -> Box<DeadLetter> {
    let bytes = value.unwrap_or(&event.body);
    Box::new(DeadLetter {
        id: id_of(&event.record, bytes),
        record: event.record.clone(),
        reason,
        detail,
        team: Some(event.team.as_ref().into()),
        task_id: Some(event.task_id.clone()),
        event_id: event.event_id.clone(),
        value: Bytes::copy_from_slice(&bytes[..bytes.len().min(KEPT_BYTES)]),
        value_len: bytes.len() as u64,
    })
}

/// What tells a record from another at the same offset of a re-created topic: its time and its value.
pub fn log_hash(record: &RecordRef, value: Option<&[u8]>) -> Hash {
    let mut hash = Sha256::new();
    hash.update(record.timestamp.to_be_bytes());
    hash.update([u8::from(value.is_some())]);
    hash.update(value.unwrap_or_default());
    hash.finalize().into()
}

fn id_of(record: &RecordRef, value: &[u8]) -> CallbackId {
    CallbackId::of_dead_letter(&record.partition, record.offset, record.timestamp, &Sha256::digest(value).into())
}

fn dead_letter(raw: &Raw<'_>, identity: &Identity<'_>, wrong: Wrong) -> DeadLetter {
    let kept = |part: &Option<Cow<'_, str>>| part.as_ref().map(|text| Box::<str>::from(text.as_ref()));
    DeadLetter {
        id: id_of(raw.record, raw.value),
        record: raw.record.clone(),
        reason: wrong.reason,
        detail: wrong.detail,
        team: kept(&identity.team),
        task_id: kept(&identity.task_id),
        event_id: kept(&identity.event_id),
        value: Bytes::copy_from_slice(&raw.value[..raw.value.len().min(KEPT_BYTES)]),
        value_len: raw.value.len() as u64,
    }
}

fn read<'v>(raw: &Raw<'v>, max_bytes: usize, identity: &mut Identity<'v>) -> Result<TaskEvent, Wrong> {
    if raw.value.len() > max_bytes {
        return Err(wrong(Unreadable::TooLarge, format!("{} bytes, more than {max_bytes}", raw.value.len())));
    }
    let text = std::str::from_utf8(raw.value)
        .map_err(|error| wrong(Unreadable::InvalidUtf8, format!("at byte {}", error.valid_up_to())))?;
    let envelope = members(text, &ENVELOPE).map_err(|error| not_an_object(&error))?;
    if envelope.duplicate {
        return Err(wrong(Unreadable::DuplicateField, "a field of the envelope stands twice"));
    }
    let [event_id, event_type, team_id, task, response] = envelope.values;
    let mut headers = raw.headers;
    let cloud_event = headers.cloud_event.unwrap_or_default();
    let agreed = agree(&mut headers.event_id, cloud_event.id)
        & agree(&mut headers.event_type, cloud_event.kind)
        & agree(&mut headers.team_id, cloud_event.team);
    if headers.conflict {
        return Err(wrong(Unreadable::ConflictingIdentity, "a Kafka header stands twice with different values"));
    }
    // As much as can be read goes into the dead letter, whatever is wrong.
    let team = field("team_id", team_id, headers.team_id, MAX_TEAM_ID);
    identity.team = team.as_ref().ok().cloned().flatten();
    let event_id = field("event_id", event_id, headers.event_id, MAX_EVENT_ID);
    identity.event_id = event_id.as_ref().ok().cloned().flatten();
    let task = task.filter(|task| task.get() != "null");
    let task = task.ok_or_else(|| wrong(Unreadable::MissingTask, "the envelope has no task"))?;
    if !task.get().starts_with('{') {
        return Err(wrong(Unreadable::WrongType, "the task is not an object"));
    }
    let inner = members(task.get(), &TASK).map_err(|error| not_an_object(&error))?;
    let [raw_task_id, url, is_test, task_response] = inner.values;
    let task_id = field("task.task_id", raw_task_id, None, MAX_TASK_ID);
    identity.task_id = task_id.as_ref().ok().cloned().flatten();
    if inner.duplicate {
        return Err(wrong(Unreadable::DuplicateField, "an identity field of the task stands twice"));
    }
    if !agreed {
        let detail = "a CloudEvent's attribute differs from the record's own header";
        return Err(wrong(Unreadable::ConflictingIdentity, detail));
    }
    let team = team?.ok_or_else(|| wrong(Unreadable::MissingTeamId, "neither envelope nor header names a team"))?;
    let task_id = task_id?.ok_or_else(|| wrong(Unreadable::MissingTaskId, "the task has no task_id"))?;
    let event_id = event_id?;
    let event_id = match headers.cloud_event {
        None => event_id,
        Some(of) => Some(cloud_event_id(of, event_id)?),
    };
    let event_type = field("event_type", event_type, headers.event_type, MAX_EVENT_TYPE)?;
    let mode = mode_of(is_test)?;
    let callback_url = url_of(url)?;
    let event_type = event_type.as_deref().unwrap_or(DEFAULT_TYPE);
    let spans = Spans {
        task: task.get(),
        response: response.or(task_response).map(RawValue::get),
        task_id: raw_task_id.expect("the task id was read from it").get(),
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
    })
}

fn not_an_object(error: &serde_json::Error) -> Wrong {
    // Told by the error's class: what is JSON, but of another type, is no object.
    let detail = format!("at line {}, column {}", error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Data => wrong(Unreadable::NotObject, "the value is JSON, but not an object"),
        _ => wrong(Unreadable::NotJson, detail),
    }
}

/// An identity field from the body, the header, or both. Null, absent and empty are the same.
fn field<'v>(
    name: &str,
    body: Option<&'v RawValue>,
    header: Option<&'v [u8]>,
    limit: usize,
) -> Result<Option<Cow<'v, str>>, Wrong> {
    let body = match body.filter(|raw| raw.get() != "null") {
        None => None,
        Some(raw) => Some(string(name, raw)?),
    };
    let header = match header {
        None => None,
        Some(bytes) => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| wrong(Unreadable::InvalidUtf8, format!("the Kafka header for {name}")))?;
            Some(Cow::Borrowed(text))
        }
    };
    let value = match (body, header) {
        (Some(body), Some(header)) if body != header => {
            return Err(wrong(Unreadable::ConflictingIdentity, format!("{name} differs between header and body")));
        }
        (body, header) => body.or(header),
    };
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    if value.len() > limit {
        return Err(wrong(Unreadable::InvalidId, format!("{name} is longer than {limit} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(wrong(Unreadable::InvalidId, format!("{name} holds a control character")));
    }
    Ok(Some(value))
}

/// A CloudEvent's attribute says what the record's own header says, where both are there.
fn agree<'r>(header: &mut Option<&'r [u8]>, attribute: Option<&'r [u8]>) -> bool {
    let attribute = attribute.filter(|value| !value.is_empty());
    let own = header.filter(|value| !value.is_empty());
    *header = own.or(attribute);
    own.is_none() || attribute.is_none() || own == attribute
}

/// CloudEvents are themselves by source and id: both, with a line feed between, which neither can hold.
fn cloud_event_id<'v>(event: CloudEvent<'v>, id: Option<Cow<'v, str>>) -> Result<Cow<'v, str>, Wrong> {
    let partition = field("ce_source", None, event.partition, MAX_EVENT_ID)?;
    let id = id.filter(|_| event.id.is_some_and(|id| !id.is_empty()));
    let (Some(partition), Some(id)) = (partition, id) else {
        return Err(wrong(Unreadable::InvalidId, "a CloudEvent needs both ce_source and ce_id"));
    };
    let joined = format!("{partition}\n{id}");
    if joined.len() > MAX_EVENT_ID {
        return Err(wrong(Unreadable::InvalidId, format!("ce_source and ce_id are longer than {MAX_EVENT_ID} bytes")));
    }
    Ok(Cow::Owned(joined))
}

fn string<'v>(name: &str, raw: &'v RawValue) -> Result<Cow<'v, str>, Wrong> {
    if !raw.get().starts_with('"') {
        return Err(wrong(Unreadable::WrongType, format!("{name} is not a string")));
    }
    // A string that is JSON but no text holds a lone surrogate.
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_str(Text)
        .map_err(|_| wrong(Unreadable::InvalidId, format!("{name} is not text")))
}

fn mode_of(is_test: Option<&RawValue>) -> Result<Mode, Wrong> {
    match is_test.map(RawValue::get) {
        None | Some("null" | "false") => Ok(Mode::Live),
        Some("true") => Ok(Mode::Test),
        Some(_) => Err(wrong(Unreadable::WrongType, "task.is_test is not true or false")),
    }
}

fn url_of(url: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, Wrong> {
    match url.filter(|raw| raw.get() != "null") {
        None => Ok(None),
        Some(raw) => Ok(Some(string("task.callback_url", raw)?).filter(|url| !url.is_empty())),
    }
}

/// Wanted members, and how many of the first may stand only once.
struct Wanted<const N: usize> {
    names: [&'static str; N],
    once: usize,
}

const ENVELOPE: Wanted<5> = Wanted { names: ["event_id", "event_type", "team_id", "task", "response"], once: 4 };
const TASK: Wanted<4> = Wanted { names: ["task_id", "callback_url", "is_test", "response"], once: 3 };

struct Found<'v, const N: usize> {
    values: [Option<&'v RawValue>; N],
    duplicate: bool,
}

fn members<'v, const N: usize>(json: &'v str, wanted: &Wanted<N>) -> Result<Found<'v, N>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let found = wanted.deserialize(&mut reader)?;
    reader.end()?;
    Ok(found)
}

impl<'de, const N: usize> DeserializeSeed<'de> for &Wanted<N> {
    type Value = Found<'de, N>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for &Wanted<N> {
    type Value = Found<'de, N>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found { values: [None; N], duplicate: false };
        while let Some(place) = map.next_key_seed(Place(&self.names))? {
            match place {
                Some(index) => {
                    found.duplicate |= index < self.once && found.values[index].is_some();
                    found.values[index] = Some(map.next_value::<&RawValue>()?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A member's name as its place among the wanted ones; as bytes, so that a lone surrogate in a name is no error.
struct Place<'w>(&'w [&'static str]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a member's name")
    }
    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| wanted.as_bytes() == name))
    }
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::PartitionKey;

    fn record() -> RecordRef {
        let partition = PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 };
        RecordRef { partition: Arc::new(partition), offset: 7, timestamp: 1_764_000_000_000 }
    }

    fn read_with(value: &[u8], headers: Headers<'_>) -> Result<TaskEvent, Unreadable> {
        decode(&Raw { record: &record(), headers, value }, 5 << 20).map_err(|letter| {
            assert_eq!(&letter.value[..], &value[..value.len().min(KEPT_BYTES)], "its bytes are kept");
            letter.reason
        })
    }

    fn read(value: &str) -> Result<TaskEvent, Unreadable> {
        read_with(value.as_bytes(), Headers::default())
    }

    fn body(value: &str) -> String {
        String::from_utf8(read(value).expect(value).body.to_vec()).expect("text")
    }

    #[test]
    fn bad_records_become_dead_letters_with_their_reason() {
        use Unreadable as U;
        let long = "x".repeat(257);
        for (value, reason) in [
            ("", U::NotJson),
            ("nonsense", U::NotJson),
            (r#"{"team_id":"t","task":{"task_id":"a"}"#, U::NotJson),
            (r#"{"team_id":"t","task":{"task_id":"a"}} x"#, U::NotJson),
            ("[]", U::NotObject),
            ("7", U::NotObject),
            (r#""text""#, U::NotObject),
            ("null", U::NotObject),
            (r#"{"team_id":"t"}"#, U::MissingTask),
            (r#"{"team_id":"t","task":null}"#, U::MissingTask),
            (r#"{"team_id":"t","task":[]}"#, U::WrongType),
            (r#"{"team_id":"t","task":{}}"#, U::MissingTaskId),
            (r#"{"team_id":"t","task":{"task_id":""}}"#, U::MissingTaskId),
            (r#"{"team_id":"t","task":{"task_id":7}}"#, U::WrongType),
            (r#"{"task":{"task_id":"a"}}"#, U::MissingTeamId),
            (r#"{"team_id":7,"task":{"task_id":"a"}}"#, U::WrongType),
            (r#"{"team_id":"t","event_id":{},"task":{"task_id":"a"}}"#, U::WrongType),
            (r#"{"team_id":"t","task":{"task_id":"a","is_test":"yes"}}"#, U::WrongType),
            (r#"{"team_id":"t","task":{"task_id":"a","callback_url":7}}"#, U::WrongType),
            (r#"{"team_id":"t","task":{"task_id":"a\u0000"}}"#, U::InvalidId),
            (r#"{"team_id":"t\n","task":{"task_id":"a"}}"#, U::InvalidId),
            (r#"{"team_id":"t","event_id":"\u001b","task":{"task_id":"a"}}"#, U::InvalidId),
            (r#"{"team_id":"t","task":{"task_id":"\ud800"}}"#, U::InvalidId),
            (r#"{"team_id":"t","team_id":"t","task":{"task_id":"a"}}"#, U::DuplicateField),
            (r#"{"team_id":"t","task":{"task_id":"a"},"task":{"task_id":"a"}}"#, U::DuplicateField),
            (r#"{"team_id":"t","task":{"task_id":"a","task_id":"b"}}"#, U::DuplicateField),
            (&format!(r#"{{"team_id":"t","task":{{"task_id":"{long}"}}}}"#), U::InvalidId),
            (&format!(r#"{{"team_id":"{long}","task":{{"task_id":"a"}}}}"#), U::InvalidId),
        ] {
            assert_eq!(read(value).err(), Some(reason), "{value}");
        }
        let invalid = b"{\"team_id\":\"t\",\"task\":{\"task_id\":\"a\",\"x\":\"\xff\"}}";
        assert_eq!(read_with(invalid, Headers::default()).err(), Some(U::InvalidUtf8));
        let large = decode(&Raw { record: &record(), headers: Headers::default(), value: &[b' '; 100] }, 99);
        assert_eq!(large.expect_err("too large").reason, U::TooLarge);
    }

    #[test]
    fn opaque_parts_pass_byte_for_byte() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        for response in [
            deep.as_str(),
            r#"{"a":1,"a":2}"#,
            "1e400",
            "26.198676151772684",
            "20.999999999999986",
            r#""\ud800""#,
            r#""\u0000""#,
            r#"{"\ud800":1}"#,
            "null",
            "[ 1 , 2 ]",
        ] {
            let value = format!(r#"{{"team_id":"t","task":{{"task_id":"a"}},"response":{response}}}"#);
            let expected = format!(r#"{{"task":{{"task_id":"a"}},"response":{response},"task_id":"a"}}"#);
            assert_eq!(body(&value), expected);
        }
        assert_eq!(
            body(r#"{"team_id":"t","task":{"task_id":"a","\ud800":1e400}}"#),
            r#"{"task":{"task_id":"a","\ud800":1e400},"task_id":"a"}"#
        );
    }

    #[test]
    fn the_response_is_the_envelopes_then_the_tasks_then_none() {
        assert_eq!(
            body(r#"{"team_id":"t","task":{"task_id":"a","response":1},"response":2}"#),
            r#"{"task":{"task_id":"a","response":1},"response":2,"task_id":"a"}"#
        );
        assert_eq!(
            body(r#"{"team_id":"t","task":{"task_id":"a","response":1}}"#),
            r#"{"task":{"task_id":"a","response":1},"response":1,"task_id":"a"}"#
        );
        assert_eq!(body(r#"{"team_id":"t","task":{"task_id":"a"}}"#), r#"{"task":{"task_id":"a"},"task_id":"a"}"#);
        assert_eq!(
            body(r#"{"team_id":"t","response":1,"task":{"task_id":"a"},"response":3}"#),
            r#"{"task":{"task_id":"a"},"response":3,"task_id":"a"}"#,
            "a duplicate response counts last"
        );
    }

    #[test]
    fn headers_may_say_the_same_and_nothing_else() {
        let value = br#"{"event_id":"e","team_id":"t","task":{"task_id":"a"}}"#;
        let same = Headers { event_id: Some(b"e"), team_id: Some(b"t"), event_type: Some(b"x"), ..Headers::default() };
        let event = read_with(value, same).expect("the same");
        assert_eq!(&*event.event_type, "x");
        for other in [
            Headers { event_id: Some(b"f"), ..Headers::default() },
            Headers { team_id: Some(b"u"), ..Headers::default() },
            Headers { conflict: true, ..Headers::default() },
        ] {
            assert_eq!(read_with(value, other).err(), Some(Unreadable::ConflictingIdentity));
        }
        let alone = br#"{"task":{"task_id":"a"}}"#;
        let event = read_with(alone, Headers { team_id: Some(b"t"), ..Headers::default() }).expect("from the header");
        assert_eq!((&*event.team, &*event.event_type), ("t", "task.completed"));
        let invalid = Headers { team_id: Some(b"\xff"), ..Headers::default() };
        assert_eq!(read_with(alone, invalid).err(), Some(Unreadable::InvalidUtf8));
    }

    #[test]
    fn a_dead_letter_keeps_what_could_be_read() {
        let value = br#"{"team_id":"t","event_id":"e","task":{"task_id":"a","is_test":3}}"#;
        let raw = Raw { record: &record(), headers: Headers::default(), value };
        let letter = decode(&raw, 1 << 20).expect_err("is_test is no flag");
        assert_eq!(letter.team.as_deref(), Some("t"));
        assert_eq!(letter.task_id.as_deref(), Some("a"));
        assert_eq!(letter.event_id.as_deref(), Some("e"));
        assert_eq!(letter.value_len, value.len() as u64);
    }

    #[test]
    fn cloud_events_in_binary_mode_are_read() {
        let record = record();
        let event = |ce: CloudEvent<'static>, headers: Headers<'static>, value: &str| {
            let headers = Headers { cloud_event: Some(ce), ..headers };
            decode(&Raw { record: &record, headers, value: value.as_bytes() }, 1 << 20)
        };
        let plain = Headers::default();
        let ulid = b"01KAV9FT00ZKEK0KFES3QVF608";
        let ce = CloudEvent {
            id: Some(ulid),
            partition: Some(b"/tasks"),
            kind: Some(b"task.recalled"),
            team: Some(b"team_a"),
        };
        let value = r#"{"task":{"task_id":"t1"}}"#;
        let read = event(ce, plain, value).expect("a CloudEvent");
        assert_eq!(read.event_id.as_deref(), Some("/tasks\n01KAV9FT00ZKEK0KFES3QVF608"));
        assert_eq!((&*read.event_type, &*read.team), ("task.recalled", "team_a"));
        let key = crate::model::callback::EventKey::Id(read.event_id.as_deref().expect("an id"));
        let id = CallbackId::of("team_a", key, 1_700_000_000_000);
        assert_eq!(id.as_bytes()[..6], 1_764_000_000_000_u64.to_be_bytes()[2..], "the time inside ce_id counts");
        // The same id from another source is another event.
        let other = event(CloudEvent { partition: Some(b"/other"), ..ce }, plain, value).expect("another");
        assert_ne!(other.event_id, read.event_id);
        // Header, attribute and body may say the same, and nothing else.
        let same = r#"{"event_id":"01KAV9FT00ZKEK0KFES3QVF608","team_id":"team_a","task":{"task_id":"t1"}}"#;
        assert_eq!(
            event(ce, Headers { team_id: Some(b"team_a"), ..plain }, same).expect("the same").event_id,
            read.event_id
        );
        let refused = |ce, headers, value: &str| event(ce, headers, value).expect_err("refused").reason;
        assert_eq!(refused(ce, Headers { team_id: Some(b"team_b"), ..plain }, value), Unreadable::ConflictingIdentity);
        let body = r#"{"event_id":"another","task":{"task_id":"t1"}}"#;
        assert_eq!(refused(ce, plain, body), Unreadable::ConflictingIdentity);
        assert_eq!(refused(CloudEvent { partition: Some(b"/a\nb"), ..ce }, plain, value), Unreadable::InvalidId);
        assert_eq!(refused(CloudEvent { id: Some(b"a\nb"), ..ce }, plain, value), Unreadable::InvalidId);
        assert_eq!(refused(CloudEvent { partition: None, ..ce }, plain, value), Unreadable::InvalidId);
        assert_eq!(refused(CloudEvent { id: None, ..ce }, plain, value), Unreadable::InvalidId);
        assert_eq!(refused(CloudEvent { id: None, ..ce }, plain, same), Unreadable::InvalidId);
        // The letter names the task all the same.
        let letter = event(ce, Headers { team_id: Some(b"team_b"), ..plain }, value).expect_err("refused");
        assert_eq!(letter.task_id.as_deref(), Some("t1"));
    }
}
