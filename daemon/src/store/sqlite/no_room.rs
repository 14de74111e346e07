//! Tells a full disk from a broken one. SQLite reports a quota, a limit of file sizes and a failed sync as plain I/O
//! errors, and does not pass the system's error on. So the same kind of write is tried beside the store.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use rusqlite::ffi::{
    SQLITE_IOERR_CLOSE, SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE,
};

/// The file that is written and removed again.
const PROBE: &str = "callbackd.probe";
/// As much as a small batch writes.
const PROBE_BYTES: usize = 64 * 1024;

/// Whether this error of SQLite can mean that there is no room.
pub(super) fn may_be_no_room(error: &rusqlite::Error) -> bool {
    let codes =
        [SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_CLOSE];
    error.sqlite_error().is_some_and(|error| codes.contains(&error.extended_code))
}

/// Whether the store's directory has no room for files of the size that the store's own have.
pub(super) fn is_full(directory: &Path) -> bool {
    let path = directory.join(PROBE);
    let written = write(directory, &path);
    // A probe that stays is written over by the next one.
    std::fs::remove_file(&path).ok();
    written.is_err_and(|error| tells_no_room(error.kind()))
}

fn write(directory: &Path, path: &Path) -> io::Result<()> {
    let lengths = std::fs::read_dir(directory)?.filter_map(|entry| entry.ok()?.metadata().ok()).map(|file| file.len());
    let end = lengths.max().unwrap_or(0);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(&[0; PROBE_BYTES])?;
    file.sync_all()
}

fn tells_no_room(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_room_is_not_full() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("callbackd.db"), [0; 100]).unwrap();
        assert!(!is_full(folder.path()));
        assert!(!folder.path().join(PROBE).exists(), "the probe is removed");
        assert!(!is_full(&folder.path().join("missing")), "another failure is no full disk");
    }

    #[test]
    fn quotas_and_limits_are_no_room() {
        // ENOSPC, EDQUOT and EFBIG of Linux; EIO and EROFS are something else.
        let kind = |code| io::Error::from_raw_os_error(code).kind();
        assert!([28, 122, 27].into_iter().all(|code| tells_no_room(kind(code))));
        assert!(![5, 30].into_iter().any(|code| tells_no_room(kind(code))));
    }

    #[test]
    fn only_failed_writes_are_looked_into() {
        let error = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        assert!(may_be_no_room(&error(SQLITE_IOERR_WRITE)) && may_be_no_room(&error(SQLITE_IOERR_FSYNC)));
        assert!(!may_be_no_room(&error(rusqlite::ffi::SQLITE_IOERR_READ)));
        assert!(!may_be_no_room(&error(rusqlite::ffi::SQLITE_CORRUPT)));
        assert!(!may_be_no_room(&rusqlite::Error::QueryReturnedNoRows));
    }
}
