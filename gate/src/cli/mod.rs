//! The command line of `scale-callback`, which the daemon's binary has as well: `gate` for production; `listen`, `send`,
//! `verify` and `test-receiver` for building a receiver.

mod gate;
mod listen;
mod send;
mod test_receiver;
mod verify;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use scale_callback_auth::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::conformance::ReceiverAt;
use crate::keys::KeySource;
use crate::text::duration;

/// Why a command failed, with its exit status.
#[derive(Debug)]
pub struct Failure {
    /// 1 failed, 2 usage or refused.
    pub status: u8,
    /// One sentence.
    pub sentence: String,
}

impl Failure {
    fn failed(sentence: impl Into<String>) -> Self {
        Self { status: 1, sentence: sentence.into() }
    }

    fn refused(sentence: impl Into<String>) -> Self {
        Self { status: 2, sentence: sentence.into() }
    }
}

/// Where keys come from, and how commands end: below every command's options.
macro_rules! keys_help {
    () => {
        "Keys come from variables, or from --keys-file with the same names, a line NAME=value each:\n  \
    SCALE_CALLBACK_SIGNING_SECRET  whsec_...      the signature must be right\n  \
    SCALE_CALLBACK_AUTH_KEY        live_auth_...  beside it: the key must be right as well\n  \
    SCALE_CALLBACK_HMAC_KEY        live_hmac_...  or instead of it: the hmac form must be right\n  \
    SCALE_CALLBACK_TEST_...        the same three for test callbacks\n\
    Each may be ..._FILE, which names a file. While keys rotate, a variable holds several with white space between.\n\n\
    Exit status: 0 done, 1 failed or not valid, 2 usage or refused, 130 stopped before it was done."
    };
}

#[derive(Debug, Parser)]
#[command(
    name = "scale-callback",
    version,
    about = "For receivers of callbacks: a verifying proxy for every language, and tools to build and test a receiver.",
    after_help = concat!(keys_help!()),
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What receivers' side can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let verified callbacks through to your server, and nothing else: verification for every language.
    #[command(
        after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback gate --listen 0.0.0.0:8080 --upstream http://127.0.0.1:3000 --path /callbacks")
    )]
    Gate(Box<gate::GateArgs>),
    /// Receive callbacks here, and print each with its verdict.
    #[command(after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback listen --count 1 --timeout 30s"))]
    Listen(listen::ListenArgs),
    /// Send a signed sample callback: a receiver's first test.
    #[command(after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback send http://127.0.0.1:8080/callbacks --type imageannotation"))]
    Send(send::SendArgs),
    /// Explain a captured request: valid at its own time, or exactly why not.
    #[command(after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback verify --headers headers.txt --body body.json"))]
    Verify(verify::VerifyArgs),
    /// Hold a running receiver to the conformance corpus: what it wrongly accepts or refuses. Exit status 1 if anything.
    #[command(after_help = concat!(keys_help!(), "\n\nExample:\n  scale-callback test-receiver http://127.0.0.1:8080/callbacks"))]
    TestReceiver(test_receiver::TestReceiverArgs),
}

/// Where the keys are.
#[derive(Debug, Clone, Args)]
struct KeyArgs {
    /// A file of lines NAME=value with the variables below; else the environment.
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
}

impl KeyArgs {
    fn source(&self) -> KeySource {
        KeySource { file: self.keys_file.clone(), static_key: false }
    }
}

/// Live or test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    Live,
    Test,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Live => Self::Live,
            ModeArg::Test => Self::Test,
        }
    }
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    // A core dump would hold keys, and a panic's payload may quote what came in: its place is enough.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    std::panic::set_hook(Box::new(|panic| {
        complain(&format!("panicked at {}", panic.location().map_or_else(String::new, ToString::to_string)));
    }));
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failures; clap prints each where it belongs.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SCALE_CALLBACK_LOG");
    // The library warns of each connection that resets too much, which a forger can have as often as they like.
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,h2=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match run(arguments.command) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.sentence);
            ExitCode::from(failure.status)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a command's failure is told")]
fn complain(sentence: &str) {
    eprintln!("scale-callback: {sentence}");
}

/// Runs a command.
///
/// # Errors
/// [`Failure`].
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("the runtime can't be started: {error}")))?;
    match command {
        Command::Gate(args) => runtime.block_on(gate::run(*args)),
        Command::Listen(args) => runtime.block_on(listen::run(args)),
        Command::Send(args) => runtime.block_on(send::run(args)),
        Command::Verify(args) => verify::run(&args),
        Command::TestReceiver(args) => runtime.block_on(test_receiver::run(args)),
    }
}

/// The largest file that is read.
const MOST_BYTES: u64 = 64 << 20;

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
    Ok(bytes)
}

/// A receiver to call; what can't be trusted is told before anything is sent.
fn receiver_at(url: &str, ca_file: Option<&PathBuf>) -> Result<ReceiverAt, Failure> {
    crate::tls::connector(ca_file.map(PathBuf::as_path)).map_err(|why| Failure::refused(format!("--ca-file {why}")))?;
    ReceiverAt::parse(url, ca_file.cloned()).map_err(Failure::refused)
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port, for example 127.0.0.1:8080 or [::]:8080".to_owned())
}

/// A line on standard output; a reader that has gone is no error.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "write for example 500ms, 30s or 5m".to_owned())
}

/// Turns true at the first SIGTERM or Ctrl-C; the second ends the process at once.
fn stop_on_signals() -> Result<watch::Receiver<bool>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("signals can't be heard: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if last {
                std::process::exit(130);
            }
            stop.send_replace(true);
        }
    });
    Ok(stopped)
}
