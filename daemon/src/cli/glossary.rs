//! `callbackd glossary`: the words of `docs/glossary.md`, which is compiled in.

use std::process::ExitCode;

use super::Failure;
use super::table::say;
use scale_callback_serve::text::printable;

const PAGE: &str = include_str!("../../../docs/glossary.md");

/// Prints what a word means, or what all of them mean.
pub(super) fn explain(word: Option<&str>) -> Result<ExitCode, Failure> {
    let Some(word) = word else {
        let all: Vec<_> = entries().map(|(words, meaning)| format!("{words}: {meaning}")).collect();
        say(&all.join("\n\n"));
        return Ok(ExitCode::SUCCESS);
    };
    match entries().find(|(words, _)| names(words, word)) {
        Some((words, meaning)) => {
            say(&format!("{words}: {meaning}"));
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let shown = printable(word.as_bytes(), 64);
            let sentence = format!("the glossary has no word {shown:?}; to list all words: callbackd glossary");
            Err(Failure::new(Failure::NOT_FOUND, sentence))
        }
    }
}

/// The words of each entry, and what they mean. An entry is a heading, `### word, other word`, and the text below it.
fn entries() -> impl Iterator<Item = (&'static str, String)> {
    let sections = PAGE.split("\n### ").skip(1).filter_map(|section| section.split_once('\n'));
    sections.map(|(words, meaning)| (words, meaning.trim().replace('`', "").replace('\n', " ")))
}

/// Whether one of the words of an entry is this one, in the singular or the plural.
fn names(words: &str, wanted: &str) -> bool {
    let singular = |word: &str| word.trim().trim_end_matches('s').to_lowercase().replace(['-', '_'], " ");
    words.split(',').any(|word| singular(word) == singular(wanted))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_holds_each_word_once_in_order_and_explains_it() {
        let words: Vec<_> = entries().map(|(words, _)| words.to_lowercase()).collect();
        assert!(words.len() >= 30, "{} entries: is the page still read?", words.len());
        assert!(words.is_sorted(), "{words:?}");
        let single: Vec<_> = words.iter().flat_map(|words| words.split(", ")).collect();
        assert_eq!(single.iter().collect::<BTreeSet<_>>().len(), single.len(), "a word occurs twice");
        for (words, meaning) in entries() {
            let sentences = meaning.matches(". ").count() + 1;
            assert!(meaning.ends_with('.') && sentences <= 3, "{words}: {meaning}");
        }
    }

    #[test]
    fn a_word_is_found_however_it_is_written() {
        for word in ["lane", "Lanes", "dead letter", "dead-letters", "dead_letter", "task event"] {
            assert!(entries().any(|(words, _)| names(words, word)), "{word}");
        }
        assert!(!entries().any(|(words, _)| names(words, "nonsense")));
        assert!(explain(Some("nonsense")).is_err());
    }
}
