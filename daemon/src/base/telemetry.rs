//! Logs: a fixed message plus fields, as JSON or as text for people.
//!
//! A filter names levels by module. It holds no regular expression, so that no filter can use up memory.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::panics;

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

/// A word by itself must be a level. The library would take any other word for a module's name.
fn filter(level: &str) -> Result<Targets, String> {
    let wrong = || format!("{level:?} is not a level or filter; say for example \"info\" or \"callbackd=debug,info\"");
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word));
    let bare = |part: &&str| !part.contains('=');
    let has_wrong_word = level.split(',').map(str::trim).filter(bare).any(|word| !is_level(word));
    if has_wrong_word || level.len() > LONGEST_FILTER {
        return Err(wrong());
    }
    level.parse().map_err(|_| wrong())
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
        panics::tell_places_only(true);
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
        for good in ["off", "info", "DEBUG", "callbackd=debug,info", "info,hyper=off"] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        let long = "info,".repeat(1_000) + "info";
        for wrong in [
            long.as_str(),
            "callbackd[{x=~\"a+\"}]=debug",
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
