//! Which members of the envelope and of the task are read, and how each becomes a checked value.
//!
//! The reader of members is the SDK's. It skips everything else without building a tree, so that the opaque parts of a
//! task pass through byte for byte.

use std::borrow::Cow;

use scale_callback_auth::members::{Members, text};
use serde_json::value::RawValue;

use super::Defect;
use crate::model::dead_letter::Unreadable;
use crate::model::team::Mode;

pub(super) const MAX_EVENT_ID: usize = 256;
pub(super) const MAX_EVENT_TYPE: usize = 256;
pub(super) const MAX_TEAM_ID: usize = 128;
const MAX_TASK_ID: usize = 256;

/// The members of a record's value.
pub(super) struct Envelope<'v> {
    pub(super) event_id: Option<&'v RawValue>,
    pub(super) event_type: Option<&'v RawValue>,
    pub(super) team_id: Option<&'v RawValue>,
    task: Option<&'v RawValue>,
    pub(super) response: Option<&'v RawValue>,
}

/// The members of the task inside an envelope.
pub(super) struct Task<'v> {
    /// The bytes of the task in the envelope.
    pub(super) whole: &'v RawValue,
    pub(super) task_id: Option<&'v RawValue>,
    pub(super) response: Option<&'v RawValue>,
    callback_url: Option<&'v RawValue>,
    is_test: Option<&'v RawValue>,
    /// Whether `task_id`, `callback_url` or `is_test` occurs twice.
    has_duplicate: bool,
}

impl<'v> Envelope<'v> {
    pub(super) fn read(json: &'v str) -> Result<Self, Defect> {
        let names = ["event_id", "event_type", "team_id", "task", "response"];
        let members = Members::read(json, &names).map_err(|error| not_an_object(&error))?;
        // A duplicate response is allowed; the last one counts.
        let [event_id, event_type, team_id, task, _] = members.repeated;
        if event_id || event_type || team_id || task {
            return Err(Defect::new(Unreadable::DuplicateField, "a field of the envelope occurs twice"));
        }
        let [event_id, event_type, team_id, task, response] = members.values;
        Ok(Self { event_id, event_type, team_id, task, response })
    }

    pub(super) fn task(&self) -> Result<Task<'v>, Defect> {
        let whole =
            present(self.task).ok_or_else(|| Defect::new(Unreadable::MissingTask, "the envelope has no task"))?;
        if !whole.get().starts_with('{') {
            return Err(Defect::new(Unreadable::WrongType, "the task is not an object"));
        }
        let names = ["task_id", "callback_url", "is_test", "response"];
        let members = Members::read(whole.get(), &names).map_err(|error| not_an_object(&error))?;
        let [task_id, callback_url, is_test, response] = members.values;
        let [id_twice, url_twice, is_test_twice, _] = members.repeated;
        let has_duplicate = id_twice || url_twice || is_test_twice;
        Ok(Task { whole, task_id, response, callback_url, is_test, has_duplicate })
    }
}

impl<'v> Task<'v> {
    pub(super) fn id(&self) -> Result<Option<Cow<'v, str>>, Defect> {
        field("task.task_id", self.task_id, None, MAX_TASK_ID)
    }

    pub(super) fn check_unique(&self) -> Result<(), Defect> {
        if self.has_duplicate {
            return Err(Defect::new(Unreadable::DuplicateField, "an identity field of the task occurs twice"));
        }
        Ok(())
    }

    pub(super) fn mode(&self) -> Result<Mode, Defect> {
        match self.is_test.map(RawValue::get) {
            None | Some("null" | "false") => Ok(Mode::Live),
            Some("true") => Ok(Mode::Test),
            Some(_) => Err(Defect::new(Unreadable::WrongType, "task.is_test is neither true nor false")),
        }
    }

    pub(super) fn callback_url(&self) -> Result<Option<Cow<'v, str>>, Defect> {
        match present(self.callback_url) {
            None => Ok(None),
            Some(raw) => Ok(Some(string("task.callback_url", raw)?).filter(|url| !url.is_empty())),
        }
    }
}

/// An identity field from the body, the Kafka header, or both. Null, absent and empty mean the same.
pub(super) fn field<'v>(
    name: &str,
    body: Option<&'v RawValue>,
    header: Option<&'v [u8]>,
    limit: usize,
) -> Result<Option<Cow<'v, str>>, Defect> {
    let body = match present(body) {
        None => None,
        Some(raw) => Some(string(name, raw)?),
    };
    let header = match header {
        None => None,
        Some(bytes) => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| Defect::new(Unreadable::InvalidUtf8, format!("the Kafka header for {name}")))?;
            Some(Cow::Borrowed(text))
        }
    };
    let filled = |value: &Cow<'_, str>| !value.is_empty();
    let value = match (body.filter(filled), header.filter(filled)) {
        (Some(body), Some(header)) if body != header => {
            let detail = format!("{name} differs between header and body");
            return Err(Defect::new(Unreadable::ConflictingIdentity, detail));
        }
        (body, header) => body.or(header),
    };
    let Some(value) = value else { return Ok(None) };
    if value.len() > limit {
        return Err(Defect::new(Unreadable::InvalidId, format!("{name} is longer than {limit} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(Defect::new(Unreadable::InvalidId, format!("{name} contains a control character")));
    }
    Ok(Some(value))
}

fn string<'v>(name: &str, raw: &'v RawValue) -> Result<Cow<'v, str>, Defect> {
    if !raw.get().starts_with('"') {
        return Err(Defect::new(Unreadable::WrongType, format!("{name} is not a string")));
    }
    // A JSON string that is not text contains a lone surrogate.
    text(raw).ok_or_else(|| Defect::new(Unreadable::InvalidId, format!("{name} is not text")))
}

fn present(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|raw| raw.get() != "null")
}

fn not_an_object(error: &serde_json::Error) -> Defect {
    // The error's category tells JSON of another type from text that is not JSON.
    match error.classify() {
        serde_json::error::Category::Data => {
            Defect::new(Unreadable::NotObject, "the value is JSON, but it is not an object")
        }
        _ => Defect::new(Unreadable::NotJson, format!("at line {}, column {}", error.line(), error.column())),
    }
}
