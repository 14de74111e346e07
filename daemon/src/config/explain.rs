//! What a setting means: its comment in the compiled-in configuration.

use super::DEFAULTS;

/// The comment above a section or key (written as `section.key`) in the defaults, with the line itself. Keys that follow
/// one another without a comment between them share the one above the first.
pub fn explain(wanted: &str) -> Option<String> {
    let mut section = "";
    let mut comment: Vec<&str> = Vec::new();
    // A key was seen below the comment, so the next comment line starts a new one.
    let mut used = false;
    for line in DEFAULTS.lines() {
        let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let key = line.split_once(" = ").map(|(key, _)| key).filter(|_| !line.starts_with('#'));
        let found = match (name, key) {
            (Some(name), _) => {
                section = name;
                wanted == name
            }
            (None, Some(key)) => wanted.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) == Some(key),
            (None, None) => false,
        };
        if found {
            return Some(comment.into_iter().chain([line]).collect::<Vec<_>>().join("\n"));
        }
        if (line.starts_with('#') && used) || name.is_some() || line.is_empty() {
            comment.clear();
            used = false;
        }
        if line.starts_with('#') {
            comment.push(line);
        }
        used |= key.is_some();
    }
    None
}
