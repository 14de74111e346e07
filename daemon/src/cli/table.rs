//! Output: tables for people, which fit their terminal, and JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use scale_callback_serve::text::printable;
use serde_json::Value;

/// Prints a line on standard output. A reader that has gone is not an error.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

/// A column: its title, and the member it shows.
pub(super) type Column = (&'static str, &'static str);

/// The narrowest that a column is cut to.
const NARROW: usize = 8;

/// How output may look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// How many columns the terminal has. Without a terminal, a table is as wide as it needs.
    pub(super) width: Option<usize>,
    pub(super) colours: bool,
}

impl Look {
    /// How output on standard output may look: as wide as the terminal, and with colours unless NO_COLOR is set or the
    /// terminal is dumb.
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let given = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { width: size.filter(|width| *width > 0), colours: !given("NO_COLOR") && !dumb }
    }
}

/// The documents as a table. Each column is as wide as it needs; where the terminal is narrower, the widest are cut.
pub(super) fn table(docs: &[Value], columns: &[Column], look: Look) -> String {
    let cells: Vec<Vec<String>> =
        docs.iter().map(|doc| columns.iter().map(|(_, member)| cell(&doc[*member])).collect()).collect();
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, (title, _))| {
            cells.iter().map(|row| row[index].chars().count()).chain([title.len()]).max().unwrap_or(0)
        })
        .collect();
    if let Some(width) = look.width {
        shrink(&mut widths, width.saturating_sub(2 * columns.len().saturating_sub(1)));
    }
    let line = |row: &mut dyn Iterator<Item = (&str, &str)>| {
        let padded: Vec<_> = row
            .zip(&widths)
            .map(|((member, text), width)| {
                let text = cut(text, *width);
                let padding = " ".repeat(width.saturating_sub(text.chars().count()));
                format!("{}{padding}", if look.colours { coloured(member, &text) } else { text })
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut columns.iter().map(|(title, _)| ("", *title)))];
    lines
        .extend(cells.iter().map(|row| line(&mut columns.iter().map(|(_, m)| *m).zip(row.iter().map(String::as_str)))));
    lines.join("\n")
}

/// Makes the widest column narrower until all fit. None becomes narrower than [`NARROW`].
fn shrink(widths: &mut [usize], room: usize) {
    while widths.iter().sum::<usize>() > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROW => *widest -= 1,
            _ => return,
        }
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Gives states and verdicts the colours that people expect.
fn coloured(member: &str, text: &str) -> String {
    let colour = match (member, text.trim_end()) {
        ("state", "delivered" | "active" | "valid" | "running") | ("verdict", "ok") | ("ok", "yes") => "32",
        ("state", "pending" | "created" | "limited") | ("verdict", "warning") => "33",
        ("state", "exhausted" | "abandoned") | ("verdict", "failed") | ("ok", "no") => "31",
        _ => return text.to_owned(),
    };
    format!("\u{1b}[{colour}m{text}\u{1b}[0m")
}

/// One document, with a line for each member. Lists of documents are left to the caller.
pub(super) fn record(doc: &Value) -> String {
    let Some(members) = doc.as_object() else { return cell(doc) };
    let width = members.keys().map(|name| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = members
        .iter()
        .filter(|(_, value)| !value.is_null() && !is_documents(value))
        .map(|(name, value)| format!("{name:<width$}  {}", cell(value)))
        .collect();
    lines.join("\n")
}

fn is_documents(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().any(|item| item.as_object().is_some_and(|item| item.len() > 2)))
}

/// A value on one line, with control characters escaped.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => printable(text.as_bytes(), 64 * 1024),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(members) => members.values().map(cell).collect::<Vec<_>>().join("="),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_fits_its_cells_and_escapes_them() {
        let docs = [json!({"a": "x", "b": 7}), json!({"a": "\u{1b}[2J", "b": null})];
        let columns = [("A", "a"), ("BEE", "b")];
        assert_eq!(table(&docs, &columns, Look::default()), "A          BEE\nx          7\n\\u{1b}[2J  -");
        assert_eq!(record(&json!({"one": 1, "longer": ["a", "b"], "none": null})), "one     1\nlonger  a, b");
    }

    #[test]
    fn a_table_is_cut_to_the_terminal_and_no_line_is_wider() {
        let docs = [json!({"a": "x".repeat(60), "state": "delivered"})];
        let look = Look { width: Some(40), colours: false };
        let text = table(&docs, &[("A", "a"), ("STATE", "state")], look);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains("…  delivered"), "{text}");
        let coloured = table(&docs, &[("STATE", "state")], Look { width: None, colours: true });
        assert_eq!(coloured, "STATE\n\u{1b}[32mdelivered\u{1b}[0m");
    }
}
