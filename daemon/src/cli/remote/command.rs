//! Commands that other commands propose, so that people can copy them into a shell.

use scale_callback_serve::text::printable;

/// The most bytes of a value that are shown.
const SHOWN: usize = 1_024;

/// A command with those of its options that are given.
pub(super) fn command<const N: usize>(words: &str, options: [(&str, Option<String>); N]) -> String {
    let given = options.into_iter().filter_map(|(name, value)| Some(format!(" {name} {}", argument(&value?))));
    given.fold(words.to_owned(), |command, option| command + &option)
}

/// A value as one word of a shell. Ids of tasks and teams may hold anything, so what a shell could read otherwise is quoted.
pub(super) fn argument(value: &str) -> String {
    let shown = printable(value.as_bytes(), SHOWN);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:/@+,".contains(c);
    if !shown.is_empty() && shown.chars().all(is_plain) { shown } else { format!("'{}'", shown.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_word_whatever_it_holds() {
        for (value, word) in [
            ("https://acme.example:443", "https://acme.example:443"),
            (
                "2026-12-01T06:08:00.000Z..2026-12-01T06:10:00.000Z",
                "2026-12-01T06:08:00.000Z..2026-12-01T06:10:00.000Z",
            ),
            ("http://[2001:db8::1]:80", "'http://[2001:db8::1]:80'"),
            ("a b", "'a b'"),
            ("$(reboot)", "'$(reboot)'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("\u{1b}[2J", r"'\u{1b}[2J'"),
        ] {
            assert_eq!(argument(value), word);
        }
    }

    #[test]
    fn only_given_options_are_named() {
        let options = [("--team", Some("team_acme".to_owned())), ("--task", None), ("--mode", Some("live".to_owned()))];
        assert_eq!(
            command("callbackd callbacks list", options),
            "callbackd callbacks list --team team_acme --mode live"
        );
        assert_eq!(command("callbackd callbacks list", [("--team", None)]), "callbackd callbacks list");
    }
}
