//! The command `verify`: it explains a captured request to the person who holds its secret.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use scale_callback_serve::text::printable;

use super::arguments::{KeyArgs, read};
use super::error::CommandError;
use super::output::say;
use crate::clock::unix_seconds;
use crate::diagnosis::{Capture, Finding};

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

pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode, CommandError> {
    let source = args.keys.source();
    let variables = source.look().map_err(CommandError::refused)?;
    let verifier = source.verifier(&variables).map_err(CommandError::refused)?;
    let shown = args.headers.display();
    let text = String::from_utf8_lossy(&read(&args.headers)?).into_owned();
    let headers = Capture::headers(&text).map_err(|why| CommandError::refused(format!("{shown}: {why}")))?;
    let capture = Capture { headers, body: read(&args.body)? };
    let valid = match capture.verdict(&verifier) {
        Finding::Valid { id, mode, task } => {
            let task = task.map_or_else(
                || "its body is not a callback".to_owned(),
                |task| format!("task {}", printable(task.as_bytes(), 256)),
            );
            say(&format!("valid at its own time: {id}, {mode} keys, {} bytes, {task}", capture.body.len()));
            true
        }
        Finding::Invalid(why) => {
            say(&format!("not valid: {why} ({})", why.code()));
            for sentence in capture.explain(&verifier, why) {
                say(&format!("  {sentence}"));
            }
            false
        }
    };
    if let Some(time) = capture.time() {
        say(&age(valid, time, unix_seconds()));
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
