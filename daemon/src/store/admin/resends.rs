//! The `resend_job` table: jobs that send many callbacks again.

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::model::attempt::Outcome;
use crate::model::callback::CallbackId;
use crate::model::retry::Reason;
use crate::model::state::State;
use crate::model::team::parse_mode;
use crate::store::filter::{CallbackFilter, QueueMatch, Span};
use crate::store::resends::{ResendCounts, ResendForm, ResendRow, ResendState};
use crate::store::sql::{Row, Sql, Value, readable};
use crate::store::{InstanceId, StoreError};

/// How many jobs may be running or paused at one time. The same number of ended ones is kept as well.
pub(in crate::store) const MOST: usize = 100;
/// How many running jobs an instance works on at once.
pub(in crate::store) const AT_ONCE: usize = 10;

const COLUMNS: &str = "id, created_at, created_by, filter, to_default, allow_new_origin, new_id, rate, state, matched,
    cursor, opened, busy, no_body, refused, changed_at, endpoint";

/// False if there are too many jobs that have not ended. The oldest ended ones are deleted to make room.
pub(in crate::store) fn insert(sql: &mut dyn Sql, row: &ResendRow) -> Result<bool, StoreError> {
    if count(sql, "state IN ('running', 'paused')")? >= MOST {
        return Ok(false);
    }
    if count(sql, "state IN ('done', 'cancelled')")? >= MOST {
        let oldest = "SELECT id FROM resend_job WHERE state IN ('done', 'cancelled') ORDER BY id LIMIT 10";
        sql.execute(&format!("DELETE FROM resend_job WHERE id IN ({oldest})"), &[])?;
    }
    let statement = format!(
        "INSERT INTO resend_job ({COLUMNS})
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
    );
    let ResendForm { to_default, allow_new_origin, new_id } = row.form;
    let cursor = row.cursor.map(|id| Value::Bytes(id.as_bytes().to_vec()));
    let written = sql.execute(
        &statement,
        &[
            (&row.id).into(),
            row.created_at.into(),
            (&row.created_by).into(),
            Written::from(&row.filter).text().into(),
            to_default.into(),
            allow_new_origin.into(),
            new_id.into(),
            row.rate.into(),
            row.state.name().into(),
            number(row.matched),
            cursor.unwrap_or(Value::Null),
            number(row.counts.opened),
            number(row.counts.busy),
            number(row.counts.no_body),
            number(row.counts.refused),
            row.changed_at.into(),
            row.endpoint.clone().into(),
        ],
    )?;
    Ok(written == 1)
}

fn number(count: u64) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

fn count(sql: &mut dyn Sql, which: &str) -> Result<usize, StoreError> {
    let rows = sql.query(&format!("SELECT count(*) FROM resend_job WHERE {which}"), &[])?;
    readable(rows.first(), "a count")?.integer(0)
}

pub(super) fn load(sql: &mut dyn Sql, id: &str) -> Result<Option<ResendRow>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM resend_job WHERE id = $1");
    sql.query(&statement, &[id.into()])?.first().map(read).transpose()
}

/// Jobs below the id `before`, newest first.
pub(super) fn list(sql: &mut dyn Sql, before: Option<&str>, limit: usize) -> Result<Vec<ResendRow>, StoreError> {
    let rows = match before {
        Some(before) => {
            let statement = format!("SELECT {COLUMNS} FROM resend_job WHERE id < $1 ORDER BY id DESC LIMIT $2");
            sql.query(&statement, &[before.into(), limit.into()])?
        }
        None => {
            let statement = format!("SELECT {COLUMNS} FROM resend_job ORDER BY id DESC LIMIT $1");
            sql.query(&statement, &[limit.into()])?
        }
    };
    Ok(rows.iter().filter_map(readable_alone).collect())
}

/// A row that can't be read is set aside alone.
fn readable_alone(row: &Row) -> Option<ResendRow> {
    let id = row.text(0).unwrap_or_default();
    read(row).inspect_err(|error| tracing::error!(job = id, %error, "a job can't be read; the others go on")).ok()
}

/// Locks a job until the transaction ends: an instance may be at work on it.
pub(super) fn lock(sql: &mut dyn Sql, id: &str, now: Timestamp) -> Result<(), StoreError> {
    sql.execute("UPDATE resend_job SET changed_at = $2 WHERE id = $1", &[id.into(), now.into()])?;
    Ok(())
}

/// Whether any job runs.
pub(super) fn any_runs(sql: &mut dyn Sql) -> Result<bool, StoreError> {
    Ok(count(sql, "state = 'running'")? > 0)
}

/// Changes the state and the rate of a job.
pub(super) fn update(sql: &mut dyn Sql, row: &ResendRow, now: Timestamp) -> Result<(), StoreError> {
    let statement = "UPDATE resend_job SET state = $2, rate = $3, changed_at = $4 WHERE id = $1";
    sql.execute(statement, &[(&row.id).into(), row.state.name().into(), row.rate.into(), now.into()])?;
    Ok(())
}

/// Takes running jobs that nobody else works on, until the given time; the oldest first.
pub(super) fn hold(
    sql: &mut dyn Sql,
    instance: InstanceId,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<ResendRow>, StoreError> {
    let free = "state = 'running' AND (holder IS NULL OR holder = $1 OR held_until <= $2)";
    let statement = format!("SELECT {COLUMNS} FROM resend_job WHERE {free} ORDER BY id LIMIT $3");
    let (own, at) = (Value::Integer(instance.0), Value::from(now));
    let mut held = Vec::new();
    for row in sql.query(&statement, &[own.clone(), at.clone(), AT_ONCE.into()])? {
        let Some(row) = readable_alone(&row) else { continue };
        // Another process may have taken it in between.
        let statement = format!("UPDATE resend_job SET holder = $1, held_until = $3 WHERE id = $4 AND {free}");
        if sql.execute(&statement, &[own.clone(), at.clone(), until.into(), (&row.id).into()])? == 1 {
            held.push(row);
        }
    }
    Ok(held)
}

fn read(row: &Row) -> Result<ResendRow, StoreError> {
    let is = |column| Ok::<_, StoreError>(row.integer::<i64>(column)? != 0);
    Ok(ResendRow {
        id: row.text(0)?,
        created_at: row.time(1)?,
        created_by: row.text(2)?,
        filter: readable(Written::read(&row.text(3)?), "a job's filter")?,
        form: ResendForm { to_default: is(4)?, allow_new_origin: is(5)?, new_id: is(6)? },
        rate: row.opt_integer(7)?,
        state: readable(ResendState::parse(&row.text(8)?), "a job's state")?,
        matched: row.integer(9)?,
        cursor: cursor(row, 10)?,
        counts: ResendCounts {
            opened: row.integer(11)?,
            busy: row.integer(12)?,
            no_body: row.integer(13)?,
            refused: row.integer(14)?,
        },
        changed_at: row.time(15)?,
        endpoint: row.opt_text(16)?,
    })
}

fn cursor(row: &Row, column: usize) -> Result<Option<CallbackId>, StoreError> {
    let Some(bytes) = row.opt_bytes(column)? else { return Ok(None) };
    Ok(Some(CallbackId::from_bytes(readable(bytes.try_into().ok(), "a job's cursor")?)))
}

/// A filter as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    team: Option<String>,
    teams: Option<Vec<String>>,
    task: Option<String>,
    /// Team and target of each.
    queues: Option<Vec<(Option<String>, String)>>,
    state: Option<String>,
    undelivered: bool,
    reason: Option<String>,
    outcome: Option<String>,
    status: Option<u16>,
    mode: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
    failed: Option<(i64, i64)>,
}

impl From<&CallbackFilter> for Written {
    fn from(filter: &CallbackFilter) -> Self {
        let queue = |queue: &QueueMatch| (queue.team.clone(), queue.target.clone());
        Self {
            team: filter.team.clone(),
            teams: filter.teams.clone(),
            task: filter.task.clone(),
            queues: filter.queues.as_ref().map(|queues| queues.iter().map(queue).collect()),
            undelivered: filter.undelivered,
            state: filter.state.map(|state| state.name().to_owned()),
            reason: filter.reason.map(|reason| reason.name().to_owned()),
            outcome: filter.outcome.map(|outcome| outcome.name().to_owned()),
            status: filter.status,
            mode: filter.mode.map(|mode| mode.name().to_owned()),
            since: filter.since.map(Timestamp::millis),
            until: filter.until.map(Timestamp::millis),
            failed: filter.failed.map(|span| (span.from.millis(), span.until.millis())),
        }
    }
}

impl Written {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can be written")
    }

    /// `None` where no filter was written like this.
    fn read(text: &str) -> Option<CallbackFilter> {
        let written: Self = serde_json::from_str(text).ok()?;
        let queue = |(team, target)| QueueMatch { team, target };
        let time = |at: Option<i64>| at.map(Timestamp::from_millis);
        Some(CallbackFilter {
            team: written.team,
            teams: written.teams,
            task: written.task,
            queues: written.queues.map(|queues| queues.into_iter().map(queue).collect()),
            state: parsed(written.state, State::parse)?,
            undelivered: written.undelivered,
            reason: parsed(written.reason, Reason::parse)?,
            outcome: parsed(written.outcome, Outcome::parse)?,
            status: written.status,
            mode: parsed(written.mode, parse_mode)?,
            since: time(written.since),
            until: time(written.until),
            failed: written
                .failed
                .map(|(from, until)| Span { from: Timestamp::from_millis(from), until: Timestamp::from_millis(until) }),
        })
    }
}

/// Nothing stays nothing; a name that is not known is an error.
fn parsed<T>(name: Option<String>, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match name {
        None => Some(None),
        Some(name) => parse(&name).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::team::Mode;

    #[test]
    fn a_filter_is_written_and_read_back() {
        let at = Timestamp::from_millis(1_764_000_000_000);
        let full = CallbackFilter {
            team: Some("team_a".to_owned()),
            teams: Some(vec!["team_a".to_owned(), "team_b".to_owned()]),
            task: Some("task \"1\" \u{1f600}".to_owned()),
            queues: Some(vec![QueueMatch { team: None, target: "default:live".to_owned() }]),
            state: Some(State::Exhausted),
            undelivered: true,
            reason: Some(Reason::Gone),
            outcome: Some(Outcome::HeadTimeout),
            status: Some(503),
            mode: Some(Mode::Test),
            since: Some(at),
            until: Some(at),
            failed: Some(Span { from: at, until: at }),
        };
        for filter in [full, CallbackFilter::default()] {
            assert_eq!(Written::read(&Written::from(&filter).text()), Some(filter));
        }
        for other in ["", "{}x", "{\"state\":\"no\"}", "{\"new\":1}"] {
            assert_eq!(Written::read(other), None, "{other}");
        }
    }
}
