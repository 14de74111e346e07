//! Output: tables for people, JSON for programs.

use std::io::Write as _;

use serde_json::Value;

/// A line on standard output; a reader that has gone is no error.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// A column: its title, and the member it shows.
pub(super) type Column = (&'static str, &'static str);

/// The documents as a table, each column as wide as it needs.
pub(super) fn table(docs: &[Value], columns: &[Column]) -> String {
    let cells: Vec<Vec<String>> =
        docs.iter().map(|doc| columns.iter().map(|(_, member)| cell(&doc[*member])).collect()).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, (title, _))| {
            cells.iter().map(|row| row[index].chars().count()).chain([title.len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |row: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = row.zip(&widths).map(|(text, width)| format!("{text:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut columns.iter().map(|(title, _)| *title))];
    lines.extend(cells.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// One document, a member a line.
pub(super) fn record(doc: &Value) -> String {
    let Some(members) = doc.as_object() else { return cell(doc) };
    let width = members.keys().map(|name| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = members
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{name:<width$}  {}", cell(value)))
        .collect();
    lines.join("\n")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => crate::base::text::printable(text.as_bytes(), 64 * 1024),
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
        assert_eq!(table(&docs, &[("A", "a"), ("BEE", "b")]), "A          BEE\nx          7\n\\u{1b}[2J  -");
        assert_eq!(record(&json!({"one": 1, "longer": ["a", "b"], "none": null})), "longer  a, b\none     1");
    }
}
