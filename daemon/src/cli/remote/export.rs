//! Writes all documents of a list to a file or to standard output, as JSON Lines or CSV.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
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
    let mut header = None::<Vec<String>>;
    each_page(client, call, |docs| {
        for doc in docs {
            for written in of(doc)? {
                match args.format {
                    ExportFormat::Jsonl => writeln!(out, "{written}"),
                    ExportFormat::Csv => csv_line(&mut out, &mut header, &written),
                }
                .map_err(|error| Failure::unwritten(&error))?;
                bar.inc(1);
            }
        }
        Ok(())
    })?;
    out.flush().map_err(|error| Failure::unwritten(&error))?;
    bar.finish_and_clear();
    Ok(ExitCode::SUCCESS)
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

/// Writes a line of CSV (RFC 4180). Before the first document, it writes the names of its members.
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
    fn csv_is_quoted_and_holds_no_formula() {
        let (mut out, mut header) = (Vec::new(), None);
        for doc in [json!({"a": "x,y", "b": "=cmd()"}), json!({"a": true, "b": 1}), json!({"a": "q\"q", "b": null})] {
            csv_line(&mut out, &mut header, &doc).expect("a vector takes everything");
        }
        assert_eq!(String::from_utf8(out).expect("text"), "a,b\r\n\"x,y\",'=cmd()\r\ntrue,1\r\n\"q\"\"q\",\r\n");
    }
}
