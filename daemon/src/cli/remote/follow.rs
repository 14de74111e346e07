//! Commands that ask more than once: all pages of a list, a watch.

use std::collections::HashMap;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::super::Failure;
use super::super::args::Filters;
use super::super::table::{Look, cell, fit_height, say_or_end};
use super::calls::{Call, filter_members, get, query};
use super::client::Client;
use super::views::{self, View};

/// The pause between two requests.
const PACE: Duration = Duration::from_secs(2);
/// How many of the newest callbacks a watch compares.
const WATCHED: usize = 500;
/// How many of those are printed at the start.
const TAIL: usize = 10;

/// The size of a terminal that does not tell its own.
const USUAL_HEIGHT: usize = 24;
const USUAL_WIDTH: usize = 80;

/// Reads a list to its end, or until it has as many documents as are wanted.
pub(super) fn each_page(
    client: &Client,
    call: &Call,
    mut page: impl FnMut(&[Value]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut left, mut token) = (call.at_most.unwrap_or(usize::MAX), call.next.clone());
    loop {
        let answer = client.ask(&get(call.path_at(token.as_deref()), View::Record))?;
        let docs = answer["docs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let docs = &docs[..docs.len().min(left)];
        page(docs)?;
        left = left.saturating_sub(docs.len());
        token = answer["next_token"].as_str().map(str::to_owned);
        if token.is_none() || left == 0 {
            return Ok(());
        }
    }
}

/// A counter on standard error, if that is a terminal.
pub(super) fn progress(client: &Client, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    if client.remote.quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {pos} {msg}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_message(what);
    bar
}

pub(super) fn all_pages(client: &Client, call: &Call) -> Result<ExitCode, Failure> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    // Lines on a terminal are progress enough.
    let bar = if std::io::stdout().is_terminal() { ProgressBar::hidden() } else { progress(client, "documents") };
    each_page(client, call, |docs| {
        for doc in docs {
            writeln!(out, "{doc}").map_err(|error| Failure::unwritten(&error))?;
        }
        bar.inc(docs.len() as u64);
        out.flush().map_err(|error| Failure::unwritten(&error))
    })?;
    bar.finish_and_clear();
    Ok(ExitCode::SUCCESS)
}

/// Prints the last callbacks that match, and then each one that is new or has changed, as long as it is among the
/// newest.
pub(super) fn watch(client: &Client, filters: &Filters, count: Option<u64>) -> Result<ExitCode, Failure> {
    let mut members = filter_members(filters)?;
    members.push(("limit", Some(WATCHED.to_string())));
    let call = get(format!("/callbacks{}", query(&members)), View::List(&views::CALLBACKS));
    let mut known: HashMap<String, String> = HashMap::new();
    let (mut first, mut printed) = (true, 0_u64);
    loop {
        let answer = client.ask(&call)?;
        let mut docs = answer["docs"].as_array().cloned().unwrap_or_default();
        docs.reverse();
        let current: HashMap<String, String> = docs
            .iter()
            .map(|doc| (cell(&doc["callback_id"]), format!("{} {} {}", doc["state"], doc["attempts"], doc["revision"])))
            .collect();
        let skipped = if first { docs.len().saturating_sub(TAIL) } else { 0 };
        for doc in docs.iter().skip(skipped) {
            let id = cell(&doc["callback_id"]);
            if known.get(&id) != current.get(&id) {
                let as_json = client.remote.json || client.remote.jsonl;
                say_or_end(&if as_json { doc.to_string() } else { line(doc) })?;
                printed += 1;
                if count.is_some_and(|count| printed >= count) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        known = current;
        first = false;
        client.sleep(PACE);
    }
}

/// A callback as one line, with the time of its last change.
fn line(doc: &Value) -> String {
    let parts = [&doc["changed_at"], &doc["state"], &doc["callback_id"], &doc["team_id"], &doc["task_id"]];
    let shown: Vec<_> = parts.iter().map(|part| cell(part)).collect();
    format!("{}  attempts {}, last {}", shown.join("  "), doc["attempts"], cell(&doc["last_outcome"]))
}

/// The text at the top of the terminal, over what stood there. What does not fit is cut off at the bottom, so that the first
/// lines stay in sight: the version, whether the daemon is ready, and its troubles.
fn screenful(text: &str, look: Look) -> String {
    // The cursor ends on a line of its own.
    let height = look.height.unwrap_or(USUAL_HEIGHT).saturating_sub(1);
    let shown = fit_height(text, height, look.width.unwrap_or(USUAL_WIDTH));
    format!("\u{1b}[2J\u{1b}[H{shown}")
}

/// Prints the status again and again; on a terminal, each replaces the one before.
pub(super) fn status(client: &Client, times: Option<u64>) -> Result<ExitCode, Failure> {
    let over = std::io::stdout().is_terminal() && !client.remote.json && !client.remote.jsonl;
    let mut shown = 0_u64;
    loop {
        let answer = client.ask(&get("/status", View::Status))?;
        if client.remote.json || client.remote.jsonl {
            say_or_end(&answer.to_string())?;
        } else {
            let look = Look { hints: false, ..Look::of_stdout() };
            let text = views::shown(&View::Status, &answer, look);
            say_or_end(&if over { screenful(&text, look) } else { format!("{text}\n") })?;
        }
        shown += 1;
        if times.is_some_and(|times| shown >= times) {
            return Ok(ExitCode::SUCCESS);
        }
        client.sleep(PACE);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_watched_callback_has_the_time_of_its_last_change() {
        let doc = json!({
            "callback_id": "cb_x", "state": "pending", "team_id": "team_acme", "task_id": "t1", "attempts": 2,
            "last_outcome": "server_error", "first_attempt_at": "2026-11-24T10:00:00.000Z",
            "changed_at": "2026-11-24T10:00:07.000Z", "settled_at": null,
        });
        let expected = "2026-11-24T10:00:07.000Z  pending  cb_x  team_acme  t1  attempts 2, last server_error";
        assert_eq!(line(&doc), expected);
    }

    #[test]
    fn the_top_of_a_status_stays_in_a_terminal_of_24_lines() {
        let look = Look { width: Some(80), height: Some(24), ..Look::default() };
        let status = json!({
            "version": "1", "troubles": ["the store does not answer"],
            "worst_endpoints": vec![json!({"team_id": "a", "origin": "https://a.example:443", "state": "active"}); 20],
            "instances": vec![json!({"instance_id": 1, "state": "ended", "seen_at": "2026-11-24T10:00:07.000Z"}); 20],
        });
        let shown = screenful(&views::shown(&View::Status, &status, look), look);
        assert!(
            shown.starts_with("\u{1b}[2J\u{1b}[Hversion   1\ntroubles  the store does not answer\n\nWorst endpoints\n"),
            "{shown:?}"
        );
        assert_eq!(shown.lines().count(), 23, "the cursor has the last line");
        assert!(shown.ends_with(" more lines"), "{shown}");
    }
}
