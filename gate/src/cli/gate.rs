//! The command `gate`: its arguments, and what it says when it starts and stops.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::arguments::{KeyArgs, parse_address, parse_duration};
use super::error::{ArgumentError, CommandError};
use super::output::say;
use super::signals::stop_on_signals;
use crate::gate::{Bounds, Config, Gate, UpstreamAt};
use crate::keys::KeySource;

/// The arguments.
#[derive(Debug, Args)]
pub struct GateArgs {
    /// The address at which the gate receives callbacks.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    listen: SocketAddr,
    /// Your server: http://HOST:PORT, with a path if it differs from --path, or unix:PATH.
    #[arg(long, value_name = "URL", value_parser = UpstreamAt::parse)]
    upstream: UpstreamAt,
    /// The path and query of the callback URL. They are compared exactly as they are written.
    #[arg(long, value_name = "PATH", default_value = "/callbacks", value_parser = parse_path)]
    path: String,
    #[command(flatten)]
    keys: KeyArgs,
    /// A PEM file with the certificate chain. With it the gate speaks TLS, with HTTP/1.1 and HTTP/2.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// A PEM file with the private key of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The address at which /livez, /readyz and /metrics are served. Without it, they are not served.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    admin: Option<SocketAddr>,
    /// A file with a token. The gate sends it to your server as `authorization: Bearer`, so that your server can refuse
    /// requests that did not come through the gate. A unix socket needs no token.
    #[arg(long, value_name = "FILE")]
    upstream_token_file: Option<PathBuf>,
    /// Pass scale-callback-auth on to your server as well. In its key form this header is a secret.
    #[arg(long)]
    keep_auth_header: bool,
    /// Accept the callback auth key alone, without a signature. Then anybody who saw one callback can forge another.
    #[arg(long)]
    static_key_authenticates_no_body: bool,
    /// How many connections may be open at the same time. The gate refuses any further one. Each may need two file
    /// descriptors.
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// How long your server may take for its whole answer. Then the gate answers 504. The platform waits 15s.
    #[arg(long, value_name = "DURATION", default_value = "14s", value_parser = parse_timeout)]
    upstream_timeout: Duration,
    /// How many callbacks are remembered, each for 6 minutes. A remembered callback that is sent again is answered 200 and
    /// not handled again. When the memory is full the gate answers 503, so this also limits the callbacks within 6 minutes.
    /// 100,000 callbacks take about 25 MB.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    remember: u32,
}

pub(super) async fn run(args: GateArgs) -> Result<ExitCode, CommandError> {
    let (path, static_key) = (args.path.clone(), args.static_key_authenticates_no_body);
    let config = config(args);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let gate = Gate::bind(config).await.map_err(CommandError::refused)?;
    let stop = stop_on_signals()?;
    reload_on_hangup(gate.reloader())?;
    say(&format!("the gate listens at {scheme}://{}{path}", gate.address));
    if let Some(admin) = gate.admin_address {
        say(&format!("health and metrics at http://{admin}/readyz and /metrics"));
    }
    if static_key {
        say("warning: only the key is compared; nothing proves the body");
    }
    say("what was handled is remembered by this process alone: claim webhook-id in your own transaction as well");
    tokio::spawn(say_when_stopping(stop.clone()));
    gate.run(stop).await;
    Ok(ExitCode::SUCCESS)
}

fn config(args: GateArgs) -> Config {
    let defaults = Bounds::default();
    let bounds = Bounds {
        connections: connections(args.connections as usize),
        upstream: args.upstream_timeout,
        remembered: args.remember as usize,
        drain: defaults.drain.max(args.upstream_timeout + Duration::from_secs(5)),
        ..defaults
    };
    Config {
        listen: args.listen,
        tls: args.tls_cert.zip(args.tls_key),
        admin: args.admin,
        path: args.path,
        upstream: args.upstream,
        upstream_token: args.upstream_token_file,
        keys: KeySource { static_key: args.static_key_authenticates_no_body, ..args.keys.source() },
        keep_auth_header: args.keep_auth_header,
        bounds,
    }
}

/// As many of the wanted connections as there are file descriptors for, two each. The system's highest limit is asked for
/// first.
fn connections(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where the system refuses, the limit that holds is read below.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = usize::try_from(descriptors.saturating_sub(64) / 2).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        say(&format!(
            "warning: {descriptors} file descriptors are enough for {possible} connections, not for {wanted}"
        ));
    }
    wanted.min(possible)
}

/// Reads keys and certificate again at each SIGHUP.
fn reload_on_hangup(reload: impl Fn() + Send + Sync + 'static) -> Result<(), CommandError> {
    let mut hang_up = signal(SignalKind::hangup()).map_err(CommandError::failed)?;
    let reload = Arc::new(reload);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            let reload = Arc::clone(&reload);
            // Reading files may block.
            if let Err(error) = tokio::task::spawn_blocking(move || reload()).await {
                tracing::error!(%error, "keys and certificate could not be read again");
            }
        }
    });
    Ok(())
}

async fn say_when_stopping(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        say("stopping: requests under way end first; a second signal ends them");
    }
}

fn parse_timeout(text: &str) -> Result<Duration, ArgumentError> {
    let time = parse_duration(text)?;
    let range = Duration::from_millis(100)..=Duration::from_secs(60);
    if range.contains(&time) { Ok(time) } else { Err(ArgumentError::Timeout) }
}

fn parse_path(text: &str) -> Result<String, ArgumentError> {
    let path: Result<http::uri::PathAndQuery, _> = text.parse();
    match path {
        Ok(path) if text.starts_with('/') && path.as_str() == text => Ok(text.to_owned()),
        _ => Err(ArgumentError::Path),
    }
}
