//! Dead letters.

use scale_callback_serve::text::printable;
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::reads::BuriedLetter;

#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterShape {
    pub dead_letter_id: String,
    pub reason: &'static str,
    pub detail: String,
    pub team_id: Option<String>,
    pub task_id: Option<String>,
    pub event_id: Option<String>,
    pub partition: String,
    pub offset: i64,
    pub buried_at: String,
    pub value_bytes: u64,
    /// The begin of the record's value, control characters escaped; in full only for one letter.
    pub value: String,
}

impl DeadLetterShape {
    pub fn new(row: BuriedLetter, shown: usize) -> Self {
        let letter = row.letter;
        let text = |id: Option<Box<str>>| id.map(|id| printable(id.as_bytes(), 256));
        Self {
            dead_letter_id: letter.id.to_dead_letter_id(),
            reason: letter.reason.name(),
            detail: letter.detail,
            team_id: text(letter.team),
            task_id: text(letter.task_id),
            event_id: text(letter.event_id),
            partition: letter.record.partition.to_string(),
            offset: letter.record.offset,
            buried_at: row.buried_at.to_string(),
            value_bytes: letter.value_len,
            value: printable(&letter.value, shown),
        }
    }
}
