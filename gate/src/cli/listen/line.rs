//! The lines that `listen` prints, for people and for programs. Everything that a sender chose is made safe to print; in JSON
//! the form itself makes it safe.

use http::HeaderMap;
use scale_callback_auth::{Verified, VerifyError, header};
use scale_callback_serve::text::{printable, wrapped};
use serde_json::{Value, json};

use super::super::output::terminal_width;
use crate::clock::{rfc3339, unix_millis, unix_seconds};

/// A line with the time of day, UTC. On a terminal it is wrapped between words.
pub(super) fn line(verdict: &str, what: &str) -> String {
    laid_out(unix_seconds() % 86_400, verdict, what, terminal_width())
}

fn laid_out(seconds: u64, verdict: &str, what: &str, width: Option<usize>) -> String {
    let begin = format!("{:02}:{:02}:{:02}Z  {verdict:<7}  ", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    wrapped(&format!("{begin}{what}"), width.unwrap_or(usize::MAX), begin.len())
}

/// What a verified callback is.
pub(super) fn accepted(verified: &Verified<'_>, headers: &HeaderMap) -> String {
    let task = match verified.callback() {
        Ok(callback) => format!(
            "task {} {} {}",
            printable(callback.task_id().as_bytes(), 64),
            printable(callback.task_type().unwrap_or("-").as_bytes(), 64),
            printable(callback.status().unwrap_or("-").as_bytes(), 32),
        ),
        Err(_) => "not a callback".to_owned(),
    };
    let attempt = headers.get(header::ATTEMPT).and_then(|value| value.to_str().ok());
    let attempt = attempt.map(|n| format!(", attempt {}", printable(n.as_bytes(), 8))).unwrap_or_default();
    format!("{}  {task}, {} keys, {} bytes{attempt}", verified.id(), verified.mode().name(), verified.body().len())
}

/// Why a request was refused.
pub(super) fn refused(headers: &HeaderMap, why: VerifyError, body: &[u8]) -> String {
    let id = headers.get(header::ID).map_or(&b"-"[..], |value| value.as_bytes());
    format!("{}  {why} ({}), {} bytes", printable(id, 64), why.code(), body.len())
}

/// An object about one request, with the present time; its other members follow.
pub(super) fn object(verdict: &str, members: Value) -> Value {
    with(json!({ "event": "request", "at": rfc3339(unix_millis()), "verdict": verdict }), members)
}

/// What a verified callback is, for a program.
pub(super) fn accepted_members(verified: &Verified<'_>, headers: &HeaderMap) -> Value {
    let attempt = headers.get(header::ATTEMPT).and_then(|value| value.to_str().ok());
    let callback = verified.callback().ok();
    json!({
        "webhook_id": verified.id(),
        "mode": verified.mode().name(),
        "bytes": verified.body().len(),
        "attempt": attempt.and_then(|attempt| attempt.parse::<u64>().ok()),
        "task_id": callback.as_ref().map(|callback| callback.task_id()),
        "task_type": callback.as_ref().and_then(|callback| callback.task_type()),
        "task_status": callback.as_ref().and_then(|callback| callback.status()),
    })
}

/// Why a request was refused, for a program.
pub(super) fn refused_members(headers: &HeaderMap, why: VerifyError, body: &[u8]) -> Value {
    let id = headers.get(header::ID).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    json!({ "webhook_id": id, "reason": why.code(), "detail": why.to_string(), "bytes": body.len(), "answered": 401 })
}

/// The object with more members.
pub(super) fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_wrapped_between_words_on_a_terminal_alone() {
        let what =
            "cb_01m866y1r1vx381xh1wv964t1r  task t1 imageannotation completed, live keys, 2242 bytes, answered 204";
        let whole = laid_out(45_296, "valid", what, None);
        assert_eq!(whole, format!("12:34:56Z  valid    {what}"));
        let lines = laid_out(45_296, "valid", what, Some(60));
        assert!(lines.lines().all(|line| line.len() <= 60), "{lines}");
        assert!(lines.lines().skip(1).all(|line| line.starts_with(&" ".repeat(20))), "{lines}");
        assert_eq!(lines.split_whitespace().collect::<Vec<_>>(), whole.split_whitespace().collect::<Vec<_>>());
    }
}
