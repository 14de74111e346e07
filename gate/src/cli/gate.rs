//! The command `gate`: its arguments, and what it says when it starts and stops.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use scale_callback_serve::forwarded::ForwardedHeader;
use scale_callback_serve::nets::Net;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::arguments::{KeyArgs, number, parse_address, parse_duration};
use super::error::{ArgumentError, CommandError};
use super::output::say;
use super::signals::stop_on_signals;
use crate::gate::{Bounds, Config, Gate, GateError, UpstreamAt, warnings};
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
    /// A proxy or load balancer in front of the gate, as an address or a network such as 10.0.0.0/8. The gate believes what
    /// it says about the sender of a request, and bounds its connections only among all connections. May be given several
    /// times.
    #[arg(long, value_name = "NET")]
    trusted_proxy: Vec<Net>,
    /// The header in which the trusted proxies name the sender of a request.
    #[arg(long, value_name = "HEADER", default_value = "x-forwarded-for", requires = "trusted_proxy")]
    forwarded_header: ForwardedHeaderArg,
    /// Expect a header of the PROXY protocol, version 1 or 2, at the begin of each connection. Then only trusted proxies may
    /// connect.
    #[arg(long, requires = "trusted_proxy")]
    proxy_protocol: bool,
    /// Refuse to start where the gate would otherwise warn, with exit status 2.
    #[arg(long)]
    strict: bool,
    /// How many connections may be open at the same time. For a further one, the gate closes the oldest one that has not
    /// sent a whole request head. Each may need two file descriptors.
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = number::<u32, 1, 1_000_000>)]
    connections: u32,
    /// How many of them may come from one address (an IPv4 address, or 64 bits of IPv6). The same number bounds the requests
    /// of one sender whose bodies have not arrived whole. The default is a quarter of all.
    #[arg(long, value_name = "N", value_parser = number::<u32, 1, 1_000_000>)]
    connections_per_address: Option<u32>,
    /// How many of them may come from addresses side by side (24 bits of IPv4, 48 bits of IPv6). The default is half of all.
    #[arg(long, value_name = "N", value_parser = number::<u32, 1, 1_000_000>)]
    connections_per_prefix: Option<u32>,
    /// How long your server may take for its whole answer. Then the gate answers 504. The platform waits 15s.
    #[arg(long, value_name = "DURATION", default_value = "14s", value_parser = parse_timeout)]
    upstream_timeout: Duration,
    /// How many callbacks are remembered, each for 6 minutes. A remembered callback that is sent again is answered 200 and
    /// not handled again. When the memory is full the gate answers 503, so this also limits the callbacks within 6 minutes.
    /// 100,000 callbacks take about 25 MB.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = number::<u32, 1, { u32::MAX as u64 }>)]
    remember: u32,
}

/// The header in which trusted proxies name the sender of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ForwardedHeaderArg {
    /// X-Forwarded-For, as most proxies write it.
    XForwardedFor,
    /// Forwarded, of RFC 7239.
    Forwarded,
}

impl From<ForwardedHeaderArg> for ForwardedHeader {
    fn from(header: ForwardedHeaderArg) -> Self {
        match header {
            ForwardedHeaderArg::XForwardedFor => Self::XForwardedFor,
            ForwardedHeaderArg::Forwarded => Self::Forwarded,
        }
    }
}

pub(super) async fn run(args: GateArgs) -> Result<ExitCode, CommandError> {
    let (path, strict) = (args.path.clone(), args.strict);
    let config = config(args);
    let warnings = warnings(&config);
    if strict && !warnings.is_empty() {
        let all: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        return Err(CommandError::refused(format!("--strict: {}", all.join("; "))));
    }
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let gate = Gate::bind(config).await.map_err(|error| match error {
        // Nothing is wrong with the arguments: another try may succeed.
        GateError::Listen(_) | GateError::LocalAddress(_) => CommandError::failed(error),
        error => CommandError::refused(error),
    })?;
    let stop = stop_on_signals()?;
    reload_on_hangup(gate.reloader())?;
    say(&format!("the gate listens at {scheme}://{}{path}", gate.address));
    if let Some(admin) = gate.admin_address {
        say(&format!("health and metrics at http://{admin}/readyz and /metrics"));
    }
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
    say("what was handled is remembered by this process alone: claim webhook-id in your own transaction as well");
    tokio::spawn(say_when_stopping(stop.clone()));
    gate.run(stop).await;
    Ok(ExitCode::SUCCESS)
}

fn config(args: GateArgs) -> Config {
    let defaults = Bounds::default();
    let connections = connections(args.connections as usize);
    let share = |given: Option<u32>, parts: usize| given.map_or((connections / parts).max(1), |given| given as usize);
    let bounds = Bounds {
        connections,
        per_address: share(args.connections_per_address, 4),
        per_prefix: share(args.connections_per_prefix, 2),
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
        trusted_proxies: args.trusted_proxy,
        forwarded_header: args.forwarded_header.into(),
        proxy_protocol: args.proxy_protocol,
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
