//! The section `store`: where the store is.

use std::path::Path;

use super::super::raw::Raw;
use super::super::{ConfigError, Wrong};
use super::given;
use crate::store::{Config, PostgresUrl, UrlError};

pub(super) fn config(raw: &Raw, directory: &Path, wrong: &Wrong<'_>) -> Result<Config, ConfigError> {
    let Some(url) = given(&raw.store.url) else { return Ok(Config::Directory(directory.to_owned())) };
    if ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        let url: PostgresUrl = url.parse().map_err(|error: UrlError| wrong("store.url", &error.to_string()))?;
        return Ok(Config::Postgres(Box::new(url)));
    }
    // The value may contain a password, so it is not repeated.
    Err(wrong(
        "store.url",
        "write \"postgres://user@host/database\", or leave it empty and name a directory in store.path",
    ))
}
