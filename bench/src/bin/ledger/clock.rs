//! The wall clock of one daemon, which can be stepped while it runs: libfaketime reads the offset from a file. The monotonic clock and
//! the boot-time clock go on as they are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where distributions put the library, below the folder of the machine's architecture.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The library, if it is installed.
pub(crate) fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir(LIBRARIES).into_iter().flatten().flatten();
    let mut found = folders.map(|folder| folder.path().join(LIBRARY)).filter(|library| library.is_file());
    found.next()
}

#[derive(Debug, Clone)]
pub(crate) struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    /// A clock that is right, with its file in this folder.
    ///
    /// # Errors
    /// The library is not installed, or the file can't be written.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let Some(library) = library() else { anyhow::bail!("libfaketime is not installed; run: make test-tools") };
        let clock = Self { library, file: folder.join("wall-clock") };
        clock.set(0)?;
        Ok(clock)
    }

    /// Steps the clock to so many seconds from the right time.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn set(&self, seconds: i64) -> std::io::Result<()> {
        // The daemon reads the file at any moment, so it is replaced whole.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}"))?;
        std::fs::rename(&next, &self.file)
    }

    /// What a daemon's environment needs so that it has this clock.
    pub(crate) fn variables(&self) -> [(&'static str, OsString); 4] {
        [
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}
