//! The identity that a record's Kafka headers carry: ours, or a CloudEvent's in binary mode.

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use super::decode::{CloudEvent, Headers};

pub(super) fn headers<'m>(message: &'m BorrowedMessage<'_>) -> Headers<'m> {
    let mut found = Headers::default();
    let Some(all) = message.headers() else { return found };
    let (mut cloud_event, mut version) = (CloudEvent::default(), None);
    for header in all.iter() {
        let slot = match header.key {
            "event-id" => &mut found.event_id,
            "event-type" => &mut found.event_type,
            "team-id" => &mut found.team_id,
            "ce_specversion" => &mut version,
            "ce_id" => &mut cloud_event.id,
            "ce_source" => &mut cloud_event.source,
            "ce_type" => &mut cloud_event.kind,
            "ce_teamid" => &mut cloud_event.team,
            _ => continue,
        };
        if slot.is_some() && *slot != header.value {
            found.conflict = true;
        }
        *slot = header.value;
    }
    found.cloud_event = version.map(|_| cloud_event);
    found
}
