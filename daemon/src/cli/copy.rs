//! `callbackd store copy`: moves a SQLite store to PostgreSQL, and shows how far it has come.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::args::{CopyArgs, Remote};
use super::table::{record, say};
use super::{Failure, secret_from};
use crate::base::clock::SystemClock;
use crate::config::Config;
use crate::store::copy::{Ask, Copied, CopyError, Told, cancel, copy};
use crate::store::{self, PostgresUrl};

pub(super) fn run(remote: &Remote, args: &CopyArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(remote.config.as_deref()).map_err(|error| refused(error.to_string()))?;
    let store::Config::Directory(from) = &config.store else {
        let sentence = "store.url: the store is on PostgreSQL already; name the configuration of a SQLite store, without store.url";
        return Err(refused(sentence));
    };
    if args.cancel {
        cancel(from).map_err(|error| failure(&error))?;
        say(
            "the copy is given up: the store logs its changes no more. Drop the database before you begin another copy to it",
        );
        return Ok(ExitCode::SUCCESS);
    }
    let to = database(args)?;
    let ask = Ask { finish: args.finish, compare: !args.no_compare };
    let bar = bar(remote);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let ended = runtime.block_on(async {
        tokio::select! {
            copied = copy(from, &to, ask, Arc::new(SystemClock), |told| show(&bar, told)) => Some(copied),
            // A process that can't hear of Ctrl-C is ended by it.
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    bar.finish_and_clear();
    let Some(copied) = ended else {
        let sentence = "interrupted; the old store is as it was. Run the same command again, and the copy goes on";
        return Err(Failure::new(Failure::INTERRUPTED, sentence));
    };
    told(remote, &to, &copied.map_err(|error| failure(&error))?);
    Ok(ExitCode::SUCCESS)
}

fn told(remote: &Remote, to: &PostgresUrl, copied: &Copied) {
    let stopped = copied.finished_in.map(|time| time.as_millis() as f64 / 1000.0);
    let next = match copied.finished_in {
        Some(_) => "start the daemon with store.url set to the database; the old store is sealed",
        None => "run it again with --finish, and stop the daemon when it says so",
    };
    let doc = json!({
        "store_id": copied.store_id, "to": to.to_string(), "rows": copied.rows, "finished": copied.finished_in.is_some(),
        "locked_seconds": stopped, "next": next,
    });
    say(&if remote.json { doc.to_string() } else { record(&doc) });
}

fn refused(sentence: impl Into<String>) -> Failure {
    Failure::new(Failure::REFUSED, sentence)
}

fn failure(error: &CopyError) -> Failure {
    let status = if error.is_refusal() { Failure::REFUSED } else { Failure::FAILED };
    // The reasons name the setting from which a daemon has its database. Here it is an option.
    Failure::new(status, error.to_string().replace("store.url: postgres", "--to: postgres"))
}

fn database(args: &CopyArgs) -> Result<PostgresUrl, Failure> {
    let (option, text) = match (&args.to, &args.to_file) {
        (Some(url), _) => ("--to", zeroize::Zeroizing::new(url.clone())),
        (None, Some(file)) => ("--to-file", secret_from("--to-file", file)?),
        (None, None) => return Err(refused("name the database with --to or --to-file")),
    };
    let url: PostgresUrl = text.parse().map_err(|error| refused(format!("{option}: {error}")))?;
    if args.to.is_some() && url.has_password() {
        return Err(refused(
            "--to: everybody on this machine can see a password in an argument; write the URL into a file and name it with --to-file",
        ));
    }
    Ok(url)
}

/// Rows on standard error, if that is a terminal.
fn bar(remote: &Remote) -> ProgressBar {
    let bar = ProgressBar::no_length();
    if remote.quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rows, {elapsed}, about {eta} left {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[expect(clippy::print_stderr, reason = "the person at the terminal must act now")]
fn show(bar: &ProgressBar, told: Told) {
    match told {
        Told::Rows { copied, of } => {
            bar.set_length(of.max(copied));
            bar.set_position(copied);
        }
        Told::Changes => bar.set_message("(and what has changed since)"),
        Told::StopNow => bar.suspend(|| {
            eprintln!(
                "callbackd: everything is copied but what still changes. Stop the daemon now; the copy is finished then"
            );
        }),
        Told::Finishing(what) => bar.set_message(what),
    }
}
