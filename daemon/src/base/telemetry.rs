//! Logs: a fixed message plus fields, as JSON or as text for people.
//!
//! A filter names levels by module. It holds no regular expression, so that no filter can use up memory.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::panics;

/// The longest filter, in bytes.
const LONGEST_FILTER: usize = 1_024;
/// Libraries whose more detailed lines quote what a receiver sent. A receiver may repeat our keys, so these lines are
/// never logged.
const QUOTING: [&str; 2] = ["h2", "hyper"];
/// The name under which the pool of connections to PostgreSQL warns of each one that was lost while nobody used it. It opens others, and
/// nobody needs to act: the store itself says when the server is away. So these lines are only for those who ask for details.
const POOL: &str = "deadpool.postgres";

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
    parts.join(",").parse().map(quieted).map_err(|_| wrong())
}

/// What was asked for, with less of the libraries that say too much.
fn quieted(asked: Targets) -> Targets {
    let default = asked.default_level().unwrap_or(LevelFilter::OFF);
    let quotes = |target: &str| {
        let mut names = QUOTING.iter();
        names.any(|name| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
    };
    let asked = asked.iter().map(|(target, level)| {
        let most = if quotes(target) { LevelFilter::INFO } else { LevelFilter::TRACE };
        (target.to_owned(), level.min(most))
    });
    // The default, and shorter names that are a beginning of theirs, do not count for them.
    let quiet = QUOTING.iter().map(|name| ((*name).to_owned(), default.min(LevelFilter::INFO)));
    let of_pool = if default < LevelFilter::DEBUG { default.min(LevelFilter::ERROR) } else { default };
    quiet
        .chain([(POOL.to_owned(), of_pool)])
        .chain(asked)
        .fold(Targets::new().with_default(default), |targets, (target, level)| targets.with_target(target, level))
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
    fn libraries_that_quote_receivers_are_quiet_at_every_level() {
        use tracing::Level;
        for level in
            ["trace", "debug", "trace,h2=trace", "info,hyper::proto=trace,h2::codec=debug", "h=trace,hyp=trace"]
        {
            let filter = filter(level).unwrap();
            for target in ["h2", "h2::codec::framed_read", "hyper", "hyper::proto::h1::conn"] {
                assert!(!filter.would_enable(target, &Level::DEBUG), "{level}: {target}");
            }
        }
        let enabled = |level: &str, target: &str, at| filter(level).unwrap().would_enable(target, &at);
        assert!(enabled("trace", "callbackd::net", Level::TRACE) && enabled("debug", "callbackd::net", Level::DEBUG));
        assert!(enabled("info", "hyper", Level::INFO) && !enabled("off", "hyper", Level::ERROR));
        assert!(!enabled("info,hyper=off", "hyper", Level::ERROR));
    }

    #[test]
    fn lost_connections_of_the_pool_are_details() {
        use tracing::Level;
        for (level, is_logged) in [("info", false), ("callbackd=debug,info", false), ("off", false), ("debug", true)] {
            assert_eq!(filter(level).unwrap().would_enable("deadpool.postgres", &Level::WARN), is_logged, "{level}");
        }
        assert!(filter("info").unwrap().would_enable("callbackd::store", &Level::WARN));
    }

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
