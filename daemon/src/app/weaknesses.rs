//! What is weak in the settings but does not stop the daemon, as far as the settings and the files show it.

use crate::base::finding::{Finding, Verdict};
use crate::base::private_file;
use crate::config::Config;
use crate::intake;

/// Every weakness. The start logs them.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let mut found = intake::security::check(&config.intake);
    found.extend(exposed_files(config));
    found.retain(|finding| finding.verdict == Verdict::Warning);
    found
}

/// A warning for each file with a secret that is open to other users. A file that can't be read is reported by the part
/// that reads it.
pub(super) fn exposed_files(config: &Config) -> Vec<Finding> {
    let exposed = config.secret_files.iter().filter_map(|(setting, path)| {
        let mode = private_file::open_mode_at(path).ok()??;
        let path = path.display();
        Some(Finding::warning(
            setting,
            format!("{path} is open to other users, or its group may change it (mode {mode:o})"),
            format!("run: chmod g-w,o= {path}"),
        ))
    });
    exposed.collect()
}
