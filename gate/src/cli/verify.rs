//! The command `verify`: it explains a captured request to the person who holds its secret.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use scale_callback_serve::text::printable;
use serde_json::json;

use super::arguments::{KeyArgs, read};
use super::error::CommandError;
use super::output::Output;
use crate::clock::unix_seconds;
use crate::diagnosis::{Capture, CaptureError, Finding, text_of};

/// The arguments.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A file with the captured headers, one on each line. The request line may come before them.
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// A file with the request's body, byte for byte.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) fn run(args: &VerifyArgs, json: bool) -> Result<ExitCode, CommandError> {
    let out = Output::new(json);
    let source = args.keys.source();
    let variables = source.look().map_err(CommandError::refused)?;
    let verifier = source.verifier(&variables).map_err(CommandError::refused)?;
    let shown = args.headers.display();
    let named = |why: CaptureError| CommandError::refused(format!("{shown}: {why}"));
    let (text, had_mark) = text_of(&read("--headers", &args.headers)?).map_err(named)?;
    let capture = Capture { headers: Capture::headers(&text).map_err(named)?, body: read("--body", &args.body)? };
    if had_mark {
        out.remark(|| {
            format!("{shown} begins with a byte order mark, which is no part of the first header: it is left out")
        });
    }
    let finding = capture.verdict(&verifier);
    let valid = matches!(finding, Finding::Valid { .. });
    let told = capture.time().map(|time| age(valid, time, unix_seconds()));
    match finding {
        Finding::Valid { id, mode, task } => {
            let bytes = capture.body.len();
            let what = task.as_deref().map_or_else(
                || "its body is not a callback".to_owned(),
                |task| format!("task {}", printable(task.as_bytes(), 256)),
            );
            out.tell(
                || format!("valid at its own time: {id}, {mode} keys, {bytes} bytes, {what}"),
                || json!({ "valid": true, "webhook_id": id, "mode": mode, "bytes": bytes, "task_id": task, "age": told }),
            );
        }
        Finding::Invalid(why) => {
            let sentences = capture.explain(&verifier, why);
            out.tell(
                || format!("not valid: {why} ({})", why.code()),
                || {
                    let (reason, detail) = (why.code(), why.to_string());
                    json!({ "valid": false, "reason": reason, "detail": detail, "explained": sentences, "age": told })
                },
            );
            for sentence in &sentences {
                out.remark(|| format!("  {sentence}"));
            }
        }
    }
    if let Some(told) = told {
        out.remark(|| told);
    }
    Ok(ExitCode::from(u8::from(!valid)))
}

/// How old the request is, and whether a receiver would still accept it.
fn age(valid: bool, time: u64, now: u64) -> String {
    let spoken = |seconds: u64| match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    };
    match (now.saturating_sub(time), time.saturating_sub(now)) {
        (past, 0) if !valid => format!("sent {} ago", spoken(past)),
        (_, ahead) if !valid => format!("its time is {} ahead of this clock", spoken(ahead)),
        (0..=300, 0) => format!("sent {} ago: a receiver accepts it now", spoken(now.saturating_sub(time))),
        (past, 0) => format!("sent {} ago: a receiver refuses it now, as older than 300 s", spoken(past)),
        (_, 1..=300) => "its time is a little ahead of this clock: a receiver accepts it now".to_owned(),
        (_, ahead) => format!("its time is {} ahead of this clock: one of the clocks is wrong", spoken(ahead)),
    }
}
