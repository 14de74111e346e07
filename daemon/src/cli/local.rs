//! Commands that need no running daemon: the daemon itself, the demo, configuration and keyring.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use scale_callback_serve::client;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::{ConfigCommand, KeyringCommand, Remote};
use super::table::{Column, Look, cell, say, table, text, whole};
use super::{Failure, findings};
use crate::app::{App, Broken, Hooks, Opened};
use crate::base::pace::Pace;
use crate::base::telemetry;
use crate::config::{Config, DEFAULTS, Layers, explain, is_reloadable};
use crate::demo;
use crate::keyring::Keyring;
use crate::store::{OpenError, StoreError};

fn refused(error: impl ToString) -> Failure {
    Failure::new(Failure::REFUSED, error.to_string())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Failure::FAILED, format!("the runtime can't be started: {error}")))
}

/// Refuses a configuration with which no daemon can run. The first mistake of a new user is to name none.
fn runnable(layers: &Layers, config: &Config) -> Result<(), Failure> {
    if let Some(why) = layers.nothing_given() {
        return Err(refused(format!("{why}; use --config FILE or the variable CALLBACKD_CONFIG")));
    }
    config.check_runnable().map_err(refused)
}

/// Lets this process open as many files and connections as the system allows it. The usual limit of 1,024 is less than the
/// connections that attempts, the API and probes may have together.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let highest = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where the system refuses, the limit that holds stays.
    rustix::process::setrlimit(rustix::process::Resource::Nofile, highest).ok();
}

/// `callbackd run`.
pub(super) fn run(file: Option<&Path>, hold_intake: bool) -> Result<ExitCode, Failure> {
    let layers = Layers::read(file, std::env::vars_os()).map_err(refused)?;
    let config = Config::from_layers(&layers).map_err(refused)?;
    runnable(&layers, &config)?;
    raise_descriptor_limit();
    let log_level = telemetry::start(&config.log).map_err(refused)?;
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        // What the daemon runs with now: the values of its start, and those that a reload took.
        let (mut running, mut config) = (layers, config);
        let (mut is_anew, mut begun, mut pace) = (false, Instant::now(), Pace::new(BREATH.0, BREATH.1));
        loop {
            let once = Once { file, hold_intake, log_level: log_level.clone(), is_anew };
            match once.run(config, &mut running, &mut signals).await? {
                Ended::With(code) => return Ok(code),
                Ended::Superseded => config = Config::from_layers(&running).map_err(refused)?,
            }
            // After a long run, the waits are short again.
            if begun.elapsed() > CALM {
                pace.succeeded();
            }
            (is_anew, begun) = (true, Instant::now());
            tokio::select! {
                () = tokio::time::sleep(pace.next_wait()) => {}
                () = signals.end() => return Ok(ExitCode::SUCCESS),
            }
        }
    })
}

/// The waits before an instance begins anew, so that a store that refuses it is not asked all the time.
const BREATH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// After a run of this length, the next wait is the first one again.
const CALM: Duration = Duration::from_secs(300);

/// Whether the store refused a begin, or did not answer.
fn is_of_store(error: &anyhow::Error) -> bool {
    error.downcast_ref::<StoreError>().is_some_and(|error| !matches!(error, StoreError::Broken(_)))
}

/// The signals that a daemon takes.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Without a handler, this signal would end the process where a write can simply fail.
    _file_size_limit: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::from(anyhow::anyhow!(error)));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            _file_size_limit: listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Somebody wants the daemon to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How an instance ended.
enum Ended {
    With(ExitCode),
    /// The store does not know it any more: another one begins.
    Superseded,
}

/// One instance, from its start to its end.
struct Once<'o> {
    file: Option<&'o Path>,
    hold_intake: bool,
    log_level: telemetry::LogLevel,
    /// An instance ran before it in this process.
    is_anew: bool,
}

impl Once<'_> {
    async fn run(self, config: Config, running: &mut Layers, signals: &mut Signals) -> Result<Ended, Failure> {
        let hooks = Hooks { hold_intake: self.hold_intake, ..Hooks::default() };
        // Only here may it take long, and a stop leaves no trace.
        let opened = tokio::select! {
            opened = Opened::open(config, self.log_level.clone()) => opened.map_err(of_opening)?,
            () = signals.end() => return Ok(Ended::With(ExitCode::SUCCESS)),
        };
        let mut app = match App::begin(opened, hooks).await {
            Ok(app) => app,
            Err(error) if self.is_anew && is_of_store(&error) => {
                tracing::error!(%error, "the store does not take the new instance: it begins anew once more");
                return Ok(Ended::Superseded);
            }
            Err(error) => return Err(error.into()),
        };
        let failure = loop {
            tokio::select! {
                _ = signals.terminate.recv() => break None,
                _ = signals.interrupt.recv() => break None,
                _ = signals.hang_up.recv() => reload(&app, self.file, running).await,
                broken = app.broken() => match broken {
                    Broken::Store(error) => {
                        tracing::error!(%error, "the store is broken: the daemon ends at once");
                        return Err(Failure::new(Failure::FAILED, error.to_string()));
                    }
                    Broken::Superseded(why) => {
                        tracing::error!(
                            why,
                            "this instance gives everything up and begins anew: what was in flight is repeated"
                        );
                        tokio::select! {
                            () = app.abandon() => return Ok(Ended::Superseded),
                            () = signals.end() => return Ok(Ended::With(at_once())),
                        }
                    }
                    // It was logged where it was noticed. Attempts that are under way can still be recorded.
                    Broken::Part(error) => break Some(Failure::new(Failure::FAILED, error)),
                }
            }
        };
        tracing::info!("the daemon stops: it waits for attempts in flight; a second signal ends it at once");
        tokio::select! {
            stopped = app.stop() => {
                stopped?;
                failure.map_or(Ok(Ended::With(ExitCode::SUCCESS)), Err)
            }
            () = signals.end() => Ok(Ended::With(at_once())),
        }
    }
}

/// A store that no wait mends is a mistake in the configuration, so nobody starts the daemon again for it.
fn of_opening(error: anyhow::Error) -> Failure {
    match error.downcast_ref() {
        Some(
            OpenError::Database { .. }
            | OpenError::Newer { .. }
            | OpenError::Sealed { .. }
            | OpenError::Unfinished { .. },
        ) => refused(error),
        _ => error.into(),
    }
}

/// Reads the configuration again and takes those changes that a running daemon can take. `running` is what it runs
/// with.
async fn reload(app: &App, file: Option<&Path>, running: &mut Layers) {
    let read = Layers::read(file, std::env::vars_os())
        .and_then(|layers| Config::from_layers(&layers).map(|config| (layers, config)))
        .map_err(|error| error.to_string());
    let taken = match read {
        Ok((layers, config)) => app.reload(&config).await.map(|()| layers),
        Err(why) => Err(why),
    };
    let metric = &app.ops.metrics().config_reloads_total;
    match taken {
        Ok(layers) => {
            let changed = running.changed(&layers);
            let (taken, waiting): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| is_reloadable(key));
            running.take(&layers, &taken);
            metric.with_label_values(&["ok"]).inc();
            tracing::info!(changed = taken.join(" "), "the configuration was read again");
            if !waiting.is_empty() {
                tracing::warn!(keys = waiting.join(" "), "these changes need a restart");
            }
        }
        Err(why) => {
            metric.with_label_values(&["refused"]).inc();
            tracing::error!(why, "the configuration was read again and refused: nothing has changed");
        }
    }
}

/// `callbackd check`.
pub(super) fn check(remote: &Remote) -> Result<ExitCode, Failure> {
    let layers = Layers::read(remote.config.as_deref(), std::env::vars_os()).map_err(refused)?;
    let config = Config::from_layers(&layers).map_err(refused)?;
    let spinner = ProgressBar::new_spinner();
    if remote.quiet || !std::io::stderr().is_terminal() {
        spinner.set_draw_target(ProgressDrawTarget::hidden());
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner.set_message("checking Kafka, store, keyring, DNS, clock and ports");
    let found = runtime()?.block_on(crate::app::check(&layers, &config));
    spinner.finish_and_clear();
    let docs: Vec<_> = found
        .iter()
        .map(|finding| {
            serde_json::json!({
                "verdict": finding.verdict.name(), "what": finding.what, "detail": finding.detail, "fix": finding.fix,
            })
        })
        .collect();
    if remote.json {
        say(&serde_json::to_string_pretty(&docs).unwrap_or_default());
    } else {
        say(&findings::shown(&found, Look::of_stdout()));
    }
    Ok(if findings::has_failed(&found) { ExitCode::from(Failure::FAILED) } else { ExitCode::SUCCESS })
}

/// `callbackd healthcheck`: for containers, whose images have no shell.
pub(super) fn healthcheck(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let config = Config::load(file).map_err(refused)?;
    let mut address = config.ops_listen.ok_or_else(|| refused("ops.listen is off: there is nothing to ask"))?;
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr =
            if address.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap_or(address.ip()) };
        address.set_ip(loopback);
    }
    let remote = client::Remote::Tcp(address);
    let ask = client::call(
        &remote,
        http::Method::GET,
        "/readyz",
        http::HeaderMap::new(),
        bytes::Bytes::new(),
        Duration::from_secs(5),
    );
    let unreachable = |error| Failure::new(Failure::UNREACHABLE, format!("{address}: {error}"));
    let answer = runtime()?.block_on(ask).map_err(unreachable)?;
    if answer.status.is_success() {
        say("ready");
        return Ok(ExitCode::SUCCESS);
    }
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Err(Failure::new(Failure::FAILED, format!("not ready: {}", cell(&body["troubles"]))))
}

/// The exit status after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Ends without writing to the store again. What is in flight is found at the next start.
fn at_once() -> ExitCode {
    std::process::exit(i32::from(INTERRUPTED))
}

/// `callbackd demo`.
pub(super) fn demo(events: Option<u64>) -> Result<ExitCode, Failure> {
    telemetry::start(&telemetry::Config {
        format: telemetry::Format::Human,
        level: std::env::var("CALLBACKD_LOG__LEVEL").unwrap_or_else(|_| "off".to_owned()),
    })
    .map_err(refused)?;
    let stay = events.is_none() && std::io::stdout().is_terminal();
    let finish = runtime()?.block_on(demo::run(demo::Options { events, stay, quiet: false }))?;
    Ok(match finish {
        demo::Finish::Balanced => ExitCode::SUCCESS,
        demo::Finish::Stopped => ExitCode::from(INTERRUPTED),
        demo::Finish::Unbalanced => ExitCode::from(Failure::FAILED),
    })
}

/// `callbackd config ...`.
pub(super) fn config(file: Option<&Path>, command: ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Default => say(DEFAULTS.trim_end()),
        ConfigCommand::Check => {
            let layers = Layers::read(file, std::env::vars_os()).map_err(refused)?;
            let config = Config::from_layers(&layers).map_err(refused)?;
            runnable(&layers, &config)?;
        }
        ConfigCommand::Show => {
            let layers = Layers::read(file, std::env::vars_os()).map_err(refused)?;
            Config::from_layers(&layers).map_err(refused)?;
            let docs: Vec<_> = layers
                .values()
                .into_iter()
                .map(|(key, value, source)| {
                    serde_json::json!({ "key": key, "value": value, "from": source.to_string() })
                })
                .collect();
            let columns: [Column; 3] =
                [whole("KEY", "key", 0), text("VALUE", "value", 0, 16), text("FROM", "from", 1, 12)];
            say(&table(&docs, &columns, Look { hints: false, ..Look::of_stdout() }));
        }
        ConfigCommand::LogLevel { .. } => return Err(refused("this command asks a running daemon")),
        ConfigCommand::Explain { key } => {
            say(&explain(&key).map_err(|error| Failure::new(Failure::NOT_FOUND, error.to_string()))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `callbackd keyring ...`.
pub(super) fn keyring(file: Option<&Path>, command: KeyringCommand) -> Result<ExitCode, Failure> {
    match command {
        KeyringCommand::Create { file } => {
            Keyring::create(&file).map_err(refused)?;
            say(&format!(
                "{} was created. Without it the keys in the store can't be opened: keep a copy elsewhere.",
                file.display()
            ));
        }
        KeyringCommand::Status => {
            let config = Config::load(file).map_err(refused)?;
            let keyring = Keyring::load(&config.keyring).map_err(refused)?;
            let last = keyring.ids().len().saturating_sub(1);
            let docs: Vec<_> = keyring
                .ids()
                .iter()
                .enumerate()
                .map(|(at, id)| serde_json::json!({ "id": id, "seals": if at == last { "yes" } else { "no, opens only" } }))
                .collect();
            say(&table(&docs, &[whole("SEALING KEY", "id", 0), whole("SEALS", "seals", 0)], Look::of_stdout()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
