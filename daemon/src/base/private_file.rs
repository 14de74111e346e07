//! Whether a file that holds a secret is open to users who should not have it. The group may read such a file: a container
//! platform mounts secrets as files of root with the group of the container.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Rights of users who are neither the owner nor of the group.
const OTHERS: u32 = 0o007;
/// The right of the group to change the file.
const GROUP_WRITES: u32 = 0o020;

/// The file's mode, if it is open to more users than it should be.
pub fn open_mode(mode: u32) -> Option<u32> {
    let mode = mode & 0o777;
    (mode & (OTHERS | GROUP_WRITES) != 0).then_some(mode)
}

/// The mode of an open file, if it is open to more users than it should be.
///
/// # Errors
/// The system's.
pub fn open_mode_of(file: &File) -> io::Result<Option<u32>> {
    Ok(open_mode(file.metadata()?.permissions().mode()))
}

/// The same for the file at this path. A link is followed.
///
/// # Errors
/// The system's.
pub fn open_mode_at(path: &Path) -> io::Result<Option<u32>> {
    Ok(open_mode(std::fs::metadata(path)?.permissions().mode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_readers_of_the_group_may_have_access() {
        for mode in [0o600, 0o400, 0o440, 0o640, 0o700, 0o550, 0o100_440] {
            assert_eq!(open_mode(mode), None, "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o602, 0o601, 0o660, 0o620, 0o777, 0o444, 0o100_644] {
            assert_eq!(open_mode(mode), Some(mode & 0o777), "{mode:o}");
        }
    }
}
