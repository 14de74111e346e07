//! Logs: a fixed message plus fields, as JSON or as text for people. A panic hook never prints a panic's message.
//!
//! A filter names levels by module. It holds no regular expression, so that no filter can use up memory.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The longest filter, in bytes.
const LONGEST_FILTER: usize = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Human,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub format: Format,
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or levels by module: `callbackd=debug,info`.
    pub level: String,
}

/// Whether a level or filter can be read.
///
/// # Errors
/// A sentence.
pub fn check_level(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// A word by itself must be a level, since the library would take any other word for a module's name. What stands before
/// `=` must be a module's path, since the library would also take the names of a span's fields there.
fn filter(level: &str) -> Result<Targets, String> {
    if level.len() > LONGEST_FILTER {
        return Err(format!("a filter has at most {LONGEST_FILTER} bytes, and this one has {}", level.len()));
    }
    let wrong = || format!("{level:?} is not a level or filter; say for example \"info\" or \"callbackd=debug,info\"");
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_module = |path: &str| path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
    let is_part = |part: &str| match part.split_once('=') {
        None => is_level(part),
        Some((module, level)) => !module.is_empty() && is_module(module) && is_level(level),
    };
    let parts: Vec<_> = level.split(',').map(str::trim).collect();
    if !parts.iter().all(|part| is_part(part)) {
        return Err(wrong());
    }
    parts.join(",").parse().map_err(|_| wrong())
}

/// Logs the place of each panic and not its message, which may quote customers' data or a secret.
#[expect(clippy::print_stderr, reason = "a panic before the logs are set up must be reported, too")]
pub fn quiet_panics(logged: bool) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        if logged {
            tracing::error!(place, "a panic was caught");
        } else {
            eprintln!("callbackd: there is a defect at {place}; please report it");
        }
    }));
}

/// Changes the level of this process's logs.
#[derive(Clone)]
pub struct LogLevel {
    change: Arc<dyn Fn(Targets) + Send + Sync>,
    current: Arc<Mutex<String>>,
}

impl LogLevel {
    /// Changes the level or filter.
    ///
    /// # Errors
    /// A sentence, if it can't be read. Then the old one stays.
    pub fn set(&self, level: &str) -> Result<(), String> {
        (self.change)(filter(level)?);
        level.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// For a process without logs. It changes nothing.
    pub fn none() -> Self {
        Self { change: Arc::new(drop), current: Arc::new(Mutex::new("off".to_owned())) }
    }

    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sets up the logs of the process. A second call in the same process changes nothing.
///
/// # Errors
/// A sentence, if the level can't be read.
pub fn start(config: &Config) -> Result<LogLevel, String> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_span_events(FmtSpan::NONE);
    let started = match config.format {
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        Format::Human => registry.with(lines.with_ansi(false)).try_init(),
    };
    if started.is_ok() {
        quiet_panics(true);
    }
    // Reloading fails only if the layer is dropped, which happens while the process ends.
    let change = move |filter| drop(handle.reload(filter));
    Ok(LogLevel { change: Arc::new(change), current: Arc::new(Mutex::new(config.level.clone())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in ["off", "info", "DEBUG", "callbackd=debug,info", "info, callbackd::net=off"] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        let long = "info,".repeat(1_000) + "info";
        for wrong in [
            long.as_str(),
            "callbackd[{x=~\"a+\"}]=debug",
            "callbackd[span]=debug",
            "callbackd[{field}]=debug",
            "[{field}]=trace",
            "(a+)+$=debug",
            "callbackd=0",
            "",
            "infoo",
            "wran",
            "nonsense",
            "callbackd=loud",
            "info,nonsense",
            "=info=",
        ] {
            assert!(check_level(wrong).is_err(), "{wrong}");
        }
    }
}
