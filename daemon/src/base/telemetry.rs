//! Logs: a fixed message plus fields, as JSON or for people; and a panic hook that never prints a message's content.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

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

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|_| format!("{level:?} is not a level or filter; say for example \"info\""))
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

/// Sets logs up for the process; the second call of a process changes nothing.
///
/// # Errors
/// A sentence, if the level can't be read.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = filter(&config.level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_span_events(FmtSpan::NONE);
    let started = match config.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Human => builder.with_ansi(false).try_init(),
    };
    if started.is_ok() {
        quiet_panics(true);
    }
    Ok(())
}
