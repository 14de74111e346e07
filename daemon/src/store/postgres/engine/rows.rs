//! Locks and reads the rows of callbacks. `tables` writes them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use deadpool_postgres::GenericClient;
use futures_util::future::try_join;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::cells::{Uuid, param};
use super::super::error::PostgresError;
use super::super::numbers::Numbers;
use super::super::pipeline::{Answers, Pipeline, Place};
use crate::base::clock::Timestamp;
use crate::model::attempt::{Outcome, SentWithId};
use crate::model::callback::CallbackId;
use crate::model::endpoint::{CallbackUrl, QueueKey};
use crate::model::event::{PartitionKey, RecordRef};
use crate::model::lease::{Facts, Token};
use crate::model::retry::Progress;
use crate::model::settlement::{Ended, Pending, Rows, Settled};
use crate::model::team::Mode;

/// The columns that `pending` and `settled` share come first, in the order in which [`read_facts`] reads them.
pub(super) const FACTS: usize = 12;
const FACT_COLUMNS: &str = "id uuid, partition_id bigint, off bigint, record_at bigint, queue bigint, builder integer,
    test boolean, team text, task bytea, event_id bytea, event_type text, content_hash bytea";
const SETTLED_COLUMNS: &str = "first_at bigint, settled_at bigint, attempts integer, status integer, round integer,
    revision integer, state text, reason text, outcome text, sent_with bigint";
/// Where `round` stands in a settled row.
const SETTLED_ROUND: usize = FACTS + 4;
const PENDING_COLUMNS: &str =
    "due bigint, since bigint, horizon bigint, token bigint, lease_until bigint, tries integer,
    attempts integer, starts integer, round integer, url bytea, last_outcome text, new_id boolean";

/// The names in a list of "name type" pairs.
pub(super) fn names(columns: &str) -> String {
    let names = columns.split(',').map(|pair| pair.trim().split(' ').next().unwrap_or_default());
    names.collect::<Vec<_>>().join(", ")
}

/// The numbers under which a callback's row names its partition and its queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowNumbers {
    pub(super) partition: i64,
    pub(super) queue: i64,
}

pub(super) static SETTLED_ALL: LazyLock<String> = LazyLock::new(|| format!("{FACT_COLUMNS}, {SETTLED_COLUMNS}"));
pub(super) static PENDING_ALL: LazyLock<String> = LazyLock::new(|| format!("{FACT_COLUMNS}, {PENDING_COLUMNS}"));

static SELECT_SETTLED: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM settled WHERE id = ANY($1) AND id >= $2 AND id <= $3", names(&SETTLED_ALL))
});
static SELECT_PENDING: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM pending WHERE id = ANY($1)", names(&PENDING_ALL)));

static LOCK_SETTLED: LazyLock<String> = LazyLock::new(|| format!("{} ORDER BY id FOR UPDATE", *SELECT_SETTLED));
static LOCK_PENDING: LazyLock<String> = LazyLock::new(|| format!("{} ORDER BY id FOR UPDATE", *SELECT_PENDING));

/// A row that can't be read, alone: the others are read all the same.
pub(in super::super) type Readable<T> = Result<T, &'static str>;

/// The numbers of the partitions and queues of rows that were read.
#[derive(Default)]
pub(in super::super) struct NumbersRead {
    pub(super) partitions: HashMap<Arc<PartitionKey>, i64>,
    pub(super) queues: HashMap<QueueKey, i64>,
}

/// Where the answers to [`lock`] stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsAsked {
    pending: Place,
    settled: Place,
}

impl RowsAsked {
    /// The pending rows and the settled ones.
    pub(super) fn take(self, answers: &mut Answers) -> (Vec<Row>, Vec<Row>) {
        (answers.take(self.pending), answers.take(self.settled))
    }
}

/// Locks both rows of each of these callbacks, of those that have one: pending rows before settled ones, each by id.
pub(super) fn lock(first: &mut Pipeline<'_>, ids: &[Uuid]) -> Option<RowsAsked> {
    // Only the days between these two are looked at.
    let (smallest, largest) = (*ids.iter().min()?, *ids.iter().max()?);
    let pending = first.push(LOCK_PENDING.as_str(), vec![param(ids.to_vec())]);
    let settled = first.push(LOCK_SETTLED.as_str(), vec![param(ids.to_vec()), param(smallest), param(largest)]);
    Some(RowsAsked { pending, settled })
}

/// A round that was opened between the two statements of [`lock`] has a pending row that the first one could not see.
pub(super) async fn lock_opened(
    client: &impl GenericClient,
    pending: &mut Vec<Row>,
    settled: &[Row],
) -> Result<(), PostgresError> {
    let seen = pending.iter().map(id_of).collect::<Result<BTreeSet<_>, _>>()?;
    let mut unseen: Vec<Uuid> = Vec::new();
    for row in settled {
        let id = id_of(row)?;
        let has_rounds = small::<u32>(row, SETTLED_ROUND).is_ok_and(|round| round > 0);
        if has_rounds && !seen.contains(&id) {
            unseen.push(id.into());
        }
    }
    if !unseen.is_empty() {
        let statement = client.prepare_cached(&LOCK_PENDING).await?;
        pending.extend(client.query(&statement, &[&unseen]).await?);
    }
    Ok(())
}

/// Both rows of each of these callbacks, of those that have one. The numbers that they name are added to `names`.
pub(in super::super) async fn load(
    client: &impl GenericClient,
    numbers: &Numbers,
    ids: &[Uuid],
    names: &mut NumbersRead,
) -> Result<HashMap<CallbackId, Readable<Rows>>, PostgresError> {
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(HashMap::new()) };
    let pending = client.prepare_cached(&SELECT_PENDING).await?;
    let settled = client.prepare_cached(&SELECT_SETTLED).await?;
    // Both are sent at once, and the server reads one after the other. Pending first: a callback moves from there to settled, so it
    // can't be missed between the two reads.
    let (of_pending, of_settled): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 3]) = ([&ids], [&ids, first, last]);
    let rows = try_join(client.query(&pending, &of_pending), client.query(&settled, &of_settled)).await?;
    read(client, numbers, rows, names).await
}

/// Reads pending and settled rows. The numbers that they name are added to `names`.
pub(super) async fn read(
    client: &impl GenericClient,
    numbers: &Numbers,
    (pending, settled): (Vec<Row>, Vec<Row>),
    names: &mut NumbersRead,
) -> Result<HashMap<CallbackId, Readable<Rows>>, PostgresError> {
    let queues = pending.iter().chain(&settled).map(|row| row.try_get(4)).collect::<Result<BTreeSet<i64>, _>>()?;
    numbers.learn_queues(client, &queues).await?;
    let mut found: HashMap<CallbackId, Readable<Rows>> = HashMap::new();
    for row in pending {
        let read = kept_apart(read_pending(client, numbers, &row, names).await)?;
        found.insert(id_of(&row)?, read.map(|pending| Rows { settled: None, pending: Some(pending) }));
    }
    for row in settled {
        let id = id_of(&row)?;
        match (
            kept_apart(read_settled(client, numbers, &row, names).await)?,
            found.entry(id).or_insert(Ok(Rows::default())),
        ) {
            (Ok(settled), Ok(rows)) => rows.settled = Some(settled),
            (Err(what), rows) => *rows = Err(what),
            (Ok(_), Err(_)) => {}
        }
    }
    Ok(found)
}

/// Both rows of one callback.
pub(in super::super) async fn load_one(
    client: &impl GenericClient,
    numbers: &Numbers,
    id: CallbackId,
) -> Result<Rows, PostgresError> {
    let mut found = load(client, numbers, &[id.into()], &mut NumbersRead::default()).await?;
    found.remove(&id).transpose().map(Option::unwrap_or_default).map_err(PostgresError::Corrupt)
}

/// A row that can't be read is no error of the database.
fn kept_apart<T>(read: Result<T, PostgresError>) -> Result<Readable<T>, PostgresError> {
    match read {
        Ok(row) => Ok(Ok(row)),
        Err(PostgresError::Corrupt(what)) => Ok(Err(what)),
        Err(other) => Err(other),
    }
}

pub(in super::super) fn id_of(row: &Row) -> Result<CallbackId, PostgresError> {
    Ok(row.try_get::<_, Uuid>(0)?.into())
}

async fn read_facts(
    client: &impl GenericClient,
    numbers: &Numbers,
    row: &Row,
    names: &mut NumbersRead,
) -> Result<Arc<Facts>, PostgresError> {
    let hash: &[u8] = row.try_get(11)?;
    let (partition_number, queue_number) = (row.try_get(1)?, row.try_get(4)?);
    let queue = numbers.queue_key(client, queue_number).await?;
    names.queues.insert(queue.clone(), queue_number);
    let partition = numbers.partition_key(client, partition_number).await?;
    names.partitions.insert(Arc::clone(&partition), partition_number);
    Ok(Arc::new(Facts {
        id: id_of(row)?,
        record: RecordRef { partition, offset: row.try_get(2)?, timestamp: row.try_get(3)? },
        queue,
        builder: small(row, 5)?,
        mode: if row.try_get(6)? { Mode::Test } else { Mode::Live },
        team: row.try_get::<_, &str>(7)?.into(),
        task_id: text(row.try_get(8)?)?,
        event_id: row.try_get::<_, Option<&[u8]>>(9)?.map(text).transpose()?,
        event_type: row.try_get::<_, &str>(10)?.into(),
        content_hash: hash.try_into().map_err(|_| PostgresError::Corrupt("a content hash"))?,
    }))
}

async fn read_settled(
    client: &impl GenericClient,
    numbers: &Numbers,
    row: &Row,
    names: &mut NumbersRead,
) -> Result<Settled, PostgresError> {
    let facts = read_facts(client, numbers, row, names).await?;
    let (state, reason): (&str, Option<&str>) = (row.try_get(FACTS + 6)?, row.try_get(FACTS + 7)?);
    Ok(Settled {
        facts,
        first_at: Timestamp::from_millis(row.try_get(FACTS)?),
        settled_at: Timestamp::from_millis(row.try_get(FACTS + 1)?),
        attempts: small(row, FACTS + 2)?,
        status: opt_small(row, FACTS + 3)?,
        round: small(row, SETTLED_ROUND)?,
        revision: small(row, FACTS + 5)?,
        ended: Ended::parse(state, reason).ok_or(PostgresError::Corrupt("a settled row's state"))?,
        outcome: outcome(row.try_get(FACTS + 8)?)?,
        sent_with: row.try_get::<_, Option<i64>>(FACTS + 9)?.map(SentWithId),
    })
}

async fn read_pending(
    client: &impl GenericClient,
    numbers: &Numbers,
    row: &Row,
    names: &mut NumbersRead,
) -> Result<Pending, PostgresError> {
    let facts = read_facts(client, numbers, row, names).await?;
    let time = |at| -> Result<_, PostgresError> { Ok(row.try_get::<_, Option<i64>>(at)?.map(Timestamp::from_millis)) };
    let url = row.try_get::<_, Option<&[u8]>>(FACTS + 9)?.map(text).transpose()?;
    Ok(Pending {
        facts,
        due: Timestamp::from_millis(row.try_get(FACTS)?),
        progress: Progress {
            since: time(FACTS + 1)?,
            horizon: time(FACTS + 2)?,
            tries: small(row, FACTS + 5)?,
            attempts: small(row, FACTS + 6)?,
        },
        token: row.try_get::<_, Option<i64>>(FACTS + 3)?.map(|token| Token(token.cast_unsigned())),
        lease_until: time(FACTS + 4)?,
        starts: small(row, FACTS + 7)?,
        round: small(row, FACTS + 8)?,
        url: url.map(|url| CallbackUrl::from(&*url)),
        last_outcome: row.try_get::<_, Option<&str>>(FACTS + 10)?.map(outcome).transpose()?,
        new_id: row.try_get(FACTS + 11)?,
    })
}

/// A number of a type that is smaller than its column.
pub(in super::super) fn small<T: TryFrom<i32>>(row: &Row, at: usize) -> Result<T, PostgresError> {
    opt_small(row, at)?.ok_or(PostgresError::Corrupt("a number that is missing"))
}

pub(in super::super) fn opt_small<T: TryFrom<i32>>(row: &Row, at: usize) -> Result<Option<T>, PostgresError> {
    let number = row.try_get::<_, Option<i32>>(at)?;
    let fits = |number| T::try_from(number).map_err(|_| PostgresError::Corrupt("a number outside of its range"));
    number.map(fits).transpose()
}

fn text(bytes: &[u8]) -> Result<Box<str>, PostgresError> {
    std::str::from_utf8(bytes).map(Box::from).map_err(|_| PostgresError::Corrupt("an id that is not text"))
}

pub(in super::super) fn outcome(name: &str) -> Result<Outcome, PostgresError> {
    Outcome::parse(name).ok_or(PostgresError::Corrupt("an outcome's name"))
}
