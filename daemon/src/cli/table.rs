//! Output: tables for people, which fit their terminal, and JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use scale_callback_serve::text::printable;
use serde_json::Value;

use super::Failure;
use crate::base::columns::{Need, cut, fit, wrapped};

/// Prints a line on standard output. A reader that has gone is not an error.
pub(super) fn say(text: &str) {
    drop(say_or_end(text));
}

/// Prints a line on standard output, for commands that print again and again: they end when their reader has gone.
pub(super) fn say_or_end(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::unwritten(&error))
}

/// What a table shows for a value that there is not.
const NOTHING: &str = "-";

/// What a column holds, which decides how it gives way on a narrow terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Something that the next command may need, or a short word or number: never cut.
    Whole,
    /// A time of the last days or hours, which has a shorter form without year and milliseconds.
    Time,
    /// A time that may be years away. Its shorter form is the date.
    Date,
    /// Text, which may be cut to this width.
    Text(usize),
}

/// A column: its title, the member it shows, and how it gives way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    member: &'static str,
    holds: Holds,
    /// Columns are left out by this rank, the highest first, and those of rank 0 never.
    rank: u8,
}

/// A column that is never cut: an id, a short word, a number.
pub(super) const fn whole(title: &'static str, member: &'static str, rank: u8) -> Column {
    Column { title, member, holds: Holds::Whole, rank }
}

/// A column of recent times.
pub(super) const fn time(title: &'static str, member: &'static str, rank: u8) -> Column {
    Column { title, member, holds: Holds::Time, rank }
}

/// A column of times that may be years away.
pub(super) const fn date(title: &'static str, member: &'static str, rank: u8) -> Column {
    Column { title, member, holds: Holds::Date, rank }
}

/// A column of text that may be cut to `least` characters.
pub(super) const fn text(title: &'static str, member: &'static str, rank: u8, least: usize) -> Column {
    Column { title, member, holds: Holds::Text(least), rank }
}

impl Column {
    /// The width at which this column is still of use, if its cells want `wanted`.
    fn need(&self, wanted: usize) -> Need {
        let (least, is_stepped) = match self.holds {
            Holds::Whole => (wanted, false),
            Holds::Time => (SHORT_TIME, true),
            Holds::Date => (DATE, true),
            Holds::Text(least) => (least, false),
        };
        Need { wanted, least: least.max(if is_stepped { self.title.len() } else { 0 }), is_stepped, rank: self.rank }
    }

    /// A cell in this width.
    fn shown(&self, text: &str, width: usize) -> String {
        match self.holds {
            Holds::Time if text.len() > width => short_time(text).unwrap_or_else(|| cut(text, width)),
            Holds::Date if text.len() > width => text.get(..DATE).map_or_else(|| cut(text, width), str::to_owned),
            _ => cut(text, width),
        }
    }
}

/// The width of `11-24 12:00:00`, and of `2026-11-24`.
const SHORT_TIME: usize = 14;
const DATE: usize = 10;
/// The width of the space between two columns.
const GAP: usize = 2;

/// `2026-11-24T12:00:00.000Z` as `11-24 12:00:00`.
fn short_time(text: &str) -> Option<String> {
    let (date, time) = text.split_once('T')?;
    Some(format!("{} {}", date.get(5..10)?, time.get(..8)?))
}

/// How output may look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// How many columns the terminal has. Without a terminal, a table is as wide as it needs.
    pub(super) width: Option<usize>,
    /// How many lines the terminal has.
    pub(super) height: Option<usize>,
    pub(super) colours: bool,
    /// Whether a sentence may say what was left out.
    pub(super) hints: bool,
}

impl Look {
    /// How output on standard output may look: as wide as the terminal, and with colours unless NO_COLOR is set or the
    /// terminal is dumb. The variables COLUMNS and LINES go before what the terminal says of its size.
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let side = |name: &str, of_terminal: Option<u16>| {
            let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
            given.or(of_terminal.map(usize::from)).filter(|cells| *cells > 0)
        };
        let given = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            width: side("COLUMNS", size.map(|size| size.ws_col)),
            height: side("LINES", size.map(|size| size.ws_row)),
            colours: !given("NO_COLOR") && !dumb,
            hints: true,
        }
    }
}

/// The documents as a table. Each column is as wide as it needs. On a narrower terminal, columns are narrowed and then
/// left out, each as its [`Column`] says; where even those that must stay do not fit, each document is a block of lines.
pub(super) fn table(docs: &[Value], columns: &[Column], look: Look) -> String {
    let cells: Vec<Vec<String>> =
        docs.iter().map(|doc| columns.iter().map(|column| cell(&doc[column.member])).collect()).collect();
    let wanted = |(index, column): (usize, &Column)| {
        cells.iter().map(|row| row[index].chars().count()).chain([column.title.len()]).max().unwrap_or(0)
    };
    let wanted: Vec<usize> = columns.iter().enumerate().map(wanted).collect();
    let widths = match look.width {
        None => wanted.iter().map(|width| Some(*width)).collect(),
        Some(width) => {
            let needs: Vec<_> = columns.iter().zip(&wanted).map(|(column, wanted)| column.need(*wanted)).collect();
            match fit(&needs, GAP, width) {
                Some(widths) => widths,
                None => return blocks(&cells, columns, look, width),
            }
        }
    };
    let shown: Vec<(usize, &Column, usize)> = columns
        .iter()
        .zip(&widths)
        .enumerate()
        .filter_map(|(at, (column, width))| Some((at, column, (*width)?)))
        .collect();
    let line = |cell_of: &dyn Fn(usize, &Column, usize) -> (String, String)| {
        let padded: Vec<_> = shown
            .iter()
            .map(|(at, column, width)| {
                let (plain, painted) = cell_of(*at, column, *width);
                format!("{painted}{}", " ".repeat(width.saturating_sub(plain.chars().count())))
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let title = |_: usize, column: &Column, width: usize| {
        let title = cut(column.title, width);
        (title.clone(), title)
    };
    let mut lines = vec![line(&title)];
    lines.extend(cells.iter().map(|row| {
        line(&|at, column, width| {
            let plain = column.shown(&row[at], width);
            let painted = if look.colours { coloured(column.member, &plain) } else { plain.clone() };
            (plain, painted)
        })
    }));
    lines.extend(left_out(columns, &widths, look));
    lines.join("\n")
}

/// A sentence about the columns that were left out.
fn left_out(columns: &[Column], widths: &[Option<usize>], look: Look) -> Option<String> {
    let titles: Vec<_> =
        columns.iter().zip(widths).filter(|(_, width)| width.is_none()).map(|(column, _)| column.title).collect();
    (look.hints && !titles.is_empty()).then(|| {
        let sentence = format!("(Not shown in this width: {}. --json shows everything.)", titles.join(", "));
        wrapped(&sentence, look.width.unwrap_or(usize::MAX), 1)
    })
}

/// Each document as a block of lines `NAME: value`, for terminals on which a table does not fit.
fn blocks(cells: &[Vec<String>], columns: &[Column], look: Look, width: usize) -> String {
    let block = |row: &Vec<String>| {
        let named = columns.iter().zip(row).filter(|(_, text)| *text != NOTHING);
        let lines: Vec<_> = named
            .map(|(column, text)| {
                let line = wrapped(&format!("{}: {text}", column.title), width, 2);
                if look.colours { line.replacen(text, &coloured(column.member, text), 1) } else { line }
            })
            .collect();
        lines.join("\n")
    };
    cells.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

/// The lines of a text that fit into a terminal of `height` lines and `width` columns, from the first one on. If lines are
/// cut off at the end, the last line says how many.
pub(super) fn fit_height(text: &str, height: usize, width: usize) -> String {
    // A line that is wider than the terminal takes several of its lines.
    let rows = |line: &str| visible(line).max(1).div_ceil(width.max(1));
    let lines: Vec<&str> = text.lines().collect();
    if lines.iter().map(|line| rows(line)).sum::<usize>() <= height {
        return text.to_owned();
    }
    let mut left = height.saturating_sub(1);
    let mut shown: Vec<String> = Vec::new();
    for line in &lines {
        let Some(rest) = left.checked_sub(rows(line)) else { break };
        left = rest;
        shown.push((*line).to_owned());
    }
    let more = lines.len().saturating_sub(shown.len());
    shown.push(cut(&format!("... {more} more lines"), width));
    shown.join("\n")
}

/// How many characters of a line are seen: all but those that set a colour.
fn visible(line: &str) -> usize {
    let mut parts = line.split('\u{1b}');
    let plain = parts.next().map_or(0, |text| text.chars().count());
    parts.fold(plain, |count, part| count + part.split_once('m').map_or(0, |(_, text)| text.chars().count()))
}

/// Gives states and verdicts the colours that people expect.
pub(super) fn coloured(member: &str, text: &str) -> String {
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
    let shown: Vec<_> = members.iter().filter(|(_, value)| !value.is_null() && !is_documents(value)).collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = shown.iter().map(|(name, value)| format!("{name:<width$}  {}", cell(value))).collect();
    lines.join("\n")
}

fn is_documents(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().any(|item| item.as_object().is_some_and(|item| item.len() > 2)))
}

/// A value on one line, with control characters escaped.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => printable(text.as_bytes(), 64 * 1024),
        Value::Array(items) if items.is_empty() => NOTHING.to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(members) if members.len() <= 2 => members.values().map(cell).collect::<Vec<_>>().join("="),
        Value::Object(members) => {
            let given: Vec<_> = members.iter().filter(|(_, value)| !value.is_null()).collect();
            let given = given.iter().map(|(name, value)| format!("{name} {}", cell(value))).collect::<Vec<_>>();
            if given.is_empty() { NOTHING.to_owned() } else { given.join(", ") }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
