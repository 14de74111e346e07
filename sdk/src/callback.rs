//! The typed callback: who it is about; the rest as the raw JSON that was signed.

use std::borrow::Cow;

use serde_core::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ParseError;

/// What a verified body says. `task` and `response` are the platform's own JSON, untouched: parse them into your
/// own types with [`serde_json::from_str`].
///
/// It implements no `Deserialize`: its only source is [`Verified::callback`](crate::Verified::callback).
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
        let text = core::str::from_utf8(body).map_err(|_| ParseError::NotJson)?;
        // Names are read as bytes below, which lets control characters pass that no JSON has.
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| ParseError::NotJson)?;
        let members = members(text, ["task_id", "task", "response"]).ok_or(ParseError::NotJson)?;
        let [Some(task_id), Some(task), response] = members else {
            return Err(ParseError::NotACallback);
        };
        let task_id = string(task_id).ok_or(ParseError::NotACallback)?;
        let [kind, status, is_test] =
            self::members(task.get(), ["type", "status", "is_test"]).ok_or(ParseError::NotACallback)?;
        let facts = TaskFacts {
            kind: kind.and_then(string),
            status: status.and_then(string),
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

    /// The task's response, as JSON; some callbacks have none.
    #[must_use]
    pub fn response(&self) -> Option<&'b RawValue> {
        self.response
    }

    /// The task's `type`, an open set of strings.
    #[must_use]
    pub fn task_type(&self) -> Option<&str> {
        self.facts.kind.as_deref()
    }

    /// The task's `status`: `completed`, `error`, `canceled`, ...
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        self.facts.status.as_deref()
    }

    /// Whether the task says it is a test task. What *proves* the mode is [`Verified::mode`](crate::Verified::mode).
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.facts.is_test
    }
}

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;
        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("a string")
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_str(Text).ok()
}

/// The last value of each wanted name in the object `json`; everything else is skipped without recursion.
fn members<'j, const N: usize>(json: &'j str, wanted: [&'static str; N]) -> Option<[Option<&'j RawValue>; N]> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let found = Members(wanted).deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(found)
}

struct Members<const N: usize>([&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<N> {
    type Value = [Option<&'de RawValue>; N];
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(place) = map.next_key_seed(Place(&self.0))? {
            match place {
                Some(index) => found[index] = Some(map.next_value::<&RawValue>()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Reads a member's name as its place among the wanted ones.
struct Place<'w>(&'w [&'static str]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // As bytes: a name with an escaped lone surrogate is skipped like any other.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a member's name")
    }
    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| wanted.as_bytes() == name))
    }
}
