//! Sends one callback again, or all that match: asks before it does much, and shows how far the job has come.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::super::Failure;
use super::super::args::ResendArgs;
use super::client::Client;
use super::views::View;
use super::{again, calls, job, one, show};

/// More callbacks than this need a yes.
pub(super) const WITHOUT_ASKING: u64 = 100;
/// However many callbacks match.
pub(super) const ALL: u64 = i64::MAX.cast_unsigned();
/// The time between two looks at a job.
const PACE: Duration = Duration::from_millis(500);

pub(super) fn run(client: &Client, args: &ResendArgs) -> Result<ExitCode, Failure> {
    match chosen(args.id.as_deref(), args.filters.is_empty())? {
        Some(id) => one(client, again::resend_one(id, args)),
        None if args.dry_run => one(client, again::preview(&again::resend_body(args)?)),
        None => many(client, args),
    }
}

/// The one that is named, or none if filters say which ones.
pub(super) fn chosen(id: Option<&str>, no_filters: bool) -> Result<Option<&str>, Failure> {
    match (id, no_filters) {
        (Some(id), true) => Ok(Some(id)),
        (None, false) => Ok(None),
        (Some(_), false) => Err(Failure::new(Failure::REFUSED, "name one or give filters, not both")),
        (None, true) => {
            let sentence = "name one, or say by filters which ones, for example --team and --since";
            Err(Failure::new(Failure::REFUSED, sentence))
        }
    }
}

fn many(client: &Client, args: &ResendArgs) -> Result<ExitCode, Failure> {
    let body = again::resend_body(args)?;
    let at_most = if args.yes { ALL } else { allowed(client, &body)? };
    let job = client.ask(&again::resend_all(&body, at_most))?;
    if args.wait {
        return until_over(client, job);
    }
    show(client, &View::Job, &job);
    Ok(ExitCode::SUCCESS)
}

/// Waits for a job that was begun before.
pub(super) fn wait(client: &Client, id: &str) -> Result<ExitCode, Failure> {
    until_over(client, client.ask(&calls::resend_job(id))?)
}

/// Shows a job once it goes no further by itself.
fn until_over(client: &Client, job: Value) -> Result<ExitCode, Failure> {
    let job = waited(client, job)?;
    show(client, &View::Job, &job);
    let is_done = job["state"] == "done";
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::from(Failure::ENDED_BADLY) })
}

/// How many callbacks may be sent again: a few without asking, more if the user says so.
fn allowed(client: &Client, body: &Value) -> Result<u64, Failure> {
    let counted = client.ask(&again::preview(body))?;
    let matched = counted["matched"].as_u64().unwrap_or(0);
    if matched <= WITHOUT_ASKING && counted["is_all"] == true {
        return Ok(WITHOUT_ASKING);
    }
    let or_more = if counted["is_all"] == true { "" } else { " or more" };
    if !may_ask(client) {
        let sentence = format!("{matched}{or_more} callbacks match; to send all of them again, add --yes");
        return Err(Failure::new(Failure::REFUSED, sentence));
    }
    if says_yes(&format!("Send {matched}{or_more} callbacks again? [y/N] "))? {
        return Ok(if counted["is_all"] == true { matched } else { ALL });
    }
    Err(Failure::new(Failure::REFUSED, "nothing is sent again"))
}

/// Whether a person sits at the terminal, and wants to read sentences.
pub(super) fn may_ask(client: &Client) -> bool {
    let is_there = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    is_there && !client.remote.json && !client.remote.quiet
}

pub(super) fn says_yes(question: &str) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::new(Failure::FAILED, format!("the answer can't be read: {error}"));
    let mut err = std::io::stderr();
    err.write_all(question.as_bytes()).and_then(|()| err.flush()).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}

/// The job once it goes no further by itself.
fn waited(client: &Client, mut job: Value) -> Result<Value, Failure> {
    let bar = ProgressBar::new(job["matched"].as_u64().unwrap_or(0));
    if client.remote.quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{wide_bar} {msg}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let id = job["resend_id"].as_str().unwrap_or_default().to_owned();
    while job["state"] == "running" {
        // Each of the two draws the bar. All numbers are in the text, so they never come from two answers.
        bar.set_message(job::progress(&job));
        bar.set_position(job["looked_at"].as_u64().unwrap_or(0));
        client.sleep(PACE);
        job = client.ask(&calls::resend_job(&id))?;
    }
    bar.finish_and_clear();
    Ok(job)
}
