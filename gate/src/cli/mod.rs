//! The command line of `scale-callback`, which the daemon's binary has as well: `gate` is for production; `listen`, `send`,
//! `verify` and `test-receiver` are for building a receiver. Nothing here prints a key unless it is asked to.

mod arguments;
mod error;
mod gate;
mod listen;
mod output;
mod send;
mod signals;
mod test_receiver;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use error::CommandError;
use output::{complain, complain_in_json, say};

/// Where keys come from and how commands end: the help of every command ends with it.
macro_rules! keys_help {
    () => {
        "Keys come from variables, or from --keys-file, which has a line NAME=value for each variable:\n  \
    SCALE_CALLBACK_SIGNING_SECRET  whsec_...      the signature must be right\n  \
    SCALE_CALLBACK_AUTH_KEY        live_auth_...  with the secret: the key must be right as well\n  \
    SCALE_CALLBACK_HMAC_KEY        live_hmac_...  instead of both: the hmac form must be right\n  \
    SCALE_CALLBACK_TEST_...        the same three for test callbacks\n\
    A name may also end with _FILE: that variable names a file with the key. While keys rotate, a variable holds several\n\
    keys, with white space between them.\n\n\
    Exit status: 0 done, 1 failed or not valid, 2 usage or refused, 130 stopped by a signal before it was done."
    };
}

#[derive(Debug, Parser)]
#[command(
    name = "scale-callback",
    version,
    about = "For receivers of callbacks: a verifying proxy for every language, and tools to build and test a receiver.",
    after_help = concat!(keys_help!())
)]
struct Arguments {
    /// Print JSON for programs: one line for each result, and an object with `error` on standard error.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: OwnCommand,
}

/// The commands of this binary: those that the daemon's binary has as well, and one that it has in its own form.
#[derive(Debug, Subcommand)]
enum OwnCommand {
    #[command(flatten)]
    Receivers(Command),
    /// Print a script that completes the arguments of this program in your shell.
    #[command(after_help = "Example:\n  scale-callback completion bash")]
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// The commands for the people who receive callbacks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a proxy that forwards verified callbacks to your server, and nothing else. It serves every language.
    #[command(
        after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback gate --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000 --path /callbacks")
    )]
    Gate(Box<gate::GateArgs>),
    /// Receive callbacks here, and print each with its verdict.
    #[command(after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback listen --count 1 --timeout 30s"))]
    Listen(listen::ListenArgs),
    /// Send a signed sample callback. This is a good first test of a receiver.
    #[command(after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback send http://127.0.0.1:8080/callbacks --type imageannotation"))]
    Send(send::SendArgs),
    /// Explain a captured request: whether it was valid at its own time, and if not, why.
    #[command(after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback verify --headers headers.txt --body body.json"))]
    Verify(verify::VerifyArgs),
    /// Test a running receiver with many right and wrong requests. The exit status is 1 if it accepts a forgery, refuses a
    /// right request or fails, and 3 if it is only too lenient.
    #[command(after_help = concat!(keys_help!(), "\n3 too lenient: it accepts what only who has the key can make.", "\n\nExample:\n  scale-callback test-receiver http://127.0.0.1:8080/callbacks"))]
    TestReceiver(test_receiver::TestReceiverArgs),
}

/// Runs the command that this process's arguments name.
#[must_use]
pub fn main() -> ExitCode {
    keep_secrets_from_dumps();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failures; clap prints each where it belongs, and a reader that has gone is no error.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    start_logs();
    let json = arguments.json;
    let ended = match arguments.command {
        OwnCommand::Receivers(command) => run(command, json),
        OwnCommand::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "scale-callback", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            Ok(ExitCode::SUCCESS)
        }
    };
    match ended {
        Ok(code) => code,
        Err(error) if json => {
            complain_in_json(&error.sentence, error.status);
            ExitCode::from(error.status)
        }
        Err(error) => {
            complain(&error.sentence);
            ExitCode::from(error.status)
        }
    }
}

/// Logs to standard error, at the levels that `SCALE_CALLBACK_LOG` names by module.
fn start_logs() {
    // The HTTP/2 library warns of each connection that resets too much, and a forger can open as many as it likes.
    let usual = || Targets::new().with_default(LevelFilter::INFO).with_target("h2", LevelFilter::ERROR);
    let asked = std::env::var("SCALE_CALLBACK_LOG").ok().and_then(|levels| levels.parse().ok());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(asked.unwrap_or_else(usual)).with(lines).init();
}

/// Runs a command. With `json` it prints JSON for programs, where it prints results.
///
/// # Errors
/// [`CommandError`].
pub fn run(command: Command, json: bool) -> Result<ExitCode, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failed(format!("the runtime can't be started: {error}")))?;
    match command {
        Command::Gate(args) => runtime.block_on(gate::run(*args)),
        Command::Listen(args) => runtime.block_on(listen::run(args, json)),
        Command::Send(args) => runtime.block_on(send::run(args, json)),
        Command::Verify(args) => verify::run(&args, json),
        Command::TestReceiver(args) => runtime.block_on(test_receiver::run(args, json)),
    }
}

/// Turns core dumps of this process off, since they would hold keys. The kernel ignores the limit of size if it pipes dumps
/// to a program (`core_pattern`), so the process is also marked as not dumpable. This mark keeps other processes of the same
/// user from reading this one's memory, too.
pub fn keep_memory_private() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    // Where the system refuses one of them, dumps stay as the system has them.
    rustix::process::setrlimit(rustix::process::Resource::Core, none).ok();
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok();
}

/// Keeps keys out of core dumps. The payload of a panic may quote what came in, so only the panic's place is printed.
fn keep_secrets_from_dumps() {
    keep_memory_private();
    std::panic::set_hook(Box::new(|panic| {
        complain(&format!("panicked at {}", panic.location().map_or_else(String::new, ToString::to_string)));
    }));
}
