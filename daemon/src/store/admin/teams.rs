//! The `team` table.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::model::endpoint::Origin;
use crate::model::team::{AuthForm, HttpPolicy, RetryOverride, Team};
use crate::store::StoreError;
use crate::store::sql::{Row, Sql, Value, readable};

const COLUMNS: &str = "id, name, default_url, default_url_test, allowed_origins, auth_form, origin_forms, http, \
                       retries, horizon_ms, end_on_gone, deleted_at";

pub(super) fn load(sql: &mut dyn Sql, id: &str) -> Result<Option<Team>, StoreError> {
    sql.query(&format!("SELECT {COLUMNS} FROM team WHERE id = $1"), &[id.into()])?.first().map(read).transpose()
}

pub(super) fn list(sql: &mut dyn Sql, after: Option<&str>, limit: usize) -> Result<Vec<Team>, StoreError> {
    let rows = match after {
        Some(after) => sql.query(
            &format!("SELECT {COLUMNS} FROM team WHERE id > $1 ORDER BY id LIMIT $2"),
            &[after.into(), limit.into()],
        ),
        None => sql.query(&format!("SELECT {COLUMNS} FROM team ORDER BY id LIMIT $1"), &[limit.into()]),
    }?;
    rows.iter().map(read).collect()
}

/// False where there is a team of that id.
pub(super) fn insert(sql: &mut dyn Sql, team: &Team, now: Timestamp) -> Result<bool, StoreError> {
    let statement = format!(
        "INSERT INTO team ({COLUMNS}, created_at, changed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, NULL, $12, $12) ON CONFLICT DO NOTHING"
    );
    Ok(sql.execute(&statement, &values(team, now))? == 1)
}

pub(super) fn update(sql: &mut dyn Sql, team: &Team, now: Timestamp) -> Result<(), StoreError> {
    let statement = "UPDATE team SET name = $2, default_url = $3, default_url_test = $4, allowed_origins = $5,
             auth_form = $6, origin_forms = $7, http = $8, retries = $9, horizon_ms = $10, end_on_gone = $11,
             changed_at = $12 WHERE id = $1";
    sql.execute(statement, &values(team, now)).map(|_| ())
}

/// Deletes a team for good; the time at which it was deleted first stays. The row stays, so that its id is never used again.
pub(super) fn delete(sql: &mut dyn Sql, id: &str, now: Timestamp) -> Result<(), StoreError> {
    let statement = "UPDATE team SET deleted_at = coalesce(deleted_at, $2), changed_at = $2 WHERE id = $1";
    sql.execute(statement, &[id.into(), now.into()]).map(|_| ())
}

/// The ids of teams that were deleted at this time or later.
pub(super) fn deleted(sql: &mut dyn Sql, since: Timestamp) -> Result<Vec<String>, StoreError> {
    let rows = sql.query("SELECT id FROM team WHERE deleted_at >= $1 ORDER BY deleted_at", &[since.into()])?;
    rows.iter().map(|row| row.text(0)).collect()
}

/// The columns in their order, and the time of the change.
fn values(team: &Team, now: Timestamp) -> [Value; 12] {
    let origins: Vec<String> = team.allowed_origins.iter().map(ToString::to_string).collect();
    let forms: Vec<String> =
        team.origin_forms.iter().map(|(origin, form)| format!("{origin} {}", form.name())).collect();
    let horizon = team.retry.horizon.map(|horizon| i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX));
    [
        (*team.id).into(),
        (&team.name).into(),
        team.default_url.as_ref().into(),
        team.default_url_test.as_ref().into(),
        origins.join("\n").into(),
        team.auth_form.name().into(),
        forms.join("\n").into(),
        team.http.map(HttpPolicy::name).into(),
        team.retry.retries.into(),
        horizon.into(),
        team.retry.end_on_gone.into(),
        now.into(),
    ]
}

fn read(row: &Row) -> Result<Team, StoreError> {
    let (origins, forms) = (row.text(4)?, row.text(6)?);
    let allowed_origins =
        origins.lines().map(|line| readable(Origin::parse(line), "a team's origin")).collect::<Result<_, _>>()?;
    let origin_form = |line: &str| {
        let (origin, form) = readable(line.split_once(' '), "a team's form")?;
        let origin = readable(Origin::parse(origin), "a team's origin")?;
        Ok((origin, readable(AuthForm::parse(form), "a team's form")?))
    };
    let http = row.opt_text(7)?;
    Ok(Team {
        id: row.text(0)?.into(),
        name: row.text(1)?,
        default_url: row.opt_text(2)?,
        default_url_test: row.opt_text(3)?,
        allowed_origins,
        auth_form: readable(AuthForm::parse(&row.text(5)?), "a team's form")?,
        origin_forms: forms.lines().map(origin_form).collect::<Result<_, StoreError>>()?,
        http: http.map(|name| readable(HttpPolicy::parse(&name), "a team's http policy")).transpose()?,
        retry: RetryOverride {
            retries: row.opt_integer(8)?,
            horizon: row.opt_integer(9)?.map(Duration::from_millis),
            end_on_gone: row.opt_bool(10)?,
        },
        deleted_at: row.opt_time(11)?,
    })
}
