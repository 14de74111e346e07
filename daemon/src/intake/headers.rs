//! The identity that a record's Kafka headers carry: ours, or a CloudEvent's in binary mode.

use std::panic::AssertUnwindSafe;

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use super::decode::{CloudEvent, Headers};
use crate::base::panics::caught;

const NAMES: [&str; 8] =
    ["event-id", "event-type", "team-id", "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_teamid"];

pub(super) fn headers<'m>(message: &'m BorrowedMessage<'_>) -> Headers<'m> {
    identity(readable(message))
}

/// rdkafka panics at a key that is not UTF-8. Such a header is none of ours.
fn readable<'m>(message: &'m BorrowedMessage<'_>) -> impl Iterator<Item = (&'m str, Option<&'m [u8]>)> {
    let all = message.headers();
    let count = all.map_or(0, |all| all.count());
    (0..count).filter_map(move |index| {
        let header = caught(AssertUnwindSafe(|| all?.try_get(index))).flatten()?;
        Some((header.key, header.value))
    })
}

/// How many of them another process gets, and how many bytes of each. An id or a type is shorter.
const SENT: usize = 64;
const SENT_BYTES: usize = 1_024;

/// The headers that carry identity, for another process to pick from.
pub(super) fn with_identity(message: &BorrowedMessage<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let named = readable(message).filter(|(key, _)| NAMES.contains(key)).take(SENT);
    let cut = |value: &[u8]| value[..value.len().min(SENT_BYTES)].to_vec();
    named.map(|(key, value)| (key.to_owned(), value.map(cut))).collect()
}

/// Picks the headers that carry identity. Of a header that occurs more than once, empty values do not count.
pub(super) fn identity<'m>(all: impl Iterator<Item = (&'m str, Option<&'m [u8]>)>) -> Headers<'m> {
    let mut found = Headers::default();
    let (mut cloud_event, mut version) = (CloudEvent::default(), None);
    for (key, value) in all {
        let (name, slot) = match key {
            "event-id" => ("event-id", &mut found.event_id),
            "event-type" => ("event-type", &mut found.event_type),
            "team-id" => ("team-id", &mut found.team_id),
            "ce_specversion" => ("ce_specversion", &mut version),
            "ce_id" => ("ce_id", &mut cloud_event.id),
            "ce_source" => ("ce_source", &mut cloud_event.source),
            "ce_type" => ("ce_type", &mut cloud_event.kind),
            "ce_teamid" => ("ce_teamid", &mut cloud_event.team),
            _ => continue,
        };
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        if slot.is_some_and(|earlier| earlier != value) {
            found.conflict = Some(name);
        }
        *slot = Some(value);
    }
    found.cloud_event = version.map(|_| cloud_event);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    type Value = Option<&'static [u8]>;

    const NULL: Value = None;
    const EMPTY: Value = Some(b"");
    const A: Value = Some(b"a");
    const B: Value = Some(b"b");

    fn of(headers: &[(&'static str, Value)]) -> Headers<'static> {
        identity(headers.iter().copied())
    }

    #[test]
    fn a_repeated_header_conflicts_only_with_another_value() {
        for (values, team, conflict) in [
            (vec![A], A, None),
            (vec![NULL], NULL, None),
            (vec![EMPTY], NULL, None),
            (vec![A, NULL], A, None),
            (vec![NULL, A], A, None),
            (vec![EMPTY, A], A, None),
            (vec![A, EMPTY, A], A, None),
            (vec![A, NULL, B], B, Some("team-id")),
            (vec![A, B], B, Some("team-id")),
        ] {
            let headers: Vec<_> = values.iter().map(|value| ("team-id", *value)).collect();
            let found = of(&headers);
            assert_eq!(
                (found.conflict, found.conflict.map_or(found.team_id, |_| team)),
                (conflict, team),
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_cloud_event_is_told_by_its_version() {
        let event = of(&[("ce_id", A), ("ce_source", B)]);
        assert!(event.cloud_event.is_none());
        let event = of(&[("ce_id", A), ("ce_source", B), ("ce_specversion", Some(b"1.0"))]).cloud_event.unwrap();
        assert_eq!((event.id, event.source, event.kind, event.team), (A, B, None, None));
        assert!(of(&[("ce_specversion", EMPTY), ("ce_id", A)]).cloud_event.is_none(), "an empty header is none");
        assert_eq!(of(&[("ce_id", A), ("ce_id", B)]).conflict, Some("ce_id"));
    }

    #[test]
    fn other_headers_say_nothing() {
        let found = of(&[("traceparent", A), ("traceparent", B), ("Team-Id", A)]);
        assert_eq!((found.conflict, found.team_id), (None, None));
    }
}
