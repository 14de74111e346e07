//! The section `store`: where the store is, and how it is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::raw::Raw;
use super::super::settings::SQLITE;
use super::super::{ConfigError, Wrong};
use super::given;
use crate::model::dead_letter::ValueBudget;
use crate::model::keeping::{KeepBodies, Keeping};
use crate::model::notice::Notices;
use crate::store::{Config, Migrate, Options, PostgresUrl, UrlError};

/// The directory of a SQLite store. With a store on a server, the API's socket is there by default.
pub(super) fn directory(raw: &Raw, wrong: &Wrong<'_>) -> Result<PathBuf, ConfigError> {
    match raw.store.url.strip_prefix(SQLITE) {
        None => Ok(PathBuf::from(&raw.store.path)),
        Some("") => Err(wrong("store.url", "name a directory: \"sqlite:/var/lib/callbackd\"")),
        Some(directory) => Ok(PathBuf::from(directory)),
    }
}

pub(super) fn options(raw: &Raw, wrong: &Wrong<'_>) -> Result<Options, ConfigError> {
    let migrate = match raw.store.migrate.as_str() {
        "auto" => Migrate::Auto,
        "manual" => Migrate::Manual,
        _ => return Err(wrong("store.migrate", "say \"auto\" or \"manual\"")),
    };
    let values = ValueBudget {
        of_topic: raw.store.dead_letter_bytes_of_topic.0 as u64,
        in_all: raw.store.dead_letter_bytes.0 as u64,
    };
    let of = KeepBodies::parse(&raw.store.bodies)
        .ok_or_else(|| wrong("store.bodies", "say \"failed\", \"all\" or \"none\""))?;
    // Intake pauses at the reserve. Kept bodies give way before that.
    let least_free = (raw.store.free_bytes.0 as u64).saturating_mul(2);
    let keeping = Keeping { of, bytes: raw.store.kept_bytes.0 as u64, least_free };
    Ok(Options { name: instance_name(raw, wrong)?, migrate, values, keeping, notices: Notices::default() })
}

/// The longest name that Kafka takes for a member of a group.
const LONGEST_NAME: usize = 249;

/// The name of this daemon among those that share its store and its consumer group.
pub(super) fn instance_name(raw: &Raw, wrong: &Wrong<'_>) -> Result<Option<Arc<str>>, ConfigError> {
    let Some(name) = given(&raw.instance.name) else { return Ok(None) };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.len() > LONGEST_NAME || !name.chars().all(is_plain) || [".", ".."].contains(&name) {
        return Err(wrong("instance.name", "use at most 249 letters, digits, dots, hyphens and underscores"));
    }
    Ok(Some(name.into()))
}

pub(super) fn config(raw: &Raw, directory: &Path, wrong: &Wrong<'_>) -> Result<Config, ConfigError> {
    let Some(url) = given(&raw.store.url) else { return Ok(Config::Directory(directory.to_owned())) };
    if url.starts_with(SQLITE) {
        return Ok(Config::Directory(directory.to_owned()));
    }
    if ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        let url: PostgresUrl = url.parse().map_err(|error: UrlError| wrong("store.url", &error.to_string()))?;
        return Ok(Config::Postgres(Box::new(url)));
    }
    // The value may contain a password, so it is not repeated.
    Err(wrong(
        "store.url",
        "write \"postgres://user@host/database\" or \"sqlite:/var/lib/callbackd\", or leave it empty and name a directory in store.path",
    ))
}
