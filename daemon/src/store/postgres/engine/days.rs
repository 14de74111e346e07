//! The days of `settled` and `attempt`: each day of ids is a partition of its own, so that what is old goes at once, and the disk gets its
//! room back.
//!
//! An id begins with the time of its event. Days are made ahead. An id of any other time, because its event is old or its time is wrong,
//! goes to the default partitions `settled_other` and `attempt_other`, from which rows are deleted one by one. A role that does not own
//! the tables can't make days, so everything goes there.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::error::SqlState;

use super::super::cells::Uuid;
use super::super::error::PostgresError;
use super::super::transaction::{Tx, commit};
use super::super::turns::{self, Turn};
use super::kept;
use crate::base::clock::Timestamp;
use crate::base::rest::Rest;
use crate::store::StoreError;

const DAY_MILLIS: i64 = 86_400_000;
/// Today and so many days more are there.
const AHEAD: i64 = 3;
/// A day of which more rows are still needed stays until fewer are.
const MOVED_AT_MOST: usize = 10_000;
/// Kept bodies that are forgotten at once.
const BODIES: i64 = 2_000;
/// How long a change of the partitions waits for its locks, and how long it may take. Whoever comes meanwhile waits behind it.
const TO_DROP: &str = "SET LOCAL lock_timeout = '300ms'; SET LOCAL statement_timeout = '5min'";
/// To make a day, the server looks through all other rows. Where they are too many for this time, they stay undivided.
const TO_MAKE: &str = "SET LOCAL lock_timeout = '300ms'; SET LOCAL statement_timeout = '3s'";
/// How long no day is made after one could not be made.
const NEXT_TRY: Duration = Duration::from_secs(3_600);

/// A day, as the number of days since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Day(i64);

impl Day {
    pub(in super::super) fn of(at: Timestamp) -> Self {
        Self(at.millis().max(0).div_euclid(DAY_MILLIS))
    }

    /// When the day begins.
    pub(super) fn begin(self) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_mul(DAY_MILLIS))
    }

    /// Whether it is at most so many days before or after that day.
    pub(in super::super) fn is_within(self, day: Self, before: i64, after: i64) -> bool {
        (day.0 - before..=day.0 + after).contains(&self.0)
    }

    fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The smallest id of the day.
    fn first_id(self) -> Uuid {
        first_id(self.begin())
    }

    /// Part of the names of its tables, such as `20261130`.
    fn name(self) -> String {
        self.begin().to_string().chars().take(10).filter(char::is_ascii_digit).collect()
    }

    /// The day whose table has this name.
    fn of_table(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("settled_").filter(|digits| digits.len() == 8)?;
        let date = jiff::civil::Date::strptime("%Y%m%d", digits).ok()?;
        let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(Self(midnight.timestamp().as_millisecond().div_euclid(DAY_MILLIS)))
    }
}

/// The smallest id of events of this time.
pub(super) fn first_id(at: Timestamp) -> Uuid {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&at.millis().max(0).to_be_bytes()[2..]);
    Uuid(id)
}

/// As SQL writes it.
fn quoted(id: &Uuid) -> String {
    format!("'{}'", scale_callback_serve::text::hex(&id.0))
}

/// The days that are there.
pub(super) async fn there(client: &impl GenericClient) -> Result<Vec<Day>, PostgresError> {
    let sql = "SELECT child.relname::text FROM pg_inherits
               JOIN pg_class AS child ON child.oid = inhrelid WHERE inhparent = 'settled'::regclass";
    let statement = client.prepare_cached(sql).await?;
    let mut days: Vec<Day> = Vec::new();
    for row in client.query(&statement, &[]).await? {
        days.extend(Day::of_table(row.try_get(0)?));
    }
    days.sort_unstable();
    Ok(days)
}

/// Keeps the days as they are until the end of the transaction. Whoever makes or drops a day locks the whole tables first and then the
/// other rows, so whoever locks other rows and later looks at the whole tables would be in a deadlock with it.
pub(super) async fn look(transaction: &Tx<'_>) -> Result<(), PostgresError> {
    Ok(transaction.batch_execute("LOCK TABLE ONLY settled, ONLY attempt IN ACCESS SHARE MODE").await?)
}

/// Whether the role of this session may make and drop days. Otherwise nobody does, and old rows are deleted one by one from all tables.
pub(super) async fn are_ours(client: &impl GenericClient) -> Result<bool, PostgresError> {
    let sql = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'settled'::regclass";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_one(&statement, &[]).await?.try_get(0)?)
}

/// Makes today and the days ahead. Where that can't be done, rows go to the other ones, and nothing is lost.
pub(super) async fn look_ahead(rest: &Rest, client: &mut Object, now: Timestamp) {
    if rest.lasts() {
        return;
    }
    match make_ahead(client, now).await {
        Ok(true) => {}
        Err(error) if !took_too_long(&error) => {
            // Others used the tables, or the server is away: the next look is soon enough.
            let error = StoreError::from(error);
            tracing::debug!(%error, "days of ended callbacks can't be made now");
        }
        Ok(false) | Err(_) => {
            rest.begin(NEXT_TRY);
            tracing::warn!(
                "a day of ended callbacks can't be made beside the many that belong to no day: they are deleted one by one \
                 when they are old; it is tried again in an hour"
            );
        }
    }
}

fn took_too_long(error: &PostgresError) -> bool {
    matches!(error, PostgresError::Sql(error) if error.code() == Some(&SqlState::QUERY_CANCELED))
}

/// Drops an old day, or does a part of it. True if there may be more to do.
pub(super) async fn drop_old(client: &mut Object, settled_before: Timestamp) -> bool {
    match drop_oldest(client, settled_before).await {
        Ok(more) => more,
        Err(error) => {
            let error = StoreError::from(error);
            tracing::debug!(%error, "an old day of ended callbacks can't be dropped now");
            false
        }
    }
}

/// Makes today and the days ahead, as far as they are not there. False if one of them can't be made.
async fn make_ahead(client: &mut Object, now: Timestamp) -> Result<bool, PostgresError> {
    if !are_ours(&*client).await? {
        return Ok(true);
    }
    let today = Day::of(now);
    let (known, mut all) = (there(&*client).await?, true);
    for day in (0..=AHEAD).map(|ahead| Day(today.0 + ahead)) {
        all &= known.contains(&day) || make(client, day).await?;
    }
    Ok(all)
}

/// Makes a day. Rows of it that came before it was made, because their events are from the future or the daemons stood still, are moved to
/// it from the others. False if they are too many.
pub(in super::super) async fn make(client: &mut Object, day: Day) -> Result<bool, PostgresError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(TO_MAKE).await?;
    if !turns::take(&transaction, Turn::Days).await? {
        return Ok(true);
    }
    let (first, next) = (day.first_id(), day.next().first_id());
    let early = "SELECT count(*) FROM (SELECT 1 FROM settled_other WHERE id >= $1 AND id < $2
                                       UNION ALL SELECT 1 FROM attempt_other WHERE id >= $1 AND id < $2 LIMIT $3) AS early";
    let at_most = i64::try_from(MOVED_AT_MOST).unwrap_or(i64::MAX);
    let early: i64 = transaction.query_one(early, &[&first, &next, &at_most.saturating_add(1)]).await?.try_get(0)?;
    if early > at_most {
        return Ok(false);
    }
    let (name, first, next) = (day.name(), quoted(&first), quoted(&next));
    let mut sql = String::new();
    if early == 0 {
        for table in ["settled", "attempt"] {
            sql += &format!(
                "CREATE TABLE IF NOT EXISTS {table}_{name} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({next});"
            );
        }
    } else {
        // Nobody may add to them meanwhile. These are the locks of the other way, in its order.
        sql += "LOCK TABLE ONLY settled, ONLY attempt IN ACCESS EXCLUSIVE MODE;
                LOCK TABLE settled_other, attempt_other IN ACCESS EXCLUSIVE MODE;";
        for table in ["settled", "attempt"] {
            let early = format!("id >= {first} AND id < {next}");
            sql += &format!(
                "CREATE TABLE {table}_{name} (LIKE {table} INCLUDING ALL);
                 INSERT INTO {table}_{name} SELECT * FROM {table}_other WHERE {early};
                 DELETE FROM {table}_other WHERE {early};
                 ALTER TABLE {table} ATTACH PARTITION {table}_{name} FOR VALUES FROM ({first}) TO ({next});"
            );
        }
    }
    sql += &format!(
        "CREATE INDEX IF NOT EXISTS settled_{name}_at ON settled_{name} USING brin (settled_at) WITH (autosummarize = on);"
    );
    transaction.batch_execute(&sql).await?;
    commit(transaction).await?;
    tracing::debug!(day = name, moved = early, "a day of settled callbacks was made");
    Ok(true)
}

/// Drops the oldest day that lies before the cutoff and of which few rows are still needed, because they pend or settled since then: those
/// are moved to the other rows. Answers with true if there may be more to do.
async fn drop_oldest(client: &mut Object, settled_before: Timestamp) -> Result<bool, PostgresError> {
    if !are_ours(&*client).await? {
        return Ok(false);
    }
    let known = there(&*client).await?;
    for day in known.into_iter().filter(|day| day.next().begin() <= settled_before) {
        let transaction = client.transaction().await?;
        transaction.batch_execute(TO_DROP).await?;
        if !turns::take(&transaction, Turn::Days).await? {
            return Ok(false);
        }
        // The first look costs nobody anything. A day that is needed by many stays, and the later ones go.
        let needed = needed(&transaction, day, settled_before).await?;
        if needed.len() > MOVED_AT_MOST {
            continue;
        }
        if forget_bodies(&transaction, day, &needed).await? {
            commit(transaction).await?;
            return Ok(true);
        }
        return move_and_drop(transaction, day, settled_before).await;
    }
    Ok(false)
}

/// Forgets the kept bodies of a day, some at a time. False if there are none left.
async fn forget_bodies(transaction: &Tx<'_>, day: Day, needed: &[Uuid]) -> Result<bool, PostgresError> {
    let sql = "SELECT id FROM kept_body WHERE id >= $1 AND id < $2 AND NOT id = ANY($3) ORDER BY id LIMIT $4";
    let found = transaction.query(sql, &[&day.first_id(), &day.next().first_id(), &needed, &BODIES]).await?;
    let ids = found.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<Uuid>, PostgresError>>()?;
    if ids.is_empty() {
        return Ok(false);
    }
    let freed = kept::forget(transaction, &ids).await?;
    kept::count(transaction, freed.saturating_neg()).await?;
    Ok(true)
}

/// From the first statement on, nobody else reads or writes ended callbacks until the end. So what was needed is looked for again, by
/// indexes alone.
async fn move_and_drop(transaction: Tx<'_>, day: Day, settled_before: Timestamp) -> Result<bool, PostgresError> {
    let name = day.name();
    let detach = format!(
        "ALTER TABLE settled DETACH PARTITION settled_{name}; ALTER TABLE attempt DETACH PARTITION attempt_{name};"
    );
    transaction.batch_execute(&detach).await?;
    let needed = needed(&transaction, day, settled_before).await?;
    if needed.len() > MOVED_AT_MOST {
        return Ok(false);
    }
    for table in ["settled", "attempt"] {
        // All columns, also those that only a newer program knows. A day has them in the order of the other rows' table: migrations add
        // them at the end of both.
        let sql = format!("INSERT INTO {table}_other SELECT * FROM {table}_{name} WHERE id = ANY($1)");
        transaction.execute(&sql, &[&needed]).await?;
    }
    transaction.batch_execute(&format!("DROP TABLE settled_{name}, attempt_{name}")).await?;
    commit(transaction).await?;
    tracing::info!(
        day = name,
        moved = needed.len(),
        "a day of ended callbacks is older than they are kept, and was dropped"
    );
    Ok(true)
}

/// The callbacks of a day that are still needed, as far as it matters how many.
async fn needed(transaction: &Tx<'_>, day: Day, settled_before: Timestamp) -> Result<Vec<Uuid>, PostgresError> {
    let sql = format!(
        "SELECT id FROM settled_{} WHERE settled_at >= $1
         UNION SELECT id FROM pending WHERE id >= $2 AND id < $3 LIMIT {}",
        day.name(),
        MOVED_AT_MOST + 1
    );
    let found = transaction.query(&sql, &[&settled_before.millis(), &day.first_id(), &day.next().first_id()]).await?;
    found.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Rows of the days may be older than the cutoff by so much: a day goes as a whole, and ids of the next days may settle today.
pub(super) const LATE: Duration = Duration::from_millis((DAY_MILLIS * (AHEAD + 2)).unsigned_abs());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_its_ids_and_its_name() {
        let at = Timestamp::from_millis(1_796_072_645_123);
        let day = Day::of(at);
        assert_eq!(day.name(), "20261130");
        assert_eq!(Day::of_table("settled_20261130"), Some(day));
        for other in ["settled_other", "settled_2026113", "settled_20261399", "attempt_20261130"] {
            assert_eq!(Day::of_table(other), None, "{other}");
        }
        let id = first_id(at);
        assert!(day.first_id() <= id && id < day.next().first_id());
        assert_eq!(Day::of(day.begin()), day);
        assert_eq!(Day::of(Timestamp::from_millis(day.next().begin().millis() - 1)), day);
        assert_eq!(quoted(&first_id(Timestamp::from_millis(0x0102_0304_0506))), "'01020304050600000000000000000000'");
    }
}
