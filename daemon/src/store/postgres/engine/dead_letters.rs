//! Dead letters are written and pruned here, with the bytes of their values counted by topic, so that a budget can bound
//! them.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::super::cells::{Table, Uuid, param, rows_of};
use super::super::error::PostgresError;
use super::super::pipeline::{Answers, Pipeline, Place};
use super::rows::{id_of, names};
use crate::base::clock::Timestamp;
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, ValueBudget, ValueBytes};
use crate::store::letters::written;

/// Where the answers to [`look`] stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct LettersAsked {
    there: Place,
    kept: Place,
}

/// Asks which of these letters are there, and how many bytes are kept.
pub(super) fn look(first: &mut Pipeline<'_>, ids: Vec<Uuid>) -> Option<LettersAsked> {
    if ids.is_empty() {
        return None;
    }
    let there = first.push("SELECT id FROM dead_letter WHERE id = ANY($1)", vec![param(ids)]);
    let kept = first.push("SELECT topic, bytes FROM dead_letter_bytes", Vec::new());
    Some(LettersAsked { there, kept })
}

/// What was there before a transaction.
#[derive(Default)]
pub(super) struct LettersFound {
    there: HashSet<CallbackId>,
    /// The bytes that are kept, by topic.
    kept: BTreeMap<String, u64>,
}

impl LettersFound {
    pub(super) fn read(answers: &mut Answers, asked: Option<LettersAsked>) -> Result<Self, PostgresError> {
        let Some(LettersAsked { there, kept }) = asked else { return Ok(Self::default()) };
        let bytes = |row: &Row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.try_into().unwrap_or(0)));
        Ok(Self {
            there: answers.take(there).iter().map(id_of).collect::<Result<_, PostgresError>>()?,
            kept: answers.take(kept).iter().map(bytes).collect::<Result<_, PostgresError>>()?,
        })
    }
}

/// Row 32. Each letter comes with its place in the batch and with the number of its partition. Returns the places of those for
/// whose values the budget had no room.
pub(super) fn bury<'v>(
    last: &mut Pipeline<'v>,
    letters: &[(usize, &'v DeadLetter, i64)],
    found: LettersFound,
    values: ValueBudget,
    now: Timestamp,
) -> Vec<usize> {
    let LettersFound { mut there, mut kept } = found;
    let mut added: BTreeMap<&'v str, i64> = BTreeMap::new();
    let mut without_value = Vec::new();
    let mut table = Table::<13>::new();
    let mut headers = Vec::new();
    for (at, letter, partition) in letters.iter().copied() {
        // A dead letter that was there already keeps what it has.
        if !there.insert(letter.id) {
            continue;
        }
        let topic = &*letter.record.partition.topic;
        let in_all = kept.values().sum();
        let sums = ValueBytes { of_topic: kept.get(topic).copied().unwrap_or(0), in_all };
        let keeps_value = values.has_room(sums, letter.value.len());
        let value: &'v [u8] = if keeps_value { &letter.value[..] } else { b"" };
        if !keeps_value {
            without_value.push(at);
        }
        *kept.entry(topic.to_owned()).or_default() += value.len() as u64;
        *added.entry(topic).or_default() += i64::try_from(value.len()).unwrap_or(i64::MAX);
        table.push([
            letter.id.into(),
            partition.into(),
            letter.record.offset.into(),
            letter.record.timestamp.into(),
            now.millis().into(),
            i64::try_from(letter.value_len).unwrap_or(i64::MAX).into(),
            letter.reason.name().into(),
            letter.detail.as_bytes().into(),
            letter.team.as_ref().map(|id| id.as_bytes()).into(),
            letter.task_id.as_ref().map(|id| id.as_bytes()).into(),
            letter.event_id.as_ref().map(|id| id.as_bytes()).into(),
            value.into(),
            letter.value_hash.as_ref().map(|hash| &hash[..]).into(),
        ]);
        headers.push(letter.headers.as_ref().map(|headers| written(headers).into_bytes()));
    }
    if !table.is_empty() {
        let mut params = table.into_params();
        params.push(param(headers));
        last.push(INSERT_LETTERS.as_str(), params);
    }
    let added = sums_of(&added);
    if !added.is_empty() {
        last.push(ADD_BYTES.as_str(), added.into_params());
    }
    without_value
}

/// The last column is written from texts that are made here.
const COLUMNS: &str = "id uuid, partition_id bigint, off bigint, record_at bigint, buried_at bigint, value_len bigint,
    reason text, detail bytea, team bytea, task bytea, event_id bytea, value bytea, value_hash bytea, headers bytea";

static INSERT_LETTERS: LazyLock<String> = LazyLock::new(|| {
    let (columns, rows) = (names(COLUMNS), rows_of(COLUMNS));
    format!("INSERT INTO dead_letter ({columns}) {rows} ORDER BY id ON CONFLICT DO NOTHING")
});

/// Adds to the bytes of topics, or takes off from them.
static ADD_BYTES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO dead_letter_bytes (topic, bytes) {} ORDER BY topic
         ON CONFLICT (topic) DO UPDATE SET bytes = greatest(0, dead_letter_bytes.bytes + excluded.bytes)",
        rows_of("topic text, bytes bigint")
    )
});

/// The values of [`ADD_BYTES`].
fn sums_of<'v>(added: &BTreeMap<&'v str, i64>) -> Table<'v, 2> {
    let mut table = Table::new();
    for (topic, bytes) in added.iter().filter(|(_, bytes)| **bytes != 0) {
        table.push([(*topic).into(), (*bytes).into()]);
    }
    table
}

/// Deletes the oldest dead letters that were buried before this time, and gives their bytes back.
pub(super) async fn prune(
    client: &impl GenericClient,
    before: Timestamp,
    at_most: i64,
) -> Result<usize, PostgresError> {
    let sql = "WITH old AS (
                   DELETE FROM dead_letter
                   WHERE id IN (SELECT id FROM dead_letter WHERE buried_at < $1 ORDER BY buried_at LIMIT $2)
                   RETURNING partition_id, octet_length(value) AS bytes
               )
               SELECT topic, count(*), sum(bytes)::bigint
               FROM old JOIN partition_offsets ON partition_offsets.id = partition_id GROUP BY topic";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&before.millis(), &at_most]).await?;
    let mut freed = BTreeMap::new();
    let mut pruned = 0;
    for row in &rows {
        freed.insert(row.try_get::<_, &str>(0)?, row.try_get::<_, i64>(2)?.saturating_neg());
        pruned += usize::try_from(row.try_get::<_, i64>(1)?).unwrap_or(0);
    }
    let freed = sums_of(&freed);
    if !freed.is_empty() {
        let statement = client.prepare_cached(&ADD_BYTES).await?;
        client.execute(&statement, &freed.values()).await?;
    }
    Ok(pruned)
}
