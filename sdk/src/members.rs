//! Reads chosen members of a JSON object without building a tree: everything else is skipped, without recursion.
//!
//! The names are compared as bytes, so that a name with an escaped lone surrogate is skipped like any other name. For
//! the same reason a name may contain control characters that no JSON has; a caller that must refuse those validates
//! the text as well.
//!
//! This module is public for the daemon of this repository, which reads task events with it. It is no part of the API
//! that the crate promises, and may change in any version.

use std::borrow::Cow;

use serde_core::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object that were asked for, each at the index of its name.
#[derive(Debug, Clone, Copy)]
pub struct Members<'j, const N: usize> {
    /// The last value of each name, as it stands in the text.
    pub values: [Option<&'j RawValue>; N],
    /// Which names occur more than once.
    pub repeated: [bool; N],
}

impl<'j, const N: usize> Members<'j, N> {
    /// Reads the members `names` of the object that is the whole of `json`.
    ///
    /// # Errors
    /// The text is not JSON, or it is not an object. In the second case the error's category is `Data`.
    pub fn read(json: &'j str, names: &[&str; N]) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let found = reader.deserialize_map(Wanted(names))?;
        reader.end()?;
        Ok(found)
    }
}

/// The text of a JSON string. `None` if the value is not a string, or holds a lone surrogate and therefore no text.
#[must_use]
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::Deserializer::from_str(raw.get()).deserialize_str(Text).ok()
}

struct Wanted<'w, const N: usize>(&'w [&'w str; N]);

impl<'de, const N: usize> Visitor<'de> for Wanted<'_, N> {
    type Value = Members<'de, N>;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Members { values: [None; N], repeated: [false; N] };
        while let Some(place) = map.next_key_seed(Place(self.0))? {
            match place {
                Some(index) => {
                    found.repeated[index] |= found.values[index].is_some();
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

/// Reads a member's name as its index among the wanted names.
struct Place<'w>(&'w [&'w str]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
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

#[cfg(test)]
mod tests {
    use serde_json::error::Category;

    use super::*;

    fn values<const N: usize>(json: &str, names: [&str; N]) -> Vec<Option<String>> {
        let members = Members::read(json, &names).expect(json);
        members.values.iter().map(|value| value.map(|raw| raw.get().to_owned())).collect()
    }

    #[test]
    fn wanted_members_are_found_as_they_stand_and_the_last_of_a_name_counts() {
        let json = r#"{ "b" : [ 1 , 2 ] , "skipped" : {"a":0} , "a" : 1e400 , "b" : "x" , "\ud800" : null }"#;
        let found = values(json, ["a", "b", "c"]);
        assert_eq!(found, [Some("1e400".to_owned()), Some(r#""x""#.to_owned()), None]);
        let repeated = Members::read(json, &["a", "b", "skipped"]).expect("an object").repeated;
        assert_eq!(repeated, [false, true, false]);
        // A raw control character in a name is not JSON, but this reader accepts it, as its documentation says.
        assert_eq!(values("{\"x\u{1}y\":0,\"a\":7}", ["a"]), [Some("7".to_owned())]);
        // A name may be written with escapes.
        assert_eq!(values(r#"{"\u0061":7}"#, ["a"]), [Some("7".to_owned())]);
    }

    #[test]
    fn deep_values_are_skipped_and_kept_without_recursion() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let json = format!(r#"{{"skipped":{deep},"kept":{deep}}}"#);
        assert_eq!(values(&json, ["kept"]), [Some(deep)]);
    }

    #[test]
    fn what_is_no_json_and_what_is_no_object_are_told_apart() {
        for (json, category) in [
            ("", Category::Eof),
            (r#"{"a":1"#, Category::Eof),
            ("nonsense", Category::Syntax),
            (r#"{"a":1} x"#, Category::Syntax),
            ("[]", Category::Data),
            ("7", Category::Data),
            ("null", Category::Data),
        ] {
            let error = Members::read(json, &["a"]).expect_err(json);
            assert_eq!(error.classify(), category, "{json}");
        }
    }

    #[test]
    fn text_is_borrowed_where_it_can_be() {
        let read = |json: &'static str| text(serde_json::from_str::<&RawValue>(json).expect(json));
        assert!(matches!(read(r#""t1""#), Some(Cow::Borrowed("t1"))));
        assert_eq!(read(r#""\u0074\n""#).as_deref(), Some("t\n"));
        for none in ["7", "null", "[]", r#""\ud800""#] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
