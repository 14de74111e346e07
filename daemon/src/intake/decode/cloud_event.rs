//! CloudEvents in binary mode: the attributes are in Kafka headers, and the record's value is our envelope.

use std::borrow::Cow;

use super::members::{MAX_EVENT_ID, field};
use super::{Defect, Headers};
use crate::model::dead_letter::Unreadable;

/// The attributes of a CloudEvent.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloudEvent<'r> {
    pub id: Option<&'r [u8]>,
    pub source: Option<&'r [u8]>,
    pub kind: Option<&'r [u8]>,
    pub team: Option<&'r [u8]>,
}

impl<'r> CloudEvent<'r> {
    /// Fills in the headers that the record lacks from this event's attributes, and turns empty headers into absent
    /// ones. Returns whether each attribute is equal to the record's own header, where both are present.
    pub(super) fn complete(&self, headers: &mut Headers<'r>) -> bool {
        complete(&mut headers.event_id, self.id)
            & complete(&mut headers.event_type, self.kind)
            & complete(&mut headers.team_id, self.team)
    }

    /// The id of the task event. A CloudEvent is identified by its source and its id together, so both are joined with
    /// a line feed, which neither of them can contain.
    pub(super) fn event_id<'v>(&self, id: Option<Cow<'v, str>>) -> Result<Cow<'v, str>, Defect>
    where
        'r: 'v,
    {
        let source = field("ce_source", None, self.source, MAX_EVENT_ID)?;
        let id = id.filter(|_| self.id.is_some_and(|id| !id.is_empty()));
        let (Some(source), Some(id)) = (source, id) else {
            return Err(Defect::new(Unreadable::InvalidId, "a CloudEvent needs both ce_source and ce_id"));
        };
        let joined = format!("{source}\n{id}");
        if joined.len() > MAX_EVENT_ID {
            let detail = format!("ce_source and ce_id together are longer than {MAX_EVENT_ID} bytes");
            return Err(Defect::new(Unreadable::InvalidId, detail));
        }
        Ok(Cow::Owned(joined))
    }
}

/// Completes one header. An empty value counts as absent.
fn complete<'r>(header: &mut Option<&'r [u8]>, attribute: Option<&'r [u8]>) -> bool {
    let attribute = attribute.filter(|value| !value.is_empty());
    let own = header.filter(|value| !value.is_empty());
    *header = own.or(attribute);
    own.is_none() || attribute.is_none() || own == attribute
}
