//! Commands that need no running daemon: the daemon itself, the demo, configuration, keyring.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::args::{ConfigCommand, KeyringCommand};
use super::table::{Column, say, table};
use crate::app::{App, Extras};
use crate::base::telemetry;
use crate::config::{Config, DEFAULTS, Layers};
use crate::demo;
use crate::keyring::Keyring;

fn refused(error: impl ToString) -> Failure {
    Failure::new(Failure::REFUSED, error.to_string())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Failure::FAILED, format!("the runtime can't be started: {error}")))
}

/// A core dump would hold keys in clear.
fn no_core_dumps() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
}

/// `callbackd run`.
pub(super) fn run(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let config = Config::load(file).map_err(refused)?;
    config.check_runnable().map_err(refused)?;
    no_core_dumps();
    telemetry::start(&config.log).map_err(refused)?;
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::from(anyhow::anyhow!(error)))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::from(anyhow::anyhow!(error)))?;
        let mut app = App::start(config, Extras::default()).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            error = app.broken() => {
                tracing::error!(%error, "the store is broken: ending at once");
                return Err(Failure::new(Failure::FAILED, error.to_string()));
            }
        }
        tracing::info!("stopping: attempts in flight come to their end; a second signal ends at once");
        tokio::select! {
            stopped = app.stop() => {
                stopped?;
                Ok(ExitCode::SUCCESS)
            }
            _ = terminate.recv() => Ok(at_once()),
            _ = interrupt.recv() => Ok(at_once()),
        }
    })
}

/// Ends without another word to the store: what is in flight is found again at the next start.
fn at_once() -> ExitCode {
    std::process::exit(130)
}

/// `callbackd demo`.
pub(super) fn demo(events: Option<u64>) -> Result<ExitCode, Failure> {
    telemetry::start(&telemetry::Config {
        format: telemetry::Format::Human,
        level: std::env::var("CALLBACKD_LOG__LEVEL").unwrap_or_else(|_| "off".to_owned()),
    })
    .map_err(refused)?;
    let stay = events.is_none() && std::io::stdout().is_terminal();
    let balanced = runtime()?.block_on(demo::run(demo::Options { events, stay }))?;
    Ok(if balanced { ExitCode::SUCCESS } else { ExitCode::from(Failure::FAILED) })
}

/// `callbackd config ...`.
pub(super) fn config(command: ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Default => say(DEFAULTS.trim_end()),
        ConfigCommand::Check(file) => {
            let config = Config::load(file.config.as_deref()).map_err(refused)?;
            config.check_runnable().map_err(refused)?;
        }
        ConfigCommand::Show(file) => {
            let layers = Layers::read(file.config.as_deref(), std::env::vars_os()).map_err(refused)?;
            Config::from_layers(&layers).map_err(refused)?;
            let docs: Vec<_> = layers
                .values()
                .into_iter()
                .map(|(key, value, origin)| {
                    serde_json::json!({ "key": key, "value": value, "from": origin.to_string() })
                })
                .collect();
            let columns: [Column; 3] = [("KEY", "key"), ("VALUE", "value"), ("FROM", "from")];
            say(&table(&docs, &columns));
        }
        ConfigCommand::Explain { key } => say(&explain(&key)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// The comment above a key in the defaults, and the default itself.
fn explain(wanted: &str) -> Result<String, Failure> {
    let mut section = String::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            if wanted == section {
                return Ok(comment.into_iter().chain([line]).collect::<Vec<_>>().join("\n"));
            }
            comment.clear();
        } else if line.starts_with('#') {
            comment.push(line);
        } else if let Some((key, _)) = line.split_once(" = ") {
            if format!("{section}.{key}") == wanted {
                return Ok(comment.into_iter().chain([line]).collect::<Vec<_>>().join("\n"));
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    Err(Failure::new(Failure::NOT_FOUND, format!("there is no key {wanted}; see: callbackd config default")))
}

/// `callbackd keyring ...`.
pub(super) fn keyring(command: KeyringCommand) -> Result<ExitCode, Failure> {
    let KeyringCommand::Create { file } = command;
    Keyring::create(&file).map_err(refused)?;
    say(&format!(
        "{} was made. Without it the keys in the store can't be opened: keep a copy elsewhere.",
        file.display()
    ));
    Ok(ExitCode::SUCCESS)
}
