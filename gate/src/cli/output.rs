//! What a command prints. Standard output is for its results, standard error for the reason of a failure. A reader of
//! standard output that has gone is no error.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;
use tokio::sync::Notify;

/// A line on standard output.
pub(super) fn say(text: &str) {
    // Whoever reads has gone, and nobody misses the line.
    print(text).ok();
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Prints each line for a person, or as one line of JSON for a program.
pub(super) struct Output {
    json: bool,
    reader_gone: Notify,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, reader_gone: Notify::new() }
    }

    /// Prints a line, or the object in its place.
    pub(super) fn tell(&self, line: impl FnOnce() -> String, object: impl FnOnce() -> Value) {
        let text = if self.json { object().to_string() } else { line() };
        if print(&text).is_err() {
            self.reader_gone.notify_one();
        }
    }

    /// Prints a line that a program does not need.
    pub(super) fn remark(&self, line: impl FnOnce() -> String) {
        if !self.json && print(&line()).is_err() {
            self.reader_gone.notify_one();
        }
    }

    /// Waits until nobody reads any more.
    pub(super) async fn reader_gone(&self) {
        self.reader_gone.notified().await;
    }
}

/// The width of the terminal; `None` if the output goes elsewhere, where lines stay whole. The variable COLUMNS goes before
/// what the terminal says.
pub(super) fn terminal_width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let size = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    given.or_else(size).filter(|width| *width > 0)
}

/// Why the command failed, on standard error.
#[expect(clippy::print_stderr, reason = "the one place where a command's failure is printed")]
pub(super) fn complain(sentence: &str) {
    eprintln!("scale-callback: {sentence}");
}

/// The same for a program that reads JSON.
#[expect(clippy::print_stderr, reason = "the other form of the same")]
pub(super) fn complain_in_json(sentence: &str, status: u8) {
    eprintln!("{}", serde_json::json!({ "error": sentence, "exit_status": status }));
}
