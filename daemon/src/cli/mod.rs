//! The command line. `run` and `demo` are the daemon; the other commands ask a running one through its API.

mod args;
mod local;
mod remote;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};

/// Why a command failed, with the exit status that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    sentence: String,
    /// The API's problem object, for `--json`.
    problem: Option<String>,
}

impl Failure {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const REFUSED: u8 = 2;
    pub(crate) const NOT_FOUND: u8 = 3;
    pub(crate) const NOT_ALLOWED: u8 = 4;
    pub(crate) const UNREACHABLE: u8 = 5;

    pub(crate) fn new(status: u8, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), problem: None }
    }

    pub(crate) fn with_problem(self, problem: String) -> Self {
        Self { problem: Some(problem), ..self }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Self::FAILED, format!("{error:#}"))
    }
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    crate::base::telemetry::quiet_panics(false);
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failures; clap prints each where it belongs.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Failure::REFUSED } else { 0 });
        }
    };
    match dispatch(arguments) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.status)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a command's failure is told")]
fn complain(failure: &Failure) {
    match &failure.problem {
        Some(problem) => eprintln!("{problem}"),
        None => eprintln!("callbackd: {}", failure.sentence),
    }
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        Command::Run(run) => local::run(run.config.as_deref()),
        Command::Demo(demo) => local::demo(demo.events),
        Command::Config(command) => local::config(command),
        Command::Keyring(command) => local::keyring(command),
        Command::Version => {
            table::say(&format!("callbackd {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
        command => remote::run(&arguments.remote, command),
    }
}
