//! The command line. `run` and `demo` are the daemon itself. Most other commands ask a running daemon through its API.

pub(crate) mod args;
mod copy;
mod findings;
mod glossary;
mod local;
mod remote;
mod store;
mod table;

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use zeroize::Zeroizing;

use args::{Arguments, Command, TokensCommand};

/// Why a command failed, with the exit status that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    sentence: String,
    /// The API's problem object, for `--json`.
    problem: Option<String>,
    /// Nobody reads the output any more, which is no failure: `callbackd callbacks export | head`.
    reader_has_gone: bool,
}

impl Failure {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const REFUSED: u8 = 2;
    pub(crate) const NOT_FOUND: u8 = 3;
    pub(crate) const NOT_ALLOWED: u8 = 4;
    pub(crate) const UNREACHABLE: u8 = 5;
    pub(crate) const ENDED_BADLY: u8 = 6;
    /// As a shell says it of Ctrl-C.
    pub(crate) const INTERRUPTED: u8 = 130;

    pub(crate) fn new(status: u8, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), problem: None, reader_has_gone: false }
    }

    /// The output could not be written.
    pub(crate) fn unwritten(error: &std::io::Error) -> Self {
        let failure = Self::new(Self::FAILED, format!("the output can't be written: {error}"));
        Self { reader_has_gone: error.kind() == std::io::ErrorKind::BrokenPipe, ..failure }
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

/// Runs the command that this program's arguments name.
pub fn main() -> ExitCode {
    // Every command may hold a key or a token.
    scale_callback::cli::keep_memory_private();
    crate::base::panics::tell_places_only(false);
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are not failures; clap prints each where it belongs. A reader that has gone is not an
            // error.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { Failure::REFUSED } else { 0 });
        }
    };
    let json = arguments.remote.json;
    match dispatch(arguments) {
        Ok(code) => code,
        Err(failure) if failure.reader_has_gone => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure, json);
            ExitCode::from(failure.status)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a command's failure is printed")]
fn complain(failure: &Failure, json: bool) {
    match &failure.problem {
        Some(problem) => eprintln!("{problem}"),
        // What failed before any request has no code and no request id, but otherwise the same members.
        None if json => {
            let sentence = &failure.sentence;
            eprintln!(
                "{}",
                serde_json::json!({ "detail": sentence, "error": sentence, "exit_status": failure.status })
            );
        }
        None => eprintln!("callbackd: {}", failure.sentence),
    }
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, Failure> {
    let remote = &arguments.remote;
    let file = remote.config.as_deref();
    match arguments.command {
        Command::Run(args) => local::run(file, args.hold_intake),
        Command::Demo(demo) => local::demo(demo.events),
        Command::Check => local::check(remote),
        Command::Healthcheck => local::healthcheck(file),
        Command::Config(command) if !command.asks_a_daemon() => local::config(file, command),
        Command::Keyring(command) => local::keyring(file, command),
        Command::Migrate(args) => store::migrate(file, &args),
        Command::Store(command) => store::look(remote, &command),
        Command::Tokens(TokensCommand::Create(new)) if new.bootstrap => store::bootstrap(remote, new),
        Command::Receivers(command) => {
            crate::base::telemetry::start(&crate::base::telemetry::Config {
                format: crate::base::telemetry::Format::Human,
                level: "info".to_owned(),
            })
            .map_err(|why| Failure::new(Failure::FAILED, why))?;
            let json = remote.json || remote.jsonl;
            scale_callback::cli::run(command, json).map_err(|failure| Failure::new(failure.status, failure.sentence))
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "callbackd", &mut script);
            table::say(String::from_utf8_lossy(&script).trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Glossary { word } => glossary::explain(word.as_deref()),
        Command::Openapi => {
            table::say(crate::api::openapi().trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Version => {
            table::say(&format!("callbackd {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
        Command::ReadSandboxed => Ok(crate::intake::sandbox::run_child()),
        Command::AttemptSandboxed => Ok(crate::deliver::suspect::run_child()),
        command => remote::run(remote, command),
    }
}

/// The largest file that a secret is read from.
const MAX_SECRET_BYTES: u64 = 4096;

/// Reads a secret from a file, or from standard input for "-". A secret is never an argument, since everybody on the
/// machine can see those. `named_by` is the option or the variable that names the file.
fn secret_from(named_by: &str, file: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_SECRET_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| {
            warn_if_open(file, &opened);
            opened.take(MAX_SECRET_BYTES).read_to_string(&mut text)
        })
    };
    let place = format!("{named_by} {}", file.display());
    read.map_err(|error| Failure::new(Failure::FAILED, format!("{place}: the file can't be read: {error}")))?;
    if text.trim().is_empty() {
        return Err(Failure::new(Failure::REFUSED, format!("{place}: the file is empty")));
    }
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Tells the user of a file with a secret that other users can read it. The file is read all the same: it is the user's.
#[expect(clippy::print_stderr, reason = "a warning for the user of a command")]
fn warn_if_open(path: &Path, file: &std::fs::File) {
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if let Ok(Some(mode)) = crate::base::private_file::open_mode_of(file)
        && is_file
    {
        let path = path.display();
        eprintln!("callbackd: warning: {path} is open to other users (mode {mode:o}); run: chmod g-w,o= {path}");
    }
}

fn duration(text: &str) -> Result<Duration, Failure> {
    scale_callback_serve::text::duration(text).ok_or_else(|| {
        let shown = scale_callback_serve::text::printable(text.as_bytes(), 64);
        Failure::new(
            Failure::REFUSED,
            format!("{shown:?} is not a duration; write for example \"30m\", \"12h\" or \"90d\""),
        )
    })
}

/// Every command for people, with the example of its help.
#[doc(hidden)]
pub fn examples() -> Vec<(String, String)> {
    fn visit(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                visit(sub, &path, found);
            } else {
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                let example = help.split_once("Example:\n  ").map(|(_, example)| example.trim().to_owned());
                // The examples of the customers' commands are run by the tests of that crate.
                if example.as_deref().is_some_and(|example| example.starts_with("scale-callback ")) {
                    continue;
                }
                found.push((path.trim().to_owned(), example.unwrap_or_default()));
            }
        }
    }
    let mut found = Vec::new();
    visit(&Arguments::command(), "", &mut found);
    found
}
