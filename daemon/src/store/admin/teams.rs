//! The `team` table.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::corrupt;
use crate::base::clock::Timestamp;
use crate::model::endpoint::Origin;
use crate::model::team::{AuthForm, HttpPolicy, RetryOverride, Team};
use crate::store::sqlite::Failure;

const COLUMNS: &str = "id, name, default_url, default_url_test, allowed_origins, auth_form, origin_forms, http, \
                       retries, horizon_ms, end_on_gone";

pub(super) fn load(connection: &Connection, id: &str) -> Result<Option<Team>, Failure> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM team WHERE id = ?1"))?
        .query_row([id], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

pub(super) fn list(connection: &Connection, after: Option<&str>, limit: usize) -> Result<Vec<Team>, Failure> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM team WHERE ?1 IS NULL OR id > ?1 ORDER BY id LIMIT ?2"))?;
    let mut rows = statement.query(params![after, limit])?;
    let mut teams = Vec::new();
    while let Some(row) = rows.next()? {
        teams.push(read(row)?);
    }
    Ok(teams)
}

pub(super) fn insert(connection: &Connection, team: &Team, now: Timestamp) -> Result<bool, Failure> {
    let sql = format!(
        "INSERT INTO team ({COLUMNS}, created_at, changed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12) ON CONFLICT DO NOTHING"
    );
    write(connection, team, now, &sql)
}

pub(super) fn update(connection: &Connection, team: &Team, now: Timestamp) -> Result<bool, Failure> {
    let sql =
        "UPDATE team SET name = ?2, default_url = ?3, default_url_test = ?4, allowed_origins = ?5, auth_form = ?6,
                   origin_forms = ?7, http = ?8, retries = ?9, horizon_ms = ?10, end_on_gone = ?11, changed_at = ?12
               WHERE id = ?1";
    write(connection, team, now, sql)
}

fn write(connection: &Connection, team: &Team, now: Timestamp, sql: &str) -> Result<bool, Failure> {
    let origins: Vec<String> = team.allowed_origins.iter().map(ToString::to_string).collect();
    let forms: Vec<String> =
        team.origin_forms.iter().map(|(origin, form)| format!("{origin} {}", form.name())).collect();
    let horizon = team.retry.horizon.map(|horizon| i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX));
    let written = connection.prepare_cached(sql)?.execute(params![
        &*team.id,
        team.name,
        team.default_url,
        team.default_url_test,
        origins.join("\n"),
        team.auth_form.name(),
        forms.join("\n"),
        team.http.map(HttpPolicy::name),
        team.retry.retries,
        horizon,
        team.retry.end_on_gone,
        now.millis(),
    ])?;
    Ok(written == 1)
}

fn read(row: &Row<'_>) -> Result<Team, Failure> {
    let (id, origins, form, forms): (String, String, String, String) =
        (row.get(0)?, row.get(4)?, row.get(5)?, row.get(6)?);
    let http: Option<String> = row.get(7)?;
    let horizon: Option<u64> = row.get(9)?;
    let allowed_origins =
        origins.lines().map(|line| corrupt(Origin::parse(line), "a team's origin")).collect::<Result<_, _>>()?;
    let origin_forms = forms
        .lines()
        .map(|line| {
            let (origin, form) = corrupt(line.split_once(' '), "a team's form")?;
            let origin = corrupt(Origin::parse(origin), "a team's origin")?;
            Ok((origin, corrupt(AuthForm::parse(form), "a team's form")?))
        })
        .collect::<Result<_, Failure>>()?;
    Ok(Team {
        id: id.into(),
        name: row.get(1)?,
        default_url: row.get(2)?,
        default_url_test: row.get(3)?,
        allowed_origins,
        auth_form: corrupt(AuthForm::parse(&form), "a team's form")?,
        origin_forms,
        http: http.map(|name| corrupt(HttpPolicy::parse(&name), "a team's http policy")).transpose()?,
        retry: RetryOverride {
            retries: row.get(8)?,
            horizon: horizon.map(Duration::from_millis),
            end_on_gone: row.get(10)?,
        },
    })
}
