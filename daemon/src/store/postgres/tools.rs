//! What an operator does with a store while no daemon runs on it: check it, list its migrations, tell what it holds, verify it.
//! Nothing here changes the store.

use deadpool_postgres::Object;

use super::cells::Uuid;
use super::connection::{PostgresStore, look, look_beside};
use super::engine::rows::{NumbersRead, id_of, load};
use super::error::{PostgresError, told};
use super::migrations::{KNOWN, named};
use super::presence::PresenceError;
use super::schema;
use super::url::PostgresUrl;
use crate::base::clock::{NEAR, Timestamp};
use crate::base::finding::Finding;
use crate::model::callback::newest_builder;
use crate::store::admin::some_keys;
use crate::store::report::{Info, Looked, NEWER_BUILDER, unreadable_rows, unreadable_settled};
use crate::store::sql::{Database as _, Reader};
use crate::store::versions::Schema;
use crate::store::{OpenError, StoreError};

/// Everything that could keep a daemon from using this store.
pub(in crate::store) async fn check(url: &PostgresUrl, now: Timestamp) -> Looked {
    let what = "store";
    let found = |findings, in_use| Looked { findings, in_use, keys: Vec::new() };
    let store = match look(url).await {
        Ok(store) => store,
        Err(PresenceError::Held | PresenceError::InUse | PresenceError::NameInUse { .. }) => {
            return found(vec![Finding::ok(what, format!("{url} is used by a callbackd that runs now"))], true);
        }
        Err(PresenceError::Outdated(error)) => {
            return found(vec![Finding::failed(what, error.to_string(), NEWER)], false);
        }
        Err(PresenceError::Unfit(unfit)) => {
            let fix = "check host, port, user, password and database in store.url, and that the server runs";
            return found(vec![Finding::failed(what, format!("{url}: {}", unfit.reason), fix)], false);
        }
    };
    let findings = match applied(&store, url).await {
        Err(error) => vec![Finding::failed(what, error.to_string(), NEWER)],
        Ok(Schema { applied: 0, .. }) => {
            vec![Finding::ok(what, format!("{url} is empty; the store is made at the first start"))]
        }
        Ok(schema) => match schema.missing(KNOWN.len()) {
            0 => return whole(&store, url, schema, now).await,
            count => vec![Finding::ok(what, format!("{url}: {count} migrations are applied at the next start"))],
        },
    };
    found(findings, false)
}

const NEWER: &str = "use a callbackd that knows this schema";

/// A store with no migration missing: its time must be near, and its keys are for the check of the keyring.
async fn whole(store: &PostgresStore, url: &PostgresUrl, schema: Schema, now: Timestamp) -> Looked {
    let keys = store.read(Reader::People, some_keys).await;
    let newest: Result<_, StoreError> = async {
        let client = store.people_reader().await?;
        let row = client.query_one("SELECT max(heartbeat) FROM instance", &[]).await.map_err(PostgresError::from)?;
        Ok(row.get::<_, Option<i64>>(0).map(Timestamp::from_millis))
    }
    .await;
    let finding = match (&keys, newest) {
        (Err(error), _) => failed(url, error),
        (Ok(_), Err(error)) => failed(url, &error),
        (Ok(_), Ok(Some(newest))) if newest.since(now) > NEAR => Finding::failed(
            "store",
            format!("{url} was last written at {newest}, which is later than this machine's clock says"),
            "set the clock",
        ),
        (Ok(_), Ok(_)) => Finding::ok("store", format!("{url}, schema {}", schema.name(&KNOWN))),
    };
    Looked { findings: vec![finding], in_use: false, keys: keys.unwrap_or_default() }
}

fn failed(url: &PostgresUrl, error: &StoreError) -> Finding {
    Finding::failed("store", format!("{url}: {error}"), "see the server's log")
}

/// What the store says of its schema, if this program may work on it.
async fn applied(store: &PostgresStore, url: &PostgresUrl) -> Result<Schema, OpenError> {
    let unusable = |reason| OpenError::Database { url: url.to_string(), reason };
    let client = reader(store, url).await?;
    let found = schema::read(&client).await.map_err(|error| unusable(told(&error)))?;
    found.admits(KNOWN.len(), named(url)).map(|()| found)
}

async fn reader(store: &PostgresStore, url: &PostgresUrl) -> Result<Object, OpenError> {
    store.writer().await.map_err(|error| error.at_open(url))
}

/// The store under its lock, without a change to it.
async fn locked(url: &PostgresUrl) -> Result<PostgresStore, OpenError> {
    look(url).await.map_err(|error| error.of(url))
}

/// Daemons may work on the store meanwhile: an additive migration is applied while they do.
pub(in crate::store) async fn migrations(url: &PostgresUrl) -> Result<Vec<(&'static str, bool)>, OpenError> {
    let store = look_beside(url).await.map_err(|error| error.of(url))?;
    let applied = applied(&store, url).await?.applied;
    Ok(KNOWN.iter().enumerate().map(|(at, migration)| (migration.name, at < applied)).collect())
}

/// The store, with its lock, where its schema is one that this program may read.
async fn readable(url: &PostgresUrl) -> Result<(PostgresStore, Schema), OpenError> {
    let store = locked(url).await?;
    let found = applied(&store, url).await?;
    if found.missing(KNOWN.len()) > 0 {
        let (found, known) = (found.applied, KNOWN.len());
        let reason = format!("its schema is {found}, this program's is {known}; see: callbackd migrate --status");
        return Err(OpenError::Database { url: url.to_string(), reason });
    }
    Ok((store, found))
}

pub(in crate::store) async fn info(url: &PostgresUrl) -> Result<Info, OpenError> {
    let (store, schema) = readable(url).await?;
    let client = reader(&store, url).await?;
    let sql = "SELECT id, created_at, pg_database_size(current_database()),
                      (SELECT count(*) FROM pending), (SELECT count(*) FROM settled), (SELECT count(*) FROM attempt),
                      (SELECT count(*) FROM dead_letter), (SELECT count(*) FROM team) FROM store";
    let look = async {
        let row = client.query_one(sql, &[]).await?;
        let count =
            |at| -> Result<u64, tokio_postgres::Error> { Ok(row.try_get::<_, i64>(at)?.try_into().unwrap_or(0)) };
        Ok(Info {
            store_id: row.try_get(0)?,
            created_at: Timestamp::from_millis(row.try_get(1)?),
            schema: schema.name(&KNOWN),
            oldest_writer: schema.oldest_writer,
            file_bytes: count(2)?,
            pending: count(3)?,
            settled: count(4)?,
            attempts: count(5)?,
            dead_letters: count(6)?,
            teams: count(7)?,
        })
    };
    look.await
        .map_err(|error: tokio_postgres::Error| OpenError::Database { url: url.to_string(), reason: told(&error) })
}

/// Rows that must fit together, each as a count of those that do not.
const FIT: [(&str, &str); 8] = [
    (
        "pending callbacks without a body",
        "SELECT count(*) FROM pending WHERE NOT EXISTS (SELECT 1 FROM body WHERE body.id = pending.id)",
    ),
    (
        "bodies without a pending callback",
        "SELECT count(*) FROM body WHERE NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = body.id)",
    ),
    (
        "rows of an unknown queue",
        "SELECT (SELECT count(*) FROM pending WHERE NOT EXISTS (SELECT 1 FROM queue WHERE queue.id = pending.queue))
              + (SELECT count(*) FROM settled WHERE NOT EXISTS (SELECT 1 FROM queue WHERE queue.id = settled.queue))",
    ),
    (
        "rows of an unknown partition",
        "SELECT (SELECT count(*) FROM pending WHERE partition_id NOT IN (SELECT id FROM partition_offsets))
              + (SELECT count(*) FROM settled WHERE partition_id NOT IN (SELECT id FROM partition_offsets))",
    ),
    (
        "kept bodies of a callback that has not ended",
        "SELECT count(*) FROM kept_body WHERE NOT EXISTS (SELECT 1 FROM settled WHERE settled.id = kept_body.id)
             OR EXISTS (SELECT 1 FROM pending WHERE pending.id = kept_body.id)",
    ),
    (
        "wrong sums of the kept bodies' bytes",
        "SELECT count(*) FROM store WHERE kept_bytes <> (SELECT coalesce(sum(octet_length(bytes)), 0) FROM kept_body)",
    ),
    ("keys of an unknown team", "SELECT count(*) FROM team_key WHERE team NOT IN (SELECT id FROM team)"),
    (
        "attempts of an unknown callback",
        "SELECT count(*) FROM attempt WHERE NOT EXISTS (SELECT 1 FROM pending WHERE pending.id = attempt.id)
             AND NOT EXISTS (SELECT 1 FROM settled WHERE settled.id = attempt.id)",
    ),
];

/// Reads every row: a sentence for each thing that is wrong. The server's pages are the server's to check (`pg_amcheck`).
pub(in crate::store) async fn verify(url: &PostgresUrl) -> Result<Vec<String>, OpenError> {
    let (store, _) = readable(url).await?;
    let client = reader(&store, url).await?;
    let unusable = |error: tokio_postgres::Error| OpenError::Database { url: url.to_string(), reason: told(&error) };
    // Whole tables are read.
    client.batch_execute("SET statement_timeout = 0").await.map_err(unusable)?;
    let mut wrong = misfits(&client).await.map_err(unusable)?;
    wrong.extend(unreadable(&store, &client).await.map_err(|error| error.at_open(url))?);
    Ok(wrong)
}

/// Rows that are read at once.
const PIECE: i64 = 1_000;

/// The rows that this program can't read, as sentences: a newer one may have written them.
async fn unreadable(store: &PostgresStore, client: &Object) -> Result<Vec<String>, PostgresError> {
    let (mut pending, mut after) = (0_u64, None::<Uuid>);
    loop {
        let sql = "SELECT id FROM pending WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2";
        let found = client.query(sql, &[&after, &PIECE]).await?;
        let ids = found.iter().map(|row| id_of(row).map(Uuid::from)).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = ids.last() else { break };
        after = Some(*last);
        let rows = load(client, &store.numbers, &ids, &mut NumbersRead::default()).await?;
        pending += rows.values().filter(|rows| rows.is_err()).count() as u64;
    }
    let settled = client.query_one(&unreadable_settled(), &[]).await?;
    let newer = client.query_one(NEWER_BUILDER, &[&i32::from(newest_builder())]).await?;
    let count = |row: &tokio_postgres::Row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
    Ok(unreadable_rows(pending, count(&settled), count(&newer)))
}

/// The rows that do not fit together, as sentences.
pub(super) async fn misfits(client: &Object) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut wrong = Vec::new();
    for (what, sql) in FIT {
        let count: i64 = client.query_one(sql, &[]).await?.get(0);
        if count > 0 {
            wrong.push(format!("{count} {what}"));
        }
    }
    Ok(wrong)
}
