//! The `sent_with` table: the settings that requests were sent with, each combination once.

use crate::base::clock::Timestamp;
use crate::model::attempt::SentWithId;
use crate::model::sent_with::SentWith;
use crate::model::team::{AuthForm, parse_mode};
use crate::store::StoreError;
use crate::store::sql::{Row, Sql, readable};

/// Between the ids of keys.
const COMMA: &str = ",";

/// Adds what is not there, and notes that all of it is used now.
pub(super) fn note(sql: &mut dyn Sql, used: &[SentWith], now: Timestamp) -> Result<(), StoreError> {
    for settings in used {
        let values = [
            settings.id().0.into(),
            (&*settings.team).into(),
            settings.mode.name().into(),
            settings.url.as_ref().into(),
            settings.form.name().into(),
            settings.signing_keys.join(COMMA).into(),
            settings.auth_keys.join(COMMA).into(),
            now.into(),
        ];
        sql.execute(
            "INSERT INTO sent_with (id, team, mode, url, form, signing_keys, auth_keys, first_at, used_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at",
            &values,
        )?;
    }
    Ok(())
}

/// Those of these ids that are there.
pub(super) fn find(sql: &mut dyn Sql, ids: &[SentWithId]) -> Result<Vec<SentWith>, StoreError> {
    let mut found = Vec::new();
    for id in ids {
        let rows = sql.query(
            "SELECT team, mode, url, form, signing_keys, auth_keys FROM sent_with WHERE id = $1",
            &[id.0.into()],
        )?;
        found.extend(rows.first().map(read).transpose()?);
    }
    Ok(found)
}

/// Deletes what was not used since then.
pub(super) fn prune(sql: &mut dyn Sql, before: Timestamp) -> Result<usize, StoreError> {
    sql.execute("DELETE FROM sent_with WHERE used_at < $1", &[before.into()])
}

fn read(row: &Row) -> Result<SentWith, StoreError> {
    let ids = |text: String| text.split(COMMA).filter(|id| !id.is_empty()).map(str::to_owned).collect();
    Ok(SentWith {
        team: row.text(0)?.into(),
        mode: readable(parse_mode(&row.text(1)?), "a mode")?,
        url: row.opt_text(2)?,
        form: readable(AuthForm::parse(&row.text(3)?), "a form of the auth header")?,
        signing_keys: ids(row.text(4)?),
        auth_keys: ids(row.text(5)?),
    })
}
