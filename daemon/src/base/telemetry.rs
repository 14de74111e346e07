//! Logs: a fixed message plus fields, as JSON or for people; and a panic hook that never prints a message's content.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Human,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub format: Format,
    /// A filter of `tracing`: `info`, `callbackd=debug`, ...
    pub level: String,
}

/// Whether a level or filter can be read.
///
/// # Errors
/// A sentence.
pub fn check_level(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// A word by itself is a level: the library would take any other for the name of a part, and log nothing.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = || format!("{level:?} is not a level or filter; say for example \"info\" or \"callbackd=debug,info\"");
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word));
    let bare = |part: &&str| !part.contains('=');
    if level.split(',').map(str::trim).filter(bare).any(|word| !is_level(word)) {
        return Err(wrong());
    }
    EnvFilter::try_new(level).map_err(|_| wrong())
}

/// A panic's payload may quote customers' data or a secret: the place is enough to find it.
#[expect(clippy::print_stderr, reason = "also where no log was set up yet")]
pub fn quiet_panics(logged: bool) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        if logged {
            tracing::error!(place, "a panic was caught");
        } else {
            eprintln!("callbackd: a defect at {place}; please report it");
        }
    }));
}

/// Turns the level of this process's logs.
#[derive(Clone)]
pub struct LogLevel {
    turn: Arc<dyn Fn(EnvFilter) + Send + Sync>,
    current: Arc<Mutex<String>>,
}

impl LogLevel {
    /// Another level or filter from now on.
    ///
    /// # Errors
    /// A sentence, if it can't be read; the old one stays.
    pub fn set(&self, level: &str) -> Result<(), String> {
        (self.turn)(filter(level)?);
        level.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// For where no logs were set up: turns nothing.
    pub fn none() -> Self {
        Self { turn: Arc::new(drop), current: Arc::new(Mutex::new("off".to_owned())) }
    }

    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sets logs up for the process; the second call of a process changes nothing.
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
    let turn = move |filter| {
        let _ = handle.reload(filter);
    };
    Ok(LogLevel { turn: Arc::new(turn), current: Arc::new(Mutex::new(config.level.clone())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in ["off", "info", "DEBUG", "callbackd=debug,info", "info,hyper=off"] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        for wrong in ["", "infoo", "wran", "nonsense", "callbackd=loud", "info,nonsense", "=info="] {
            assert!(check_level(wrong).is_err(), "{wrong}");
        }
    }
}
