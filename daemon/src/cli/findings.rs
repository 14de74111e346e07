//! How the findings of a check are shown to people: each with its fix, wrapped between words. Nothing is cut, because people
//! need the whole finding.

use serde_json::json;

use super::table::{Look, cell, coloured};
use crate::base::columns::wrapped;
use crate::base::finding::{Finding, Verdict};

/// The width of the longest verdict, and of the gap after a column.
const VERDICT: usize = 7;
const GAP: usize = 2;
/// Findings need at least so much room beside the other columns. With less, their further lines begin below the second
/// column.
const LEAST: usize = 30;

pub(super) fn shown(findings: &[Finding], look: Look) -> String {
    let names = findings.iter().map(|finding| finding.what.chars().count());
    let what = names.max().unwrap_or(0).max("WHAT".len());
    let second = VERDICT + GAP;
    let third = second + what + GAP;
    let width = look.width.unwrap_or(usize::MAX);
    let indent = if third.saturating_add(LEAST) <= width { third } else { second };
    let mut lines = vec![format!("{:<VERDICT$}  {:<what$}  FOUND", "VERDICT", "WHAT")];
    for Finding { verdict, what: name, detail, fix } in findings {
        let verdict = verdict.name();
        let line = wrapped(&format!("{verdict:<VERDICT$}  {name:<what$}  {}", cell(&json!(detail))), width, indent);
        // The colour comes after the wrapping, because it takes no room.
        let painted = if look.colours { coloured("verdict", verdict) } else { verdict.to_owned() };
        lines.push(line.replacen(verdict, &painted, 1));
        if let Some(fix) = fix {
            let begin = format!("{}fix: ", " ".repeat(second));
            lines.push(wrapped(&format!("{begin}{}", cell(&json!(fix))), width, begin.len()));
        }
    }
    lines.join("\n")
}

/// Whether the check as a whole has failed.
pub(super) fn has_failed(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.verdict == Verdict::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> [Finding; 2] {
        [
            Finding::ok("configuration", "it can be read"),
            Finding::failed(
                "kafka",
                "no broker answers at localhost:9092: the connection was refused, and the name has two addresses",
                "check kafka.brokers, the network, and whether the port speaks the configured security.protocol",
            ),
        ]
    }

    #[test]
    fn a_finding_is_wrapped_between_words_and_nothing_is_cut() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let whole = shown(&findings(), Look::default());
        assert_eq!(whole.lines().count(), 4, "{whole}");
        assert!(
            whole.starts_with("VERDICT  WHAT           FOUND\nok       configuration  it can be read\n"),
            "{whole}"
        );
        for width in [40, 60, 80, 100] {
            let text = shown(&findings(), Look { width: Some(width), ..Look::default() });
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert_eq!(words(&text), words(&whole), "{width}");
        }
        let wide = shown(&findings(), Look { width: Some(80), ..Look::default() });
        let below = format!("\n{}", " ".repeat("failed   configuration  ".len()));
        assert!(wide.contains(&below), "further lines begin below FOUND:\n{wide}");
        let painted = shown(&findings(), Look { width: Some(80), colours: true, ..Look::default() });
        assert!(painted.contains("\u{1b}[31mfailed\u{1b}[0m   kafka"), "{painted}");
        assert!(has_failed(&findings()) && !has_failed(&findings()[..1]));
    }
}
