//! Dead letters are written and pruned here, with the bytes of their values counted by topic, so that a budget can bound
//! them.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::SqliteError;
use super::super::id_cache::IdCache;
use super::moves::Moves;
use super::rows;
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Fate, LetterState, ValueBudget, ValueBytes};
use crate::model::settlement::{Change, apply};
use crate::store::letters::written;
use crate::store::{LetterResend, LetterResent};

/// Row 32. False if the budget had no room for the value.
pub(super) fn bury(
    connection: &Connection,
    ids: &mut IdCache,
    letter: &DeadLetter,
    values: ValueBudget,
    now: Timestamp,
) -> Result<bool, SqliteError> {
    let partition = &letter.record.partition;
    let number = ids
        .partition_number(connection, partition)?
        .ok_or(SqliteError::Corrupt("a dead letter of an unknown partition"))?;
    let keeps_value = values.has_room(kept(connection, &partition.topic)?, letter.value.len());
    let value = if keeps_value { &letter.value[..] } else { b"" };
    let inserted = connection
        .prepare_cached(
            "INSERT INTO dead_letter (id, partition_id, off, record_at, reason, detail, team, task, event_id, value, value_len,
                                      value_hash, buried_at, headers)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            letter.id.as_bytes(),
            number,
            letter.record.offset,
            letter.record.timestamp,
            letter.reason.name(),
            letter.detail,
            letter.team.as_ref().map(|id| id.as_bytes()),
            letter.task_id.as_ref().map(|id| id.as_bytes()),
            letter.event_id.as_ref().map(|id| id.as_bytes()),
            value,
            letter.value_len,
            letter.value_hash,
            now.millis(),
            letter.headers.as_ref().map(written),
        ])?;
    if inserted > 0 && !value.is_empty() {
        connection
            .prepare_cached(
                "INSERT INTO dead_letter_bytes (topic, bytes) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET bytes = dead_letter_bytes.bytes + excluded.bytes",
            )?
            .execute(params![&*partition.topic, value.len()])?;
    }
    // A dead letter that was there already keeps what it has.
    Ok(keeps_value || inserted == 0)
}

/// Row 33.
pub(super) fn resend(
    connection: &Connection,
    ids: &mut IdCache,
    resend: &LetterResend,
    now: Timestamp,
) -> Result<LetterResent, SqliteError> {
    let id = resend.facts.id;
    let before = rows::load(connection, ids, id)?;
    let resent = LetterResent::of(&before, &resend.facts);
    if resent != LetterResent::Reused && !become_of(connection, resend.letter, Fate::Resent(id))? {
        return Ok(LetterResent::Unknown);
    }
    if resent == LetterResent::Parked {
        let step = apply(&before, &Change::Park(Box::new(resend.park(now))), true);
        let mut moves = Moves::default();
        moves.follow(connection, ids, (None, step.rows.pending.as_ref()), &resend.body, now)?;
        moves.raise_queues(connection)?;
    }
    Ok(resent)
}

/// Records what became of a dead letter. False if there is none of this id, or if it became a callback and this is none.
pub(super) fn become_of(connection: &Connection, letter: CallbackId, fate: Fate) -> Result<bool, SqliteError> {
    let state = Some(fate.state()).filter(|state| *state != LetterState::Open).map(LetterState::name);
    let changed = connection
        // What became a callback stays one.
        .prepare_cached(
            "UPDATE dead_letter SET fate = ?2, callback = ?3 WHERE id = ?1 AND (?3 IS NOT NULL OR callback IS NULL)",
        )?
        .execute(params![letter.as_bytes(), state, fate.callback().map(|id| *id.as_bytes())])?;
    Ok(changed == 1)
}

fn kept(connection: &Connection, topic: &str) -> Result<ValueBytes, SqliteError> {
    let sums = connection
        .prepare_cached(
            "SELECT coalesce(sum(bytes) FILTER (WHERE topic = ?1), 0), coalesce(sum(bytes), 0) FROM dead_letter_bytes",
        )?
        .query_row([topic], |row| Ok(ValueBytes { of_topic: row.get(0)?, in_all: row.get(1)? }))
        .optional()?;
    Ok(sums.unwrap_or_default())
}

/// Takes the bytes of these dead letters off their topics. Without the first step, all values would be sorted by topic.
pub(super) fn freed_by(old: &str) -> String {
    format!(
        "WITH freed AS MATERIALIZED (
             SELECT topic, length(value) AS bytes
             FROM dead_letter JOIN partition_offsets ON partition_offsets.id = dead_letter.partition_id
             WHERE dead_letter.id IN ({old})
         )
         UPDATE dead_letter_bytes SET bytes = max(0, dead_letter_bytes.bytes - sums.bytes)
         FROM (SELECT topic, sum(bytes) AS bytes FROM freed GROUP BY topic) AS sums
         WHERE sums.topic = dead_letter_bytes.topic"
    )
}

/// Deletes the oldest dead letters that were buried before this time, and gives their bytes back.
pub(super) fn prune(connection: &Connection, before: Timestamp, at_most: i64) -> Result<usize, SqliteError> {
    let old = "SELECT id FROM dead_letter WHERE buried_at < ?1 ORDER BY buried_at LIMIT ?2";
    connection.prepare_cached(&freed_by(old))?.execute(params![before.millis(), at_most])?;
    let pruned = connection
        .prepare_cached(&format!("DELETE FROM dead_letter WHERE id IN ({old})"))?
        .execute(params![before.millis(), at_most])?;
    Ok(pruned)
}
