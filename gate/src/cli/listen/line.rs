//! The lines that `listen` prints. Everything that a sender chose is made safe to print.

use http::HeaderMap;
use scale_callback_auth::{Verified, VerifyError, header};
use scale_callback_serve::text::printable;

use crate::clock::unix_seconds;

/// A line with the time of day, UTC.
pub(super) fn line(verdict: &str, what: &str) -> String {
    let seconds = unix_seconds() % 86_400;
    format!("{:02}:{:02}:{:02}Z  {verdict:<7}  {what}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
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
