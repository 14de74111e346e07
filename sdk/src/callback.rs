//! The typed callback: it reads which task it is about, and keeps the rest as the raw JSON that was signed.

use std::borrow::Cow;

use serde_core::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::ParseError;
use crate::members::{Members, text};

/// What a verified body says. `task` and `response` are the platform's own JSON, unchanged. Parse them into your own
/// types with [`serde_json::from_str`].
///
/// It does not implement `Deserialize`, so that only [`Verified::callback`](crate::Verified::callback) can make one.
///
/// ```compile_fail
/// let unverified: scale_callback_auth::Callback = serde_json::from_slice(b"{}").unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Callback<'b> {
    task_id: Cow<'b, str>,
    task: &'b RawValue,
    response: Option<&'b RawValue>,
    facts: TaskFacts<'b>,
}

#[derive(Debug, Clone, Default)]
struct TaskFacts<'b> {
    kind: Option<Cow<'b, str>>,
    status: Option<Cow<'b, str>>,
    is_test: bool,
}

impl<'b> Callback<'b> {
    pub(crate) fn read(body: &'b [u8]) -> Result<Self, ParseError> {
        let json = core::str::from_utf8(body).map_err(|_| ParseError::NotJson)?;
        // `Members` reads names as bytes and accepts control characters in them, which JSON forbids.
        serde_json::from_str::<IgnoredAny>(json).map_err(|_| ParseError::NotJson)?;
        let members = Members::read(json, &["task_id", "task", "response"]).map_err(|_| ParseError::NotJson)?;
        let [Some(task_id), Some(task), response] = members.values else {
            return Err(ParseError::NotACallback);
        };
        let task_id = text(task_id).ok_or(ParseError::NotACallback)?;
        let members = Members::read(task.get(), &["type", "status", "is_test"]);
        let [kind, status, is_test] = members.map_err(|_| ParseError::NotACallback)?.values;
        let facts = TaskFacts {
            kind: kind.and_then(text),
            status: status.and_then(text),
            is_test: is_test.is_some_and(|raw| raw.get() == "true"),
        };
        Ok(Self { task_id, task, response, facts })
    }

    /// The task's id.
    #[must_use]
    pub fn task_id(&self) -> &str {
        &self.task_id
    }

    /// The whole task, as JSON.
    #[must_use]
    pub fn task(&self) -> &'b RawValue {
        self.task
    }

    /// The task's response, as JSON. Some callbacks have none.
    #[must_use]
    pub fn response(&self) -> Option<&'b RawValue> {
        self.response
    }

    /// The task's `type`. The platform may add new types at any time.
    #[must_use]
    pub fn task_type(&self) -> Option<&str> {
        self.facts.kind.as_deref()
    }

    /// The task's `status`, such as `completed`, `error` or `canceled`.
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        self.facts.status.as_deref()
    }

    /// Whether the task says that it is a test task. Only [`Verified::mode`](crate::Verified::mode) proves the mode.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.facts.is_test
    }
}
