//! What a setting means: its comment in the compiled-in configuration.

use super::settings::keys;
use super::{ConfigError, DEFAULTS};
use crate::base::suggest::{alternatives, nearest};

/// The comment above a key (written as `section.key`) in the defaults, with the line itself, or a whole section with all of
/// its keys.
///
/// # Errors
/// A sentence that names the settings that may be meant.
pub fn explain(wanted: &str) -> Result<String, ConfigError> {
    section(wanted).or_else(|| comment(wanted)).ok_or_else(|| {
        let shown = scale_callback_serve::text::printable(wanted.as_bytes(), 64);
        ConfigError::new(&match &meant(wanted)[..] {
            [] => format!("there is no setting {shown:?}; to list all settings: callbackd config default"),
            names => format!("there is no setting {shown:?}; did you mean {}?", alternatives(names)),
        })
    })
}

/// The settings that may be meant by a name that is none: those of this name in any section, or else similar ones.
pub(super) fn meant(wanted: &str) -> Vec<&'static str> {
    let last = |key: &str| key.rsplit_once('.').map_or(key, |(_, last)| last).to_lowercase();
    let same: Vec<_> = keys().filter(|key| last(key) == last(wanted)).collect();
    if !same.is_empty() {
        return same;
    }
    // With its section, a name is compared as a whole; without one, with the names of sections and of keys.
    let whole = nearest(wanted, sections().chain(keys()));
    if !whole.is_empty() {
        return whole;
    }
    let wanted = last(wanted);
    keys()
        .filter(|key| nearest(&wanted, [key.rsplit_once('.').map_or(*key, |(_, last)| last)]).len() == 1)
        .take(MEANT)
        .collect()
}

/// The most settings that are named as those that may be meant.
const MEANT: usize = 4;

/// The names of the sections. A table inside a section is a key of that section.
fn sections() -> impl Iterator<Item = &'static str> {
    DEFAULTS.lines().filter_map(heading).filter(|name| !name.contains('.'))
}

/// The name in a heading, `[name]`.
fn heading(line: &'static str) -> Option<&'static str> {
    line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
}

/// A section as it stands in the defaults: its comment, and each key with its own.
fn section(wanted: &str) -> Option<String> {
    let lines: Vec<&'static str> = DEFAULTS.lines().collect();
    let at = lines.iter().position(|line| heading(line) == Some(wanted))?;
    let is_next = |line: &&'static str| heading(line).is_some_and(|name| !name.starts_with(&format!("{wanted}.")));
    let end = lines[at + 1..].iter().position(is_next).map_or(lines.len(), |next| at + 1 + next);
    let is_comment = |line: &&&str| line.starts_with('#');
    let above = |from: usize| lines[..from].iter().rev().take_while(is_comment).count();
    // The comment above the next heading belongs to the next section.
    let end = if end < lines.len() { end - above(end) } else { end };
    Some(lines[at - above(at)..end].join("\n").trim_end().to_owned())
}

/// The comment above a section or key, with the line itself. Keys that follow one another without a comment between them
/// share the one above the first.
pub(super) fn comment(wanted: &str) -> Option<String> {
    let mut section = "";
    let mut comment: Vec<&str> = Vec::new();
    // A key was seen below the comment, so the next comment line starts a new one.
    let mut used = false;
    for line in DEFAULTS.lines() {
        let name = heading(line);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_explained_with_all_its_keys() {
        let dns = explain("dns").expect("a section");
        assert!(dns.starts_with("# How the host names of receivers are looked up.\n[dns]\n"), "{dns}");
        assert!(dns.ends_with("cache_entries = 4096") && dns.contains("\nservers = []\n"), "{dns}");
        for name in sections() {
            let text = explain(name).expect("a section");
            let own: Vec<_> = keys().filter_map(|key| key.strip_prefix(name)?.strip_prefix('.')).collect();
            for key in own {
                let shown = text.contains(&format!("\n{key} = ")) || text.contains(&format!("\n[{name}.{key}]"));
                assert!(shown, "{name}: {key} is missing\n{text}");
            }
            assert_eq!(
                text.matches("\n[").count() + usize::from(text.starts_with('[')),
                text.lines().filter(|l| l.starts_with('[')).count()
            );
            assert!(
                text.lines().filter(|line| line.starts_with('[')).all(|line| line.starts_with(&format!("[{name}"))),
                "{text}"
            );
        }
        assert!(explain("deliver.lease").is_ok_and(|text| text.lines().count() == 2));
    }

    #[test]
    fn a_name_that_is_no_setting_gets_those_that_may_be_meant() {
        for (wanted, sentence) in [
            ("lease", "there is no setting \"lease\"; did you mean deliver.lease?"),
            ("listen", "there is no setting \"listen\"; did you mean api.listen or ops.listen?"),
            ("kafka.broker", "there is no setting \"kafka.broker\"; did you mean kafka.brokers?"),
            ("head_timeuot", "there is no setting \"head_timeuot\"; did you mean deliver.head_timeout?"),
            ("retry.lease", "there is no setting \"retry.lease\"; did you mean deliver.lease?"),
            ("retentoin", "there is no setting \"retentoin\"; did you mean retention?"),
            ("nonsense", "there is no setting \"nonsense\"; to list all settings: callbackd config default"),
        ] {
            assert_eq!(explain(wanted).expect_err(wanted).to_string(), sentence);
        }
    }
}
