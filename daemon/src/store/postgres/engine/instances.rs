//! The instances of a store: how one begins, shows that it lives, and ends. One lives as long as its process holds its lock.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::super::connection::PostgresStore;
use super::super::error::PostgresError;
use super::super::migrations::KNOWN;
use super::super::presence::LIVING;
use super::super::schema;
use super::super::transaction::{Tx, commit};
use super::super::turns::{self, Turn};
use crate::base::clock::Timestamp;
use crate::model::callback::{FIRST_BUILDER, newest_builder};
use crate::model::event::PartitionKey;
use crate::store::engine::{VERSION, host, new_run, went_back};
use crate::store::{Begun, InstanceId, OpenError, Programs, Pulse, StoreError};

/// What the begin of an instance does about those before it. One whose process may only be away for a moment stays. Sums of
/// instances that are older than the last hundred go to the store's row.
static CLOSE_EARLIER: LazyLock<[String; 3]> = LazyLock::new(|| {
    [
        format!("UPDATE instance SET clean = 2 WHERE clean = 0 AND id NOT IN ({LIVING})"),
        format!(
            "WITH old AS (DELETE FROM instance WHERE id NOT IN ({LIVING}) AND id NOT IN (
                              SELECT id FROM instance ORDER BY started_at DESC, id DESC LIMIT 100)
                              AND id NOT IN (SELECT owner FROM partition_offsets WHERE owner IS NOT NULL)
                              AND id NOT IN (SELECT instance FROM instance_pulse
                                             WHERE at > (SELECT max(at) FROM instance_pulse) - 86400000)
                          RETURNING delivered, exhausted, abandoned, dead_letters),
                  sums AS (SELECT coalesce(sum(delivered), 0)::bigint AS delivered,
                                  coalesce(sum(exhausted), 0)::bigint AS exhausted,
                                  coalesce(sum(abandoned), 0)::bigint AS abandoned,
                                  coalesce(sum(dead_letters), 0)::bigint AS dead_letters FROM old)
             UPDATE store SET delivered = store.delivered + sums.delivered, exhausted = store.exhausted + sums.exhausted,
                              abandoned = store.abandoned + sums.abandoned,
                              dead_letters = store.dead_letters + sums.dead_letters
             FROM sums"
        ),
        "DELETE FROM instance_pulse WHERE instance NOT IN (SELECT id FROM instance)".to_owned(),
    ]
});

/// Registers this process under a new number. Leases of instances that died end by their own time: nobody knows whether their
/// requests are under way.
pub(super) async fn begin(store: &PostgresStore, client: &mut Object) -> Result<Begun, PostgresError> {
    let instance = random();
    store.presence.be(instance).await?;
    // Everything that this instance writes of itself has the time of the database's clock.
    if let Some(now) = database_time(&*store.presence.client()?).await? {
        store.clock.anchor(now);
    }
    let now = store.clock.now();
    let transaction = client.transaction().await?;
    turns::wait(&transaction, Turn::Begin).await?;
    // A migration that older programs can't bear looks for them in this turn.
    let schema = schema::of(&transaction.query_one(schema::SELECT, &[]).await?);
    schema.admits(KNOWN.len(), "the store").map_err(outdated)?;
    let store_id = transaction.query_one("SELECT id FROM store", &[]).await?.try_get(0)?;
    let mut unclean = false;
    for (at, sql) in CLOSE_EARLIER.iter().enumerate() {
        let rows = transaction.execute(sql, &[]).await?;
        unclean |= at == 0 && rows > 0;
    }
    let earlier = transaction.query("SELECT run FROM instance WHERE run IS NOT NULL ORDER BY started_at", &[]).await?;
    let earlier_runs = earlier.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<_, PostgresError>>()?;
    note_timeline(store, &transaction, now).await?;
    let run = new_run(now);
    let sql =
        "INSERT INTO instance (id, batch, heartbeat, started_at, clean, run, name, host, version, schema, builder)
               VALUES ($1, 0, $2, $2, 0, $3, $4, $5, $6, $7, $8)";
    let (name, knows) = (store.name.as_deref(), i64::try_from(KNOWN.len()).unwrap_or(i64::MAX));
    let builder = i32::from(newest_builder());
    let values: [&(dyn ToSql + Sync); 8] = [&instance, &now.millis(), &run, &name, &host(), &VERSION, &knows, &builder];
    transaction.execute(sql, &values).await?;
    commit(transaction).await?;
    Ok(Begun { instance: InstanceId(instance), store_id, run, earlier_runs, unclean, now })
}

/// After this time, a failover concerns no lease any more.
const RECENT: Duration = Duration::from_secs(3_600);

/// Records the server's timeline in the store. A process that begins after a failover learns of it here: the database's clock may be
/// another one than before.
async fn note_timeline(store: &PostgresStore, transaction: &Tx<'_>, now: Timestamp) -> Result<(), PostgresError> {
    let found = store.timeline.name();
    let row = transaction.query_one("SELECT timeline, timeline_at FROM store FOR UPDATE", &[]).await?;
    let (known, at): (Option<String>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let is_news = known.as_ref() != Some(&found);
    // A store that has no timeline yet was not failed over.
    let changed_at = if is_news && known.is_some() { now } else { Timestamp::from_millis(at.unwrap_or(0)) };
    if is_news {
        let sql = "UPDATE store SET timeline = $1, timeline_at = $2";
        transaction.execute(sql, &[&found, &changed_at.millis()]).await?;
    }
    if now.since(changed_at) < RECENT {
        store.timeline.changed();
    }
    Ok(())
}

/// A number of an instance: 63 random bits.
fn random() -> i64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    i64::from_ne_bytes(bytes) & i64::MAX
}

/// On the connection that holds the locks, so that a batch which waits for a lock does not look dead.
pub(super) async fn pulse(
    store: &PostgresStore,
    instance: InstanceId,
    applied: u64,
    now: Timestamp,
) -> Result<Pulse, PostgresError> {
    let client = store.presence.client()?;
    let sql = "INSERT INTO instance_pulse (instance, at) SELECT id, $2 FROM instance WHERE id = $1 AND batch >= $3
               ON CONFLICT (instance) DO UPDATE SET at = excluded.at";
    let applied = i64::try_from(applied).unwrap_or(i64::MAX);
    if client.execute(sql, &[&instance.0, &now.millis(), &applied]).await? == 0 {
        return Err(went_back().into());
    }
    let sql = "SELECT cluster, topic, partition, epoch, wanted_at IS NOT NULL FROM partition_offsets WHERE owner = $1";
    let (mut epochs, mut wanted) = (HashMap::new(), Vec::new());
    for row in client.query(sql, &[&instance.0]).await? {
        let (cluster, topic): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let key = PartitionKey { cluster: cluster.into(), topic: topic.into(), number: row.try_get(2)? };
        let key = Arc::new(key);
        epochs.insert(Arc::clone(&key), row.try_get(3)?);
        if row.try_get(4)? {
            wanted.push(key);
        }
    }
    let (others, programs) = others(&client, instance).await?;
    let schema = schema::of(&client.query_one(schema::SELECT, &[]).await?);
    schema.admits(KNOWN.len(), "the store").map_err(outdated)?;
    let now = database_time(&client).await?;
    Ok(Pulse { now, epochs: Some(epochs), wanted, others, programs: Some(programs) })
}

/// The store was given a schema that this program does not know well enough to write. It can only begin anew, and its start says what
/// is needed.
fn outdated(error: OpenError) -> StoreError {
    StoreError::Superseded(error.to_string())
}

/// The runs of the other instances that work on the store, or have worked on it since this one began; and what the programs of the
/// living ones know.
async fn others(client: &Client, instance: InstanceId) -> Result<(Vec<String>, Programs), PostgresError> {
    let sql = format!(
        "WITH living (id) AS ({LIVING})
         SELECT run, instance.id = $1, living.id IS NOT NULL, schema, builder
         FROM instance LEFT JOIN living ON living.id = instance.id
         WHERE living.id IS NOT NULL OR started_at >= (SELECT started_at FROM instance WHERE id = $1)"
    );
    let mut runs = Vec::new();
    let mut programs = Programs { older: 0, builder: newest_builder() };
    for row in client.query(&sql, &[&instance.0]).await? {
        let (run, is_this): (Option<String>, bool) = (row.try_get(0)?, row.try_get(1)?);
        runs.extend(run.filter(|_| !is_this));
        if row.try_get(2)? {
            // A program that says nothing of itself knows what the first ones knew.
            let (schema, builder): (Option<i64>, Option<i32>) = (row.try_get(3)?, row.try_get(4)?);
            let knows = usize::try_from(schema.unwrap_or(0)).unwrap_or(0);
            let builder = builder.and_then(|builder| u8::try_from(builder).ok()).unwrap_or(FIRST_BUILDER);
            programs.older += usize::from(knows < KNOWN.len());
            programs.builder = programs.builder.min(builder);
        }
    }
    Ok((runs, programs))
}

/// A time that was longer on its way says nothing about now: this process, or the server, stood still.
const ROUND_TRIP: Duration = Duration::from_millis(500);

/// The time of the database's clock.
async fn database_time(client: &Client) -> Result<Option<Timestamp>, PostgresError> {
    let asked = Instant::now();
    let row = client.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint", &[]).await?;
    let now = Timestamp::from_millis(row.try_get(0)?);
    let took = asked.elapsed();
    Ok((took <= ROUND_TRIP).then(|| now.plus(took / 2)))
}

pub(super) async fn end(client: &mut Object, instance: InstanceId) -> Result<(), PostgresError> {
    let transaction = client.transaction().await?;
    transaction.execute("UPDATE instance SET clean = 1 WHERE id = $1", &[&instance.0]).await?;
    // Partitions are locked in the order of their numbers, as everywhere.
    let lock = "SELECT id FROM partition_offsets WHERE owner = $1 ORDER BY id FOR UPDATE";
    transaction.query(lock, &[&instance.0]).await?;
    let sql = "UPDATE partition_offsets SET owner = NULL, deaths = 0, wanted_at = NULL WHERE owner = $1";
    transaction.execute(sql, &[&instance.0]).await?;
    commit(transaction).await
}
