//! Dead letters.

use scale_callback_serve::text::{hex, printable};
use serde::Serialize;
use utoipa::ToSchema;

use super::names::LetterStateName;
use crate::ops::dead_letters::LetterReport;

/// A task event that can't become a callback.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterShape {
    pub dead_letter_id: String,
    /// What became of it: nothing yet, or it became a callback, or an operator set it aside.
    #[schema(inline, value_type = LetterStateName)]
    pub state: &'static str,
    /// The callback that it became.
    pub callback_id: Option<String>,
    /// Why it can't become a callback.
    pub reason: &'static str,
    /// What exactly is wrong, for people.
    pub detail: String,
    pub team_id: Option<String>,
    pub task_id: Option<String>,
    pub event_id: Option<String>,
    /// Where the task event was read: topic and partition, as in `tasks.events[3]`.
    pub topic_partition: String,
    /// The record's offset in that partition.
    pub offset: i64,
    /// When it became a dead letter.
    pub buried_at: String,
    /// The length of the record's value.
    pub value_bytes: u64,
    /// The SHA-256 of the record's value, in hex. Dead letters of versions before 0.2 have none.
    pub value_sha256: Option<String>,
    /// The record's value, with control characters escaped. A list shows only its beginning; one dead letter alone shows
    /// up to 64 KiB. It is empty if `store.dead_letter_bytes` had no room for it. Null for callers
    /// without the right operate.
    pub value: Option<String>,
}

impl DeadLetterShape {
    pub fn new(report: LetterReport, shown: usize) -> Self {
        let LetterReport { row, shows_value } = report;
        let letter = row.letter;
        let text = |id: Option<Box<str>>| id.map(|id| printable(id.as_bytes(), 256));
        Self {
            dead_letter_id: letter.id.to_dead_letter_id(),
            state: row.fate.state().name(),
            callback_id: row.fate.callback().map(|id| id.to_string()),
            reason: letter.reason.name(),
            detail: letter.detail,
            team_id: text(letter.team),
            task_id: text(letter.task_id),
            event_id: text(letter.event_id),
            topic_partition: letter.record.partition.to_string(),
            offset: letter.record.offset,
            buried_at: row.buried_at.to_string(),
            value_bytes: letter.value_len,
            value_sha256: letter.value_hash.map(|hash| hex(&hash)),
            value: shows_value.then(|| printable(&letter.value, shown)),
        }
    }
}
