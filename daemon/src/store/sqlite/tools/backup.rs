//! A copy of a store that may be in use. It is one moment of the store: what is committed while it is made is not in it.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use super::super::connection::{FILE, open_to_read};
use crate::store::OpenError;
use crate::store::report::BackedUp;

/// Copies the store in `directory` into a new directory, which is complete or not there at all.
pub(in crate::store) fn backup(directory: &Path, to: &Path) -> Result<BackedUp, OpenError> {
    let unusable =
        |error: rusqlite::Error| OpenError::Unusable { path: directory.join(FILE), reason: error.to_string() };
    let not_written = |source| OpenError::Directory { path: to.to_owned(), source };
    let connection = open_to_read(&directory.join(FILE)).map_err(unusable)?;
    let store_id = connection.query_row("SELECT id FROM store", [], |row| row.get(0)).map_err(unusable)?;
    if to.exists() {
        let there = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it exists already; name a new directory");
        return Err(not_written(there));
    }
    let part = part_of(to);
    std::fs::DirBuilder::new().mode(0o700).create(&part).map_err(not_written)?;
    let copied = copy(&connection, &part.join(FILE)).and_then(|bytes| {
        std::fs::rename(&part, to)?;
        sync(to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        Ok(bytes)
    });
    match copied {
        Ok(bytes) => Ok(BackedUp { store_id, bytes }),
        Err(error) => {
            // What can't be removed has a name that says what it is.
            std::fs::remove_dir_all(&part).ok();
            Err(not_written(error))
        }
    }
}

/// The directory while it is incomplete, beside the one that it becomes.
fn part_of(to: &Path) -> std::path::PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    to.with_file_name(name)
}

fn copy(connection: &rusqlite::Connection, file: &Path) -> std::io::Result<u64> {
    // It reads one snapshot, however much is written meanwhile, and its file has no free pages.
    let path = file.to_str().ok_or_else(|| std::io::Error::other("its path is not UTF-8"))?;
    connection.execute("VACUUM INTO ?1", [path]).map_err(std::io::Error::other)?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
    let copy = File::open(file)?;
    copy.sync_all()?;
    sync(file.parent().unwrap_or(Path::new(".")))?;
    let check: String = open_to_read(file)
        .and_then(|copy| copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))
        .map_err(std::io::Error::other)?;
    if check == "ok" { Ok(copy.metadata()?.len()) } else { Err(std::io::Error::other(check)) }
}

fn sync(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}
