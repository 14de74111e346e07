//! Checks the store before the start: directory, lock, file system, free space, schema and clock.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::connection::{FILE, lock, open_to_read};
use super::super::error::SqliteError;
use super::super::migrations::{KNOWN, named, schema, sealed};
use super::super::sql::SqliteSql;
use crate::base::clock::Timestamp;
use crate::base::finding::Finding;
use crate::store::admin::{KeyRow, some_keys};
use crate::store::report::Looked;
use crate::store::versions::Schema;
use crate::store::{OpenError, StoreError};

const WHAT: &str = "store";
const GIB: u64 = 1 << 30;

pub(in crate::store) fn check(directory: &Path, now: Timestamp) -> Looked {
    let mut looked = Looked { findings: Vec::new(), in_use: false, keys: Vec::new() };
    let place = existing(directory);
    if let Some(finding) = writable(&place) {
        looked.findings.push(finding);
        return looked;
    }
    looked.findings.extend(file_system(&place));
    looked.findings.extend(room(&place));
    if !directory.join(FILE).exists() {
        looked.findings.push(Finding::ok(WHAT, format!("{} is free: a new store will be made", directory.display())));
        return looked;
    }
    let _lock = match lock(directory) {
        Ok(lock) => lock,
        Err(OpenError::InUse { .. }) => {
            looked.in_use = true;
            let fix = "to look at all of it, stop that one";
            let detail = format!("a callbackd runs on {}: schema and keys were not looked at", directory.display());
            looked.findings.push(Finding::warning(WHAT, detail, fix));
            return looked;
        }
        Err(error) => {
            looked.findings.push(Finding::failed(WHAT, error.to_string(), "make it ours: chown and chmod 700"));
            return looked;
        }
    };
    let (findings, keys) = inside(directory, now);
    looked.findings.extend(findings);
    looked.keys = keys;
    looked
}

/// Checks the content of the store.
fn inside(directory: &Path, now: Timestamp) -> (Vec<Finding>, Vec<KeyRow>) {
    let seal = open_to_read(&directory.join(FILE)).ok().map(|connection| sealed(&connection, directory));
    if let Some(Err(error)) = seal {
        return (vec![Finding::failed(WHAT, error.to_string(), "set store.url")], Vec::new());
    }
    let Content { schema: found, newest, keys } = match read(directory) {
        Ok(content) => content,
        Err(error) => {
            let fix = "restore a backup, or see: callbackd store verify";
            let detail = format!("{}: {}", directory.join(FILE).display(), StoreError::from(error));
            return (vec![Finding::failed(WHAT, detail, fix)], Vec::new());
        }
    };
    if let Err(error) = found.admits(KNOWN.len(), named(directory)) {
        return (vec![Finding::failed(WHAT, error.to_string(), "run the newer callbackd")], Vec::new());
    }
    let detail = match found.missing(KNOWN.len()) {
        0 if found.applied > KNOWN.len() => {
            format!("its schema is {}, newer than this program's, which may write to it all the same", found.applied)
        }
        0 => "its schema is this program's; every commit is on the disk before it counts (WAL, synchronous=FULL)"
            .to_owned(),
        count => format!("{count} migrations will be applied at the start"),
    };
    (vec![Finding::ok(WHAT, detail), clock(newest, now)], keys)
}

/// The clock must not be earlier than the last time that the store recorded.
fn clock(newest: Timestamp, now: Timestamp) -> Finding {
    if newest > now {
        let detail = format!("it says {now}, and the store was written at {newest}");
        return Finding::failed("clock", detail, "set the clock: retries and leases would wait for it to catch up");
    }
    Finding::ok("clock", now.to_string())
}

struct Content {
    schema: Schema,
    newest: Timestamp,
    keys: Vec<KeyRow>,
}

fn read(directory: &Path) -> Result<Content, SqliteError> {
    let connection = open_to_read(&directory.join(FILE))?;
    let schema = schema(&connection)?;
    let mut content = Content { schema, newest: Timestamp::default(), keys: Vec::new() };
    // A file that was made and not filled is migrated at the start.
    if schema.applied > 0 {
        let newest: Option<i64> = connection.query_row(newest_sql(schema.applied), [], |row| row.get(0))?;
        content.newest = Timestamp::from_millis(newest.unwrap_or(0));
    }
    if schema.missing(KNOWN.len()) == 0 && schema.admits(KNOWN.len(), named(directory)).is_ok() {
        content.keys = some_keys(&mut SqliteSql(&connection))?;
    }
    Ok(content)
}

/// The last write of any instance. Migration 0004 renames the table.
fn newest_sql(schema: usize) -> &'static str {
    if schema < 4 { "SELECT max(heartbeat) FROM process" } else { "SELECT max(heartbeat) FROM instance" }
}

/// The directory, or the nearest above it that exists.
fn existing(directory: &Path) -> std::path::PathBuf {
    let here = Path::new(".");
    let named = directory.ancestors().map(|path| if path.as_os_str().is_empty() { here } else { path });
    named.into_iter().find(|path| path.exists()).unwrap_or(directory).to_owned()
}

fn writable(place: &Path) -> Option<Finding> {
    let failed = |detail: String, fix: &str| Some(Finding::failed(WHAT, detail, fix));
    match std::fs::metadata(place) {
        Err(error) => failed(format!("{}: {error}", place.display()), "make the directory of store.path"),
        Ok(found) if !found.is_dir() => failed(format!("{} is not a directory", place.display()), "correct store.path"),
        Ok(found) => {
            let access = rustix::fs::access(place, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
            let fix = "give it to the daemon's user: chown";
            let detail = || format!("{} belongs to user {} and can't be written", place.display(), found.uid());
            access.is_err().then(|| Finding::failed(WHAT, detail(), fix))
        }
    }
}

/// File systems that lose their files at a restart, or on which locks or fsync may not work.
fn file_system(place: &Path) -> Option<Finding> {
    let kind = rustix::fs::statfs(place).ok()?.f_type;
    let fix = "put store.path on a local disk";
    match kind {
        0x6969 | 0xff53_4d42 | 0xfe53_4d42 => {
            Some(Finding::failed("store, file system", "it lies on a network: SQLite's locks are not safe there", fix))
        }
        0x0102_1994 | 0x8584_58f6 => {
            Some(Finding::warning("store, file system", "it lies in memory: a reboot loses it", fix))
        }
        0x794c_7630 => Some(Finding::warning(
            "store, file system",
            "it lies in a container's own layer: it goes with the container",
            "mount a volume at store.path",
        )),
        _ => None,
    }
}

fn room(place: &Path) -> Option<Finding> {
    let space = rustix::fs::statvfs(place).ok()?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let percent = space.f_bavail.saturating_mul(100) / space.f_blocks.max(1);
    let detail = format!("{:.1} GiB free, {percent} %", free as f64 / GIB as f64);
    let fix = "make room: a full disk stops delivery until there is some";
    Some(match free {
        0..GIB => Finding::failed("store, disk", detail, fix),
        _ if percent < 10 => Finding::warning("store, disk", detail, fix),
        _ => Finding::ok("store, disk", detail),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::migrations::tests::at_schema;
    use super::*;
    use crate::base::finding::Verdict;
    use rusqlite::Connection;

    #[test]
    fn a_store_of_any_earlier_schema_is_looked_at() {
        for earlier in 1..KNOWN.len() {
            let folder = tempfile::tempdir().unwrap();
            drop(at_schema(Connection::open(folder.path().join(FILE)).unwrap(), earlier));
            let (findings, keys) = inside(folder.path(), Timestamp::from_millis(1));
            assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "schema {earlier}: {findings:?}");
            let waiting = format!("{} migrations", KNOWN.len() - earlier);
            assert!(findings[0].detail.contains(&waiting), "schema {earlier}: {findings:?}");
            assert!(keys.is_empty());
        }
    }
}
