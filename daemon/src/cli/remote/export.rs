//! Writes all documents of a list to a file or to standard output, as JSON Lines or CSV.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::super::Failure;
use super::super::args::{ExportArgs, ExportFormat, Filters};
use super::super::table::cell;
use super::calls::{self, Call, escaped, filter_members, get, query};
use super::client::Client;
use super::follow::{each_page, progress};
use super::views::{self, View};

/// All callbacks that match, or their attempts.
pub(super) fn callbacks(
    client: &Client,
    filters: &Filters,
    attempts: bool,
    args: &ExportArgs,
) -> Result<ExitCode, Failure> {
    let mut members = filter_members(filters)?;
    members.push(("limit", Some(calls::PAGE.to_string())));
    let call = get(format!("/callbacks{}", query(&members)), View::List(&views::CALLBACKS));
    if attempts {
        write(client, "attempts", &call, args, |callback| attempts_of(client, callback))
    } else {
        list(client, "callbacks", &call, args)
    }
}

/// All documents of a list.
pub(super) fn list(client: &Client, what: &'static str, call: &Call, args: &ExportArgs) -> Result<ExitCode, Failure> {
    write(client, what, call, args, |doc| Ok(vec![doc.clone()]))
}

/// The attempts of a callback that the store keeps, each with the names of its callback.
fn attempts_of(client: &Client, callback: &Value) -> Result<Vec<Value>, Failure> {
    let id = callback["callback_id"].as_str().unwrap_or_default();
    let answer = client.ask(&get(format!("/callbacks/{}/attempts", escaped(id)), View::Record))?;
    let named = |doc: &Value| {
        let names = ["callback_id", "team_id", "task_id"].map(|name| (name.to_owned(), callback[name].clone()));
        let members = doc.as_object().cloned().unwrap_or_default();
        Value::Object(names.into_iter().chain(members).collect())
    };
    Ok(answer["docs"].as_array().into_iter().flatten().map(named).collect())
}

/// Writes what each document of a list gives.
fn write(
    client: &Client,
    what: &'static str,
    call: &Call,
    args: &ExportArgs,
    mut of: impl FnMut(&Value) -> Result<Vec<Value>, Failure>,
) -> Result<ExitCode, Failure> {
    let mut out = BufWriter::new(opened(args)?);
    let bar = progress(client, what);
    let (mut header, mut count) = (None::<Vec<String>>, 0_u64);
    each_page(client, call, |docs| {
        for doc in docs {
            for written in of(doc)? {
                match args.format {
                    ExportFormat::Jsonl => writeln!(out, "{written}"),
                    ExportFormat::Csv => csv_line(&mut out, &mut header, &written),
                }
                .map_err(|error| Failure::unwritten(&error))?;
                bar.inc(1);
                count += 1;
            }
        }
        Ok(())
    })?;
    out.flush().map_err(|error| Failure::unwritten(&error))?;
    bar.finish_and_clear();
    if let Some(path) = args.output.as_deref().filter(|_| !client.remote.quiet) {
        tell(&written(what, count, path));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was written to a file. The header of a CSV table does not count.
fn written(what: &str, count: u64, path: &Path) -> String {
    let path = path.display();
    match count {
        1 => format!("1 {} was written to {path}", what.strip_suffix('s').unwrap_or(what)),
        _ => format!("{count} {what} were written to {path}"),
    }
}

#[expect(clippy::print_stderr, reason = "a sentence for the user of a command, whose output is a file")]
fn tell(sentence: &str) {
    eprintln!("{sentence}");
}

fn opened(args: &ExportArgs) -> Result<Box<dyn Write>, Failure> {
    let Some(path) = &args.output else { return Ok(Box::new(std::io::stdout().lock())) };
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    Ok(Box::new(file.map_err(|error| {
        let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let never = if is_there { ", and is never overwritten" } else { "" };
        Failure::new(Failure::FAILED, format!("{}: {error}{never}", path.display()))
    })?))
}

/// Writes a line of CSV (RFC 4180, which ends lines with CR LF). Before the first document, it writes the names of its members.
fn csv_line(out: &mut impl Write, header: &mut Option<Vec<String>>, doc: &Value) -> std::io::Result<()> {
    if header.is_none() {
        let names: Vec<String> = doc.as_object().map(|doc| doc.keys().cloned().collect()).unwrap_or_default();
        write!(out, "{}\r\n", names.join(","))?;
        *header = Some(names);
    }
    let names = header.as_deref().unwrap_or_default();
    let cells: Vec<_> = names
        .iter()
        .map(|name| match &doc[name] {
            Value::Null => String::new(),
            Value::Bool(value) => value.to_string(),
            value => quoted(&cell(value)),
        })
        .collect();
    write!(out, "{}\r\n", cells.join(","))
}

/// A cell. One that a spreadsheet would read as a formula gets a leading quote.
fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_export_says_how_much_it_wrote_and_where() {
        let told = |what, count| written(what, count, Path::new("out.csv"));
        assert_eq!(told("callbacks", 5_000), "5000 callbacks were written to out.csv");
        assert_eq!(told("dead letters", 1), "1 dead letter was written to out.csv");
        assert_eq!(told("changes", 0), "0 changes were written to out.csv");
    }

    #[test]
    fn csv_is_quoted_and_holds_no_formula() {
        let (mut out, mut header) = (Vec::new(), None);
        for doc in [json!({"a": "x,y", "b": "=cmd()"}), json!({"a": true, "b": 1}), json!({"a": "q\"q", "b": null})] {
            csv_line(&mut out, &mut header, &doc).expect("a vector takes everything");
        }
        assert_eq!(String::from_utf8(out).expect("text"), "a,b\r\n\"x,y\",'=cmd()\r\ntrue,1\r\n\"q\"\"q\",\r\n");
    }
}
