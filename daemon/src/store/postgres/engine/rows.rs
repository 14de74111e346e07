//! Converts between the rows of a callback and the model.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::super::cells::{Cell, Table, Uuid, rows_of};
use super::super::error::PostgresError;
use super::super::numbers::Numbers;
use crate::base::clock::Timestamp;
use crate::model::attempt::{Outcome, SentWithId};
use crate::model::callback::CallbackId;
use crate::model::endpoint::{CallbackUrl, QueueKey};
use crate::model::event::RecordRef;
use crate::model::lease::{Facts, Token};
use crate::model::retry::Progress;
use crate::model::settlement::{Ended, Pending, Rows, Settled};
use crate::model::team::Mode;

/// The columns that `pending` and `settled` share come first, in the order in which [`read_facts`] reads them.
const FACTS: usize = 12;
const FACT_COLUMNS: &str = "id uuid, partition_id bigint, off bigint, record_at bigint, queue bigint, builder integer,
    test boolean, team text, task bytea, event_id bytea, event_type text, content_hash bytea";
const SETTLED_COLUMNS: &str = "first_at bigint, settled_at bigint, attempts integer, status integer, round integer,
    revision integer, state text, reason text, outcome text, sent_with bigint";
const PENDING_COLUMNS: &str =
    "due bigint, since bigint, horizon bigint, token bigint, lease_until bigint, tries integer,
    attempts integer, starts integer, round integer, url bytea, last_outcome text, new_id boolean";

/// The names in a list of "name type" pairs.
pub(super) fn names(columns: &str) -> String {
    let names = columns.split(',').map(|pair| pair.trim().split(' ').next().unwrap_or_default());
    names.collect::<Vec<_>>().join(", ")
}

/// What an upsert sets where the row is there already.
fn from_excluded(columns: &str) -> String {
    let names = columns.split(',').map(|pair| pair.trim().split(' ').next().unwrap_or_default());
    names.skip(1).map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ")
}

/// Inserts rows that are not there.
fn insert(table: &str, columns: &str) -> String {
    format!("INSERT INTO {table} ({}) {} ORDER BY id ON CONFLICT DO NOTHING", names(columns), rows_of(columns))
}

static SETTLED_ALL: LazyLock<String> = LazyLock::new(|| format!("{FACT_COLUMNS}, {SETTLED_COLUMNS}"));
static PENDING_ALL: LazyLock<String> = LazyLock::new(|| format!("{FACT_COLUMNS}, {PENDING_COLUMNS}"));

static INSERT_SETTLED: LazyLock<String> = LazyLock::new(|| {
    let (columns, rows) = (names(&SETTLED_ALL), rows_of(&SETTLED_ALL));
    format!(
        "INSERT INTO settled ({columns}) SELECT {columns} FROM ({rows}) AS new
         WHERE NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = new.id) ORDER BY id
         ON CONFLICT DO NOTHING RETURNING id"
    )
});
static INSERT_SETTLED_ROW: LazyLock<String> = LazyLock::new(|| insert("settled", &SETTLED_ALL));
static INSERT_PENDING_ROW: LazyLock<String> = LazyLock::new(|| insert("pending", &PENDING_ALL));
static UPSERT_SETTLED: LazyLock<String> = LazyLock::new(|| {
    let (columns, rows, set) = (names(&SETTLED_ALL), rows_of(&SETTLED_ALL), from_excluded(&SETTLED_ALL));
    format!("INSERT INTO settled ({columns}) {rows} ORDER BY id ON CONFLICT (id) DO UPDATE SET {set}")
});
static UPSERT_PENDING: LazyLock<String> = LazyLock::new(|| {
    let (columns, rows, set) = (names(&PENDING_ALL), rows_of(&PENDING_ALL), from_excluded(&PENDING_ALL));
    format!("INSERT INTO pending ({columns}) {rows} ORDER BY id ON CONFLICT (id) DO UPDATE SET {set}")
});
static SELECT_SETTLED: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM settled WHERE id = ANY($1) AND id >= $2 AND id <= $3", names(&SETTLED_ALL))
});
static SELECT_PENDING: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM pending WHERE id = ANY($1)", names(&PENDING_ALL)));

/// Whether rows that are read are locked until the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Locking {
    None,
    Update,
}

impl Locking {
    fn of(self, select: &str) -> String {
        match self {
            Self::None => select.to_owned(),
            Self::Update => format!("{select} ORDER BY id FOR UPDATE"),
        }
    }
}

/// A row that can't be read, alone: the others are read all the same.
pub(in super::super) type Readable<T> = Result<T, &'static str>;

/// The numbers of the queues of rows that were read.
pub(in super::super) type QueuesRead = HashMap<QueueKey, i64>;

/// Both rows of each of these callbacks, of those that have one. The numbers of their queues are added to `queues`.
pub(in super::super) async fn load(
    client: &impl GenericClient,
    numbers: &Numbers,
    ids: &[Uuid],
    locking: Locking,
    queues: &mut QueuesRead,
) -> Result<HashMap<CallbackId, Readable<Rows>>, PostgresError> {
    let mut found: HashMap<CallbackId, Readable<Rows>> = HashMap::new();
    // Only the days between these two are looked at.
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(found) };
    // Pending first: a callback moves from there to settled, so it can't be missed between the two reads.
    let pending = client.prepare_cached(&locking.of(&SELECT_PENDING)).await?;
    for row in client.query(&pending, &[&ids]).await? {
        let id = id_of(&row)?;
        let read = kept_apart(read_pending(client, numbers, &row, queues).await)?;
        found.insert(id, read.map(|pending| Rows { settled: None, pending: Some(pending) }));
    }
    let settled = client.prepare_cached(&locking.of(&SELECT_SETTLED)).await?;
    for row in client.query(&settled, &[&ids, first, last]).await? {
        let id = id_of(&row)?;
        match (
            kept_apart(read_settled(client, numbers, &row, queues).await)?,
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
    let mut found = load(client, numbers, &[id.into()], Locking::None, &mut QueuesRead::new()).await?;
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
    queues: &mut QueuesRead,
) -> Result<Arc<Facts>, PostgresError> {
    let hash: &[u8] = row.try_get(11)?;
    let number = row.try_get(4)?;
    let queue = numbers.queue_key(client, number).await?;
    queues.insert(queue.clone(), number);
    Ok(Arc::new(Facts {
        id: id_of(row)?,
        record: RecordRef {
            partition: numbers.partition_key(client, row.try_get(1)?).await?,
            offset: row.try_get(2)?,
            timestamp: row.try_get(3)?,
        },
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
    queues: &mut QueuesRead,
) -> Result<Settled, PostgresError> {
    let facts = read_facts(client, numbers, row, queues).await?;
    let (state, reason): (&str, Option<&str>) = (row.try_get(FACTS + 6)?, row.try_get(FACTS + 7)?);
    Ok(Settled {
        facts,
        first_at: Timestamp::from_millis(row.try_get(FACTS)?),
        settled_at: Timestamp::from_millis(row.try_get(FACTS + 1)?),
        attempts: small(row, FACTS + 2)?,
        status: opt_small(row, FACTS + 3)?,
        round: small(row, FACTS + 4)?,
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
    queues: &mut QueuesRead,
) -> Result<Pending, PostgresError> {
    let facts = read_facts(client, numbers, row, queues).await?;
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

/// The numbers under which a callback's row names its partition and its queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowNumbers {
    pub(super) partition: i64,
    pub(super) queue: i64,
}

fn fact_cells(facts: &Facts, numbers: RowNumbers) -> [Cell<'_>; FACTS] {
    [
        facts.id.into(),
        numbers.partition.into(),
        facts.record.offset.into(),
        facts.record.timestamp.into(),
        numbers.queue.into(),
        i64::from(facts.builder).into(),
        (facts.mode == Mode::Test).into(),
        (&*facts.team).into(),
        facts.task_id.as_bytes().into(),
        facts.event_id.as_ref().map(|id| id.as_bytes()).into(),
        (&*facts.event_type).into(),
        (&facts.content_hash[..]).into(),
    ]
}

/// Settled rows on their way into the table.
pub(super) struct SettledTable<'v>(Table<'v, 22>);

impl<'v> SettledTable<'v> {
    pub(super) fn new() -> Self {
        Self(Table::new())
    }

    pub(super) fn push(&mut self, row: &'v Settled, numbers: RowNumbers) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = fact_cells(&row.facts, numbers);
        self.0.push([
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            row.first_at.millis().into(),
            row.settled_at.millis().into(),
            row.attempts.into(),
            row.status.into(),
            row.round.into(),
            row.revision.into(),
            row.ended.name().into(),
            row.ended.reason().map(|reason| reason.name()).into(),
            row.outcome.name().into(),
            row.sent_with.map(|settings| settings.0).into(),
        ]);
    }

    /// Inserts the rows whose ids are in neither table, and returns these ids.
    pub(super) async fn insert_new(&self, client: &impl GenericClient) -> Result<Vec<CallbackId>, PostgresError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let statement = client.prepare_cached(&INSERT_SETTLED).await?;
        client.query(&statement, &self.0.values()).await?.iter().map(id_of).collect()
    }

    /// Inserts the rows, which were not there a moment ago.
    pub(super) async fn insert(&self, client: &impl GenericClient) -> Result<(), PostgresError> {
        insert_all(client, &INSERT_SETTLED_ROW, &self.0).await
    }

    /// Writes the rows. Each replaces an earlier one, if there is one.
    pub(super) async fn replace(&self, client: &impl GenericClient) -> Result<(), PostgresError> {
        if !self.0.is_empty() {
            let statement = client.prepare_cached(&UPSERT_SETTLED).await?;
            client.execute(&statement, &self.0.values()).await?;
        }
        Ok(())
    }
}

/// A row that is there all the same was inserted by another process after we looked: what was decided without it is void.
async fn insert_all<const N: usize>(
    client: &impl GenericClient,
    sql: &str,
    table: &Table<'_, N>,
) -> Result<(), PostgresError> {
    if table.is_empty() {
        return Ok(());
    }
    let statement = client.prepare_cached(sql).await?;
    let inserted = client.execute(&statement, &table.values()).await?;
    if inserted == table.len() as u64 { Ok(()) } else { Err(PostgresError::Met) }
}

/// Pending rows on their way into the table.
pub(super) struct PendingTable<'v>(Table<'v, 24>);

impl<'v> PendingTable<'v> {
    pub(super) fn new() -> Self {
        Self(Table::new())
    }

    pub(super) fn push(&mut self, row: &'v Pending, numbers: RowNumbers) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = fact_cells(&row.facts, numbers);
        self.0.push([
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            row.due.millis().into(),
            row.progress.since.map(Timestamp::millis).into(),
            row.progress.horizon.map(Timestamp::millis).into(),
            row.token.map(|token| token.0.cast_signed()).into(),
            row.lease_until.map(Timestamp::millis).into(),
            row.progress.tries.into(),
            row.progress.attempts.into(),
            row.starts.into(),
            row.round.into(),
            row.url.as_ref().map(|url| url.as_bytes()).into(),
            row.last_outcome.map(Outcome::name).into(),
            row.new_id.into(),
        ]);
    }

    /// Inserts the rows, which were not there a moment ago.
    pub(super) async fn insert(&self, client: &impl GenericClient) -> Result<(), PostgresError> {
        insert_all(client, &INSERT_PENDING_ROW, &self.0).await
    }

    /// Writes the rows. Each replaces an earlier one, if there is one.
    pub(super) async fn replace(&self, client: &impl GenericClient) -> Result<(), PostgresError> {
        if !self.0.is_empty() {
            let statement = client.prepare_cached(&UPSERT_PENDING).await?;
            client.execute(&statement, &self.0.values()).await?;
        }
        Ok(())
    }
}
