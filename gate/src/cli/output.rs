//! What a command prints. Standard output is for its results, standard error for the reason of a failure.

use std::io::Write as _;

/// A line on standard output.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone is not an error.
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

/// Why the command failed, on standard error.
#[expect(clippy::print_stderr, reason = "the one place where a command's failure is printed")]
pub(super) fn complain(sentence: &str) {
    eprintln!("scale-callback: {sentence}");
}
